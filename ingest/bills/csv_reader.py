"""Reader for CSV: also compressed (gzip, zstandard, xz), zipped, truncated, mis-encoded, with stray quotes. Valid rows are kept.

The text is read in blocks that end at a row's end. A valid block goes through Arrow's strict parser, all columns as text, so
that every digit survives. A block that the strict parser rejects is read again line by line, and only its invalid rows are left out.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import csv as arrow_csv

from ingest import compression
from ingest.bills import dictionary
from ingest.bills.dictionary import BillBatch
from ingest.compression import CutOffError, has_magic
from ingest.problem_counter import ProblemCounter
from ledger.errors import FormatError
from ledger.headers import require_unique
from ledger.inflate import ENDS_EARLY
from ledger.plurals import counted

_CHUNK = 4 << 20
_BLOCK = 32 << 20
_MAX_ROW_BYTES = 64 << 20
_MAX_RECORD_LINES = 50
MAX_ARCHIVE_ENTRIES = 1000
"""Entries of a zip archive: a bill's holds one table, and what a desktop adds to it."""
_ARCHIVE_END_BYTES = 22 + (1 << 16)
_SEPARATOR_LINE = re.compile(rb"""\A"?sep=[^\r\n]?"?\r?\n""", re.IGNORECASE)
"""The first line by which a spreadsheet is given the separator; the header shows it anyway."""
_DELIMITERS = (",", ";", "\t", "|")
NULLS = ["", "NULL", "null", "Null"]
"""Texts that mean an empty value: publishers write SQL's NULL into CSV."""


@dataclass(frozen=True, slots=True)
class ColumnSelection:
    """Columns to read: dimensions, whose values repeat, and measures (amounts and times)."""

    dimensions: Sequence[str]
    measures: Sequence[str]


SelectColumns = Callable[[list[str]], ColumnSelection]
"""Given the header, the columns to read. Raises `FormatError` where the header is not the format's."""


def batches(path: Path, select: SelectColumns, counter: ProblemCounter) -> Iterator[BillBatch]:
    """The rows of a CSV, CSV.gz or zipped CSV file: chosen columns as text, with `__row` (data row) and `__line`, both from 1.

    Raises `FormatError` where the file holds no header that `select` accepts.
    """
    yield from _RowParser(select, counter).read(_text_blocks(path, counter))


def _raw_chunks(path: Path, counter: ProblemCounter) -> Iterator[bytes]:
    with path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if has_magic(magic):
            yield from _decompressed(file, counter)
        elif magic[:4] == b"PK\x03\x04":
            yield from _unzip(file, counter)
        else:
            while chunk := file.read(_CHUNK):
                yield chunk


def _decompressed(file: io.BufferedReader, counter: ProblemCounter) -> Iterator[bytes]:
    try:
        yield from (chunk for chunk in compression.chunks(file) if chunk)
    except CutOffError as error:
        remedy = "fetch the file again; the rows before this point were read"
        damage = str(error)
        counter.broken_off = (
            "the compressed file is cut off"
            if damage == ENDS_EARLY
            else f"the compressed file is damaged: {damage.removeprefix('damaged compression: ')}"
            if damage
            else "the compressed file is cut off or damaged"
        )
        counter.add("end of file", "", counter.broken_off, remedy)


def _unzip(file: io.BufferedReader, counter: ProblemCounter) -> Iterator[bytes]:
    if _entry_count(file) > MAX_ARCHIVE_ENTRIES:
        raise FormatError(
            f"the archive holds more than {MAX_ARCHIVE_ENTRIES} entries",
            where=counter.uri,
            remedy="unpack it, and name the files",
        )
    try:
        with zipfile.ZipFile(file) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/") and not _is_side_entry(n)]
            tables = [n for n in names if n.lower().endswith(".csv")] or names
            if len(tables) != 1:
                raise FormatError(
                    f"the archive holds {counted(len(tables), 'table')}, not one",
                    where=counter.uri,
                    remedy="unpack it, and name the files",
                )
            with archive.open(tables[0]) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"the archive cannot be unpacked: {error}", where=counter.uri, remedy="fetch the file again") from error


