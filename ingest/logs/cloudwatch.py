"""Records of CloudWatch logs, unwrapped from whichever envelope the delivery, export or command put them in.

* objects that log delivery writes to S3: one record a line;
* objects of an export task: ``2026-10-05T09:00:00.000Z {record}``;
* subscriptions through Firehose: ``{"messageType": "DATA_MESSAGE", "logEvents": [{"message": "{record}"}]}``, one after another;
* what the command line saves: ``aws logs filter-log-events`` (``events``), Logs Insights (``results``), ``@message``.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.logs import files
from ingest.logs.json_fields import parse_json
from ingest.logs.json_items import MAX_LINE_BYTES, Damage, Item, ItemStream
from ingest.source import RawObject

_CHUNK = 1 << 20
_REMEDY = "export the log again; the records that are whole were read"


def records(item: RawObject, *, description: str) -> ItemStream:
    """The records of a file. Messages that are not JSON are skipped. Raises `FormatError` where the file has none of these forms."""
    with item.path.open("rb") as file:
        is_export_task = _starts_with_a_time(file)
    entries = _export_task_lines(item) if is_export_task else files.items(item, description=description, remedy=_REMEDY)
    for entry in entries:
        if isinstance(entry, Damage):
            yield entry
            continue
        messages = _messages(entry.value)
        if messages is None:
            yield entry
            continue
        for number, message in enumerate(messages, 1):
            record = _record(message)
            if record is not None:
                yield Item(f"{entry.place}, event {number}", record)


def _starts_with_a_time(file: io.BufferedReader) -> bool:
    head = file.read(_CHUNK)
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 64)
        except zlib.error:
            return False
    return head[:2] == b"20" and head[4:5] == b"-" and head[10:11] == b"T"


def _export_task_lines(item: RawObject) -> ItemStream:
    """Lines of an export task: a time, a space, the message. A message of several lines is not a record."""
    with item.path.open("rb") as file:
        lines = _Lines(file)
        for number, line in enumerate(lines, 1):
            _, _, message = line.partition(b" ")
            if not message.lstrip().startswith(b"{"):
                if line and lines.has_ended:
                    yield Damage(f"line {number}", "line", "the file ends within this line", _REMEDY)
                continue
            try:
                yield Item(f"line {number}", parse_json(message))
            except (ValueError, RecursionError):
                yield Damage(f"line {number}", "line", "no complete JSON", _REMEDY)
        if lines.error:
            yield Damage("end of file", "file", lines.error, _REMEDY)


class _Lines:
    """Lines of a plain or gzip file up to where it is damaged; then `error` says why. `has_ended`: the last line has no newline."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.error, self.has_ended = "", False

    def __iter__(self) -> Iterator[bytes]:
        tail = b""
        for part in self._parts():
            *lines, tail = (tail + part).split(b"\n")
            yield from lines
            if len(tail) > MAX_LINE_BYTES:
                self.error = "a line is longer than any record"
                return
        self.has_ended = True
        yield tail

    def _parts(self) -> Iterator[bytes]:
        part = self._file.read(_CHUNK)
        if part[:2] != b"\x1f\x8b":
            while part:
                yield part
                part = self._file.read(_CHUNK)
            return
        decompressor, in_stream = zlib.decompressobj(wbits=31), False
        try:
            while part:
                while part:
                    in_stream = True
                    yield decompressor.decompress(part, _CHUNK)
                    part = decompressor.unconsumed_tail
                    if decompressor.eof:
                        part = decompressor.unused_data.lstrip(b"\0")
                        decompressor, in_stream = zlib.decompressobj(wbits=31), False
                part = self._file.read(_CHUNK)
        except zlib.error:
            in_stream = True
        if in_stream:
            self.error = "the gzip stream is cut off or damaged here"


def _messages(value: object) -> list[Any] | None:
    """The messages of an envelope; None where the record has no envelope."""
    if isinstance(value, list):  # a row of Logs Insights, or several rows
        cells = [cell for row in value for cell in (row if isinstance(row, list) else [row])]
        return [cell.get("value") for cell in cells if isinstance(cell, Mapping) and cell.get("field") == "@message"]
    if not isinstance(value, Mapping):
        return None
    for name in ("logEvents", "events"):
        if isinstance(value.get(name), list) and "spanId" not in value:
            return [event.get("message") for event in value[name] if isinstance(event, Mapping)]
    if isinstance(value.get("results"), list):
        return _messages(value["results"])
    for name in ("@message", "message"):
        if isinstance(value.get(name), (str, Mapping)) and "spanId" not in value and "requestId" not in value:
            return [value[name]]
    return [] if value.get("messageType") == "CONTROL_MESSAGE" else None


def _record(message: object) -> Mapping[str, Any] | None:
    if isinstance(message, str) and message.lstrip().startswith("{"):
        try:
            message = parse_json(message)
        except (ValueError, RecursionError):
            return None
    return message if isinstance(message, Mapping) else None
