"""Jaeger: traces exported by its UI and API, and span documents of Elasticsearch or OpenSearch.

    rootcost ingest jaeger trace.json          what the UI's “Trace JSON” saves, or an answer of /api/traces
    rootcost ingest jaeger 'jaeger-span-*.jsonl'   documents of the span index, one a line

Answers of `/api/v3` are OTLP inside, and are read as that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.otel.decode import DecodeFailure, Exported, from_document
from ingest.otel.trace_stores import StoredSpan, StoredSpans, TraceStore, mapping, nanoseconds, sequence, text
from ledger.errors import FormatError

_NOUN = "trace of Jaeger"
_KINDS = frozenset({"INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"})
_SCOPES = ("otel.scope.name", "otel.library.name")
_VERSIONS = ("otel.scope.version", "otel.library.version")
_MICROSECOND = 1000


def _decode(value: object) -> Exported | None:
    """The spans of a trace, of an answer with several, or of one document of the index; None for anything else."""
    document = mapping(value)
    source = mapping(document.get("_source"))
    document = source or document
    inner = mapping(document.get("result")) or document
    if "resourceSpans" in inner:
        try:
            return from_document(inner)
        except FormatError:
            return None
    if isinstance(document.get("data"), list):
        traces = document["data"]
    elif isinstance(document.get("spans"), list):
        traces = [document]
    elif "spanID" in document and "traceID" in document:
        return StoredSpans((_span(document, {}),))
    else:
        return None
    spans, failures = list[StoredSpan](), list[DecodeFailure]()
    for number, trace in enumerate(traces, 1):
        services = {key: _resource(process) for key, process in mapping(mapping(trace).get("processes")).items()}
        if not isinstance(mapping(trace).get("spans"), list):
            failures.append(DecodeFailure(f"trace {number}", "a trace of Jaeger has spans"))
        for position, span in enumerate(sequence(mapping(trace).get("spans")), 1):
            if isinstance(span, Mapping):
                spans.append(_span(span, services))
            else:
                failures.append(DecodeFailure(f"trace {number}, span {position}", "a span is a JSON object"))
    return StoredSpans(spans, failures)


def _span(span: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]]) -> StoredSpan:
    tags = _tags(span)
    trace = text(span.get("traceID"))
    parent, links = _references(span, trace)
    start = nanoseconds(span.get("startTime"), _MICROSECOND)
    duration = nanoseconds(span.get("duration"), _MICROSECOND)
    kind = text(tags.get("span.kind")).upper()
    return StoredSpan(
        trace_id=trace,
        span_id=text(span.get("spanID")),
        parent_id=parent,
        name=text(span.get("operationName")),
        kind=kind if kind in _KINDS else "",
        start_ns=start,
        end_ns=start + duration if start > 0 and duration >= 0 else 0,
        attributes=tags,
        resource=_resource(span["process"]) if "process" in span else services.get(text(span.get("processID"))) or {},
        scope=next((text(tags[name]) for name in _SCOPES if tags.get(name)), ""),
        version=next((text(tags[name]) for name in _VERSIONS if tags.get(name)), ""),
        failed=tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR",
        links=links,
    )


def _references(span: Mapping[str, Any], trace: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The parent: the first span of the same trace this is a child of, else the first it follows from. The others are links."""
    references = [mapping(reference) for reference in sequence(span.get("references"))]
    parents = [r for r in references if text(r.get("traceID")) in (trace, "") and text(r.get("spanID")).strip("0")]
    parents.sort(key=lambda r: r.get("refType") != "CHILD_OF")
    older = text(span.get("parentSpanID"))
    parent = text(parents[0].get("spanID")) if parents else older if older.strip("0") else ""
    links = ((text(r.get("traceID")), text(r.get("spanID"))) for r in references if not parents or r is not parents[0])
    return parent, tuple((of, at) for of, at in links if of and at)


def _resource(process: object) -> Mapping[str, Any]:
    fields = mapping(process)
    return {**_tags(fields), "service.name": fields.get("serviceName")}


def _tags(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Tags as a list of key, type and value; or as the object that Elasticsearch may store (``tag``, dots as ``@``)."""
    values = {key.replace("@", "."): value for key, value in mapping(holder.get("tag")).items()}
    for tag in sequence(holder.get("tags")):
        if isinstance(tag, Mapping) and isinstance(tag.get("key"), str):
            values[tag["key"]] = tag.get("value")
    return values


SOURCE = TraceStore(
    name="jaeger",
    title="Jaeger traces: JSON of its UI, its API and its span index",
    noun=_NOUN,
    export="a trace export",
    remedy="save the trace again, as JSON",
    decode=_decode,
    addresses=("traces/", "s3://exports/jaeger/"),
)
