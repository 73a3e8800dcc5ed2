"""Requests of Azure OpenAI and of API Management's gateway as rows of `spans`. Prompts and answers are not read.

* ``GatewayLlmLogs``: tokens, model and deployment of a request to a model. Messages are in records of their own, which have neither. Of
  Claude, ``promptTokens`` leave out ``promptCachedTokens``; of all others they include them. Only deliveries to blob storage and Event Hubs
  have cached tokens.
* ``GatewayLogs``: key (``apimSubscriptionId``), endpoint, status and duration of any request; of requests to models the usage too, if bodies
  are logged. Both share ``correlationId``, and each is a signal of the same call.
* ``RequestResponse`` of the Azure OpenAI account: deployment, model, caller and time, no tokens. Times are ticks of .NET.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from ingest.logs.answers import answer_parts, last_fields, last_text, usage_counts
from ingest.logs.json_fields import FieldError, count, decimal, instant, text
from ingest.logs.request_ids import header_ids, id_list
from ingest.logs.rows import Row, trace_position
from ingest.otel.attribute_values import geography, tier, url
from ingest.otel.emitters import words
from ingest.problem_counter import described
from ingest.sources.azure_openai_logs.records import Fields, fields_of, parsed
from ledger import ids

GATEWAY, GATEWAY_USAGE, ACCOUNT = "apim", "apim-llm", "azure-openai-log"
"""The channels."""
_SOURCE = "azure-openai-logs"
_REMEDY = "deliver the category unchanged; of a query, keep all columns"
_EXCLUSIVE = frozenset({"claude", "anthropic"})
_TICKS_TO_1970 = 621_355_968_000_000_000
_DAY_MS = 86_400_000
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}\Z")
_ACCOUNT = re.compile(r"/subscriptions/(?P<account>[^/]+)/.+", re.IGNORECASE)
_DEPLOYMENT = re.compile(r"/deployments/(?P<deployment>[^/?]+)")
_OPERATIONS = (
    (re.compile(r"/embeddings\Z|:(?:batch)?embedcontents?\Z|embeddings_create", re.IGNORECASE), "embeddings"),
    (re.compile(r"/images/(?:generations|edits)\Z|imagegenerations", re.IGNORECASE), "image_generation"),
    (re.compile(r"/audio/(?:speech|transcriptions|translations)\Z|(?:transcriptions|speech)_create", re.IGNORECASE), "audio"),
    (
        re.compile(
            r"/(?:chat/)?completions\Z|/converse(?:-stream)?\Z|:(?:stream)?generatecontent\Z|completions_create", re.IGNORECASE
        ),
        "chat",
    ),
)
"""Operations by the path of a request or the id of its operation; the first that matches."""
_PERHAPS = re.compile(
    r"/(?:responses|messages|invoke|invoke-with-response-stream)\Z|responses_create|messages_create", re.IGNORECASE
)
"""Paths that APIs other than models have too: a request is a call where its answer or `GatewayLlmLogs` tells of usage."""


def rows(record: object) -> Iterator[Row]:
    """The row of a request; none for a record of anything else. Raises `FieldError` for an invalid record.

    >>> record = {"time": "2026-10-05T09:00:00Z", "category": "GatewayLlmLogs", "correlationId": "c-1", "properties": {"modelName":
    ...     "gpt-4o-2024-08-06", "deploymentName": "chat", "promptTokens": 1200, "promptCachedTokens": 1024, "completionTokens": 80}}
    >>> row = next(rows(record))
    >>> row["gateway_call_id"], row["response_model"], row["input_tokens"], row["cache_read_tokens"], row["input_includes_cache"]
    ('c-1', 'gpt-4o-2024-08-06', 1200, 1024, True)
    """
    if not isinstance(record, Mapping):
        raise FieldError("record", f"{described(record)} is no record of Azure Monitor", _REMEDY)
    fields = fields_of(record)
    build = _builder(fields)
    row = build(fields) if build is not None else None
    if row is not None:
        yield row


def _builder(fields: Fields) -> Callable[[Fields], Row | None] | None:
    """What reads a record: by its category or table, else by the fields it has; None for other logs of the same resources."""
    category = (text(fields.get("category")) or text(fields.get("type")) or "").lower()
    for names, build in _BUILDERS.items():
        if category in names:
            return build
    if category not in ("", "azurediagnostics"):
        return None
    by_fields = (
        ({"prompttokens", "modelname"}, _llm),
        ({"apiid", "responsecode"}, _gateway),
        ({"modeldeploymentname"}, _request),
    )
    return next((build for names, build in by_fields if names <= fields.keys()), None)


def _llm(fields: Fields) -> Row | None:
    """The tokens of a request; None for a record of its messages, and for a request that reached no model."""
    model, deployment = text(fields.get("modelname")), text(fields.get("deploymentname"))
    counts = {
        column: count(fields.get(name.lower()), name)
        for column, name in (
            ("input_tokens", "promptTokens"),
            ("cache_read_tokens", "promptCachedTokens"),
            ("output_tokens", "completionTokens"),
            ("total_tokens", "totalTokens"),
        )
    }
    if not any(counts.values()):  # zeros stand where nothing is known
        if model is None:
            return None
        counts = dict.fromkeys(counts)
    request_id = text(fields.get("requestid"))
    return _row(fields, GATEWAY_USAGE, "apim") | {
        "operation": "embeddings" if "embed" in (model or deployment or "").lower() else "chat",
        "usage_scope": "leaf",
        "response_model": model,
        "deployment_id": deployment,
        "request_ids": id_list([request_id]),
        **counts,
        "input_includes_cache": _includes_cache(counts, model or deployment),
        "output_includes_reasoning": None if counts["output_tokens"] is None else True,
    }


def _includes_cache(counts: Mapping[str, int | None], model: str | None) -> bool | None:
    """Whether the prompt counts cached tokens; None where it cannot be what the model's family says."""
    if counts["input_tokens"] is None:
        return None
    is_inclusive = not (words(model or "") & _EXCLUSIVE)
    return None if is_inclusive and (counts["cache_read_tokens"] or 0) > counts["input_tokens"] else is_inclusive


