"""Bytes of log and metric exports into messages: protobuf, or the JSON that OTLP makes of it, record by record.

Traces have a decoder of their own (`otlp_decode`), made for millions of spans; logs and metrics that bear usage are few.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ingest.otel.decode import Lost, is_json, unpacked
from ingest.otel.salvage import Signal, salvage
from ledger.errors import FormatError

_HEX = re.compile(r"(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{32})\Z")
_IDS = {"traceId", "spanId", "trace_id", "span_id"}
_CAMEL = re.compile(r"_(\w)")


def decode(body: bytes, signal: Signal, content_type: str = "", content_encoding: str = "") -> tuple[Any, tuple[Lost, ...]]:
    """The export in a request's body, and what in it could not be decoded. Raises `FormatError` where nothing could."""
    body = unpacked(body, content_encoding)
    if not is_json(body, content_type):
        return _protobuf(body, signal)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _no_export(signal, "not JSON") from None
    return from_document(document, signal)


def _protobuf(body: bytes, signal: Signal) -> tuple[Any, tuple[Lost, ...]]:
    message: Any = signal.request()
    try:
        message.ParseFromString(body)
    except DecodeError:
        message, lost = salvage(body, signal)
        if not getattr(message, signal.resources):
            raise _no_export(signal, "not in protobuf") from None
        return message, tuple(Lost(place, reason) for place, reason in lost)
    if body and not getattr(message, signal.resources):
        raise _no_export(signal, "protobuf, but of something else")
    return message, ()


def from_document(document: Any, signal: Signal) -> tuple[Any, tuple[Lost, ...]]:
    """The export in decoded JSON."""
    message: Any = signal.request()
    lost: list[Lost] = []
    resources = _listed(document, signal.resources)
    if resources is None:
        raise _no_export(signal, "JSON, but of something else")
    for resource in resources:
        made = getattr(message, signal.resources).add()
        _parse(resource.get("resource") if isinstance(resource, Mapping) else None, made.resource)
        for scope in _listed(resource, signal.scopes) or ():
            held = getattr(made, signal.scopes).add()
            _parse(scope.get("scope") if isinstance(scope, Mapping) else None, held.scope)
            for number, item in enumerate(_listed(scope, signal.items) or (), 1):
                fresh = signal.item()
                if fault := _parse(item, fresh):
                    lost.append(Lost(f"{signal.items[:-1].replace('_', ' ')} {number}", fault))
                else:
                    getattr(held, signal.items).append(fresh)
    return message, tuple(lost)


def _no_export(signal: Signal, what: str) -> FormatError:
    return FormatError(
        f"no {signal.name} export: {what}", remedy=f"send {signal.request.DESCRIPTOR.name}, as protobuf or as OTLP/JSON"
    )


def _listed(holder: Any, snake: str) -> list[Any] | None:
    if not isinstance(holder, Mapping):
        return None
    held = holder.get(_CAMEL.sub(lambda m: m[1].upper(), snake), holder.get(snake))
    return held if isinstance(held, list) else ([] if not holder else None)


def _parse(written: Any, message: Any) -> str:
    """Fills a message from its JSON; says what was wrong with it."""
    if written is None:
        return ""
    if not isinstance(written, Mapping):
        return "no JSON object"
    try:
        ParseDict(_as_protobuf(written), message, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, RecursionError) as fault:
        return " ".join(str(fault).split())[:120]
    return ""


def _as_protobuf(written: Any) -> Any:
    """OTLP writes ids in hex where protobuf's own JSON has base64."""
    if isinstance(written, Mapping):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in _IDS and isinstance(value, str) and _HEX.match(value)
            else _as_protobuf(value)
            for key, value in written.items()
        }
    return [_as_protobuf(item) for item in written] if isinstance(written, list) else written
