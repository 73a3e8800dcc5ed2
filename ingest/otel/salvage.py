"""Recovers the complete parts of a damaged protobuf export: truncated, or with a span that is not UTF-8.

Protobuf rejects a message for one bad byte. Its fields are length-prefixed, however, so walking them finds the valid spans. Exports of
all signals have the same structure: resources contain scopes, which contain spans, records or metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

_NESTED = 2
_HEADER, _CHILDREN = 1, 2
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One kind of export: its message types and the names of its repeated fields."""

    name: str
    request: type[Message]
    resource: type[Message]
    scope: type[Message]
    item: type[Message]
    resources: str
    scopes: str
    items: str


TRACES = Signal(
    name="trace",
    request=ExportTraceServiceRequest,
    resource=ResourceSpans,
    scope=ScopeSpans,
    item=Span,
    resources="resource_spans",
    scopes="scope_spans",
    items="spans",
)
LOGS = Signal(
    name="log",
    request=ExportLogsServiceRequest,
    resource=ResourceLogs,
    scope=ScopeLogs,
    item=LogRecord,
    resources="resource_logs",
    scopes="scope_logs",
    items="log_records",
)
METRICS = Signal(
    name="metric",
    request=ExportMetricsServiceRequest,
    resource=ResourceMetrics,
    scope=ScopeMetrics,
    item=Metric,
    resources="resource_metrics",
    scopes="scope_metrics",
    items="metrics",
)


def salvage(body: bytes, signal: Signal = TRACES) -> tuple[Any, list[tuple[str, str]]]:
    """The readable part of an export, and (place, reason) of each part that is not readable."""
    export, failures = signal.request(), list[tuple[str, str]]()
    view = memoryview(body)
    resources = getattr(export, signal.resources)
    for number, part, whole in _fields(view):
        if number == 1:
            _resource(part, whole, resources, failures, signal)
    if failures and all(not getattr(scope, signal.items) for r in resources for scope in getattr(r, signal.scopes)):
        del resources[:]
    return export, failures


def _resource(part: memoryview, whole: bool, resources: Any, failures: list[tuple[str, str]], signal: Signal) -> None:
    if whole and (complete := _parsed(signal.resource, part)) is not None:
        resources.append(complete)
        return
    partial = resources.add()
    place = f"resource {len(resources)}"
    for number, inner, inner_whole in _fields(part):
        if number == _HEADER and inner_whole:
            _merge(partial.resource, inner)
        elif number == _CHILDREN:
            _scope(inner, inner_whole, getattr(partial, signal.scopes), place, failures, signal)
    if not whole and not failures:
        failures.append((place, "cut off"))


def _scope(part: memoryview, whole: bool, scopes: Any, above: str, failures: list[tuple[str, str]], signal: Signal) -> None:
    if whole and (complete := _parsed(signal.scope, part)) is not None:
        scopes.append(complete)
        return
    partial = scopes.add()
    place = f"{above}, scope {len(scopes)}"
    failures_before = len(failures)
    for position, (number, inner, inner_whole) in enumerate(_fields(part)):
        if number == _HEADER and inner_whole:
            _merge(partial.scope, inner)
        elif number == _CHILDREN:
            item = _parsed(signal.item, inner) if inner_whole else None
            if item is not None:
                getattr(partial, signal.items).append(item)
            else:
                reason = "damaged, perhaps by text that is not UTF-8" if inner_whole else "cut off"
                failures.append((f"{place}, field {position + 1}", reason))
    if not whole and len(failures) == failures_before:
        failures.append((place, "cut off"))


def _parsed(kind: type[Message], part: memoryview) -> Message | None:
    message = kind()
    try:
        message.ParseFromString(bytes(part))
    except DecodeError:
        return None
    return message


def _merge(message: Message, part: memoryview) -> None:
    complete = _parsed(type(message), part)
    if complete is not None:
        message.MergeFrom(complete)


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview, bool]]:
    """Nested fields of a message: number, bytes, and whether the field is complete. Stops at the first invalid tag."""
    offset = 0
    while offset < len(view):
        tag, offset = _varint(view, offset)
        number, wire = tag >> 3, tag & 7
        if offset < 0 or number == 0:
            return
        if wire == _NESTED:
            size, offset = _varint(view, offset)
            if offset < 0:
                return
            yield number, view[offset : offset + size], offset + size <= len(view)
            offset += size
        elif wire == 0:
            _, offset = _varint(view, offset)
            if offset < 0:
                return
        elif wire in _FIXED:
            offset += _FIXED[wire]
        else:
            return


def _varint(view: memoryview, offset: int) -> tuple[int, int]:
    """A variable-length integer and the offset after it; the offset is -1 where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if offset >= len(view):
            return 0, -1
        byte = view[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    return 0, -1
