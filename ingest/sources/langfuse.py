"""Langfuse: observations from its UI, its API and its exports to blob storage.

    rootcost ingest langfuse trace.json               a trace with its observations, as the UI saves it
    rootcost ingest langfuse observations/            pages of the API; files of the export to S3 (JSON, JSON lines, gzip)

Of an observation that an instrumentation sent over OpenTelemetry, the original attributes are read. Langfuse's own derived usage is
ignored there: where a framework reports no usage, Langfuse estimates it with a tokenizer, and an estimate is not usage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.otel.attribute_values import AttributeValueError
from ingest.otel.attribute_values import parse_object as parse_object
from ingest.otel.decode import DecodeFailure, Exported
from ingest.otel.trace_stores import StoredSpan, StoredSpans, TraceStore, instant, mapping, sequence, text

_NOUN = "observation of Langfuse"
_OWN_SCOPES = ("langfuse-sdk", "langfuse.")
_NO_ENVIRONMENT = "default"

_PLAIN_COUNTS = ("promptTokens", "completionTokens", "totalTokens")

Record = Mapping[str, Any]


def _decode(value: object) -> Exported | None:
    """The observations of a trace or a page, or a single one; None for anything else. A trace without observations gives no spans."""
    document = mapping(value)
    trace = mapping(document.get("trace"))
    if isinstance(document.get("observations"), list):
        records, trace = document["observations"], trace or document
    elif isinstance(document.get("data"), list):
        records = document["data"]
    elif _is_observation(document):
        records = [document]
    elif "id" in document and "timestamp" in document:
        records = []  # a trace, whose observations are elsewhere
    else:
        return None
    spans, failures = list[StoredSpan](), list[DecodeFailure]()
    resources: dict[tuple[tuple[str, str], ...], Record] = {}
    for number, record in enumerate(records, 1):
        if _is_observation(mapping(record)):
            spans.append(_span(record, trace, resources))
        elif isinstance(mapping(record).get("observations"), list) or "timestamp" not in mapping(record):
            failures.append(DecodeFailure(f"observation {number}", f"no {_NOUN}"))
    return StoredSpans(spans, failures)


def _is_observation(record: Record) -> bool:
    return bool(text(_field(record, "traceId")) and text(record.get("id")) and _field(record, "startTime"))


_SNAKE = {
    "traceId": "trace_id",
    "parentObservationId": "parent_observation_id",
    "startTime": "start_time",
    "endTime": "end_time",
    "usageDetails": "usage_details",
    "providedUsageDetails": "provided_usage_details",
    "costDetails": "cost_details",
    "providedCostDetails": "provided_cost_details",
    "userId": "user_id",
    "sessionId": "session_id",
    "model": "provided_model_name",
    "promptName": "prompt_name",
    "promptVersion": "prompt_version",
}
"""Names in exports to blob storage, where they differ from the API's."""


def _field(record: Record, name: str) -> Any:
    value = record.get(name)
    return record.get(_SNAKE[name]) if value is None else value


def _object(value: object) -> Record:
    """An object, or the JSON text of one."""
    try:
        return parse_object(value) or {}
    except AttributeValueError:
        return {}


def _span(record: Record, trace: Record, resources: dict[tuple[tuple[str, str], ...], Record]) -> StoredSpan:
    metadata = _object(record.get("metadata"))
    sent, sent_scope = _object(metadata.get("attributes")), _object(metadata.get("scope"))
    scope = text(sent_scope.get("name"))
    resource = _object(metadata.get("resourceAttributes"))
    resource_key = tuple(sorted((key, text(value)) for key, value in resource.items()))
    own = not scope or scope.startswith(_OWN_SCOPES)
    return StoredSpan(
        trace_id=text(_field(record, "traceId")),
        span_id=text(record.get("id")),
        parent_id=text(_field(record, "parentObservationId")),
        name=text(record.get("name")),
        kind="",
        start_ns=instant(_field(record, "startTime")),
        end_ns=instant(_field(record, "endTime")),
        attributes={**_context_attributes(record, trace), **(_own_attributes(record) if own else {}), **sent},
        resource=resources.setdefault(resource_key, resource),
        scope=scope or "langfuse-sdk",
        version=text(sent_scope.get("version")),
        failed=record.get("level") == "ERROR",
    )


def _context_attributes(record: Record, trace: Record) -> dict[str, Any]:
    """User, session, environment, tags and prompt of trace and observation, under the attribute names of Langfuse's SDK."""
    environment = text(record.get("environment") or trace.get("environment"))
    tags = record.get("tags") or trace.get("tags")
    attributes = {
        "langfuse.user.id": _field(record, "userId") or _field(trace, "userId"),
        "langfuse.session.id": _field(record, "sessionId") or _field(trace, "sessionId"),
        "langfuse.environment": environment if environment != _NO_ENVIRONMENT else None,
        "langfuse.trace.tags": sequence(tags),
        "langfuse.observation.prompt.name": _field(record, "promptName"),
        "langfuse.observation.prompt.version": _field(record, "promptVersion"),
    }
    return {name: value for name, value in attributes.items() if value}


def _own_attributes(record: Record) -> dict[str, Any]:
    """Type, model, usage and cost that were reported to Langfuse's own SDK and API.

    The name of an agent or tool is that of its observation. Usage that was not provided, where the export distinguishes the two, is a
    tokenizer's estimate and left out.
    """
    kind = text(record.get("type")).lower()
    provided_usage, usage = _field(record, "providedUsageDetails"), _usage(record)
    cost = _object(_field(record, "providedCostDetails")) or _object(_field(record, "costDetails"))
    is_estimate = provided_usage is not None and not _object(provided_usage)
    attributes = {
        "langfuse.observation.type": kind,
        "langfuse.observation.model.name": text(_field(record, "model") or record.get("providedModelName")),
        "langfuse.observation.usage_details": {} if is_estimate else usage,
        "langfuse.observation.cost_details": cost if cost.get("total") else {},
        "gen_ai.agent.name": text(record.get("name")) if kind == "agent" else "",
        "gen_ai.tool.name": text(record.get("name")) if kind == "tool" else "",
    }
    return {name: value for name, value in attributes.items() if value}


def _usage(record: Record) -> Record:
    """Usage by type; where an older API or export has none, its plain counts, unless they are of another unit than tokens."""
    usage = _object(_field(record, "usageDetails"))
    if usage:
        return usage
    plain_usage = _object(record.get("usage"))
    if text(plain_usage.get("unit")).upper() not in ("", "TOKENS"):
        return {}
    counts = plain_usage or {name: record.get(name) for name in _PLAIN_COUNTS}
    counts = {name: value for name, value in counts.items() if name != "unit" and value is not None}
    return counts if any(counts.values()) else {}


SOURCE = TraceStore(
    name="langfuse",
    title="Langfuse observations: traces of its UI, pages of its API, exports to blob storage",
    noun=_NOUN,
    export="an export of observations",
    remedy="export the observations again, as JSON",
    decode=_decode,
    addresses=("langfuse/", "s3://exports/langfuse/PROJECT/observations_v2/"),
    skip_folders=("scores",),
)
