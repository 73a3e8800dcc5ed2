"""Reader for tables: CSV, CSV.gz, zip or Parquet, recognised by content, not by name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.bills import csv_reader, dictionary
from ingest.bills.csv_reader import NULLS, ColumnSelection, SelectColumns
from ingest.bills.dictionary import BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import RawObject
from ledger.errors import FormatError
from ledger.headers import require_unique
from ledger.tables import TIME

_PARQUET_ROWS = 250_000
_PRINTABLE_SECONDS = (-62_167_219_200, 253_402_300_799)
"""The years 0 to 9999."""
_Item = TypeVar("_Item")


def batches(item: RawObject, select: SelectColumns, counter: ProblemCounter) -> Iterator[BillBatch]:
    """Bounded parts of the chosen columns, with `__row` and `__line` (both the row number in Parquet).

    Dimensions are text, or maps of text. Measures are text in a text file; in Parquet times and doubles stay as they are, and
    other numbers are the shortest text that parses to them.
    """
    with item.path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise FormatError("the file is empty", where=item.uri, remedy="export it again")
    if magic == b"PAR1":
        counter.place = "row"
        parts = _parquet(item, select)
    else:
        parts = csv_reader.batches(item.path, select, counter)
    rows = 0
    for part in parts:
        rows += part.rows.height
        yield part
    if not rows:
        counter.add("file", "", "no row could be read", "fetch the file again, if it should contain rows", severity="warning")


def _parquet(item: RawObject, select: SelectColumns) -> Iterator[BillBatch]:
    row = 1
    try:
        for selection, batch in read_ahead(_record_batches(item, select)):
            measures = pl.DataFrame(pa.Table.from_batches([batch.select(selection.measures)]))
            measures = measures.select(_readable(measures, name) for name in selection.measures)
            measures = measures.with_columns(__row=pl.int_range(row, row + pl.len(), dtype=pl.Int64)).with_columns(
                __line=pl.col("__row")
            )
            texts = {name: _as_text(batch.column(name), name, item.uri) for name in selection.dimensions}
            part = dictionary.encode(texts, measures)
            plain = [name for name, dtype in part.dimensions.schema.items() if dtype == pl.String]
            yield BillBatch(part.rows, part.dimensions.with_columns(map(_null_if_empty, plain)))
            row += batch.num_rows
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        message = str(error).splitlines()[0][:200]
        raise FormatError(
            f"no readable Parquet file: {message}", where=item.uri, remedy="fetch the file again; it may be cut off"
        ) from error


def _record_batches(item: RawObject, select: SelectColumns) -> Iterator[tuple[ColumnSelection, pa.RecordBatch]]:
    """Record batches of one row group each, text as the dictionaries it is stored in."""
    with pq.ParquetFile(item.path) as file:
        selection = select(list(file.schema_arrow.names))
        names = [*selection.dimensions, *selection.measures]
        require_unique((name for name in file.schema_arrow.names if name in names), item.uri)
        leaves = [file.schema.column(i) for i in range(len(file.schema))]
        dictionary_columns = [
            leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path.split(".")[0] in selection.dimensions
        ]
        # A row group at a time: across two of them Arrow cannot give maps as dictionaries.
        with pq.ParquetFile(item.path, read_dictionary=dictionary_columns) as file_encoded:
            for group in range(file.num_row_groups):
                for batch in file_encoded.iter_batches(_PARQUET_ROWS, row_groups=[group], columns=names):
                    yield selection, batch


def read_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The items, each fetched while the one before it is processed."""
    sentinel: Final = object()
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as pool:
        pending = pool.submit(next, items, sentinel)
        while (item := pending.result()) is not sentinel:
            pending = pool.submit(next, items, sentinel)
            yield cast("_Item", item)


def _as_text(array: pa.Array, name: str, uri: str) -> pa.Array:
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if pa.types.is_nested(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array
    column = pl.Series(pl.from_arrow(array.cast(kind)))
    if not _is_printable(column):
        raise FormatError(
            f"column {name} holds a time outside the years 0 to 9999",
            where=uri,
            remedy="write the column as text, and export again",
        )
    return column.cast(pl.String, strict=column.dtype != pl.Binary).to_arrow()


def _is_printable(column: pl.Series) -> bool:
    """Whether all times have a year of four digits: Polars ends in a panic where it writes others as text."""
    if not isinstance(column.dtype, pl.Datetime):
        return True
    units_per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[column.dtype.time_unit]
    seconds = column.to_physical() // units_per_second
    return bool(seconds.is_between(*_PRINTABLE_SECONDS).all())


def _null_if_empty(name: str) -> pl.Expr:
    return pl.when(~pl.col(name).is_in(NULLS)).then(name).alias(name)


def _readable(frame: pl.DataFrame, name: str) -> pl.Expr:
    column, dtype = pl.col(name), frame.schema[name]
    if dtype in (pl.Date, pl.Datetime):
        utc_time = column.cast(pl.Datetime("us", getattr(dtype, "time_zone", None)))
        return utc_time.dt.convert_time_zone("UTC") if getattr(dtype, "time_zone", None) else utc_time.dt.replace_time_zone("UTC")
    if dtype == pl.Float64:
        return column
    return _null_if_empty(name) if dtype == pl.String else column.cast(pl.String, strict=dtype != pl.Binary)


def parse_times(column: pl.Series) -> pl.Series:
    """ISO 8601 text as UTC instants; a time without a zone is UTC; null where it is no time.

    >>> [str(m) for m in parse_times(pl.Series(["2024-09-01T00:00:00Z", "2024-09-01 02:00:00+02:00", "1/9/24"]))]
    ['2024-09-01 00:00:00+00:00', '2024-09-01 00:00:00+00:00', 'None']
    """
    if column.dtype != pl.String:
        return column.cast(TIME)
    distinct = column.unique().drop_nulls()
    return column.replace_strict(
        distinct, pl.Series([_parse_time(text) for text in distinct], dtype=TIME), default=None, return_dtype=TIME
    )


def _parse_time(text: str) -> object:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: a zone moves the first or last day of the calendar out of it
        return None
