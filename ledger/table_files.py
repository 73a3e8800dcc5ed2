"""The files of a table one by one: what is merged, or written anew without a change of any figure, is a file and not a table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from ledger import file_sets, staging
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
    removals = [_removal(file, changes_rows=changes_rows) for file in files]
    now_ms = int(time.time() * 1000)
    return [*removals, AddAction(part.path, part.size_bytes, dict(part.partition), now_ms, changes_rows, part.stats)]


def remove_rows(
    store: Store, table: Table, is_removed: pl.Expr, files: Iterable[TableFile], *, note: str, dry_run: bool = False
) -> int:
    """Removes rows of these files of a table in one commit; returns how many. A file that keeps some keeps its identity. (TI-2)"""
    actions: list[AddAction | RemoveAction] = []
    removed_count = 0
    for file in files:
        rows = scan_file(store, table, file)
        count, row_count = rows.select(is_removed.sum(), pl.len().alias("rows")).collect().row(0)
        removed_count += int(count)
        if not count or dry_run:
            continue
        if count == row_count:
            actions.append(_removal(file, changes_rows=True))
        else:
            remaining_rows = rows.filter(~is_removed).collect()
            actions += replacement(store, table, [file], remaining_rows, file_sets.rewritten_name(file.name), changes_rows=True)
    if actions:
        store.replace_actions(table, actions, note=note)
    return removed_count


def _removal(file: TableFile, *, changes_rows: bool) -> RemoveAction:
    return RemoveAction(unquote(file.path), changes_rows, int(time.time() * 1000), file.size_bytes, dict(file.partition))


def _literal(table: Table, name: str, value: Any) -> pl.Expr:
    literal = pl.lit(value)
    return (literal.str.to_date() if table.schema[name] == pl.Date else literal.cast(table.schema[name])).alias(name)