def _gateway(fields: Fields) -> Row | None:
    """A request to a model; None for a request to another API."""
    target = text(fields.get("url")) or text(fields.get("backendurl")) or ""
    names = (urlsplit(target).path, text(fields.get("operationid")) or "")
    operation = next(filter(None, map(_operation, names)), None)
    if operation is None and not any(_PERHAPS.search(name) for name in names):
        return None
    parts = answer_parts(_body(fields))
    usage = last_fields(parts, "usage")
    response_headers = {**parsed(fields.get("backendresponseheaders")), **parsed(fields.get("responseheaders"))}
    answer_id, deployment = last_text(parts, "id"), _DEPLOYMENT.search(target)
    status = decimal(fields.get("backendresponsecode")) or decimal(fields.get("responsecode"))
    row = _row(fields, GATEWAY, "apim", _request_headers(fields))
    counts = usage_counts(usage)
    row |= {
        "operation": operation or "chat",
        "usage_scope": "leaf" if operation or counts else None,
        "status": None if status is None else "error" if status >= 400 else "ok",
        "credential": text(fields.get("apimsubscriptionid")),
        "end_user": text(fields.get("userid")),
        "api_base": _endpoint(text(fields.get("backendurl"))),
        "deployment_id": deployment["deployment"] if deployment else None,
        "response_model": last_text(parts, "model"),
        "provider_request_id": answer_id,
        "request_ids": id_list(header_ids(response_headers), besides=[answer_id]),
        "region": geography(usage.get("inference_geo")),
        "service_tier": tier(usage.get("speed")) or tier(usage.get("service_tier")) or tier(last_text(parts, "service_tier")),
        "cache_hit": True if str(fields.get("cache")).lower() == "hit" else None,
        **counts,
    }
    more = {"api": text(fields.get("apiid")), "product": text(fields.get("productid"))}
    row["attributes"] = json.dumps({k: v for k, v in more.items() if v}, sort_keys=True) if any(more.values()) else None
    return row


def _body(fields: Fields) -> object:
    """The answer, if bodies are logged: the backend's, else what the client was sent."""
    return next((body for name in ("backendresponsebody", "responsebody") if (body := fields.get(name))), None)


