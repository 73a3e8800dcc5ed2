"""Vacuum: files that no table needs any more are removed from disk.

A file is needed by the newest version of its table, and by the version that was in force when the retention began, because a reader may
still be at it. What is younger than the retention stays as well: it may belong to a commit that is being made.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

from ledger import durability, table_log
from ledger.errors import TableError
from ledger.store import Store
from ledger.tables import CHARGES, PRICES, TABLES, Table

LONG_KEPT_TABLES: Final = (CHARGES, PRICES)
"""Tables whose earlier versions explain how the runs that used them differ from later ones."""


_MIN_COMMITS: Final = 20
"""Commits that stay at least: to be rolled back to, and to tell a short history."""


@dataclass(slots=True)
class Unneeded:
    """Files of a table that nobody needs, and their size."""

    table: str
    paths: list[str] = field(default_factory=list)
    size_bytes: int = 0


def vacuum(store: Store, table: Table, retention: timedelta, *, dry_run: bool = False) -> Unneeded:
    """Removes the files of a table that are not needed and older than `retention`; returns them. With `dry_run` it only lists them."""
    removal = Unneeded(table.name)
    delta = store.delta(table)
    if delta is None:
        return removal
    if "://" in store.root:
        hours = max(1, math.ceil(retention / timedelta(hours=1)))
        removal.paths = delta.vacuum(hours, dry_run=dry_run, enforce_retention_duration=False, full=True)
        return removal
    for path, size_bytes in _unneeded_files(store, table, delta, retention):
        removal.paths.append(str(path))
        removal.size_bytes += size_bytes
        if not dry_run:
            path.unlink(missing_ok=True)
    if not dry_run:
        _remove_empty_folders(Path(store.uri(table)))
        _shorten_log(Path(store.uri(table)) / table_log.LOG, delta, retention)
        durability.forget_removed_files(Path(store.uri(table)))
    return removal


def _unneeded_files(store: Store, table: Table, delta: DeltaTable, retention: timedelta) -> Iterator[tuple[Path, int]]:
    horizon = time.time() - retention.total_seconds()
    needed_addresses = _addresses(store, table, delta) | _addresses_at(store, table, delta, horizon)
    root = Path(store.uri(table))
    for path in sorted(root.rglob("*")):
        # Names with an underscore are the log, checksums, and what was rolled back.
        if str(path) in needed_addresses or any(part.startswith("_") for part in path.relative_to(root).parts):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if not path.is_dir() and status.st_ctime < horizon:
                yield path, status.st_size


def _addresses(store: Store, table: Table, delta: DeltaTable) -> set[str]:
    """The addresses of a version's files, on disk. Raises `TableError` if one is not there: nothing can be called unneeded then."""
    paths = pl.DataFrame(delta.get_add_actions(flatten=True))["path"].to_list()
    addresses = {f"{store.uri(table)}/{unquote(path)}" for path in paths}
    if lost_addresses := sorted(address for address in addresses if not Path(address).is_file()):
        raise TableError(
            "a file of the table is missing", where=lost_addresses[0], remedy="nothing was removed; restore the file"
        )
    return addresses


def _addresses_at(store: Store, table: Table, delta: DeltaTable, horizon: float) -> set[str]:
    """Those of the version that was in force at an instant, or of the oldest one that the log still has."""
    commits = [(int(commit["version"]), float(commit["timestamp"]) / 1000) for commit in delta.history() if "version" in commit]
    version = max((version for version, at in commits if at <= horizon), default=min((v for v, _ in commits), default=None))
    earlier_delta = None if version is None else store.delta(table, version=version)
    return set() if earlier_delta is None else _addresses(store, table, earlier_delta)


def _remove_empty_folders(root: Path) -> None:
    for folder in sorted((path for path in root.rglob("*") if path.is_dir() and "=" in path.name), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _shorten_log(log_folder: Path, delta: DeltaTable, retention: timedelta) -> None:
    """Removes commits of the log that a checkpoint contains, once they are older than the retention."""
    horizon = time.time() - retention.total_seconds()
    old_commits = [path for path in log_folder.glob("*.json") if path.stem.isdigit() and path.stat().st_mtime < horizon]
    if len(old_commits) < _MIN_COMMITS:
        return
    checkpoints = sorted(
        int(path.name.partition(".")[0]) for path in log_folder.glob("*.checkpoint*.parquet") if path.stat().st_mtime < horizon
    )
    if not checkpoints:
        delta.create_checkpoint()  # counts once it is as old as the retention
        return
    first_version = min(checkpoints[-1], delta.version() - _MIN_COMMITS)
    for path in (*old_commits, *log_folder.glob("*.checkpoint*.parquet")):
        if int(path.name.partition(".")[0]) < first_version:
            path.unlink(missing_ok=True)


def vacuum_all(store: Store, retention: timedelta, long_retention: timedelta, *, dry_run: bool = False) -> list[Unneeded]:
    """Vacuums every table; returns those with something to remove."""
    reports = [
        vacuum(store, table, long_retention if table in LONG_KEPT_TABLES else retention, dry_run=dry_run)
        for table in TABLES.values()
    ]
    return [report for report in reports if report.paths]
