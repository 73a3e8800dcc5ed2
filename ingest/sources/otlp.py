"""OpenTelemetry traces: request bodies, and the files of a collector's file exporter.

    rootcost ingest otlp traces.jsonl            a file exporter's file: one OTLP/JSON request a line
    rootcost ingest otlp traces.binpb 's3://…'   its proto format (length-prefixed), or saved request bodies
    POST /v1/traces                              the same through `decode_request` and `read_export`

The format is recognised by the bytes: gzip or plain (zstd inside the file exporter's frames), JSON or protobuf.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import chain, islice
from typing import IO, Literal

import pyarrow as pa

from ingest import compression, policies
from ingest.compression import CutOffError, has_magic
from ingest.logs.files import whole_folder_batches
from ingest.otel import bulk, redact, signals
from ingest.otel.decode import (
    MAX_BODY_BYTES,
    Exported,
    decode_json,
    decode_request,
    from_document,
    from_protobuf,
    looks_like_json,
)
from ingest.otel.emitters import EmitterTable, table
from ingest.otel.events import Events, decode_events
from ingest.otel.metrics import read_metrics
from ingest.otel.salvage import LOGS
from ingest.otel.spans import SpanBatch
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.time_bounds import TimeBounds
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings

__all__ = [
    "SOURCE",
    "Otlp",
    "decode_events",
    "decode_request",
    "read_bodies",
    "read_export",
    "read_metrics",
    "redact_export",
    "rejected",
]

BATCH_SPANS = 20_000
"""Rows of one reading; it bounds the memory."""
_CHUNK = 1 << 20
_MAX_PRINTED_BYTES, _MAX_PRINTED_LINES = 64 << 20, 1_000_000
"""Largest document over many lines; larger ones are not produced by exporters."""
_SHOWN_LINES = 4
"""Lines by which JSON lines are told from protobuf."""
_ZSTD = b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_NO_EXPORT = "not a trace export"
_TOO_LARGE = f"larger than any export: {MAX_BODY_BYTES} bytes are read"


def read_export(export: Exported | bytes, *, raw_id: str, uri: str, settings: IngestSettings, source: str = "otlp") -> Reading:
    """The rows of one request, and the problems of its other spans.

    Pure: the same export gives the same rows. Raises `FormatError` when `export` is bytes that hold no export.
    """
    batch = _batch(settings, source=source, uri=uri, raw_id=raw_id)
    batch.add(decode_request(export) if isinstance(export, bytes) else export)
    return batch.reading()


def rejected(reading: Reading) -> int:
    """Number of spans, records or points left out, which OTLP's partial success reports."""
    return sum(problem.rows for problem in reading.problems if problem.severity == "error")


def redact_export(
    body: bytes, *, uri: str, settings: IngestSettings, source: str = "otlp", bounds: TimeBounds | None = None
) -> redact.RedactedExport:
    """The redacted export that a receiver stores before it acknowledges the request; `read_bodies` makes rows of it later."""
    return redact.redact_export(body, _table(settings), source=source, uri=uri, bounds=bounds)


def read_bodies(bodies: Iterable[bytes], *, uri: str, settings: IngestSettings, source: str = "otlp") -> Reading:
    """The rows of stored exports, many deliveries at once; the raw id of each is the hash of its bytes."""
    exports = list(bodies)
    raw_ids = [received_id(export) for export in exports]
    reading = bulk.read_exports(exports, raw_ids, _table(settings), source=source, uri=uri)
    if reading is not None:
        return reading
    batch = _batch(settings, source=source, uri=uri, raw_id="")
    for export, raw_id in zip(exports, raw_ids, strict=True):
        batch.add(from_protobuf(export), raw_id=raw_id)
    return batch.reading()


def received_id(body: bytes) -> str:
    """The raw id of a delivery; the same bytes always have the same id."""
    return f"received:{hashlib.sha256(body).hexdigest()}"


