"""Delimited text as it really arrives: gzipped, zipped, cut off, mis-encoded, with stray quotes. Good rows are kept.

The text is read in blocks that end at a row's end. A sound block goes through Arrow's strict parser, all columns as text, so
that every digit survives. A block the strict parser refuses is read again line by line, and only its bad rows are left out.
"""

from __future__ import annotations

import codecs
import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import csv as arrow_csv

from ingest.bills import dictionary
from ingest.bills.dictionary import BillBatch
from ingest.problem_counter import ProblemCounter
from ledger.errors import FormatError

_CHUNK = 4 << 20
_BLOCK = 32 << 20
_MAX_ROW_BYTES = 64 << 20
_MAX_RECORD_LINES = 50
_DELIMITERS = (",", ";", "\t", "|")
NULLS = ["", "NULL", "null", "Null"]
"""Texts that mean an empty value: publishers write SQL's NULL into CSV."""


@dataclass(frozen=True, slots=True)
class ColumnSelection:
    """Columns to read: those whose words repeat, and those that are each line's own (amounts and times)."""

    words: Sequence[str]
    apart: Sequence[str]


SelectColumns = Callable[[list[str]], ColumnSelection]
"""Given the header, the columns to read. Raises `FormatError` where the header is not the format's."""


def batches(path: Path, choose: SelectColumns, tally: ProblemCounter) -> Iterator[BillBatch]:
    """The rows of a CSV, CSV.gz or zipped CSV file: chosen columns as text, with `__row` (data row) and `__line`, both from 1.

    Raises `FormatError` where the file holds no header that `choose` accepts.
    """
    yield from _RowParser(choose, tally).read(_text_blocks(path, tally))


def _raw_chunks(path: Path, tally: ProblemCounter) -> Iterator[bytes]:
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            yield from _gunzip(file, tally)
        elif magic == b"PK\x03\x04":
            yield from _unzip(file, tally)
        else:
            while chunk := file.read(_CHUNK):
                yield chunk


def _gunzip(file: io.BufferedReader, tally: ProblemCounter) -> Iterator[bytes]:
    # The standard reader gives nothing of the last chunk of a file that was cut off; this one gives all there is.
    remedy = "fetch the file again; the rows before this point were read"
    unpack, fed = zlib.decompressobj(wbits=31), b""
    while True:
        chunk = fed or file.read(_CHUNK)
        if not chunk:
            if not unpack.eof:
                tally.add("end of file", "", "the compressed file is cut off", remedy)
            return
        try:
            text = unpack.decompress(chunk, _BLOCK)
        except zlib.error as fault:
            tally.add("end of file", "", f"the compressed file is damaged: {fault}", remedy)
            return
        if text:
            yield text
        fed = unpack.unconsumed_tail
        if unpack.eof:
            fed = unpack.unused_data or file.read(_CHUNK)
            if not fed.strip(b"\0"):
                return
            unpack = zlib.decompressobj(wbits=31)


def _unzip(file: io.BufferedReader, tally: ProblemCounter) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/")]
            tables = [n for n in names if n.lower().endswith(".csv")] or names
            if len(tables) != 1:
                raise FormatError(
                    f"the archive holds {len(tables)} tables, not one", where=tally.uri, remedy="unpack it, and name the files"
                )
            with archive.open(tables[0]) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as fault:
        raise FormatError(f"the archive cannot be unpacked: {fault}", where=tally.uri, remedy="fetch the file again") from fault


def _text_blocks(path: Path, tally: ProblemCounter) -> Iterator[bytes]:
    """UTF-8 without a byte order mark, from UTF-8 or UTF-16."""
    chunks = _raw_chunks(path, tally)
    first = next(chunks, b"")
    encoding = _utf16(first)
    if encoding is None:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    yield decoder.decode(first).removeprefix("\ufeff").encode()
    for chunk in chunks:
        yield decoder.decode(chunk).encode()


def _utf16(start: bytes) -> str | None:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16-le" if start.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
    head = start[:64]
    if len(head) >= 8 and head[0] != 0 and not any(head[1::2]):
        return "utf-16-le"
    return "utf-16-be" if len(head) >= 8 and head[1] != 0 and not any(head[::2]) else None


