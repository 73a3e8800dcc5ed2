"""Decodes OTLP trace exports into spans: protobuf and JSON, gzip or plain, requests or a collector's files.

Decoding is pure and independent of columns: it yields spans with the requested attributes only. Everything else, such as prompts
and answers, is never decoded.

Sources: opentelemetry-proto 1.x (trace.proto, trace_service.proto), the OTLP specification's JSON encoding, and the file format
of the collector's file exporter. Harmless deviations of producers are accepted: snake_case keys,
enumerations by name, base64 ids (a protobuf message printed as JSON), 64-bit integers as numbers.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest.otel.attribute_values import is_usage_attribute
from ingest.otel.salvage import salvage
from ingest.otel.tool_arguments import ARGUMENTS, DIGEST, arguments_digest
from ledger.errors import FormatError
from ledger.inflate import InflateError
from ledger.inflate import inflate as inflated

MAX_BODY_BYTES = 256 << 20
"""Bytes of the largest single export after decompression. Exporters send some megabytes; more is a mistake or an attack."""

_KINDS = ("", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_REMOTE_PARENT = 0x200
_ERROR = 2
_CONTENT_TYPES = {"application/x-protobuf": "protobuf", "application/protobuf": "protobuf", "application/json": "json"}
_REMEDY = "send an ExportTraceServiceRequest, as protobuf or as OTLP/JSON"


class RawSpan(NamedTuple):
    """One span as sent. Ids are bytes, times nanoseconds; `attributes` holds the requested attributes."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: str
    start_ns: int
    end_ns: int
    failed: bool
    trace_state: str
    remote_parent: bool
    links: tuple[tuple[bytes, bytes], ...]
    attributes: dict[str, Any]
    ordinal: int
    emitter: str | None = None
    """The emitter, where it is already known."""
    is_event: bool = False
    """Whether it comes from a log record."""
    trace_text: str = ""
    span_text: str = ""
    parent_text: str = ""
    """The ids as written, where they are not OpenTelemetry ids; the bytes end in their hash."""


class Group(NamedTuple):
    """The spans of one instrumentation scope of one service."""

    resource: dict[str, Any]
    scope: str
    spans: Iterator[RawSpan]
    version: str = ""
    """Version of the instrumentation scope, as sent."""


@dataclass(frozen=True, slots=True)
class DecodeFailure:
    """A part of an export that could not be decoded; its neighbours could."""

    place: str
    reason: str


class Exported(Protocol):
    """Anything that holds spans."""

    @property
    def failures(self) -> Sequence[DecodeFailure]:
        """What could not be decoded."""
        ...

    def groups(
        self, attribute_names: Container[str], resource_attribute_names: Container[str], failures: list[DecodeFailure]
    ) -> Iterator[Group]:
        """Its spans, scope by scope."""
        ...


@dataclass(frozen=True, slots=True)
class Export:
    """One trace export; its spans are decoded by `groups`."""

    encoding: Literal["protobuf", "json"]
    body: Any = field(repr=False)
    failures: tuple[DecodeFailure, ...] = ()

    @property
    def span_count(self) -> int:
        """Number of spans, valid or not."""
        if self.encoding == "protobuf":
            return sum(len(scope.spans) for resource in self.body.resource_spans for scope in resource.scope_spans)
        return sum(len(_items(scope, "spans")) for resource in _resources(self.body) for scope in _scopes(resource))

    def groups(
        self, attribute_names: Container[str], resource_attribute_names: Container[str], failures: list[DecodeFailure]
    ) -> Iterator[Group]:
        """Its spans by scope, with the named attributes; what cannot be decoded is added to `failures`."""
        if self.encoding == "protobuf":
            return _proto_groups(self.body, attribute_names, resource_attribute_names)
        return _json_groups(self.body, attribute_names, resource_attribute_names, failures)