class Otlp:
    """Trace exports on disk or on S3."""

    name = "otlp"
    kind: Literal["bill", "log"] = "log"
    title = "OpenTelemetry traces and usage events: OTLP as JSON or protobuf"
    patterns: tuple[str, ...] = (
        "*.json",
        "*.jsonl",
        "*.ndjson",
        "*.otlp",
        "*.bin",
        "*.pb",
        "*.binpb",
        "*.proto",
        "*.gz",
        "*.zst",
        "*.xz",
    )
    access = Access(
        needs=policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=2),
        cron="*/15 * * * *",
        addresses=("traces/", "s3://collector/traces/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every matching file is a batch of its own, so that an unreadable one blocks no other."""
        description = "a trace export"
        yield from whole_folder_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=description)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The spans of one file, some thousands at a time."""
        batch = _batch(settings, source=self.name, uri=item.uri, raw_id=item.raw_id)
        export_count = 0
        failure_count = 0
        for place, export in _exports(item):
            if not isinstance(export, str):
                batch.add(export, place=place)
                export_count += 1
            else:
                failure_count += 1
                batch.add_problem(place or "file", "request", export, "export it again; the rest of the file was read")
            if batch.height >= BATCH_SPANS:
                yield batch.reading()
                batch = _batch(settings, source=self.name, uri=item.uri, raw_id=item.raw_id)
        if failure_count and not export_count:
            raise FormatError(_NO_EXPORT, where=item.uri, remedy="OTLP as JSON (one request a line) or protobuf is read")
        yield batch.reading()


SOURCE = Otlp()


def _table(settings: IngestSettings) -> EmitterTable:
    return table(tuple(settings.agent_tags), tuple(settings.team_tags), settings.keep_content)


def _batch(settings: IngestSettings, *, source: str, uri: str, raw_id: str) -> SpanBatch:
    return SpanBatch(_table(settings), source=source, uri=uri, raw_id=raw_id)


def _any_json(body: bytes) -> Exported:
    """The spans in a line of a collector's file, or the usage events."""
    document = decode_json(body)
    keys = document.keys() if isinstance(document, dict) else frozenset()
    if {"resourceLogs", "resource_logs"} & keys and not {"resourceSpans", "resource_spans"} & keys:
        return Events(*signals.from_document(document, LOGS))
    return from_document(document)


def _exports(item: RawObject) -> Iterator[tuple[str, Exported | str]]:
    """The exports of a file with their places; text instead of an export is the reason why it is unreadable."""
    with item.path.open("rb") as file:
        parts = _DecompressedFile(file)
        start = parts.peek(64)
        if looks_like_json(start) or _has_json_line(parts.peek(_CHUNK)):
            yield from _json_exports(parts)
        elif start[:1] == b"\0":
            yield from _framed_exports(parts)
        elif body := parts.read_all():
            yield "", _decode_or_reason(from_protobuf, body)
        if parts.error:
            yield "end", parts.error


def _has_json_line(head: bytes) -> bool:
    """Whether a whole line behind the first is an export in JSON: then the file is JSON lines, and its first line is damaged."""
    lines = [line for line in head.split(b"\n")[1:] if line.strip() not in (b"", b"null")]
    return any(line.lstrip()[:1] == b"{" and not isinstance(_line_export(line), str) for line in lines[:_SHOWN_LINES])


def _decode_or_reason(decode: Callable[[bytes], Exported], body: bytes) -> Exported | str:
    try:
        return decode(body)
    except FormatError as error:
        return error.what


