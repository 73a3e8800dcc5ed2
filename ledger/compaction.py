"""Compaction: many small files of a table become few, without a change of rows, fingerprints or figures.

Files are merged with files of about their size, so that a row is rewritten a few times only, however many files come. What is merged
stays on disk until `ledger.vacuum` removes it: readers may be at it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from ledger import file_sets
from ledger.metric_points import METRIC_POINTS
from ledger.plurals import counted
from ledger.store import Store
from ledger.table_files import TableFile, replacement, scan_file, table_files
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
class Merge:
    """Files of one partition that become one."""

    files: Sequence[TableFile]

    @property
    def size_bytes(self) -> int:
        """Their size together."""
        return sum(file.size_bytes for file in self.files)


def planned_merges(store: Store, table: Table) -> list[Merge]:
    """What `compact` would merge."""
    by_partition: dict[tuple[tuple[str, str], ...], list[TableFile]] = defaultdict(list)
    for file in table_files(store, table):
        if file.size_bytes < TARGET_BYTES:
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


def _tiers(files: Iterable[TableFile]) -> list[list[TableFile]]:
    tiers: dict[int, list[TableFile]] = defaultdict(list)
    for file in files:
        tier, bound = 0, _SMALLEST_BYTES
        while file.size_bytes > bound:
            tier, bound = tier + 1, bound * _TIER_FACTOR
        tiers[tier].append(file)
    return list(tiers.values())


def _up_to_target(files: Sequence[TableFile]) -> Iterator[Merge]:
    group: list[TableFile] = []
    for file in sorted(files, key=lambda f: (f.size_bytes, f.path)):
        if group and sum(f.size_bytes for f in group) + file.size_bytes > TARGET_BYTES:
            yield Merge(group)
            group = []
        group.append(file)
    if group:
        yield Merge(group)


def _merge(store: Store, table: Table, merge: Merge) -> None:
    rows = pl.concat([scan_file(store, table, file).collect() for file in merge.files])
    name = file_sets.merged_name([file.name for file in merge.files])
    actions = replacement(store, table, merge.files, rows, name, changes_rows=False)
    store.replace_actions(table, actions, note=f"compaction: {counted(len(merge.files), 'file')}")