def _entry_count(file: io.BufferedReader) -> int:
    """How many entries an archive says it has, read from its end: the library would hold all their names in memory."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _ARCHIVE_END_BYTES))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[at + 10 : at + 12], "little") if at >= 0 else 0


def _is_side_entry(name: str) -> bool:
    """Whether an archive's entry is what a desktop adds to its files.

    >>> [_is_side_entry(name) for name in ("__MACOSX/._bill.csv", "bills/.DS_Store", "bills/bill.csv")]
    [True, True, False]
    """
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith((".", "Thumbs.db"))


def _text_blocks(path: Path, counter: ProblemCounter) -> Iterator[bytes]:
    """UTF-8 without a byte order mark, from UTF-8 or UTF-16."""
    chunks = _raw_chunks(path, counter)
    first = next(chunks, b"")
    encoding = _utf16(first)
    if encoding is None:
        yield re.sub(rb"\A(?:\xef\xbb\xbf)+", b"", first)
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    yield decoder.decode(first).lstrip("\ufeff").encode()
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

    def __init__(self, select: SelectColumns, counter: ProblemCounter) -> None:
        self.choose, self.tally = select, counter
        self.names: list[str] = []
        self.selection = ColumnSelection((), ())
        self.delimiter = ","
        self.row, self.line = 1, 1
        self.last_error = ""
        """What is wrong with the last line parsed so far; empty where it is a row."""

    def read(self, chunks: Iterator[bytes]) -> Iterator[BillBatch]:
        pending = b""
        for chunk in chunks:
            pending += chunk
            if not self.names:
                pending = self._header(pending, last=False)
            if not self.names or len(pending) < _BLOCK:
                continue
            end = _row_end(pending)
            if not end and len(pending) > _MAX_ROW_BYTES:
                end = pending.rfind(b"\n") + 1 or len(pending)
            if end:
                yield from self._parse(pending[:end])
                pending = pending[end:]
        if not self.names:
            pending = self._header(pending, last=True)
        if pending.strip():
            if not pending.endswith(b"\n"):
                pending += b"\n"
                self.tally.broken_off = self.tally.broken_off or "the last line has no line break"
                self.tally.add_summed(
                    "",
                    "the file does not end with a line break; if it was cut off, its last value may be incomplete",
                    "fetch the file again",
                    1,
                )
            yield from self._parse(pending)
        if self.last_error and not self.tally.broken_off:
            self.tally.broken_off = f"its last line is no row: {self.last_error}"

    def _header(self, pending: bytes, *, last: bool) -> bytes:
        text = _SEPARATOR_LINE.sub(b"", pending.lstrip(b"\r\n")).lstrip(b"\r\n")
        self.line += pending[: len(pending) - len(text)].count(b"\n")
        end = text.find(b"\n") + 1 or (len(text) if last else 0)
        if len(text) > _MAX_ROW_BYTES and not 0 < end <= _MAX_ROW_BYTES:
            raise FormatError(
                f"the first line is longer than {_MAX_ROW_BYTES >> 20} MiB",
                where=self.tally.uri,
                remedy="export it again as CSV, with a line for each row",
            )
        if not end:
            return pending
        try:
            line = text[:end].decode().strip("\r\n")
        except UnicodeDecodeError as error:
            raise FormatError(
                "the first line is no text in UTF-8 or UTF-16", where=self.tally.uri, remedy="save the file as UTF-8 CSV"
            ) from error
        try:
            candidates = [next(csv.reader([line], delimiter=delimiter), []) for delimiter in _DELIMITERS]
        except csv.Error as error:
            raise FormatError(
                f"the header cannot be parsed: {error}", where=self.tally.uri, remedy="export it again as CSV"
            ) from error
        names = max(candidates, key=len)
        if not line or "\0" in line:
            raise FormatError(
                "the file is empty" if not line else "the file is no text",
                where=self.tally.uri,
                remedy="export it again as CSV or Parquet",
            )
        self.delimiter = _DELIMITERS[candidates.index(names)]
        names = [name.strip() for name in names]
        self.selection = self.choose(names)
        selected_names = {*self.selection.dimensions, *self.selection.measures}
        require_unique((name for name in names if name in selected_names), self.tally.uri)
        self.names = _unique_names(names)
        self.line += 1
        return text[end:]

    def _parse(self, block: bytes) -> Iterator[BillBatch]:
        count = block.count(b"\n")
        self.last_error = ""
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
                    include_columns=[*self.selection.dimensions, *self.selection.measures],
                    column_types={
                        **dict.fromkeys(self.selection.dimensions, pa.dictionary(pa.int32(), pa.string())),
                        **dict.fromkeys(self.selection.measures, pa.large_string()),
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
        measures = pl.DataFrame(table.select(self.selection.measures)).with_columns(__row=first + self.row, __line=numbers)
        return dictionary.encode({name: table.column(name).combine_chunks() for name in self.selection.dimensions}, measures)

    def _line_by_line(self, block: bytes) -> BillBatch:
        names = [*self.selection.dimensions, *self.selection.measures]
        keep = [self.names.index(name) for name in names]
        rows: list[list[str | int | None]] = []
        lines = block.split(b"\n")[:-1]
        at, last_error = 0, ""
        while at < len(lines):
            line_count, fields, error = self._record(lines, at)
            if fields is None and error is None:
                at += line_count
                continue
            number = self.line + at
            last_error = error or ""
            if fields is None:
                self.tally.add(f"line {number}", "", error or "", "correct this line; the other lines were read")
            else:
                rows.append([*(None if fields[i] in NULLS else fields[i] for i in keep), self.row, number])
            self.row += 1
            at += line_count
        self.last_error = last_error
        schema = {**dict.fromkeys(names, pl.String), "__row": pl.Int64, "__line": pl.Int64}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        dimensions = {name: frame[name].to_arrow() for name in self.selection.dimensions}
        return dictionary.encode(dimensions, frame.select(*self.selection.measures, "__row", "__line"))

    def _record(self, lines: Sequence[bytes], at: int) -> tuple[int, list[str] | None, str | None]:
        """The number of lines, and the fields or the error message of the record that starts there; neither for an empty line."""
        message, record = "", b""
        for line_count in range(1, min(_MAX_RECORD_LINES, len(lines) - at) + 1):
            record = lines[at] if line_count == 1 else record + b"\n" + lines[at + line_count - 1]
            if b"\0" in record:
                return 1, None, message or "the line holds NUL bytes"
            try:
                text = record.decode().rstrip("\r")
            except UnicodeDecodeError as error:
                return 1, None, message or f"byte {error.start + 1} of the line is not UTF-8"
            if not text:
                return 1, None, None
            try:
                fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True))
            except (csv.Error, StopIteration) as error:
                message = message or f"the line cannot be parsed: {error}"
                if record.count(b'"') % 2 == 0:
                    break
                continue
            if len(fields) == len(self.names):
                return line_count, fields, None
            message = message or f"the line has {counted(len(fields), 'field')}, the header {len(self.names)}"
            break
        return 1, None, message


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
    starts, in_quotes = [], False
    for offset, line in enumerate(block.split(b"\n")[:-1]):
        if not in_quotes and line.strip(b"\r"):
            starts.append(first_line + offset)
        in_quotes ^= line.count(b'"') % 2 == 1
    return starts


def _unique_names(names: list[str]) -> list[str]:
    """Unique header names: a repeated one gets a number, so that the first keeps its name."""
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name}\x00{counts[name]}")
    return unique
