"""The files of a table one by one: what is merged, or written anew without a change of any figure, is a file and not a table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from ledger import staging
from ledger.scratch import scratch_folder
from ledger.store import Store
from ledger.tables import Table


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table as the log has it: its path there, its size and its partition."""

    path: str
    size_bytes: int
    partition: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return unquote(self.path).rsplit("/", 1)[-1]


def table_files(store: Store, table: Table) -> Iterator[TableFile]:
    """The files of a table in its newest version."""
    delta = store.delta(table)
    if delta is None:
        return
    actions = pl.DataFrame(delta.get_add_actions(flatten=True))
    for row in actions.sort("path").iter_rows(named=True):
        partition = tuple((column, str(row[f"partition.{column}"])) for column in table.partition_by)
        yield TableFile(row["path"], row["size_bytes"], partition)


def scan_file(store: Store, table: Table, file: TableFile) -> pl.LazyFrame:
    """The rows of a file, with the columns of its partition; columns that it lacks, written by an older version, are null."""
    frame = pl.scan_parquet(
        f"{store.uri(table)}/{unquote(file.path)}",
        storage_options=store.storage_options or None,
        glob=False,
        hive_partitioning=False,
    )
    names, partition = set(frame.collect_schema().names()), dict(file.partition)
    return frame.select(
        _literal(table, name, partition[name])
        if name in partition
        else (pl.col(name) if name in names else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in table.schema.items()
    )


def replacement(
    store: Store, table: Table, files: Sequence[TableFile], rows: pl.DataFrame, name: str, *, changes_rows: bool
) -> list[AddAction | RemoveAction]:
    """Writes rows of one partition as a file with this name in place of others; what it returns makes it so (`Store.replace_actions`)."""
    partition = dict(files[0].partition)
    with scratch_folder("part", staging.scratch(store)) as folder:
        path = Path(folder) / "new.parquet"
        staging.write(table, rows.select(list(table.schema)), path)
        part = staging.place(store, table, path, partition, name=name)
    now_ms = int(time.time() * 1000)
    removals = [RemoveAction(unquote(f.path), changes_rows, now_ms, f.size_bytes, dict(f.partition)) for f in files]
    return [*removals, AddAction(part.path, part.size_bytes, dict(part.partition), now_ms, changes_rows, part.stats)]


def _literal(table: Table, name: str, value: Any) -> pl.Expr:
    literal = pl.lit(value)
    return (literal.str.to_date() if table.schema[name] == pl.Date else literal.cast(table.schema[name])).alias(name)
