"""Spans as bytes: OTLP protobuf, and the JSON lines of the collector's file exporter.

Encoded by hand: at a million calls, building message objects would take longer than everything else together. The tests
read every file back with the official protobuf classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from struct import pack
from typing import NamedTuple

Attribute = tuple[str, str | int | float | bool]

INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
"""OTLP span kinds."""


class Origin(NamedTuple):
    """Who sends a span: the resource, and the instrumentation library."""

    resource: tuple[Attribute, ...]
    scope: str
    version: str


class Span(NamedTuple):
    """One span as its service exports it. Times in nanoseconds; ids as bytes, parent empty for a root."""

    origin: Origin
    trace: bytes
    span: bytes
    parent: bytes
    name: str
    kind: int
    start_ns: int
    end_ns: int
    fixed: tuple[Attribute, ...] = ()
    own: tuple[Attribute, ...] = ()
    link: tuple[bytes, bytes] | None = None
    error: str = ""


def varint(number: int) -> bytes:
    """A number as protobuf writes it.

    >>> varint(300).hex()
    'ac02'
    """
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(tag: int, payload: bytes) -> bytes:
    size = len(payload)
    return bytes((tag, size)) + payload if size < 0x80 and tag < 0x80 else varint(tag) + varint(size) + payload


@cache
def _key(key: str) -> bytes:
    return _sized(0x0A, key.encode())


def _value(value: str | float | bool) -> bytes:
    if isinstance(value, str):
        return _sized(0x0A, value.encode())
    if isinstance(value, bool):
        return bytes((0x10, value))
    if isinstance(value, int):
        return b"\x18" + varint(value)
    return b"\x21" + pack("<d", value)


def _attribute(attribute: Attribute, tag: int) -> bytes:
    key, value = _key(attribute[0]), _value(attribute[1])
    size = len(key) + 2 + len(value)
    if size < 0x80:
        return bytes((tag, size)) + key + bytes((0x12, len(value))) + value
    return _sized(tag, key + _sized(0x12, value))


@cache
def _fixed(attributes: tuple[Attribute, ...], tag: int) -> bytes:
    return b"".join(_attribute(a, tag) for a in attributes)


def proto_span(span: Span) -> bytes:
    """One `opentelemetry.proto.trace.v1.Span`."""
    parts = [b"\x0a\x10", span.trace, b"\x12\x08", span.span]
    if span.parent:
        parts += (b"\x22\x08", span.parent)
    parts += (_name(span.name), bytes((0x30, span.kind, 0x39)), pack("<Q", span.start_ns), b"\x41", pack("<Q", span.end_ns))
    parts.append(_fixed(span.fixed, 0x4A))
    parts.extend([_attribute(a, 0x4A) for a in span.own])
    if span.link:
        parts.append(_sized(0x6A, b"\x0a\x10" + span.link[0] + b"\x12\x08" + span.link[1]))
    if span.error:
        parts.append(_sized(0x7A, _sized(0x12, span.error.encode()) + b"\x18\x02"))
    return b"".join(parts)


@cache
def _name(name: str) -> bytes:
    return _sized(0x2A, name.encode())


def request(spans: Iterable[Span]) -> bytes:
    """One `ExportTraceServiceRequest` that holds these spans, grouped by sender."""
    out = []
    for origin, group in _grouped(spans).items():
        scope = _sized(0x0A, _sized(0x0A, origin.scope.encode()) + _sized(0x12, origin.version.encode()))
        scope_spans = scope + b"".join([_sized(0x12, proto_span(s)) for s in group])
        out.append(_sized(0x0A, _sized(0x0A, _fixed(origin.resource, 0x0A)) + _sized(0x12, scope_spans)))
    return b"".join(out)


def json_line(spans: Iterable[Span]) -> str:
    """The same as one line of the collector's file exporter: hex ids, numbers of 64 bits as text."""
    resources = [
        {
            "resource": {"attributes": _json_attributes(origin.resource)},
            "scopeSpans": [{"scope": {"name": origin.scope, "version": origin.version}, "spans": [_json_span(s) for s in group]}],
        }
        for origin, group in _grouped(spans).items()
    ]
    return json.dumps({"resourceSpans": resources}, separators=(",", ":"))


def _grouped(spans: Iterable[Span]) -> dict[Origin, list[Span]]:
    groups: dict[Origin, list[Span]] = {}
    for span in spans:
        groups.setdefault(span.origin, []).append(span)
    return groups


def _json_span(span: Span) -> dict[str, object]:
    out: dict[str, object] = {
        "traceId": span.trace.hex(),
        "spanId": span.span.hex(),
        "parentSpanId": span.parent.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _json_attributes(span.fixed + span.own),
        "status": {"code": 2, "message": span.error} if span.error else {},
    }
    if span.link:
        out["links"] = [{"traceId": span.link[0].hex(), "spanId": span.link[1].hex()}]
    return out


def _json_attributes(attributes: Sequence[Attribute]) -> list[dict[str, object]]:
    return [{"key": key, "value": _json_value(value)} for key, value in attributes]


def _json_value(value: str | float | bool) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
