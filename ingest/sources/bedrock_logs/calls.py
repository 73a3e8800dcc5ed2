"""One record of Bedrock's model invocation log as a row of `spans`: usage, ids, names and times. Prompts and answers are not read.

Fields of the log:

* ``inputTokenCount`` excludes tokens read from or written to a cache; ``outputTokenCount`` includes reasoning.
* ``identity.arn`` is the caller, as in the bill's ``line_item_iam_principal``.
* ``modelId`` is the requested model, inference profile, or the ARN of either. A profile is a resource of the bill.
* ``region`` is the region of the call, which is billed; ``inferenceRegion`` is where it was answered.
* ``requestMetadata`` is set by the caller, so it is a claim.
* Of the bodies only usage, model name and latency are read: lifetimes of cache writes are nowhere else.
* A body that is too large for the record is in a separate object, which is not fetched: the counts are in the record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingest.logs.json_fields import FieldError, count, decimal, instant, text
from ingest.logs.labels import claims, labels_of
from ingest.logs.rows import Row, trace_position
from ingest.otel.attribute_values import tier
from ingest.otel.trace_stores import mapping, sequence
from ledger import ids
from ledger.settings import IngestSettings

CHANNEL = "bedrock-log"
SCHEMA = "ModelInvocationLog"
_REMEDY = "turn model invocation logging on as AWS writes it; keep its records unchanged"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}\Z")
_DAY_MS = 86_400_000
_NON_CALLS = frozenset({"CountTokens"})


def is_record(value: object) -> bool:
    """Whether this is a record of the log."""
    return isinstance(value, Mapping) and (
        value.get("schemaType") == SCHEMA or {"requestId", "modelId", "timestamp"} <= value.keys()
    )


def rows(value: object, settings: IngestSettings) -> Iterator[Row]:
    """The row of a logged call. Raises `FieldError` for an invalid record.

    >>> record = {"schemaType": "ModelInvocationLog", "timestamp": "2026-10-05T09:00:00Z", "accountId": "111122223333", "region": "us-east-1",
    ...     "identity": {"arn": "arn:aws:sts::111122223333:assumed-role/agents/support-bot"}, "requestId": "r-1", "operation": "Converse",
    ...     "modelId": "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4-6-v1:0",
    ...     "input": {"inputTokenCount": 12, "cacheReadInputTokenCount": 1000}, "output": {"outputTokenCount": 80}}
    >>> row = next(rows(record, IngestSettings()))
    >>> row["input_tokens"], row["cache_read_tokens"], row["request_model"], row["principal"].rsplit("/")[-1]
    (12, 1000, 'us.anthropic.claude-sonnet-4-6-v1:0', 'support-bot')
    """
    if not is_record(value):
        raise FieldError("schemaType", "is no record of the model invocation log", _REMEDY)
    record = mapping(value)
    request_id = text(record.get("requestId"))
    if request_id is None:
        raise FieldError("requestId", "is missing", _REMEDY)
    start = instant(record.get("timestamp"), "timestamp")
    if start is None:
        raise FieldError("timestamp", "is missing", _REMEDY)
    input_fields, output_fields = mapping(record.get("input")), mapping(record.get("output"))
    answer_parts = list(_answer_parts(output_fields.get("outputBodyJson")))
    labels = labels_of(mapping(record.get("requestMetadata")))
    row: Row = {
        "channel": CHANNEL,
        "source": "bedrock-logs",
        "emitter": "bedrock-log",
        "provider": "aws.bedrock",
        "provider_request_id": request_id,
        "principal": text(mapping(record.get("identity")).get("arn")),
        "account_id": text(record.get("accountId")),
        "region": text(record.get("region")),
        "start_time": start,
        "end_time": _end_time(start, answer_parts),
        "status": "error" if text(record.get("errorCode")) else "ok",
        **_trace_position(request_id, labels),
        **_model(record),
        **_usage(input_fields, output_fields, answer_parts),
        **claims(labels, settings),
    }
    row["response_model"] = next((name for part in answer_parts if (name := _model_of(part))), None)
    row["service_tier"] = next((tier_name for part in (record, output_fields, *answer_parts) if (tier_name := _tier(part))), None)
    row["operation"] = _operation(record, row["request_model"])
    row["usage_scope"] = "leaf" if row["operation"] else None
    row["name"] = " ".join(part for part in (row["operation"], row["request_model"]) if part) or None
    more = {
        "inference_region": text(record.get("inferenceRegion")),
        "error_type": text(record.get("errorCode")),
        "labels": labels,
    }
    row["attributes"] = (
        json.dumps({k: v for k, v in more.items() if v}, sort_keys=True, ensure_ascii=False) if any(more.values()) else None
    )
    yield row


def _trace_position(request_id: str, labels: Mapping[str, str]) -> Row:
    """A child of the caller's span, where the labels have a traceparent; else a trace of its own."""
    parent = _TRACEPARENT.match(labels.get("traceparent", ""))
    own = f"bedrock_{request_id}"
    if parent and ids.is_trace_id(parent["trace"]) and ids.is_span_id(parent["span"]):
        return trace_position(parent["trace"], own, parent["span"])
    return trace_position(own, own)