class _RowParser:
    """Cuts text into blocks of whole rows and parses them, counting rows and lines."""

    def __init__(self, choose: SelectColumns, tally: ProblemCounter) -> None:
        self.choose, self.tally = choose, tally
        self.names: list[str] = []
        self.wanted = ColumnSelection((), ())
        self.delimiter = ","
        self.row, self.line = 1, 1

    def read(self, chunks: Iterator[bytes]) -> Iterator[BillBatch]:
        held = b""
        for chunk in chunks:
            held += chunk
            if not self.names:
                held = self._header(held, last=False)
            if not self.names or len(held) < _BLOCK:
                continue
            end = _row_end(held)
            if not end and len(held) > _MAX_ROW_BYTES:
                end = held.rfind(b"\n") + 1 or len(held)
            if end:
                yield from self._parse(held[:end])
                held = held[end:]
        if not self.names:
            held = self._header(held, last=True)
        if held.strip():
            if not held.endswith(b"\n"):
                held += b"\n"
                self.tally.whole(
                    "",
                    "the file does not end with a line break; if it was cut off, its last value may be incomplete",
                    "fetch the file again",
                    1,
                )
            yield from self._parse(held)

    def _header(self, held: bytes, *, last: bool) -> bytes:
        text = held.lstrip(b"\r\n")
        self.line += held[: len(held) - len(text)].count(b"\n")
        end = text.find(b"\n") + 1 or (len(text) if last else 0)
        if not end:
            return held
        try:
            line = text[:end].decode().strip("\r\n")
        except UnicodeDecodeError as fault:
            raise FormatError(
                "the first line is no text in UTF-8 or UTF-16", where=self.tally.uri, remedy="save the file as UTF-8 CSV"
            ) from fault
        try:
            parsed = [next(csv.reader([line], delimiter=mark), []) for mark in _DELIMITERS]
        except csv.Error as fault:
            raise FormatError(
                f"the header cannot be parsed: {fault}", where=self.tally.uri, remedy="export it again as CSV"
            ) from fault
        names = max(parsed, key=len)
        if not line or "\0" in line:
            raise FormatError(
                "the file is empty" if not line else "the file is no text",
                where=self.tally.uri,
                remedy="export it again as CSV or Parquet",
            )
        self.delimiter = _DELIMITERS[parsed.index(names)]
        names = [name.strip() for name in names]
        self.wanted = self.choose(names)
        self.names = _unique_names(names)
        self.line += 1
        return text[end:]

    def _parse(self, block: bytes) -> Iterator[BillBatch]:
        count = block.count(b"\n")
        part = None if b"\0" in block else self._strict(block, count)
        if part is None:
            part = self._line_by_line(block)
        else:
            self.row += part.rows.height
        self.line += count
        if part.rows.height:
            yield part

    def _strict(self, block: bytes, count: int) -> BillBatch | None:
        try:
            table = arrow_csv.read_csv(
                pa.py_buffer(block),
                read_options=arrow_csv.ReadOptions(column_names=self.names, block_size=8 << 20),
                parse_options=arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=b'"' in block),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=[*self.wanted.words, *self.wanted.apart],
                    column_types={
                        **dict.fromkeys(self.wanted.words, pa.dictionary(pa.int32(), pa.string())),
                        **dict.fromkeys(self.wanted.apart, pa.large_string()),
                    },
                    null_values=NULLS,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:
            return None
        first = pl.int_range(pl.len(), dtype=pl.Int64)
        numbers = first + self.line if table.num_rows == count else pl.Series(_row_starts(block, self.line), dtype=pl.Int64)
        if isinstance(numbers, pl.Series) and len(numbers) != table.num_rows:
            return None
        apart = pl.DataFrame(table.select(self.wanted.apart)).with_columns(__row=first + self.row, __line=numbers)
        return dictionary.encode({name: table.column(name).combine_chunks() for name in self.wanted.words}, apart)

    def _line_by_line(self, block: bytes) -> BillBatch:
        names = [*self.wanted.words, *self.wanted.apart]
        keep = [self.names.index(name) for name in names]
        rows: list[list[str | int | None]] = []
        lines = block.split(b"\n")[:-1]
        at = 0
        while at < len(lines):
            taken, fields, fault = self._record(lines, at)
            if fields is None and fault is None:
                at += taken
                continue
            number = self.line + at
            if fields is None:
                self.tally.add(f"line {number}", "", fault or "", "mend this line; the other lines were read")
            else:
                rows.append([*(None if fields[i] in NULLS else fields[i] for i in keep), self.row, number])
            self.row += 1
            at += taken
        schema = {**dict.fromkeys(names, pl.String), "__row": pl.Int64, "__line": pl.Int64}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        said = {name: frame[name].to_arrow() for name in self.wanted.words}
        return dictionary.encode(said, frame.select(*self.wanted.apart, "__row", "__line"))

    def _record(self, lines: Sequence[bytes], at: int) -> tuple[int, list[str] | None, str | None]:
        """Lines taken, and the fields or the fault of the record that starts there; neither for an empty line."""
        fault, record = "", b""
        for taken in range(1, min(_MAX_RECORD_LINES, len(lines) - at) + 1):
            record = lines[at] if taken == 1 else record + b"\n" + lines[at + taken - 1]
            if b"\0" in record:
                return 1, None, fault or "the line holds NUL bytes"
            try:
                text = record.decode().rstrip("\r")
            except UnicodeDecodeError as wrong:
                return 1, None, fault or f"byte {wrong.start + 1} of the line is not UTF-8"
            if not text:
                return 1, None, None
            try:
                fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True))
            except (csv.Error, StopIteration) as wrong:
                fault = fault or f"the line cannot be parsed: {wrong}"
                if record.count(b'"') % 2 == 0:
                    break
                continue
            if len(fields) == len(self.names):
                return taken, fields, None
            fault = fault or f"the line has {len(fields)} fields, the header {len(self.names)}"
            break
        return 1, None, fault


def _row_end(text: bytes) -> int:
    """Where the last whole row ends: after a line break outside quotes. 0 if there is none."""
    end = text.rfind(b"\n") + 1
    odd = text.count(b'"', 0, end) % 2
    while end and odd:
        before = text.rfind(b"\n", 0, end - 1) + 1
        odd ^= text.count(b'"', before, end) % 2
        end = before
    return end


def _row_starts(block: bytes, first_line: int) -> list[int]:
    """Line numbers at which rows start, where rows hold line breaks or lines are empty."""
    starts, inside = [], False
    for offset, line in enumerate(block.split(b"\n")[:-1]):
        if not inside and line.strip(b"\r"):
            starts.append(first_line + offset)
        inside ^= line.count(b'"') % 2 == 1
    return starts


def _unique_names(names: list[str]) -> list[str]:
    """Header names told apart: a repeated one gets a number, so that the first keeps its name."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}\x00{seen[name]}")
    return distinct