def _request_headers(fields: Fields) -> Mapping[str, str]:
    headers = {**parsed(fields.get("backendrequestheaders")), **parsed(fields.get("requestheaders"))}
    return {str(name)[:64].lower(): value for name, raw in headers.items() if (value := text(raw))}


def _request(fields: Fields) -> Row | None:
    """A request as the Azure OpenAI account logs it; None for one that is to no model."""
    model, deployment = text(fields.get("modelname")), text(fields.get("modeldeploymentname"))
    if model is None and deployment is None:
        return None
    status = decimal(fields.get("resultsignature"))
    resource = text(fields.get("resourceid"))
    account = _ACCOUNT.match(resource or "")
    row = _row(fields, ACCOUNT, "azure-openai-log")
    row |= {
        "operation": _operation(text(fields.get("operationname")) or "") or "chat",
        "usage_scope": "leaf",
        "provider": "azure",
        "gateway_call_id": None,
        "provider_request_id": row["gateway_call_id"],
        "response_model": "-".join(filter(None, (model, text(fields.get("modelversion"))))) or None,
        "deployment_id": deployment,
        "principal": text(fields.get("objectid")),
        "account_id": account["account"].lower() if account else None,
        "resource_id": resource.lower() if resource and account else None,
        "region": text(fields.get("location")) or text(fields.get("region")),
        "status": None if status is None else "error" if status >= 400 else "ok",
    }
    start, end = (_ticks(fields.get(name.lower()), name) for name in ("requestTime", "responseTime"))
    if start is not None:
        row |= {"start_time": start, "end_time": end if end is not None and end >= start else start}
    return row


_BUILDERS: Mapping[Sequence[str], Callable[[Fields], Row | None]] = {
    ("gatewayllmlogs", "apimanagementgatewayllmlog"): _llm,
    ("gatewaylogs", "apimanagementgatewaylogs"): _gateway,
    ("requestresponse",): _request,
}


def _row(fields: Fields, channel: str, emitter: str, headers: Mapping[str, str] | None = None) -> Row:
    call_id = text(fields.get("correlationid"))
    if call_id is None:
        raise FieldError("correlationId", "is missing", _REMEDY)
    start = instant(fields["time"] if fields.get("time") is not None else fields.get("timegenerated"), "time")
    if start is None:
        raise FieldError("time", "is missing", _REMEDY)
    milliseconds = next((ms for name in ("durationms", "totaltime") if (ms := decimal(fields.get(name))) is not None), None)
    duration = int(milliseconds * 1000) if milliseconds is not None and 0 <= milliseconds < _DAY_MS else 0
    return {
        "channel": channel,
        "source": _SOURCE,
        "emitter": emitter,
        "start_time": start,
        "end_time": start + duration,
        "gateway_call_id": call_id,
        **_position(f"{'azure' if channel == ACCOUNT else 'apim'}_{call_id}", (headers or {}).get("traceparent", "")),
    }


def _position(own: str, traceparent: str) -> Row:
    """In the caller's trace, where the headers have one; else a trace of its own."""
    caller = _TRACEPARENT.match(traceparent)
    if caller and ids.is_trace_id(caller["trace"]) and ids.is_span_id(caller["span"]):
        return trace_position(caller["trace"], own, caller["span"])
    return trace_position(own, own)


def _operation(name: str) -> str | None:
    return next((operation for pattern, operation in _OPERATIONS if pattern.search(name)), None)


def _endpoint(target: str | None) -> str | None:
    """Scheme and host of the backend.

    >>> _endpoint("https://acme.openai.azure.com/openai/deployments/chat/chat/completions?api-version=2026-01-01")
    'https://acme.openai.azure.com/'
    """
    address = url(target)
    parts = urlsplit(address or "")
    return f"{parts.scheme}://{parts.netloc}/" if parts.scheme and parts.netloc else None


def _ticks(value: object, name: str) -> int | None:
    """Microseconds since 1970 of a time in ticks, or in text.

    >>> _ticks(638515262815394150, "requestTime")
    1715929481539415
    """
    number = decimal(value)
    if number is None:
        return instant(value, name) if isinstance(value, str) else None
    return instant((number - _TICKS_TO_1970) / 10_000_000, name)