def decode_request(body: bytes, content_type: str = "", content_encoding: str = "", *, max_bytes: int = MAX_BODY_BYTES) -> Export:
    """The export in the body of one HTTP request, or in one small file.

    `content_type` and `content_encoding` are the request's headers; without them the format is recognised by the bytes. `max_bytes`
    limits the body after decompression. Raises `FormatError` when nothing in it is a trace export.
    """
    body = decompress(body, content_encoding, max_bytes=max_bytes)
    return from_json(body) if is_json(body, content_type) else from_protobuf(body)


def is_json(body: bytes, content_type: str = "") -> bool:
    """Whether a body is JSON, as its content type says, or by its first characters."""
    encoding = _CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower(), "")
    return encoding == "json" or (not encoding and looks_like_json(body))


def decompress(body: bytes, content_encoding: str = "", *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """A body without its compression. Raises `FormatError` where it is damaged, unknown or larger than `max_bytes`."""
    encodings = [e for e in content_encoding.lower().replace(" ", "").split(",") if e not in ("", "identity")]
    for encoding in reversed(encodings):
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise FormatError(f"content encoding {encoding!r} is not understood", remedy="send gzip, deflate or nothing")
        body = inflate(body, max_bytes)
    if body[:2] == b"\x1f\x8b":
        body = inflate(body, max_bytes)
    if len(body) > max_bytes:
        raise FormatError(f"the body holds more than {max_bytes} bytes", remedy="send smaller batches")
    return body


def inflate(body: bytes, max_bytes: int) -> bytes:
    """The bytes inside gzip or zlib. Raises `FormatError` when they are damaged or more than `max_bytes`."""
    parts: list[bytes] = []
    size = 0
    try:
        for part in inflated([body], wbits=47):  # 32 + 15: gzip or zlib, whichever its header says
            size += len(part)
            if size > max_bytes:
                raise FormatError(f"the body holds more than {max_bytes} bytes", remedy="send smaller batches")
            parts.append(part)
    except InflateError as error:
        raise FormatError(str(error), remedy="send the body again") from None
    return b"".join(parts)


def looks_like_json(body: bytes) -> bool:
    """Whether the first characters are JSON's. Those of a protobuf request never are, but for a newline, which is its tag 1."""
    start = body[:64].removeprefix(b"\xef\xbb\xbf")
    if start[:1] == b"\n" and len(body) > 1 and body[1] in b"{[":
        return body[2:64].lstrip()[:1] in (b'"', b"{", b"}", b"]")
    return start.lstrip()[:1] in (b"{", b"[")


def from_protobuf(body: bytes) -> Export:
    """An export from protobuf bytes. A damaged one gives its complete spans."""
    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(body)
    except DecodeError:
        message, failures = salvage(body)
        if not message.resource_spans:
            raise FormatError("not a trace export in protobuf", remedy=_REMEDY) from None
        return Export("protobuf", message, tuple(DecodeFailure(place, reason) for place, reason in failures))
    if body and not message.resource_spans:
        raise FormatError("protobuf, but no trace export", remedy=_REMEDY)
    return Export("protobuf", message)


def from_json(body: bytes | str) -> Export:
    """An export from JSON text. Numbers stay exact. Raises `FormatError` when it is no JSON, or no trace export."""
    return from_document(decode_json(body))


def decode_json(body: bytes | str) -> Any:
    """A document. Raises `FormatError` when it is no JSON."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, or a number of thousands of digits
        raise FormatError(f"not JSON: {_short(error)}", remedy=_REMEDY) from None


def from_document(document: Any) -> Export:
    """An export from decoded JSON: one request, or a list of them."""
    requests = document if isinstance(document, list) else [document]
    resources: list[Any] = []
    failures: list[DecodeFailure] = []
    for number, request in enumerate(requests, 1):
        inner = _get(request, "resourceSpans", "resource_spans") if isinstance(request, Mapping) else None
        if isinstance(inner, list):
            resources.extend(inner)
        elif inner is None and isinstance(request, Mapping) and (not request or _other_signal(request)):
            continue
        elif len(requests) == 1:
            raise FormatError("JSON, but no trace export", remedy=_REMEDY)
        else:
            failures.append(DecodeFailure(f"item {number}", "no trace export"))
    if requests and len(failures) == len(requests):
        raise FormatError("JSON, but no trace export", remedy=_REMEDY)
    return Export("json", {"resourceSpans": resources}, tuple(failures))


def _other_signal(request: Mapping[str, Any]) -> bool:
    return any(k in request for k in ("resourceMetrics", "resourceLogs", "resourceProfiles", "resource_metrics", "resource_logs"))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]


# --- protobuf -----------------------------------------------------------------------------------------------------------------


def _proto_groups(message: Any, attribute_names: Container[str], resource_attribute_names: Container[str]) -> Iterator[Group]:
    ordinal = 0
    for resource_spans in message.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes, resource_attribute_names)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            yield Group(resource, scope.name, proto_spans(scope_spans.spans, attribute_names, ordinal), scope.version)
            ordinal += len(scope_spans.spans)


def proto_spans(spans: Iterable[Any], attribute_names: Container[str], before: int) -> Iterator[RawSpan]:
    """Spans of protobuf, with the named attributes; the first is number `before` + 1 of its export."""
    for ordinal, span in enumerate(spans, before + 1):
        attributes: dict[str, Any] = {}
        for pair in span.attributes:
            key = pair.key
            if key in ARGUMENTS:
                attributes[DIGEST] = arguments_digest(pair.value.string_value or str(pair.value))
            if key in attribute_names or is_usage_attribute(key):
                value = pair.value
                if content := value.string_value:  # most values are text, which needs no look at the kind
                    attributes[key] = content
                    continue
                value_kind = value.WhichOneof("value")
                if value_kind is not None:
                    content = getattr(value, value_kind)
                    attributes[key] = _proto_list(content) if value_kind == "array_value" else content
        kind = span.kind
        links = span.links
        yield RawSpan(
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.name,
            _KINDS[kind] if 0 <= kind < 6 else "",
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == _ERROR,
            span.trace_state,
            span.flags & _REMOTE_PARENT != 0,
            tuple((link.trace_id, link.span_id) for link in links) if links else (),
            attributes,
            ordinal,
        )


def attributes_of(pairs: Iterable[Any], names: Container[str]) -> dict[str, Any]:
    """The requested attributes of a span, a record or a resource in protobuf."""
    attributes: dict[str, Any] = {}
    for pair in pairs:
        if pair.key in names:
            value_kind = pair.value.WhichOneof("value")
            if value_kind is not None:
                content = getattr(pair.value, value_kind)
                attributes[pair.key] = _proto_list(content) if value_kind == "array_value" else content
    return attributes


def _proto_list(array: Any) -> list[Any]:
    return [getattr(item, value_kind) for item in array.values if (value_kind := item.WhichOneof("value")) is not None]


# --- JSON ---------------------------------------------------------------------------------------------------------------------


def _get(record: Mapping[str, Any], camel: str, snake: str) -> Any:
    value = record.get(camel)
    return record.get(snake) if value is None else value


def _items(record: Any, camel: str, snake: str = "") -> list[Any]:
    value = _get(record, camel, snake or camel) if isinstance(record, Mapping) else None
    return value if isinstance(value, list) else []


def _resources(document: Mapping[str, Any]) -> list[Any]:
    return _items(document, "resourceSpans", "resource_spans")


def _scopes(resource: Any) -> list[Any]:
    older = ("instrumentationLibrarySpans", "instrumentation_library_spans")
    return _items(resource, "scopeSpans", "scope_spans") or _items(resource, *older)


def _json_groups(
    document: Any, attribute_names: Container[str], resource_attribute_names: Container[str], failures: list[DecodeFailure]
) -> Iterator[Group]:
    ordinal = 0
    for resource_spans in _resources(document):
        resource = resource_spans.get("resource") if isinstance(resource_spans, Mapping) else None
        resource_attributes = _json_attributes(resource, resource_attribute_names)
        for scope_spans in _scopes(resource_spans):
            scope = _get(scope_spans, "scope", "instrumentationLibrary") if isinstance(scope_spans, Mapping) else None
            name, version = (scope.get("name"), scope.get("version")) if isinstance(scope, Mapping) else (None, None)
            spans = _items(scope_spans, "spans")
            yield Group(
                resource_attributes,
                name if isinstance(name, str) else "",
                _json_spans(spans, attribute_names, ordinal, failures),
                version if isinstance(version, str) else "",
            )
            ordinal += len(spans)


def _json_spans(
    spans: list[Any], attribute_names: Container[str], before: int, failures: list[DecodeFailure]
) -> Iterator[RawSpan]:
    for ordinal, span in enumerate(spans, before + 1):
        if not isinstance(span, Mapping):
            failures.append(DecodeFailure(f"span {ordinal}", "a span is a JSON object"))
            continue
        name, state = span.get("name"), _get(span, "traceState", "trace_state")
        status, flags = span.get("status"), span.get("flags")
        yield RawSpan(
            _id(_get(span, "traceId", "trace_id"), 16),
            _id(_get(span, "spanId", "span_id"), 8),
            _id(_get(span, "parentSpanId", "parent_span_id"), 8),
            name if isinstance(name, str) else "",
            _kind(span.get("kind")),
            _integer(_get(span, "startTimeUnixNano", "start_time_unix_nano")),
            _integer(_get(span, "endTimeUnixNano", "end_time_unix_nano")),
            isinstance(status, Mapping) and status.get("code") in (_ERROR, "STATUS_CODE_ERROR", "2"),
            state if isinstance(state, str) else "",
            isinstance(flags, int) and flags & _REMOTE_PARENT != 0,
            tuple(
                (_id(_get(link, "traceId", "trace_id"), 16), _id(_get(link, "spanId", "span_id"), 8))
                for link in _items(span, "links")
                if isinstance(link, Mapping)
            ),
            _json_attributes(span, attribute_names),
            ordinal,
        )


def _id(value: Any, size: int) -> bytes:
    """An id's bytes from hex, or from base64 by its length. Anything else gives bytes of an invalid length."""
    if value is None or value == "":
        return b""
    if isinstance(value, str):
        try:
            if len(value) == 2 * size:
                return bytes.fromhex(value)
            if len(value) == 4 * ((size + 2) // 3):
                return base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error):
            return b"?"
    return b"?"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return name if (name := value.removeprefix("SPAN_KIND_")) in _KINDS else ""
    return _KINDS[value] if isinstance(value, int) and 0 <= value < 6 else ""


def _integer(value: Any) -> int:
    """A 64-bit integer given as number or text; -1 for anything else, so that the time check reports the span."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 21:
        return int(value)
    return 0 if value is None or value == "" else -1


def _json_attributes(holder: Any, names: Container[str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for pair in _items(holder, "attributes"):
        key = pair.get("key") if isinstance(pair, Mapping) else None
        if isinstance(key, str) and (key in names or is_usage_attribute(key)):
            value = _json_value(pair.get("value"))
            if value is not None:
                attributes[key] = value
        if isinstance(key, str) and key in ARGUMENTS:
            arguments = pair.get("value")
            attributes[DIGEST] = arguments_digest(text if isinstance(text := _json_value(arguments), str) else arguments)
    return attributes


def _json_value(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        return None
    ((kind, content), *_) = value.items()
    if kind in ("stringValue", "string_value"):
        return content if isinstance(content, str) else None
    if kind in ("intValue", "int_value"):
        number = _integer(content)
        return number if number >= 0 else content  # the parser of the column reports an invalid number
    if kind in ("doubleValue", "double_value"):
        return content
    if kind in ("boolValue", "bool_value"):
        return content if isinstance(content, bool) else None
    if kind in ("arrayValue", "array_value"):
        return [v for item in _items(content, "values") if (v := _json_value(item)) is not None]
    return None
