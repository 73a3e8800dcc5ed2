"""Arize Phoenix: spans from its API, its client and OpenInference's exporters.

* pages of ``/v1/projects/NAME/spans``, also of ``…/spans/otlpv1``
* ``get_spans_dataframe()``, as Parquet, JSON records or JSON lines
* spans as OpenTelemetry's SDKs print them: the console exporter, ``span.to_json()``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.logs import files
from ingest.otel.decode import DecodeFailure, Exported, from_document
from ingest.otel.trace_stores import StoredSpan, StoredSpans, TraceStore, instant, mapping, nanoseconds, sequence, text
from ledger.errors import FormatError

_NOUN = "span of Phoenix"
_OTEL_KINDS = ("INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_NONE: Mapping[str, Any] = {}
_SECOND = 10**9


def _decode(value: object) -> Exported | None:
    """The spans of a page, or a single span; None for anything else."""
    document = mapping(value)
    if "resourceSpans" in document:
        return _otlp(document)
    records = document.get("data") if isinstance(document.get("data"), list) else document.get("spans")
    if isinstance(records, list):
        if any("spanId" in mapping(span) and isinstance(mapping(span).get("attributes"), list) for span in records):
            return _otlp({"resourceSpans": [{"scopeSpans": [{"spans": records}]}]})
        failures = [DecodeFailure(f"span {n}", f"no {_NOUN}") for n, span in enumerate(records, 1) if not _ids(mapping(span))]
        spans = [_span(span, _ids(span)) for span in map(mapping, records) if _ids(span)]
        return StoredSpans(spans, failures) if spans or not records else None
    ids = _ids(document)
    return StoredSpans((_span(document, ids),)) if ids else None


def _otlp(document: Mapping[str, Any]) -> Exported | None:
    try:
        return from_document(document)
    except FormatError:
        return None


def _ids(span: Mapping[str, Any]) -> tuple[str, str] | None:
    """Trace and span id: in a context of their own, or in columns of a data frame."""
    context = mapping(span.get("context") or span.get("spanContext") or span.get("_spanContext"))
    trace = context.get("trace_id") or context.get("traceId") or span.get("context.trace_id") or span.get("trace_id")
    own = context.get("span_id") or context.get("spanId") or span.get("context.span_id") or span.get("span_id")
    return (text(trace), text(own)) if text(trace) and text(own) else None


def _span(span: Mapping[str, Any], ids: tuple[str, str] | None) -> StoredSpan:
    assert ids is not None
    trace, own = ids
    resource, scope = _resource(span), mapping(span.get("instrumentationScope") or span.get("scope"))
    status = mapping(span.get("status"))
    code = status.get("code", status.get("status_code", span.get("status_code")))
    kind_name = text(span.get("kind")).rpartition(".")[2].removeprefix("SPAN_KIND_").upper()
    parent = mapping(span.get("parentSpanContext"))
    number = span.get("kind")
    return StoredSpan(
        trace_id=trace,
        span_id=own,
        parent_id=text(span.get("parent_id") or span.get("parentSpanId") or parent.get("spanId")),
        name=text(span.get("name")),
        kind=kind_name if kind_name in _OTEL_KINDS else _OTEL_KINDS[number] if type(number) is int and 0 <= number < 5 else "",
        start_ns=_moment(span.get("start_time", span.get("startTime"))),
        end_ns=_moment(span.get("end_time", span.get("endTime"))),
        attributes=_attributes(span),
        resource=resource,
        scope=text(scope.get("name")),
        version=text(scope.get("version")),
        failed=code in ("ERROR", 2),
        links=_links(span),
    )


def _attributes(span: Mapping[str, Any]) -> Mapping[str, Any]:
    """Attributes as an object, or as columns of a data frame; and the kind of span, which Phoenix keeps in a field of its own."""
    attributes = dict(mapping(span.get("attributes")))
    for name, value in span.items():
        if name.startswith("attributes.") and value is not None:
            attributes[name.removeprefix("attributes.")] = value
    kind = text(span.get("span_kind"))
    if kind and kind != "UNKNOWN":
        attributes.setdefault("openinference.span.kind", kind)
    return attributes


def _resource(span: Mapping[str, Any]) -> Mapping[str, Any]:
    """The resource attributes; the same empty object for all spans without a resource, since spans are grouped by resource object."""
    resource = mapping(span.get("resource"))
    return mapping(resource.get("attributes")) or mapping(resource.get("_attributes")) or _NONE


def _moment(value: object) -> int:
    """A time as text, as [seconds, nanoseconds] of JavaScript's SDK, or as a data frame's milliseconds."""
    if isinstance(value, list) and len(value) == 2:
        seconds, fraction_ns = nanoseconds(value[0], _SECOND), nanoseconds(value[1])
        return seconds + fraction_ns if min(seconds, fraction_ns) >= 0 else -1
    if isinstance(value, int) and not isinstance(value, bool):
        return nanoseconds(value, 1_000_000 if value < 10**14 else 1)
    return instant(value)


def _links(span: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    ids = (_ids(mapping(link)) for link in sequence(span.get("links")))
    return tuple(link_ids for link_ids in ids if link_ids)


SOURCE = TraceStore(
    name="phoenix",
    title="Arize Phoenix and OpenInference spans: pages of its API, data frames, printed spans",
    noun=_NOUN,
    export="an export of spans",
    remedy="export the spans again, as JSON or Parquet",
    decode=_decode,
    addresses=("spans/", "s3://exports/phoenix/"),
    patterns=(*files.JSON_FILES, "*.parquet"),
)
