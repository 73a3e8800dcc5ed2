"""Rows of a table a few at a time, in the order of its files: memory does not grow with the table, nor with the row groups of its files.

Polars decodes whole row groups, and the next ones ahead; here pages are read as they are needed. Of a bucket it is polars that reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import polars as pl
from pyarrow import parquet

from ledger.store import Store
from ledger.tables import Table

_BUFFER_BYTES: Final = 1 << 16
"""Of each column of the file that is read."""


def slices(store: Store, table: Table, partitions: Mapping[str, Sequence[str]], rows: int) -> Iterator[pl.DataFrame]:
    """The rows of whole partitions, at most `rows` at a time, with the columns of the table."""
    delta = None if "://" in store.root else store.newest(table)
    if delta is None:
        yield from store.scan(table, partitions).collect_batches(chunk_size=rows, engine="streaming")
        return
    files = pl.DataFrame(delta.get_add_actions(flatten=True))
    for column, values in partitions.items():
        files = files.filter(pl.col(f"partition.{column}").cast(pl.String).is_in(pl.Series(values, dtype=pl.String).implode()))
    names = [f"partition.{column}" for column in table.partition_by]
    for path, *values in files.select("path", *names).iter_rows():
        yield from _slices_of_file(
            Path(store.uri(table)) / unquote(path), table, dict(zip(table.partition_by, values, strict=True)), rows
        )


def _slices_of_file(path: Path, table: Table, partition: Mapping[str, Any], rows: int) -> Iterator[pl.DataFrame]:
    with parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
        present = [name for name in file.schema_arrow.names if name in table.schema and name not in partition]
        # A table written by an older version lacks newer columns: they are null.
        columns = [
            (pl.col(name) if name in present else pl.lit(partition.get(name))).cast(dtype).alias(name)
            for name, dtype in table.schema.items()
        ]
        for batch in file.iter_batches(rows, columns=present, use_threads=False):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame.select(columns)
