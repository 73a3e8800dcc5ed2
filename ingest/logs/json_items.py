"""The items of a LiteLLM log in any container: one JSON object, an array, JSON lines, gzip, CSV or Parquet.

The container is recognised by content, not by file name. A truncated or damaged file yields its complete items and a `Damage`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ingest import compression
from ingest.compression import CutOffError, has_magic
from ingest.logs.json_fields import parse_json
from ingest.logs.json_lines import SHOWN_LINES, are_lines, filled_lines, next_whole_line, skip_space
from ledger.errors import FormatError
from ledger.headers import MAX_FIELD_BYTES, require_unique
from ledger.plurals import counted

MAX_LINE_BYTES = MAX_FIELD_BYTES
"""Bytes of the longest line, and so of the largest single item."""
MAX_DOCUMENT_BYTES = 1 << 30
"""Bytes of the largest JSON array after decompression: unlike lines it is parsed in memory as a whole."""
_CHUNK = 1 << 20
_BLOCK_BYTES = 16 << 20
_TABLE_COLUMNS = frozenset({"request_id", "startTime"})


class Item(NamedTuple):
    """One item and its place in the file (``line 3``, ``item 3``, ``row 3``)."""

    place: str
    value: object


class Damage(NamedTuple):
    """A part of a file that could not be read, with the reason and a remedy."""

    place: str
    field: str
    reason: str
    remedy: str


ItemStream = Iterator[Item | Damage]


class LineBlock(NamedTuple):
    """Lines of a file of JSON lines, not parsed yet, with their numbers; None is a line that is too long.

    `remedy` is that of its `Damage`; empty: the one for LiteLLM's payloads.
    """

    numbers: Sequence[int]
    lines: Sequence[bytes | None]
    remedy: str = ""

    def items(self) -> ItemStream:
        """The items of the lines."""
        for entry in _of_lines(self):
            yield entry._replace(remedy=self.remedy) if self.remedy and isinstance(entry, Damage) else entry

    def select(self, positions: Sequence[int]) -> LineBlock:
        """The lines at these positions of the block."""
        return LineBlock([self.numbers[i] for i in positions], [self.lines[i] for i in positions], self.remedy)


PartStream = Iterator[Item | Damage | LineBlock]


def of_file(path: Path, uri: str) -> ItemStream:
    """The items of a file. Raises `FormatError` if nothing in it is a log."""
    yield from items_of(parts_of_file(path, uri))


def parts_of_file(path: Path, uri: str) -> PartStream:
    """The same, with the lines of JSON lines in blocks of some megabytes, for readers that parse many at a time."""
    with path.open("rb") as file:
        if (magic := file.read(6))[:4] == b"PAR1":
            yield from _of_parquet(path, uri)
            return
        file.seek(0)
        chunks = (c for c in compression.chunks(file) if c) if has_magic(magic) else iter(lambda: file.read(_CHUNK), b"")
        yield from _of_chunks(chunks, uri)


def parts_of_body(body: bytes, uri: str) -> PartStream:
    """The items of a request body that LiteLLM's generic callback posts, in any of its three formats."""
    yield from _of_chunks(iter([body]), uri)


def items_of(parts: PartStream) -> ItemStream:
    """The items of all parts."""
    for part in parts:
        yield from part.items() if isinstance(part, LineBlock) else [part]


