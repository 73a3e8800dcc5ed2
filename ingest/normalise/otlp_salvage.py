"""What is whole in a damaged protobuf export: cut off in transit, or with one span that is not UTF-8.

Protobuf refuses a message for one bad byte. Its fields, however, tell their own lengths, so the good spans beside a bad one can
be found by walking them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

_NESTED = 2
_HEADER, _CHILDREN = 1, 2
_FIXED = {1: 8, 5: 4}


def salvage(body: bytes) -> tuple[Any, list[tuple[str, str]]]:
    """An export of what could be read, and (place, reason) for each part that could not."""
    export, lost = ExportTraceServiceRequest(), list[tuple[str, str]]()
    view = memoryview(body)
    for number, part, whole in _fields(view):
        if number == 1:
            _resource(part, whole, export, lost)
    if lost and all(not scope.spans for r in export.resource_spans for scope in r.scope_spans):
        del export.resource_spans[:]
    return export, lost


def _resource(part: memoryview, whole: bool, export: Any, lost: list[tuple[str, str]]) -> None:
    if whole and (complete := _parsed(ResourceSpans, part)) is not None:
        export.resource_spans.append(complete)
        return
    mended = export.resource_spans.add()
    place = f"resource {len(export.resource_spans)}"
    for number, inner, inner_whole in _fields(part):
        if number == _HEADER and inner_whole:
            _merge(mended.resource, inner)
        elif number == _CHILDREN:
            _scope(inner, inner_whole, mended, place, lost)
    if not whole and not lost:
        lost.append((place, "cut off"))


def _scope(part: memoryview, whole: bool, resource: Any, above: str, lost: list[tuple[str, str]]) -> None:
    if whole and (complete := _parsed(ScopeSpans, part)) is not None:
        resource.scope_spans.append(complete)
        return
    mended = resource.scope_spans.add()
    place = f"{above}, scope {len(resource.scope_spans)}"
    told = len(lost)
    for position, (number, inner, inner_whole) in enumerate(_fields(part)):
        if number == _HEADER and inner_whole:
            _merge(mended.scope, inner)
        elif number == _CHILDREN:
            span = _parsed(Span, inner) if inner_whole else None
            if span is not None:
                mended.spans.append(span)
            else:
                reason = "damaged, perhaps by text that is not UTF-8" if inner_whole else "cut off"
                lost.append((f"{place}, field {position + 1}", reason))
    if not whole and len(lost) == told:
        lost.append((place, "cut off"))


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
    """Nested fields of a message: number, bytes, and whether all announced bytes are there. Stops where no field can begin."""
    here = 0
    while here < len(view):
        tag, here = _varint(view, here)
        number, wire = tag >> 3, tag & 7
        if here < 0 or number == 0:
            return
        if wire == _NESTED:
            size, here = _varint(view, here)
            if here < 0:
                return
            yield number, view[here : here + size], here + size <= len(view)
            here += size
        elif wire == 0:
            _, here = _varint(view, here)
            if here < 0:
                return
        elif wire in _FIXED:
            here += _FIXED[wire]
        else:
            return


def _varint(view: memoryview, here: int) -> tuple[int, int]:
    """A variable-length integer and where it ends; the end is -1 where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if here >= len(view):
            return 0, -1
        byte = view[here]
        here += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, here
    return 0, -1
