"""Builds one row of `spans` from a LiteLLM log item: a StandardLoggingPayload, or a row of LiteLLM_SpendLogs.

Fields of the items:

* ``prompt_tokens`` includes tokens read from and written to a cache, ``completion_tokens`` includes reasoning (CA-5); the details
  are in ``metadata.usage_object``. Counts that are all zero mean that LiteLLM knows no usage (CA-4); answers of images and of the
  Responses API have ``input_tokens`` and ``output_tokens`` beside zeros.
* ``response_cost`` 0 can be a cache hit, a free model, a failure, or a model without a price. Only the first two are a cost of 0.
* ``trace_id`` is the caller's session first, then its trace; the id of a W3C trace is recognised by its form.
* ``id`` and ``request_id`` are the provider's response id, LiteLLM's call id where there is none, and end in ``_cache_hit…`` on
  cache hits and in another suffix on rows that bill work of an earlier row.
* Prompts and answers are not read, except for ``response.model``, ``.id``, ``.service_tier`` and ``.usage``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ingest.logs.json_fields import (
    MAX_TEXT_LENGTH,
    FieldError,
    decimal,
    flag,
    instant,
    mapping,
    rate,
    structure,
    text,
)
from ingest.logs.request_ids import header_ids, id_list
from ingest.logs.unread_usage import UnreadUsage
from ingest.otel.attribute_values import geography
from ingest.problem_counter import described
from ingest.sources.litellm import names as names
from ingest.sources.litellm.shapes import OLD, PAYLOADS, SPEND_LOGS, from_old_format, shape_of
from ingest.sources.litellm.usage import other_usage, token_counts, with_images
from ingest.sources.litellm.values import first_attempt, first_positive, first_text, plain_amounts
from ledger import ids
from ledger.money import text as plain
from ledger.settings import IngestSettings

Row = dict[str, Any]
_as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


class ItemProblem(NamedTuple):
    """A problem of an item; severity `error` where the item is left out because of it."""

    field: str
    reason: str
    remedy: str
    severity: str = "error"


def of_item(value: object, settings: IngestSettings, unread: UnreadUsage | None = None) -> tuple[Row | None, list[ItemProblem]]:
    """The row of an item and its problems; None for an item without a row. `unread` collects usage that is not read. (CA-7)

    >>> row, problems = of_item({"id": "r1", "litellm_call_id": "c1", "call_type": "acompletion", "startTime": 1795361505,
    ...     "model": "openai/gpt-4o", "prompt_tokens": 1200, "completion_tokens": 80, "response_cost": "0.0038",
    ... }, IngestSettings())
    >>> row["gateway_call_id"], row["operation"], row["input_tokens"], row["reported_cost"], problems
    ('c1', 'chat', 1200, Decimal('0.003800000000000000'), [])
    """
    log = None
    try:
        log = _Log(value, settings)
        if unread is not None and log.usage:
            unread.add(log.usage)
        return log.row(), log.problems
    except FieldError as error:
        return None, [*(log.problems if log else ()), ItemProblem(error.field, error.reason, error.remedy)]


class _Log:
    """A parsed item: its nested parts, unwrapped once, and its problems."""

    def __init__(self, value: object, settings: IngestSettings) -> None:
        self.problems: list[ItemProblem] = []
        if not isinstance(value, (dict, Mapping)):
            raise FieldError("item", f"{described(value)} is no object", "send payloads as JSON objects")
        shape = shape_of(value)
        self.settings = settings
        self.item: Mapping[str, Any] = from_old_format(value) if shape == OLD else value
        self.spend_logs = shape == SPEND_LOGS
        self.metadata = self._part(self.item, "metadata")
        self.hidden = self._part(self.item, "hidden_params")
        self.breakdown = self._part(self.item, "cost_breakdown") or self._part(self.metadata, "cost_breakdown")
        self.requester = self._part(self.metadata, "requester_metadata")
        self.labels = self._part(self.metadata, "spend_logs_metadata")
        self.tool = self._part(self.metadata, "mcp_tool_call_metadata")
        self.usage = (
            self._part(self.metadata, "usage_object")
            or self._part(self.hidden, "usage_object")
            or self._part(self.metadata, "additional_usage_values")
        )
        response = self.item.get("response")
        self.response: Mapping[str, Any] = response if isinstance(response, (dict, Mapping)) else {}
        self.answer_usage = self.response["usage"] if isinstance(self.response.get("usage"), (dict, Mapping)) else {}
        self.call_type = text(self.item.get("call_type")) or ""
        self.headers = self._part(self.requester, "headers")
        self.priced_by = self._part(self.item, "model_map_information") or self._part(self.metadata, "model_map_information")
        self.tags = self._tags()

    def _part(self, whole: Mapping[str, Any], field: str) -> Mapping[str, Any]:
        """A nested object; where it is invalid the item is kept without it."""
        value = whole.get(field)
        if value is None or isinstance(value, dict):
            return value or {}
        try:
            return mapping(value, field)
        except FieldError as error:
            self.problems.append(ItemProblem(error.field, error.reason, error.remedy, "warning"))
            return {}

    def row(self) -> Row:
        """The item as columns of `spans`, without `raw_id`, which depends on the file."""
        row: Row = {
            "channel": SPEND_LOGS if self.spend_logs else PAYLOADS,
            "source": "litellm",
            "emitter": "litellm",
            "operation": names.operation(self.call_type),
            "status": {"success": "ok", "failure": "error"}.get(str(self.item.get("status"))),
            "cache_hit": flag(self.item.get("cache_hit")),
            "attempt": first_attempt(self.metadata, self._part(self.hidden, "additional_headers")),
        }
        self._times(row)
        self._set_models(row)
        self._set_tokens(row)
        self._set_cost(row)
        self._set_ids(row)
        self._set_people(row)
        self._tool(row)
        row["attributes"] = self._attributes()
        row["name"] = " ".join(part for part in (row["operation"], row.get("tool_name") or row["request_model"]) if part) or None
        return row

    def _times(self, row: Row) -> None:
        start = instant(self.item.get("startTime"), "startTime")
        end = instant(self.item.get("endTime"), "endTime")
        if start is None and end is None:
            raise FieldError("startTime", "is missing", "send startTime: it decides the billing period")
        if start is None:
            self.problems.append(ItemProblem("startTime", "is missing; endTime was taken", "send startTime", "warning"))
        row["start_time"], row["end_time"] = end if start is None else start, end

    def _set_models(self, row: Row) -> None:
        sent = text(self.item.get("model")) or text(self.hidden.get("litellm_model_name"))
        group = text(self.item.get("model_group"))
        provider = text(self.item.get("custom_llm_provider"))
        row["provider"] = provider
        row["request_model"] = group or sent
        row["response_model"] = names.answering_model(text(self.response.get("model")), group, sent, provider)
        row["deployment_id"] = text(self.item.get("model_id")) or text(self.hidden.get("model_id"))
        base = names.endpoint(text(self.item.get("api_base")) or text(self.hidden.get("api_base")))
        row["api_base"] = base
        row["resource_id"] = names.resource(sent)
        row["account_id"] = names.account(sent, base)
        row["region"] = (
            text(self.breakdown.get("vertex_location")) or names.region(sent, base) or geography(self._surcharge("inference_geo"))
        )
        row["service_tier"] = self._tier()

    def _tier(self) -> str | None:
        if self._is_batch_cost():
            return "batch"
        tiers = (
            self._speed(),
            self.breakdown.get("service_tier"),
            self.response.get("service_tier"),
            self._surcharge("service_tier"),
            # What was asked for counts only where no answer says what was given.
            self._part(self.item, "model_parameters").get("service_tier"),
        )
        return names.tier(next((tier for tier in map(text, tiers) if tier), None))

    def _speed(self) -> str | None:
        """Anthropic's fast mode, which is priced like a tier."""
        return "fast" if (text(self._surcharge("speed")) or "").lower() == "fast" else None

    def _surcharge(self, field: str) -> object:
        """A field of the usage that decides its price; the gateway's usage first, else that of the provider's answer."""
        value = self.usage.get(field)
        return self.answer_usage.get(field) if value is None else value

    def _set_tokens(self, row: Row) -> None:
        """Usage as reported; no counts where all are zero or absent."""
        item, usage = self.item, self.usage
        counts = token_counts(item, usage, self._part)
        row["other_usage"] = other_usage(usage)
        if any(counts.values()):
            row.update(counts)
            cached_tokens = max(
                counts["cache_write_tokens"] or 0,
                (counts["cache_write_5m_tokens"] or 0) + (counts["cache_write_1h_tokens"] or 0),
            )
            cached_tokens += counts["cache_read_tokens"] or 0
            # Contradictory counts, and the provider's own names, leave it open; attribution decides by the total (CA-5).
            is_translated = bool(first_positive(item, "prompt_tokens", usage, "prompt_tokens"))
            is_inclusive = cached_tokens <= (counts["input_tokens"] or 0) and (is_translated or not cached_tokens)
            row["input_includes_cache"] = True if is_inclusive else None
            row["output_includes_reasoning"] = (
                True if (counts["reasoning_tokens"] or 0) <= (counts["output_tokens"] or 0) else None
            )
        elif names.makes_images(self.call_type):
            # Usage is in tokens where the provider sells pictures so; otherwise the answer's list counts them.
            row["other_usage"] = with_images(row["other_usage"], self.response.get("data"))
        row["usage_scope"] = names.usage_scope(self.call_type, used=row.get("total_tokens") is not None or any(counts.values()))

    def _set_cost(self, row: Row) -> None:
        field = "spend" if self.spend_logs else "response_cost"
        cost = rate(self.item.get(field), field)
        if cost is not None and cost < 0:
            self.problems.append(
                ItemProblem(field, f"a negative cost, {cost:f}; it was not taken", "correct the price in the gateway", "warning")
            )
            cost = None
        if not cost and not row["cache_hit"] and not self._known_free(used=row.get("input_tokens") is not None):
            cost = None
        row["reported_cost"] = cost

    def _known_free(self, *, used: bool) -> bool:
        """Whether a cost of 0 means that nothing is owed, and not that the gateway has no price (ES-2)."""
        has_no_price = self.item.get("response_cost_failure_debug_info") or self.item.get("zero_cost_diagnostic")
        if has_no_price or not used:
            return False
        entry = self.priced_by.get("model_map_value")
        # LiteLLM adds a deployment that the map does not know with prices of 0 and no mode.
        return isinstance(entry, Mapping) and bool(entry.get("mode"))

    def _set_ids(self, row: Row) -> None:
        item_id = self._id("request_id" if self.spend_logs else "id")
        call = self._id("litellm_call_id") or text(self.metadata.get("litellm_call_id"))
        request = names.bare_request_id(item_id)
        if call is None and item_id is None:
            raise FieldError(
                "litellm_call_id",
                "the item has no id",
                "send id and litellm_call_id: without them a call cannot be told from its copy",
            )
        trace = text(self.item.get("session_id" if self.spend_logs else "trace_id"))
        hit = bool(row["cache_hit"]) or names.is_cache_hit_id(item_id)
        separate = self._separate(item_id, call)
        # A cache hit has the id of the original answer, but sent no provider request: only its own ids identify it.
        row["gateway_call_id"] = separate or call or (item_id if hit else request)
        row["provider_request_id"] = None if hit or request == call else request
        if not hit:
            further_ids = (*header_ids(self._part(self.hidden, "additional_headers")), text(self.response.get("id")))
            row["request_ids"] = id_list(further_ids, besides=(row["provider_request_id"], row["gateway_call_id"]))
        node = separate or call or item_id or ""
        if row["status"] == "error" and separate is None:
            # A failed call that a fallback answered is two rows with one call id.
            node = f"{node}_failed"
        # A client may choose the call id, and attempts share it: the answer's id and the start tell their rows apart. (CA-1a)
        row["span_id"], row["span_key"] = (
            node,
            ids.span_key(separate or f"{node}|{request or ''}|{row['start_time'] // 1_000_000}"),
        )
        row["trace_id"] = (names.batch_id(request) if self._is_batch_cost() else None) or trace or node
        row["trace_key"] = ids.trace_key(row["trace_id"])
        row["conversation_id"] = self._conversation(trace)
        self._set_caller(row)

    def _id(self, field: str) -> str | None:
        """An id of the item; one that is too long is a problem and absent."""
        value = self.item.get(field)
        if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
            reason = f"longer than {MAX_TEXT_LENGTH} characters; it was not taken"
            self.problems.append(ItemProblem(field, reason, "send the id of the call, not its content", "warning"))
            return None
        return text(value)

    def _separate(self, item_id: str | None, call: str | None) -> str | None:
        """The node of a row that bills separate work of the same call as another row; None for all other rows.

        A batch is polled repeatedly: its cost is one node.
        """
        if item_id is None:
            return None
        if self._is_batch_cost():
            return f"{names.batch_id(item_id)}_batch_cost"
        retry_attempt = self.metadata.get("billed_retry_attempt")
        if retry_attempt not in (None, False, "", "None") or names.bills_earlier_work(item_id):
            attempt = "" if isinstance(retry_attempt, bool) or retry_attempt is None else f"_attempt_{text(retry_attempt)}"
            return f"{item_id}{attempt}" if item_id != call else f"{item_id}_retry{attempt}"
        return None

    def _is_batch_cost(self) -> bool:
        return names.is_batch_retrieval(self.call_type) and any(
            self.item.get(field) not in (None, 0, "0", "") for field in ("prompt_tokens", "completion_tokens", "total_tokens")
        )

    def _conversation(self, trace: str | None) -> str | None:
        session = (None if self.spend_logs else text(self.item.get("session_id"))) or text(self.requester.get("session_id"))
        return session or (None if ids.is_trace_id(trace) else trace)

    def _set_caller(self, row: Row) -> None:
        """The caller's own span, from its `traceparent` header: used from trusted sources only (CH-7)."""
        if "litellm" not in self.settings.trusted_sources:
            return
        caller = names.traceparent(text(self.headers.get("traceparent")))
        if caller is None:
            return
        trace, span = caller
        if ids.trace_key(trace) == row["trace_key"]:
            row["parent_span_id"], row["parent_key"] = span, ids.span_key(span)
        else:
            row["link_trace_key"], row["link_span_key"] = ids.trace_key(trace), ids.span_key(span)

    def _set_people(self, row: Row) -> None:
        meta, item = self.metadata, self.item
        row["credential"] = text(meta.get("user_api_key_alias")) or names.key_name(
            text(meta.get("user_api_key_hash")) or text(item.get("api_key")) or text(meta.get("user_api_key"))
        )
        row["credential_team"] = (
            text(meta.get("user_api_key_team_alias")) or text(meta.get("user_api_key_team_id")) or text(item.get("team_id"))
        )
        row["end_user"] = text(item.get("end_user")) or text(meta.get("user_api_key_end_user_id"))
        key_labels = self._part(meta, "user_api_key_auth_metadata")
        row["agent_id"] = first_text(
            (meta, "billing_agent_id"), (item, "billing_agent_id"), (meta, "actor_agent_id"), (key_labels, "agent_id"),
            (item, "agent_id"), (meta, "agent_id"), (self.requester, "agent_id"),
        )  # fmt: skip
        row["agent_name"] = first_text((key_labels, "agent_name"), (self.requester, "agent_name"))
        claims = names.claims(self.tags, self.labels, text(self.headers.get("baggage")))
        row["claimed_agent"] = names.first_claim(claims, self.settings.agent_tags)
        row["claimed_team"] = names.first_claim(claims, self.settings.team_tags)
        row["environment"] = names.first_claim(claims, ("deployment.environment.name", "environment", "env"))
        row["tenant"] = names.first_claim(claims, ("tenant", "customer"))
        row["workflow"] = names.first_claim(claims, ("workflow",))

    def _tags(self) -> list[Any]:
        tags: object
        try:
            tags = structure(self.item.get("request_tags"), "request_tags")
            if tags is None:
                tags = structure(self.metadata.get("tags"), "tags")
        except FieldError as error:
            self.problems.append(ItemProblem(error.field, error.reason, "send a JSON list of strings", "warning"))
            return []
        if tags is not None and not isinstance(tags, (list, tuple)):
            self.problems.append(
                ItemProblem("request_tags", f"{described(tags)} is no list", "send a JSON list of strings", "warning")
            )
        return list(tags) if isinstance(tags, (list, tuple)) else []

    def _tool(self, row: Row) -> None:
        row["tool_name"] = text(self.item.get("mcp_namespaced_tool_name")) or first_text(
            (self.tool, "namespaced_tool_name"), (self.tool, "name")
        )
        if row["tool_name"] and not row["operation"]:
            row["operation"] = "execute_tool"

    def _attributes(self) -> str | None:
        """Further attributes as JSON, amounts as text. No prompts, no addresses of people."""
        item, meta = self.item, self.metadata
        error = self._part(item, "error_information") or self._part(meta, "error_information")
        avoided_cost = decimal(item.get("saved_cache_cost"))
        item_id = text(item.get("request_id" if self.spend_logs else "id"))
        attributes: dict[str, Any] = {
            "call_type": self.call_type or None,
            "gateway_model": text(item.get("model")),
            "price_key": text(self.priced_by.get("model_map_key")),
            "key_hash": names.key_name(text(meta.get("user_api_key_hash")) or text(item.get("api_key"))),
            "answer_of": names.bare_request_id(item_id) if names.is_cache_hit_id(item_id) else None,
            "key_user": text(meta.get("user_api_key_user_id")) or text(item.get("user")),
            "organisation": text(meta.get("user_api_key_org_id")) or text(item.get("organization_id")),
            "project": text(meta.get("user_api_key_project_alias")) or text(meta.get("user_api_key_project_id")),
            "team_id": text(meta.get("user_api_key_team_id")) or text(item.get("team_id")),
            "target_agent": text(meta.get("target_agent_id")),
            "avoided_cost": plain(avoided_cost) if avoided_cost else None,
            "cost": {k: plain(v) for k, v in ((k, decimal(v)) for k, v in self.breakdown.items() if v) if v} or None,
            "tags": [tag for tag in map(text, self.tags) if tag and len(tag) <= 256 and not tag.startswith("User-Agent:")]
            or None,
            "labels": {str(k)[:64]: v for k, v in ((k, text(v)) for k, v in self.labels.items()) if v and len(v) <= 256} or None,
            "traceparent": text(self.headers.get("traceparent")),
            "error_code": text(error.get("error_code")),
            "error_class": text(error.get("error_class")),
            "rate_limit": text(error.get("error_rate_limit_type")) or text(error.get("error_rate_limit_category")),
            "mcp_server": text(self.tool.get("mcp_server_name")),
            "mcp_cost": plain_amounts(self.tool.get("mcp_server_cost_info")),
            "speed": text(self.usage.get("speed")),
            "stream": flag(item.get("stream")),
        }
        non_null = {key: value for key, value in attributes.items() if value is not None}
        as_json = _as_json(non_null)
        return None if not non_null else as_json if as_json.isascii() else as_json.encode("utf-8", "replace").decode()