class _Lines:
    """Lines of a chunked stream, at most `MAX_LINE_BYTES` long; `is_cut_off` says whether it ended early."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self.is_cut_off = False

    def next_chunk(self) -> bytes:
        try:
            return next(self._chunks, b"")
        except CutOffError:
            self.is_cut_off = True
            return b""

    def first_lines(self, count: int) -> list[bytes]:
        """The first lines that are not empty, without consuming them; fewer where they are very long, or the file ends."""
        parts, size = [self._buffer], len(self._buffer)
        ended_count = sum(1 for _ in islice(filled_lines(self._buffer), count))
        while ended_count < count and size <= MAX_LINE_BYTES and (chunk := self.next_chunk()):
            ended_count += sum(1 for _ in islice(filled_lines(chunk), count))
            parts.append(chunk)
            size += len(chunk)
        self._buffer = b"".join(parts)
        return list(islice(filled_lines(self._buffer, with_tail=True), count))

    def __iter__(self) -> Iterator[bytes | None]:
        """Each line without its newline; None for one that is too long."""
        pending, size, skipping = list[bytes](), 0, False
        chunk = self._buffer or self.next_chunk()
        while chunk:
            *lines, tail = chunk.split(b"\n")
            if lines:
                lines[0] = b"".join((*pending, lines[0]))
                for line in lines:
                    yield None if skipping or len(line) > MAX_LINE_BYTES else line
                    skipping = False
                pending, size = [], 0
            pending.append(tail)
            size += len(tail)
            if size > MAX_LINE_BYTES:
                pending, size, skipping = [], 0, True
            chunk = self.next_chunk()
        if size or skipping:
            yield None if skipping else b"".join(pending)

    def blocks(self) -> Iterator[LineBlock]:
        """The lines in blocks of about `_BLOCK_BYTES`."""
        last, size, block = 0, 0, list[bytes | None]()
        for last, line in enumerate(self, 1):
            block.append(line)
            size += len(line or b"")
            if size >= _BLOCK_BYTES:
                yield LineBlock(range(last + 1 - len(block), last + 1), block)
                size, block = 0, []
        yield LineBlock(range(last + 1 - len(block), last + 1), block)

    def whole(self) -> bytes | None:
        """The whole content; None if it exceeds `MAX_DOCUMENT_BYTES`."""
        parts, size = [self._buffer], len(self._buffer)
        while size <= MAX_DOCUMENT_BYTES and (chunk := self.next_chunk()):
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts) if size <= MAX_DOCUMENT_BYTES else None


def _of_chunks(chunks: Iterator[bytes], uri: str) -> PartStream:
    lines = _Lines(chunks)
    first, *following = lines.first_lines(SHOWN_LINES) or [b""]
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield from _of_utf16(lines, uri)
    elif not first.strip():
        if lines.is_cut_off:
            raise FormatError(
                "the compressed file holds nothing readable", where=uri, remedy="fetch the file again; it may be cut off"
            )
    elif are_lines(first, following):
        yield from lines.blocks()
    elif first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{"):
        yield from _of_document(lines, uri)
    else:
        yield from _of_csv(lines, first, uri)
    if lines.is_cut_off:
        yield Damage(
            "end of file",
            "file",
            "the compressed stream is cut off or damaged here",
            "fetch the file again; what came before was read",
        )


def _of_utf16(lines: _Lines, uri: str) -> PartStream:
    document = lines.whole()
    try:
        utf8 = (document or b"").decode("utf-16").encode()
    except UnicodeDecodeError as error:
        raise FormatError("neither UTF-8 nor UTF-16 text", where=uri, remedy="write the log as UTF-8") from error
    yield from _of_chunks(iter([utf8]), uri)


def _of_lines(block: LineBlock) -> ItemStream:
    for number, line in zip(block.numbers, block.lines, strict=True):
        place = f"line {number}"
        if line is None:
            yield Damage(
                place, "line", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB", "one call per line; leave prompts out"
            )
            continue
        text = line.strip()
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if not text or text == b"null":
            continue
        try:
            yield Item(place, parse_json(text))
        except RecursionError:
            yield Damage(place, "line", "nested beyond reason", "send the payload as LiteLLM writes it")
        except UnicodeDecodeError:
            yield Damage(place, "line", "the line is not UTF-8 text", "write the log as UTF-8")
        except ValueError as error:
            yield Damage(place, "line", f"no complete JSON: {_json_error(error)}", "the line may be cut off; send it again whole")


def _json_error(error: ValueError) -> str:
    return (
        f"{error.msg} at character {error.pos + 1}"
        if isinstance(error, json.JSONDecodeError)
        else "a value that JSON cannot have"
    )


def _of_document(lines: _Lines, uri: str) -> ItemStream:
    document = lines.whole()
    if document is None:
        raise FormatError(
            f"one JSON document of more than {MAX_DOCUMENT_BYTES >> 30} GiB", where=uri, remedy="write JSON lines instead"
        )
    # Bytes that are not UTF-8 become surrogates: they invalidate only the items that contain them.
    text = document.decode("utf-8-sig", "surrogateescape")
    yield from _document(text, uri)


_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(parse_float=Decimal, parse_constant=str).raw_decode


def _end_of_value(text: str, at: int) -> int | None:
    """End of a damaged object or array, found by counting brackets; None if it is not closed."""
    depth = 0
    for bracket in _BRACKET.finditer(text, at):
        character = bracket[0]
        if character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth == 0:
                return bracket.end()
    return None


def _document(text: str, uri: str) -> ItemStream:
    """Arrays of items, or concatenated items; also several arrays, as in a file to which bodies were appended."""
    at, number, in_array = skip_space(text, 0), 0, False
    damaged_text = _NOT_UTF8.search(text) is not None
    while at < len(text):
        character = text[at]
        if character == ("]" if in_array else "["):
            in_array, at = not in_array, skip_space(text, at + 1)
            continue
        if in_array and character == ",":
            at = skip_space(text, at + 1)
            continue
        number += 1
        place, start = f"item {number}", at
        try:
            value, at = _decode(text, start)
        except (ValueError, RecursionError) as error:
            end = _end_of_value(text, start) if character in "{[" else None
            next_line = next_whole_line(text, start) if end is None and not in_array else None
            if next_line is not None:
                at = next_line
                yield Damage(place, "item", "no complete JSON", "the line may be cut off; send it again whole")
                continue
            if end is None:
                if number == 1 and not in_array:
                    raise FormatError(
                        "no complete JSON object", where=uri, remedy="the file may be cut off; fetch it again"
                    ) from error
                # Not quoted: behind a damaged string this may be the middle of a prompt.
                reason = "the data is cut off here" if character in "{[" else "no JSON value"
                yield Damage(place, "body", reason, "send it again whole; the items before it were read")
                return
            at = end
            reason = f"no valid JSON: {_json_error(error)}" if isinstance(error, ValueError) else "nested beyond reason"
            yield Damage(place, "item", reason, "send the payload as LiteLLM writes it")
        else:
            if damaged_text and _NOT_UTF8.search(text, start, at):
                yield Damage(place, "item", "holds text that is not UTF-8", "write the log as UTF-8")
            elif value is not None:
                yield Item(place, value)
        at = skip_space(text, at)
    if in_array:
        yield Damage(
            f"item {number + 1}", "body", "the data is cut off here", "send it again whole; the items before it were read"
        )


def _of_csv(lines: _Lines, first: bytes, uri: str) -> ItemStream:
    try:
        header = next(csv.reader([first.decode("utf-8-sig", "replace")]), [])
    except csv.Error:
        header = []
    if not _TABLE_COLUMNS.issubset(header):
        raise FormatError(
            "neither JSON nor an export of LiteLLM_SpendLogs",
            where=uri,
            remedy="send LiteLLM payloads as JSON or JSON lines, or LiteLLM_SpendLogs with its header row",
        )
    require_unique(header, uri)
    rows = csv.reader(_decoded(lines), strict=True)
    next(rows)
    number = 0
    remedy = "export the table again; it may be cut off"
    while True:
        number += 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Damage(f"row {number}", "row", f"no valid CSV: {str(error)[:100]}", remedy)
            continue
        if not cells:
            number -= 1
        elif len(cells) != len(header):
            yield Damage(f"row {number}", "row", f"{counted(len(cells), 'cell')} under {len(header)} column names", remedy)
        elif any(_NOT_UTF8.search(cell) for cell in cells):
            yield Damage(f"row {number}", "row", "holds text that is not UTF-8", "export the table as UTF-8")
        else:
            yield Item(f"row {number}", dict(zip(header, cells, strict=True)))


def _decoded(lines: _Lines) -> Iterator[str]:
    for number, line in enumerate(lines):
        text = (line or b"").decode("utf-8", "surrogateescape")
        yield (text.removeprefix("\ufeff") if number == 0 else text) + "\n"


def _of_parquet(path: Path, uri: str) -> ItemStream:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            require_unique(file.schema_arrow.names, uri)
            if not _TABLE_COLUMNS.issubset(file.schema_arrow.names):
                raise FormatError(
                    "not an export of LiteLLM_SpendLogs", where=uri, remedy="columns request_id and startTime are needed"
                )
            column_names = [n for n in file.schema_arrow.names if n not in ("messages", "response", "proxy_server_request")]
            for batch in file.iter_batches(8192, columns=column_names):
                for row in batch.to_pylist():
                    number += 1
                    yield Item(f"row {number}", row)
    except (pa.ArrowException, OSError) as error:
        if number:
            yield Damage(
                f"row {number + 1}",
                "file",
                f"the Parquet file is damaged here: {str(error).splitlines()[0][:100]}",
                "export it again",
            )
            return
        raise FormatError("no readable Parquet file", where=uri, remedy="fetch the file again; it may be cut off") from error