def _json_exports(parts: _DecompressedFile) -> Iterator[tuple[str, Exported | str]]:
    """Exports of JSON lines or, where the first line alone is not JSON, of one document over many lines."""
    lines = parts.lines()
    start, first = next(((n, line) for n, line in enumerate(lines, 1) if line is None or line.strip()), (1, b""))
    opening = _line_export(None if first is None else first.removeprefix(_BOM))
    following: Iterable[bytes | None] = lines
    if isinstance(opening, str) and first is not None:
        buffer, size = list[bytes | None](), 0
        for line in islice(lines, _MAX_PRINTED_LINES):
            buffer.append(line)
            size += len(line or b"")
            if line is None or size > _MAX_PRINTED_BYTES:
                break
        whole = _decode_or_reason(_any_json, b"\n".join((first.removeprefix(_BOM), *filter(None, buffer))))
        if not isinstance(whole, str):
            yield "", whole
            return
        following = chain(buffer, lines)
    yield f"line {start}", opening
    for number, line in enumerate(following, start + 1):
        if line is None or line.strip() not in (b"", b"null"):
            yield f"line {number}", _line_export(line)


def _line_export(line: bytes | None) -> Exported | str:
    return _TOO_LARGE if line is None else _decode_or_reason(_any_json, line)


def _framed_exports(parts: _DecompressedFile) -> Iterator[tuple[str, Exported | str]]:
    """Messages, each after its length as four bytes: the file exporter's proto format, or its compressed JSON."""
    number = 0
    while header := parts.take(4):
        number += 1
        place = f"message {number}"
        size = int.from_bytes(header, "big")
        if len(header) < 4 or not 0 < size <= MAX_BODY_BYTES:
            yield place, "no length of a message"
            return
        body = parts.take(size)
        if body[:4] == _ZSTD:
            try:
                body = pa.input_stream(pa.BufferReader(body), compression="zstd").read(MAX_BODY_BYTES + 1)
            except OSError:
                yield place, "damaged zstd compression"
                continue
            if len(body) > MAX_BODY_BYTES:
                yield place, _TOO_LARGE
                continue
        yield place, _decode_or_reason(_any_json if looks_like_json(body) else from_protobuf, body)


class _DecompressedFile:
    """A plain or gzip file, decompressed up to where it is damaged; then `error` says why."""

    def __init__(self, file: IO[bytes]) -> None:
        self._parts = _decompressed_chunks(file, self)
        self._buffer = b""
        self._position = 0
        self.error = ""

    def peek(self, size: int) -> bytes:
        """The next bytes, without consuming them."""
        self._fill(size)
        return self._buffer[self._position : self._position + size]

    def take(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        chunk = self.peek(size)
        self._position += len(chunk)
        return chunk

    def read_all(self) -> bytes:
        """All remaining bytes; empty, with `error`, if they exceed `MAX_BODY_BYTES`."""
        self._fill(MAX_BODY_BYTES + 1)
        if len(self._buffer) > MAX_BODY_BYTES:
            self.error = _TOO_LARGE
            return b""
        return self._buffer

    def lines(self) -> Iterator[bytes | None]:
        """All lines; None for one that exceeds `MAX_BODY_BYTES`."""
        start, self._buffer = self._buffer[self._position :], b""
        pending, size, is_too_long = list[bytes](), 0, False
        for part in chain([start], self._parts):
            head, *tails = part.split(b"\n")
            pending.append(head)
            size += len(head)
            if size > MAX_BODY_BYTES:
                pending, is_too_long = [], True
            for line in tails:
                yield None if is_too_long else b"".join(pending)
                pending, size, is_too_long = [line], len(line), False
        yield None if is_too_long else b"".join(pending)

    def _fill(self, size: int) -> None:
        available_bytes = len(self._buffer) - self._position
        if available_bytes >= size:
            return
        parts = [self._buffer[self._position :]]
        self._position = 0
        while available_bytes < size:
            part = next(self._parts, b"")
            if not part:
                break
            parts.append(part)
            available_bytes += len(part)
        self._buffer = b"".join(parts)


def _decompressed_chunks(file: IO[bytes], reader: _DecompressedFile) -> Iterator[bytes]:
    if has_magic(file.peek(8) if isinstance(file, io.BufferedReader) else b""):
        try:
            yield from (chunk for chunk in compression.chunks(file) if chunk)
        except CutOffError as error:
            reader.error = str(error) or "damaged compression, or compressed bytes end too early"
        return
    while chunk := file.read(_CHUNK):
        yield chunk
