"""One call of Vertex AI's request-response log as a row of `spans`: usage, ids, names and times. Prompts and answers are not read.

Fields of the log:

* ``promptTokenCount`` includes cached tokens; tokens that tools added to the prompt are a count of their own, billed as input.
  ``candidatesTokenCount`` counts the visible answer, ``thoughtsTokenCount`` reasoning: as with gateways and instrumentations, output
  is their sum.
* A streamed answer is logged in chunks with cumulative counts: of each count the last one is used.
* Anthropic's models log their own answer in ``response_payload``: input excludes cached tokens, as in their API.
* ``logging_time`` is the end of the call, ``metadata.request_latency`` its duration in milliseconds.
* Labels are set by the caller. ADK puts the agent's name into one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ingest.logs.answers import answer_objects, last_fields, last_text, sum_known
from ingest.logs.json_fields import FieldError, count, decimal, instant, mapping, parse_json, text
from ingest.logs.unread_usage import UnreadUsage
from ingest.problem_counter import described
from ledger import ids
from ledger.settings import IngestSettings

CHANNEL = "vertex"
NEEDED = frozenset({"logging_time", "request_id"})
"""Columns of every request-response log."""

Row = dict[str, Any]
_PLACE = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)")
_MODEL = re.compile(r"(?:publishers/(?P<publisher>[^/]+)/)?models/(?P<model>[^/:]+)")
_TIERS = {
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "FLEX": "flex",
    "BATCH": "batch",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
"""Tiers of token prices by traffic type; capacity that is billed by the month has a tier of its own and is not matched with the others."""
_OPERATIONS = {
    "generateContent": "generate_content",
    "streamGenerateContent": "generate_content",
    "rawPredict": "chat",
    "streamRawPredict": "chat",
    "predict": "embeddings",
    "embedContent": "embeddings",
}
_MAX_LABEL_LENGTH = 256


def of_row(value: object, settings: IngestSettings, unread: UnreadUsage | None = None) -> Row:
    """The row of a logged call; `unread` collects usage that is not read (CA-7). Raises `FieldError` for an invalid record.

    >>> row = of_row({"logging_time": "2026-10-05T09:00:03Z", "request_id": 5374205265901353984, "api_method": "generateContent",
    ...     "model": "publishers/google/models/gemini-2.5-pro", "metadata": {"request_latency": 2500},
    ...     "full_response": {"responseId": "y0S_aM", "usageMetadata": {"promptTokenCount": 1000, "cachedContentTokenCount": 800,
    ...     "candidatesTokenCount": 29, "thoughtsTokenCount": 901}}}, IngestSettings())
    >>> row["request_model"], row["provider_request_id"], row["input_tokens"], row["cache_read_tokens"], row["output_tokens"]
    ('gemini-2.5-pro', 'y0S_aM', 1000, 800, 930)
    >>> (row["end_time"] - row["start_time"]) // 1_000_000
    2
    """
    if not isinstance(value, Mapping):
        raise FieldError("row", f"{described(value)} is no record", "write one row of the table a line")
    request_id = text(value.get("request_id"))
    if request_id is None:
        raise FieldError("request_id", "is missing", "export the table with its request_id: a call is told from its copy by it")
    end = instant(_without_zone_name(value.get("logging_time")), "logging_time")
    if end is None:
        raise FieldError("logging_time", "is missing", "export the table with its logging_time")
    request_body = _json_object(value.get("full_request"), "full_request")
    google, partner = _chunks(value.get("full_response"), "full_response"), _parts(value)
    row: Row = {
        "channel": CHANNEL,
        "source": "vertex",
        "emitter": "vertex-log",
        "provider": "vertex_ai",
        "span_id": f"vertex_{request_id}",
        "trace_id": f"vertex_{request_id}",
        "start_time": _start(value, end),
        "end_time": end,
    }
    row["span_key"], row["trace_key"] = ids.span_key(row["span_id"]), ids.trace_key(row["trace_id"])
    _names(row, value, request_body)
    usage = last_fields(google, "usageMetadata")
    own_usage = usage or _usage_of(partner)
    if unread is not None:
        unread.add(own_usage)
    if usage:
        _gemini(row, usage)
    elif partner:
        _claude(row, own_usage)
    row["provider_request_id"] = last_text(google, "responseId") or _answer_id(partner)
    row["response_model"] = last_text(google, "modelVersion") or _answer_model(partner) or row["request_model"]
    row["status"] = "error" if any(chunk.get("error") for chunk in google) else "ok" if google or partner else None
    has_tokens = any(row.get(name) is not None for name in ("input_tokens", "output_tokens"))
    row["usage_scope"] = "leaf" if has_tokens or row["operation"] else None
    if any(_grounded(chunk) for chunk in google):
        row["other_usage"] = _with_meter(row.get("other_usage"), "grounded_prompts", 1)
    _labels(row, request_body, settings)
    row["name"] = " ".join(part for part in (row["operation"], row["request_model"]) if part) or None
    return row


def _without_zone_name(value: object) -> object:
    """A time without the suffix `` UTC``, which BigQuery writes in extracts instead of an offset."""
    return value.removesuffix(" UTC") if isinstance(value, str) else value


def _start(value: Mapping[str, Any], end: int) -> int:
    latency = decimal(_json_object(value.get("metadata"), "metadata").get("request_latency"))
    return end - int(latency * 1000) if latency is not None and 0 <= latency < 86_400_000 else end


def _names(row: Row, value: Mapping[str, Any], request_body: Mapping[str, Any]) -> None:
    names = [
        text(value.get("model")),
        text(request_body.get("model")),
        text(request_body.get("endpoint")),
        text(value.get("endpoint")),
    ]
    places = [match for name in names if name and (match := _PLACE.search(name))]
    models = [match["model"] for name in names if name and (match := _MODEL.search(name))]
    row["request_model"] = models[0] if models else names[0]
    row["account_id"] = places[0]["project"] if places else None
    row["region"] = places[0]["region"] if places else None
    endpoint = text(value.get("endpoint")) or text(request_body.get("endpoint"))
    # A tuned model has an endpoint resource of its own; a publisher's model has none.
    row["resource_id"] = endpoint if endpoint and "/endpoints/" in endpoint else None
    row["deployment_id"] = text(value.get("deployed_model_id"))
    method = text(value.get("api_method"))
    row["operation"] = _OPERATIONS.get(method or "", method)


# ── usage ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gemini(row: Row, usage: Mapping[str, Any]) -> None:
    def token_count(name: str) -> int | None:
        return count(usage.get(name), f"usageMetadata.{name}")

    prompt, tools = token_count("promptTokenCount"), token_count("toolUsePromptTokenCount")
    answer, thoughts = token_count("candidatesTokenCount"), token_count("thoughtsTokenCount")
    row["total_tokens"] = token_count("totalTokenCount")
    row["cache_read_tokens"] = token_count("cachedContentTokenCount")
    row["input_tokens"] = sum_known(prompt, tools)
    row["output_tokens"] = sum_known(answer, thoughts)
    row["reasoning_tokens"] = thoughts
    row["input_includes_cache"] = None if prompt is None else True
    row["output_includes_reasoning"] = None if row["output_tokens"] is None else True
    input_modalities, cached_modalities = _modalities(usage, "promptTokensDetails"), _modalities(usage, "cacheTokensDetails")
    output_modalities = _modalities(usage, "candidatesTokensDetails")
    row["input_audio_tokens"] = _excess(input_modalities.get("AUDIO"), cached_modalities.get("AUDIO"))
    row["input_image_tokens"] = _excess(input_modalities.get("IMAGE"), cached_modalities.get("IMAGE"))
    row["output_audio_tokens"], row["output_image_tokens"] = output_modalities.get("AUDIO"), output_modalities.get("IMAGE")
    rare = {
        "input_video_tokens": _excess(input_modalities.get("VIDEO"), cached_modalities.get("VIDEO")),
        "output_video_tokens": output_modalities.get("VIDEO"),
        "cache_read_audio_tokens": cached_modalities.get("AUDIO"),
        "cache_read_image_tokens": cached_modalities.get("IMAGE"),
    }
    for meter, tokens in rare.items():
        if tokens:
            row["other_usage"] = _with_meter(row.get("other_usage"), meter, tokens)
    traffic = text(usage.get("trafficType"))
    row["service_tier"] = _TIERS.get(traffic.upper()) if traffic else None


def _claude(row: Row, usage: Mapping[str, Any]) -> None:
    def token_count(name: str, holder: Mapping[str, Any] = usage) -> int | None:
        return count(holder.get(name), f"usage.{name}")

    lifetimes = mapping(usage.get("cache_creation"), "usage.cache_creation")
    row["input_tokens"], row["output_tokens"] = token_count("input_tokens"), token_count("output_tokens")
    row["cache_read_tokens"] = token_count("cache_read_input_tokens")
    row["cache_write_tokens"] = token_count("cache_creation_input_tokens")
    row["cache_write_5m_tokens"] = token_count("ephemeral_5m_input_tokens", lifetimes)
    row["cache_write_1h_tokens"] = token_count("ephemeral_1h_input_tokens", lifetimes)
    row["input_includes_cache"] = None if row["input_tokens"] is None else False
    row["output_includes_reasoning"] = None if row["output_tokens"] is None else True
    searches = count(
        mapping(usage.get("server_tool_use"), "usage.server_tool_use").get("web_search_requests"), "web_search_requests"
    )
    if searches:
        row["other_usage"] = _with_meter(None, "web_searches", searches)


def _modalities(usage: Mapping[str, Any], name: str) -> dict[str, int]:
    tokens_by_modality: dict[str, int] = {}
    entries = usage.get(name)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and (modality := text(entry.get("modality"))):
            tokens = count(entry.get("tokenCount"), f"usageMetadata.{name}.tokenCount") or 0
            tokens_by_modality[modality.upper()] = tokens_by_modality.get(modality.upper(), 0) + tokens
    return tokens_by_modality


def _excess(whole: int | None, part: int | None) -> int | None:
    return None if whole is None else max(whole - (part or 0), 0)


def _with_meter(usage_json: str | None, meter: str, quantity: int) -> str:
    return json.dumps({**(json.loads(usage_json) if usage_json else {}), meter: str(quantity)})


# ── answers, whole or in chunks ──────────────────────────────────────────────────────────────────────────────────


def _json_object(value: object, name: str) -> Mapping[str, Any]:
    """A JSON column: an object, or JSON text, as in extracts."""
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise FieldError(name, "is no valid JSON", "export the table again") from error
    return value if isinstance(value, Mapping) else {}


def _chunks(value: object, name: str) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise FieldError(name, "is no valid JSON", "export the table again") from error
    chunks: Sequence[object] = value if isinstance(value, list) else [value]
    return [chunk for chunk in chunks if isinstance(chunk, Mapping) and any(v not in (None, False) for v in chunk.values())]


def _parts(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The answer of a partner's model: objects, or the events of a stream, parsed or as text."""
    payload = value.get("response_payload")
    objects: list[Mapping[str, Any]] = []
    for part in payload if isinstance(payload, list) else [payload]:
        objects += answer_objects(part)
    return [part for part in objects if any(v not in (None, {}) for v in part.values())]


