"""LangSmith: runs from its bulk exports and its API.

    rootcost ingest langsmith s3://exports/langsmith/          bulk exports, Parquet
    rootcost ingest langsmith runs.jsonl                       runs of the API, JSON lines or pages

Counts of a chain are the sum over its children: only those of models and embeddings are read. Of a run that an instrumentation sent over
OpenTelemetry, the counts are the same, and so is the emitter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.logs import files
from ingest.logs.json_fields import ABSENT_VALUES
from ingest.otel.attribute_values import AttributeValueError, parse_object
from ingest.otel.decode import DecodeFailure, Exported
from ingest.otel.trace_stores import StoredSpan, StoredSpans, TraceStore, instant, mapping, text

_NOUN = "run of LangSmith"
_MODELS = frozenset({"llm", "embedding"})
_NO_RESOURCE: Mapping[str, Any] = {}
Record = Mapping[str, Any]


def _decode(value: object) -> Exported | None:
    """The runs of a page, or a single one; None for anything else."""
    document = mapping(value)
    records = next((document[name] for name in ("runs", "data", "items") if isinstance(document.get(name), list)), None)
    if records is None:
        return StoredSpans((_span(document),)) if _is_run(document) else None
    failures = [DecodeFailure(f"run {n}", f"no {_NOUN}") for n, record in enumerate(records, 1) if not _is_run(mapping(record))]
    return StoredSpans([_span(record) for record in records if _is_run(mapping(record))], failures)


def _is_run(record: Record) -> bool:
    return bool(text(record.get("id")) and text(record.get("run_type")) and record.get("start_time") is not None)


def _object(value: object) -> Record:
    """An object, or the JSON text of one, as in Parquet."""
    try:
        return parse_object(value) or {}
    except AttributeValueError:
        return {}


def _span(record: Record) -> StoredSpan:
    kind = text(record.get("run_type")).lower()
    metadata = _object(_object(record.get("extra")).get("metadata")) or _object(record.get("metadata"))
    own = text(record.get("id"))
    return StoredSpan(
        trace_id=text(record.get("trace_id")) or own,
        span_id=own,
        parent_id=_parent(record),
        name=text(record.get("name")),
        kind="",
        start_ns=instant(record.get("start_time")),
        end_ns=instant(record.get("end_time")),
        attributes=_attributes(record, kind, metadata),
        resource=_NO_RESOURCE,
        scope="langsmith",
        failed=text(record.get("status")) == "error" or text(record.get("error")) not in ABSENT_VALUES,
    )


def _parent(record: Record) -> str:
    """The run that started this one; where only the order of the trace says so, the last but one in it.

    >>> _parent({"dotted_order": "20261005T090000000000Zaaaa.20261005T090001000000Zbbbb"})
    'aaaa'
    """
    parent = text(record.get("parent_run_id"))
    steps = text(record.get("dotted_order")).split(".")
    return parent or (steps[-2].partition("Z")[2] if len(steps) > 1 else "")


def _attributes(record: Record, kind: str, metadata: Record) -> dict[str, Any]:
    """Kind, model, usage and labels, under the names that LangSmith's own spans have."""
    attributes: dict[str, Any] = {f"langsmith.metadata.{name}": value for name, value in metadata.items()}
    attributes |= {
        "langsmith.span.kind": kind,
        "langsmith.trace.session_name": text(record.get("session_name")),
        "langsmith.span.tags": record.get("tags"),
    }
    if kind in _MODELS:
        attributes |= {
            "gen_ai.system": text(metadata.get("ls_provider")),
            "gen_ai.request.model": text(metadata.get("ls_model_name")),
            **_usage(record),
        }
    return {name: value for name, value in attributes.items() if value not in (None, "")}


def _usage(record: Record) -> dict[str, Any]:
    """Counts and estimate of a model's run. Zeros in all of them stand where nothing is known."""
    counts = {
        "gen_ai.usage.input_tokens": record.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": record.get("completion_tokens"),
        "gen_ai.usage.total_tokens": record.get("total_tokens"),
    }
    if not any(counts.values()):
        return {}
    return counts | {
        "gen_ai.usage.input_token_details": _object(record.get("prompt_token_details")) or None,
        "gen_ai.usage.output_token_details": _object(record.get("completion_token_details")) or None,
        "langsmith.run.total_cost": record.get("total_cost") or None,
    }


SOURCE = TraceStore(
    name="langsmith",
    title="LangSmith runs: bulk exports, pages of its API",
    noun=_NOUN,
    export="an export of runs",
    remedy="export the runs again, as Parquet or JSON",
    decode=_decode,
    addresses=("langsmith/", "s3://exports/langsmith/"),
    patterns=(*files.JSON_FILES, "*.parquet"),
)