def _model(record: Mapping[str, Any]) -> Row:
    """The requested model and, where it is a resource of the account, its id.

    >>> _model({"modelId": "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"})
    {'request_model': 'amazon.nova-lite-v1:0', 'resource_id': None}
    >>> _model({"modelId": "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2"})["request_model"][-8:]
    'ile/a1b2'
    """
    name = text(record.get("modelId"))
    if name is None or not name.startswith("arn:"):
        return {"request_model": name, "resource_id": None}
    kind, _, inner = name.split(":", 5)[-1].partition("/")
    if kind == "foundation-model":
        return {"request_model": inner, "resource_id": None}
    return {"request_model": inner if kind == "inference-profile" else name, "resource_id": name}


def _operation(record: Mapping[str, Any], model: str | None) -> str | None:
    if text(record.get("operation")) in _NON_CALLS:
        return None
    operations = (("embed", "embeddings"), ("rerank", "rerank"))
    return next((operation for word, operation in operations if model and word in model.lower()), "chat")


# ── usage ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _usage(input_fields: Mapping[str, Any], output_fields: Mapping[str, Any], answer_parts: Sequence[Mapping[str, Any]]) -> Row:
    """The counts of the record; missing ones are taken from the usage in the answer, in either of its two spellings."""
    own: dict[str, Any] = {}
    for part in answer_parts:
        own |= {k: v for k, v in mapping(part.get("usage")).items() if v is not None}

    def either(of: Mapping[str, Any], name: str, *spellings: str) -> int | None:
        value = count(of.get(name), name)
        return (
            value
            if value is not None
            else next((n for s in spellings if (n := count(own.get(s), f"usage.{s}")) is not None), None)
        )

    lifetimes = mapping(own.get("cache_creation"))
    for detail in sequence(own.get("cacheDetails")):
        if text(mapping(detail).get("ttl")) in ("5m", "1h"):
            lifetimes = {**lifetimes, f"ephemeral_{detail['ttl']}_input_tokens": mapping(detail).get("inputTokens")}
    input_tokens = either(input_fields, "inputTokenCount", "input_tokens", "inputTokens")
    output_tokens = either(output_fields, "outputTokenCount", "output_tokens", "outputTokens")
    return {
        "input_tokens": input_tokens,
        "cache_read_tokens": either(input_fields, "cacheReadInputTokenCount", "cache_read_input_tokens", "cacheReadInputTokens"),
        "cache_write_tokens": either(
            input_fields, "cacheWriteInputTokenCount", "cache_creation_input_tokens", "cacheWriteInputTokens"
        ),
        "cache_write_5m_tokens": count(lifetimes.get("ephemeral_5m_input_tokens"), "ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": count(lifetimes.get("ephemeral_1h_input_tokens"), "ephemeral_1h_input_tokens"),
        "output_tokens": output_tokens,
        "input_includes_cache": None if input_tokens is None else False,
        "output_includes_reasoning": None if output_tokens is None else True,
    }


def _answer_parts(body: object) -> Iterator[Mapping[str, Any]]:
    """The parts of an answer that may hold usage: the answer itself, or the chunks of a stream, with the messages in them."""
    for part in body if isinstance(body, list) else [body]:
        if isinstance(part, Mapping):
            yield from (inner for name in ("message", "metadata") if isinstance(inner := part.get(name), Mapping))
            yield part


def _model_of(part: Mapping[str, Any]) -> str | None:
    return text(part.get("model"))


def _tier(part: Mapping[str, Any]) -> str | None:
    value = part.get("serviceTier", part.get("service_tier"))
    return tier(mapping(value).get("type")) if isinstance(value, Mapping) else tier(value)


def _end_time(start: int, answer_parts: Sequence[Mapping[str, Any]]) -> int:
    latencies = (decimal(mapping(part.get("metrics")).get("latencyMs")) for part in answer_parts)
    latency = next((ms for ms in latencies if ms is not None and 0 <= ms < _DAY_MS), None)
    return start if latency is None else start + int(latency * 1000)