def _usage_of(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = [entry for part in parts for entry in (_json_object(part.get("message"), "message"), part)]
    return last_fields(whole, "usage")


def _answer_id(parts: Sequence[Mapping[str, Any]]) -> str | None:
    return last_text([entry for part in parts for entry in (_json_object(part.get("message"), "message"), part)], "id")


def _answer_model(parts: Sequence[Mapping[str, Any]]) -> str | None:
    return last_text([entry for part in parts for entry in (_json_object(part.get("message"), "message"), part)], "model")


def _grounded(chunk: Mapping[str, Any]) -> bool:
    """Whether the answer used a web search. The queries are not read."""
    if chunk.get("grounded") is not None:
        return chunk["grounded"] in (True, "true")
    candidates = chunk.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        metadata = candidate.get("groundingMetadata") if isinstance(candidate, Mapping) else None
        if isinstance(metadata, Mapping) and metadata.get("webSearchQueries"):
            return True
    return False


# ── labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labels(row: Row, request_body: Mapping[str, Any], settings: IngestSettings) -> None:
    """The agent's name, which its framework sets, and claims from the caller's labels."""
    pairs = {k: v for k, v in ((str(k), text(v)) for k, v in _json_object(request_body.get("labels"), "labels").items()) if v}
    labels = {key[:64]: value for key, value in pairs.items() if len(value) <= _MAX_LABEL_LENGTH}
    row["agent_name"] = labels.get("adk_agent_name")
    # Labels of Google Cloud contain no dots: rootcost.agent is written rootcost_agent.
    row["claimed_agent"] = _first_label(labels, settings.agent_tags)
    row["claimed_team"] = _first_label(labels, settings.team_tags)
    row["environment"] = _first_label(labels, ("environment", "env"))
    row["tenant"] = _first_label(labels, ("tenant", "customer"))
    row["workflow"] = _first_label(labels, ("workflow",))
    row["attributes"] = json.dumps({"labels": labels}, sort_keys=True, ensure_ascii=False) if labels else None


def _first_label(labels: Mapping[str, str], keys: Sequence[str]) -> str | None:
    return next((labels[name] for key in keys for name in (key, key.replace(".", "_").lower()) if name in labels), None)
