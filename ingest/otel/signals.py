"""Decodes log and metric exports into protobuf messages, from protobuf or OTLP/JSON.

Traces have a faster decoder (`ingest.otel.decode`); logs and metrics with usage are few.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ingest.otel.decode import DecodeFailure, decompress, is_json
from ingest.otel.salvage import Signal, salvage
from ledger.errors import FormatError

_HEX = re.compile(r"(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{32})\Z")
_IDS = {"traceId", "spanId", "trace_id", "span_id"}
_CAMEL = re.compile(r"_(\w)")


def decode(
    body: bytes, signal: Signal, content_type: str = "", content_encoding: str = ""
) -> tuple[Any, tuple[DecodeFailure, ...]]:
    """The export in a request's body, and its undecodable parts. Raises `FormatError` where nothing is decodable."""
    body = decompress(body, content_encoding)
    if not is_json(body, content_type):
        return _protobuf(body, signal)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _format_error(signal, "not JSON") from None
    return from_document(document, signal)


def _protobuf(body: bytes, signal: Signal) -> tuple[Any, tuple[DecodeFailure, ...]]:
    message: Any = signal.request()
    try:
        message.ParseFromString(body)
    except DecodeError:
        message, failures = salvage(body, signal)
        if not getattr(message, signal.resources):
            raise _format_error(signal, "not in protobuf") from None
        return message, tuple(DecodeFailure(place, reason) for place, reason in failures)
    if body and not getattr(message, signal.resources):
        raise _format_error(signal, "protobuf, but of something else")
    return message, ()


def from_document(document: Any, signal: Signal) -> tuple[Any, tuple[DecodeFailure, ...]]:
    """The export in decoded JSON."""
    message: Any = signal.request()
    failures: list[DecodeFailure] = []
    resources = _list_of(document, signal.resources)
    if resources is None:
        raise _format_error(signal, "JSON, but of something else")
    for resource in resources:
        resource_message = getattr(message, signal.resources).add()
        _parse(resource.get("resource") if isinstance(resource, Mapping) else None, resource_message.resource)
        for scope in _list_of(resource, signal.scopes) or ():
            scope_message = getattr(resource_message, signal.scopes).add()
            _parse(scope.get("scope") if isinstance(scope, Mapping) else None, scope_message.scope)
            for number, item in enumerate(_list_of(scope, signal.items) or (), 1):
                fresh = signal.item()
                if reason := _parse(item, fresh):
                    failures.append(DecodeFailure(f"{signal.items[:-1].replace('_', ' ')} {number}", reason))
                else:
                    getattr(scope_message, signal.items).append(fresh)
    return message, tuple(failures)


def _format_error(signal: Signal, reason: str) -> FormatError:
    return FormatError(
        f"no {signal.name} export: {reason}", remedy=f"send {signal.request.DESCRIPTOR.name}, as protobuf or as OTLP/JSON"
    )


def _list_of(holder: Any, snake: str) -> list[Any] | None:
    if not isinstance(holder, Mapping):
        return None
    items = holder.get(_CAMEL.sub(lambda m: m[1].upper(), snake), holder.get(snake))
    return items if isinstance(items, list) else ([] if not holder else None)


def _parse(document: Any, message: Any) -> str:
    """Fills a message from its JSON; returns the error, or empty text."""
    if document is None:
        return ""
    if not isinstance(document, Mapping):
        return "no JSON object"
    try:
        ParseDict(_as_protobuf(document), message, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        return " ".join(str(error).split())[:120]
    return ""


def _as_protobuf(document: Any) -> Any:
    """The document with ids in base64: OTLP/JSON has hex where protobuf's JSON mapping has base64."""
    if isinstance(document, Mapping):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in _IDS and isinstance(value, str) and _HEX.match(value)
            else _as_protobuf(value)
            for key, value in document.items()
        }
    return [_as_protobuf(item) for item in document] if isinstance(document, list) else document
