"""Compaction: many small files of a table become few, without a change of rows, fingerprints or figures.

Files are merged with files of about their size, so that a row is rewritten a few times only, however many files come. What is merged
stays on disk until `ledger.vacuum` removes it: readers may be at it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from ledger import file_sets, staging
from ledger.metric_points import METRIC_POINTS
from ledger.plurals import counted
from ledger.scratch import scratch_folder
from ledger.store import Store
from ledger.tables import PROBLEMS, RAW_FILES, SPANS, Table

COMPACTED_TABLES: Final = (SPANS, METRIC_POINTS, PROBLEMS, RAW_FILES)
"""Tables that get a file with every batch of telemetry, or with every run of a source.

Charges and their control totals do not: a delivery replaces all files of its dataset and month. Costs and rollups are replaced with their run.
"""

TARGET_BYTES: Final = 16 << 20
"""Files of this size are left alone: a day has few of them, and one fits memory."""
_SMALLEST_BYTES: Final = 64 << 10
_TIER_FACTOR: Final = 8
_MIN_FILES: Final = 8
"""Least number of files of about one size that are merged in a partition that still grows."""


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A file of a table as the log has it: its path there, its size and its partition."""

    path: str
    size_bytes: int
    partition: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """Files of one partition that become one."""

    files: Sequence[SmallFile]

    @property
    def size_bytes(self) -> int:
        """Their size together."""
        return sum(file.size_bytes for file in self.files)


def planned_merges(store: Store, table: Table) -> list[Merge]:
    """What `compact` would merge."""
    by_partition: dict[tuple[tuple[str, str], ...], list[SmallFile]] = defaultdict(list)
    for file in _small_files(store, table):
        by_partition[file.partition].append(file)
    newest = max(by_partition, default=())
    merges: list[Merge] = []
    for partition, files in sorted(by_partition.items()):
        # The newest day still grows, and so does every partition by source; of the other days whatever is small is merged.
        is_growing = partition == newest or table.partition_by != ("date",)
        tiers = _tiers(files) if is_growing else [files]
        least_files = _MIN_FILES if is_growing else 2
        merges += [merge for tier in tiers for merge in _up_to_target(tier) if len(merge.files) >= least_files]
    return merges


def compact(store: Store, table: Table) -> int:
    """Merges small files of a table; returns how many files there are less. The caller holds the write lock."""
    merges = planned_merges(store, table)
    for merge in merges:
        _merge(store, table, merge)
    return sum(len(merge.files) - 1 for merge in merges)


def _small_files(store: Store, table: Table) -> Iterator[SmallFile]:
    delta = store.delta(table)
    if delta is None:
        return
    actions = pl.DataFrame(delta.get_add_actions(flatten=True))
    for row in actions.sort("path").iter_rows(named=True):
        if row["size_bytes"] < TARGET_BYTES:
            partition = tuple((column, str(row[f"partition.{column}"])) for column in table.partition_by)
            yield SmallFile(row["path"], row["size_bytes"], partition)


def _tiers(files: Iterable[SmallFile]) -> list[list[SmallFile]]:
    tiers: dict[int, list[SmallFile]] = defaultdict(list)
    for file in files:
        tier, bound = 0, _SMALLEST_BYTES
        while file.size_bytes > bound:
            tier, bound = tier + 1, bound * _TIER_FACTOR
        tiers[tier].append(file)
    return list(tiers.values())


def _up_to_target(files: Sequence[SmallFile]) -> Iterator[Merge]:
    group: list[SmallFile] = []
    for file in sorted(files, key=lambda f: (f.size_bytes, f.path)):
        if group and sum(f.size_bytes for f in group) + file.size_bytes > TARGET_BYTES:
            yield Merge(group)
            group = []
        group.append(file)
    if group:
        yield Merge(group)


def _merge(store: Store, table: Table, merge: Merge) -> None:
    partition = dict(merge.files[0].partition)
    columns = {name: dtype for name, dtype in table.schema.items() if name not in partition}
    frames = [_rows(store, table, file, columns) for file in merge.files]
    rows = pl.concat(frames).with_columns(_literal(table, name, value) for name, value in partition.items())
    with scratch_folder("part", staging.scratch(store)) as folder:
        path = folder / "merged.parquet"
        staging.write(table, rows.select(list(table.schema)), path)
        merged_names = [unquote(file.path).rsplit("/", 1)[-1] for file in merge.files]
        part = staging.place(store, table, path, partition, name=file_sets.merged_name(merged_names))
    now_ms = int(time.time() * 1000)
    removals = [RemoveAction(unquote(file.path), False, now_ms, file.size_bytes, dict(file.partition)) for file in merge.files]
    store.replace_actions(
        table,
        [*removals, AddAction(part.path, part.size_bytes, dict(part.partition), now_ms, False, part.stats)],
        note=f"compaction: {counted(len(merge.files), 'file')}",
    )


def _rows(store: Store, table: Table, file: SmallFile, columns: dict[str, Any]) -> pl.DataFrame:
    """The rows of a file; columns that it lacks, written by an older version, are null."""
    frame = pl.read_parquet(f"{store.uri(table)}/{unquote(file.path)}", storage_options=store.storage_options or None, glob=False)
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name) for name, dtype in columns.items()
    )


def _literal(table: Table, name: str, value: str) -> pl.Expr:
    literal = pl.lit(value)
    return (literal.str.to_date() if table.schema[name] == pl.Date else literal.cast(table.schema[name])).alias(name)
