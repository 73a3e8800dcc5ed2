"""The rows of a bill's file, whatever it is packed in: CSV, CSV.gz, zip or Parquet, told apart by content, not by name."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.normalise import delimited
from ingest.normalise.delimited import Choose
from ingest.normalise.tally import Tally
from ingest.source import RawObject
from ledger.errors import FormatError
from ledger.tables import TIME

_PARQUET_ROWS = 65_536


def batches(item: RawObject, choose: Choose, tally: Tally) -> Iterator[pl.DataFrame]:
    """Bounded frames of the chosen columns, with `__row` and `__line` (both the row number in Parquet).

    Text files give every column as text. Parquet keeps times and nested columns as they are and gives numbers as the shortest
    text that means them, so that a double of 0.1 is ``0.1`` and not the 55 digits of its binary value.
    """
    with item.path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise FormatError("the file is empty", where=item.uri, remedy="export it again")
    if magic == b"PAR1":
        tally.place = "row"
        frames = _parquet(item, choose)
    else:
        frames = delimited.batches(item.path, choose, tally)
    rows = 0
    for frame in frames:
        rows += frame.height
        yield frame
    if not rows:
        tally.add("file", "", "no row could be read", "fetch the file again, if it should hold some", severity="warning")


def _parquet(item: RawObject, choose: Choose) -> Iterator[pl.DataFrame]:
    row = 1
    try:
        with pq.ParquetFile(item.path) as file:
            names = choose(list(file.schema_arrow.names))
            for batch in file.iter_batches(_PARQUET_ROWS, columns=names):
                frame = pl.DataFrame(pa.Table.from_batches([batch]))
                frame = frame.select(_readable(frame, name) for name in names)
                yield frame.with_columns(__row=pl.int_range(row, row + pl.len(), dtype=pl.Int64)).with_columns(
                    __line=pl.col("__row")
                )
                row += frame.height
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as fault:
        said = str(fault).splitlines()[0][:200]
        raise FormatError(
            f"no readable Parquet file: {said}", where=item.uri, remedy="fetch the file again; it may be cut off"
        ) from fault


def _readable(frame: pl.DataFrame, name: str) -> pl.Expr:
    column, dtype = pl.col(name), frame.schema[name]
    if dtype in (pl.Date, pl.Datetime):
        zoned = column.cast(pl.Datetime("us", getattr(dtype, "time_zone", None)))
        return zoned.dt.convert_time_zone("UTC") if getattr(dtype, "time_zone", None) else zoned.dt.replace_time_zone("UTC")
    if dtype.is_nested():
        return column
    if dtype == pl.Binary:
        return column.cast(pl.String, strict=False)
    text = column.cast(pl.String)
    return pl.when(~text.is_in(delimited.NULLS)).then(text).alias(name) if dtype == pl.String else text


def moments(column: pl.Series) -> pl.Series:
    """ISO 8601 text as UTC instants; a time without a zone is UTC; null where it is no time.

    >>> [str(m) for m in moments(pl.Series(["2024-09-01T00:00:00Z", "2024-09-01 02:00:00+02:00", "1/9/24"]))]
    ['2024-09-01 00:00:00+00:00', '2024-09-01 00:00:00+00:00', 'None']
    """
    if column.dtype != pl.String:
        return column.cast(TIME)
    written = column.unique().drop_nulls()
    return column.replace_strict(
        written, pl.Series([_moment(text) for text in written], dtype=TIME), default=None, return_dtype=TIME
    )


def _moment(text: str) -> object:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
