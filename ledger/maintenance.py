"""Maintenance keeps the disk bounded: rows of runs that nobody shows, small files, files that no table needs, old history.

What is removed can be asked for by nobody any more, so that no figure and no fingerprint changes. It is done by `serve` every minute, and
by `rootcost maintenance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl
import sqlalchemy as sa

from ledger import compaction, disk, durability, erasure, recovery
from ledger.books import Books
from ledger.closing.documents import frozen_runs
from ledger.db import JobRun, Published, Rollup, Run
from ledger.locks import BACKUP, lock_of
from ledger.periods import now
from ledger.tables import TABLES, Table
from ledger.vacuum import Unneeded, vacuum_all

HISTORY: Final = timedelta(days=30)
"""How long the history of the service's jobs is kept."""

_MIN_REWRITTEN_BYTES: Final = 64 << 20
_REWRITTEN_SHARE: Final = 4
"""Live runs rewrite at most a quarter of the tables within the retention, so that what waits for the vacuum stays small."""


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What was removed, or would be: partitions of runs that nobody shows, files merged into others, files and bytes, temporary files."""

    unshown_partitions: int = 0
    merged_files: int = 0
    removed_files: int = 0
    removed_bytes: int = 0
    temporary_files: int = 0

    def counts(self) -> dict[str, int]:
        """The counts that are not zero, by name."""
        return {name: count for name, count in asdict(self).items() if count}


def maintain(books: Books, *, dry_run: bool = False) -> MaintenanceReport:
    """Does all maintenance; with `dry_run` it only counts. The caller holds the write lock."""
    store, settings = books.store, books.settings.maintenance
    retention, long_retention = timedelta(minutes=settings.retention_minutes), timedelta(days=settings.facts_days)
    unshown_partitions = list(_unshown_partitions(books))
    merges = [merge for table in compaction.COMPACTED_TABLES for merge in compaction.planned_merges(store, table)]
    temporary_files = recovery.abandoned_files(books)
    if not dry_run:
        recovery.recover_files(books)
        for table, partition in unshown_partitions:
            store.replace(table, table.empty(), partition, note="maintenance: rows of a run that nobody shows")
        # A merge needs room; where there is none the vacuum makes some.
        has_room = disk.shortage(books.folders) is None
        merges = merges if has_room else []
        for table in compaction.COMPACTED_TABLES if has_room else ():
            compaction.compact(store, table)
        if "://" not in store.root:
            durability.seal_all(Path(store.root))  # before files are removed, the commits that replaced them must be on disk
        _forget_history(books)
        _go_on_erasing(books)
    removals = _vacuum(books, retention, long_retention, dry_run=dry_run)
    return MaintenanceReport(
        unshown_partitions=len(unshown_partitions),
        merged_files=sum(len(merge.files) for merge in merges),
        removed_files=sum(len(removal.paths) for removal in removals),
        removed_bytes=sum(removal.size_bytes for removal in removals),
        temporary_files=len(temporary_files),
    )


def _vacuum(books: Books, retention: timedelta, long_retention: timedelta, *, dry_run: bool) -> list[Unneeded]:
    """Removes the files that nobody needs. While a backup copies them, nothing is removed: it is done the next time."""
    lock = lock_of(books, BACKUP)
    if not lock.acquire():
        return []
    try:
        return vacuum_all(books.store, retention, long_retention, dry_run=dry_run)
    finally:
        lock.release()


def _go_on_erasing(books: Books) -> None:
    """Finishes the erasure of a person that was broken off, or whose earlier versions wait until no reader is at them."""
    lock = lock_of(books, BACKUP)
    if (books.home / erasure.JOURNAL).exists() and lock.acquire():
        try:
            erasure.resume(books)
        finally:
            lock.release()


def pause_seconds(books: Books, started_at: datetime) -> float:
    """How long no live run is to begin after one that began at `started_at`, by how much of the tables it wrote anew."""
    newly_written_bytes, total_bytes = 0, 0
    for table in TABLES.values():
        delta = books.store.delta(table)
        if delta is None:
            continue
        actions = pl.DataFrame(delta.get_add_actions(flatten=True))
        total_bytes += int(actions["size_bytes"].sum())
        if table.kind != "fact":
            is_new = actions["modification_time"] >= int(started_at.timestamp() * 1000)
            newly_written_bytes += int(actions.filter(is_new)["size_bytes"].sum())
    allowed_bytes = max(_MIN_REWRITTEN_BYTES, total_bytes // _REWRITTEN_SHARE)
    return books.settings.maintenance.retention_minutes * 60 * newly_written_bytes / allowed_bytes


def _unshown_partitions(books: Books) -> Iterator[tuple[Table, dict[str, str]]]:
    """Partitions of runs and rollups that were never published, or are superseded since longer than the settings say. Runs of closed months stay. (TI-3)"""
    with books.database.session() as session:
        before = now() - timedelta(days=books.settings.maintenance.superseded_days)
        is_over = sa.or_(Run.status.in_(("refused", recovery.CUT_OFF)), Run.finished_at < before)
        shown_ids = sa.select(Published.run_id)
        run_ids = set(
            session.scalars(sa.select(Run.run_id).where(is_over, Run.run_id.not_in(shown_ids), Run.run_id.not_in(frozen_runs())))
        )
        rollup_ids = set(session.scalars(sa.select(Rollup.rollup_id)))
    for table in TABLES.values():
        delta = books.store.delta(table) if {"run_id", "rollup_id"} & set(table.partition_by) else None
        for partition in delta.partitions() if delta is not None else ():
            values = {column: str(value) for column, value in partition.items()}
            if values.get("run_id") in run_ids or ("rollup_id" in values and values["rollup_id"] not in rollup_ids):
                yield table, values


def _forget_history(books: Books) -> None:
    with books.database.session() as session:
        # When the last backup was made is asked for longer.
        session.execute(sa.delete(JobRun).where(JobRun.finished_at < now() - HISTORY, JobRun.job != BACKUP))
