"""Zipkin: traces from its API and UI, version 2 of its JSON.

    rootcost ingest zipkin trace.json     an array of spans, or an array of traces (/api/v2/trace/ID, /api/v2/traces)

A client and its server may share one span id in Zipkin: the two halves become two spans, the server's a child of the client's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ingest.logs.json_items import Damage, Item, ItemStream
from ingest.otel.decode import DecodeFailure, Exported
from ingest.otel.trace_stores import StoredSpan, StoredSpans, TraceStore, mapping, nanoseconds, sequence, text

_NOUN = "trace of Zipkin"
_KINDS = frozenset({"SERVER", "CLIENT", "PRODUCER", "CONSUMER"})
_SCOPES = ("otel.scope.name", "otel.library.name")
_VERSIONS = ("otel.scope.version", "otel.library.version")
_MICROSECOND = 1000
_SERVES = "/server"
"""Suffix of the span id of the server's half of a shared span."""

Span = Mapping[str, Any]


def _combine_single_spans(items: ItemStream) -> ItemStream:
    """Arrays unchanged; single spans of the file combined into one item, since the halves of one span may be on different lines."""
    single_spans: list[object] = []
    for entry in items:
        if isinstance(entry, Damage) or isinstance(entry.value, list):
            yield entry
        else:
            single_spans.append(entry.value)
    if single_spans:
        yield Item("", single_spans)


def _decode(value: object) -> Exported | None:
    spans = [span for span in sequence(value) if _is_span(span)]
    if not spans:
        return None
    failures = [
        DecodeFailure(f"span {n}", "no span of Zipkin, version 2")
        for n, span in enumerate(sequence(value), 1)
        if not _is_span(span)
    ]
    shared_ids = _shared(spans)
    return StoredSpans([_span(span, shared_ids) for span in spans], failures)


def _is_span(value: object) -> bool:
    span = mapping(value)
    return "traceId" in span and "id" in span


def _shared(spans: Sequence[Span]) -> Mapping[tuple[str, str], frozenset[str]]:
    """Ids that a client's and a server's half share, and the services of the server's half."""
    clients = {_place(span) for span in spans if span.get("kind") in ("CLIENT", "PRODUCER")}
    servers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for span in spans:
        if span.get("kind") in ("SERVER", "CONSUMER") and _place(span) in clients:
            servers[_place(span)].add(_service(span))
    return {place: frozenset(services) for place, services in servers.items()}


def _place(span: Span) -> tuple[str, str]:
    return text(span.get("traceId")).lstrip("0"), text(span.get("id")).lstrip("0")


def _service(span: Span) -> str:
    return text(mapping(span.get("localEndpoint")).get("serviceName"))


def _span(span: Span, shared_ids: Mapping[tuple[str, str], frozenset[str]]) -> StoredSpan:
    tags = mapping(span.get("tags"))
    own, parent = text(span.get("id")), text(span.get("parentId"))
    trace, service, kind = text(span.get("traceId")), _service(span), text(span.get("kind"))
    if kind in ("SERVER", "CONSUMER") and _place(span) in shared_ids:
        own, parent = own + _SERVES, own
    elif service in shared_ids.get((trace.lstrip("0"), parent.lstrip("0")), ()):
        parent += _SERVES  # what the server did in answer, not the client
    start = nanoseconds(span.get("timestamp"), _MICROSECOND)
    duration = nanoseconds(span.get("duration"), _MICROSECOND)
    return StoredSpan(
        trace_id=trace,
        span_id=own,
        parent_id=parent if parent.strip("0") else "",
        name=text(span.get("name")),
        kind=kind if kind in _KINDS else "",
        start_ns=start,
        end_ns=start + duration if start > 0 and duration > 0 else 0,
        attributes=tags,
        resource={"service.name": service or None},
        scope=next((text(tags[name]) for name in _SCOPES if tags.get(name)), ""),
        version=next((text(tags[name]) for name in _VERSIONS if tags.get(name)), ""),
        failed="error" in tags,
    )


SOURCE = TraceStore(
    name="zipkin",
    title="Zipkin traces: JSON of version 2",
    noun=_NOUN,
    export="a trace export",
    remedy="save the trace again, as JSON of version 2",
    decode=_decode,
    addresses=("traces/", "s3://exports/zipkin/"),
    regroup=_combine_single_spans,
)
