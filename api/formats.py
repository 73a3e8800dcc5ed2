"""Formats of rows: which one a request asks for, and rows as a stream of it.

A stream is made batch by batch. When it fails in the middle, the connection is cut: nobody takes half a file for a whole one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import polars as pl
import pyarrow as pa
from fastapi.responses import Response, StreamingResponse
from pyarrow import parquet

from api.errors import RequestError

Format = Literal["json", "ndjson", "csv", "parquet", "arrow"]
MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
FILE_TYPES: Final[Mapping[str, dict[str, Any]]] = {media_type: {} for name, media_type in MEDIA_TYPES.items() if name != "json"}
"""The media types of files, for the description of a route."""

_FORMULA = r"^[=+\-@\t\r\n\x00＝＋－＠]"
"""Texts that spreadsheets would run begin like this (CWE-1236). In CSV they get an apostrophe before them."""

_ROW_GROUP_ROWS: Final = 20_000
_Encoder = Callable[[Iterable[pl.DataFrame]], Iterator[bytes]]


def negotiated_type(accept: str, media_types: Sequence[str]) -> str:
    """The media type that an Accept header likes best, by default the first. Raises `RequestError` (406) if it takes none of them.

    >>> negotiated_type("text/html,*/*;q=0.8", ["application/json", "text/html"])
    'text/html'
    """
    weights = dict(_weight(part) for part in accept.split(",") if part.strip())
    if not weights:
        return media_types[0]
    best = max(media_types, key=lambda media_type: _quality(weights, media_type))
    if _quality(weights, best) <= 0:
        raise RequestError(
            406,
            "not-acceptable",
            f"{accept!r} is none of the types of this answer",
            where="Accept",
            remedy=f"accept one of: {', '.join(media_types)}",
        )
    return best


def negotiated(accept: str, formats: Iterable[Format] = tuple(MEDIA_TYPES)) -> Format:
    """The format that an Accept header likes best. Raises `RequestError` (406) if it takes none of them.

    >>> negotiated("text/csv;q=0.5, application/x-ndjson"), negotiated("text/html, */*;q=0.1"), negotiated("")
    ('ndjson', 'json', 'json')
    """
    names = {MEDIA_TYPES[name]: name for name in formats}
    return names[negotiated_type(accept, list(names))]


def _weight(part: str) -> tuple[str, float]:
    kind, *parameters = (text.strip().lower() for text in part.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return kind, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return kind, 0.0


def _quality(weights: Mapping[str, float], media_type: str) -> float:
    """The weight of the most specific range that covers a type."""
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)


def file_response(frames: Iterable[pl.DataFrame], file_format: Format, *, name: str, headers: Mapping[str, str]) -> Response:
    """Rows as a file that is streamed. What fails before the first bytes is an error response, not a cut stream."""
    chunks = _ENCODERS[file_format](frames)
    first = next(chunks, b"")
    charset = "; charset=utf-8" if file_format == "csv" else ""
    return StreamingResponse(
        _with_first(first, chunks),
        media_type=MEDIA_TYPES[file_format] + charset,
        headers={"Content-Disposition": f'attachment; filename="{name}.{file_format}"', **headers},
    )


def _with_first(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield first
        yield from chunks
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with money as decimal strings and times as ISO 8601, for CSV and JSON.

    >>> from decimal import Decimal
    >>> from ledger import money
    >>> amounts = pl.Series("cost", [Decimal("0.018"), Decimal(100), Decimal(0), None], dtype=money.MONEY)
    >>> as_text(amounts.to_frame())["cost"].to_list()
    ['0.018', '100', '0', None]
    """
    columns = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if isinstance(dtype, pl.Decimal) and dtype.scale:  # without places there are no zeros to drop
            columns.append(column.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end("."))
        elif isinstance(dtype, pl.Datetime):
            columns.append(column.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + ("%:z" if dtype.time_zone else "")))
    return frame.with_columns(columns)


def _csv(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    for n, frame in enumerate(frames):
        # Only texts are escaped: amounts may begin with a minus, and are ours.
        texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
        nested_columns = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
        safe = pl.col(texts).str.replace(_FORMULA, "'$0")
        columns = [pl.Series(name, _json_texts(frame[name]), dtype=pl.String) for name in nested_columns]
        content = as_text(frame.with_columns(safe)).with_columns(columns).write_csv(include_header=n == 0)
        if content:
            yield content.encode()


def _json_texts(column: pl.Series) -> list[str | None]:
    return [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in column.to_list()]


def _ndjson(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    for frame in frames:
        if frame.height:
            yield as_text(frame).write_ndjson().encode()


def _arrow(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    sink = io.BytesIO()
    writer: pa.RecordBatchStreamWriter | None = None
    for frame in frames:
        table = frame.to_arrow()
        writer = writer or pa.ipc.new_stream(sink, table.schema)
        writer.write_table(table)
        yield _drained(sink)
    if writer is not None:
        writer.close()
    yield _drained(sink)


def _parquet(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    sink = _Sink()
    writer: parquet.ParquetWriter | None = None
    for frame in _in_row_groups(frames):
        table = frame.to_arrow()
        writer = writer or parquet.ParquetWriter(pa.PythonFile(sink, mode="w"), table.schema, compression="zstd")
        if table.num_rows:
            writer.write_table(table)
        yield sink.drained()
    if writer is not None:
        writer.close()
    yield sink.drained()


def _in_row_groups(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The rows in frames of the size of a row group, the first one being empty: it tells the columns."""
    parts: list[pl.DataFrame] = []
    for n, frame in enumerate(frames):
        parts.append(frame)
        if n == 0 or sum(part.height for part in parts) >= _ROW_GROUP_ROWS:
            yield pl.concat(parts)
            parts = []
    if parts:
        yield pl.concat(parts)


class _Sink(io.RawIOBase):
    """Takes what a writer writes, and knows how much it was: Parquet's footer holds places in the file."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, part: bytes, /) -> int:  # type: ignore[override]
        self._parts.append(bytes(part))
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def drained(self) -> bytes:
        """What was written since it was last asked."""
        content, self._parts = b"".join(self._parts), []
        return content


def _drained(sink: io.BytesIO) -> bytes:
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


_ENCODERS: Final[Mapping[str, _Encoder]] = {"csv": _csv, "ndjson": _ndjson, "arrow": _arrow, "parquet": _parquet}
