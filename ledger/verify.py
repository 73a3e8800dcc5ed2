"""Whether the tables are what was written: every file against its checksum, or, where it has none, read to its end.

A flipped bit is named with its file, and with what to do: facts are read again, conclusions are computed again. Tables on S3 have no checksums
of ours (the object store checks its own): their files are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import polars as pl
import sqlalchemy as sa
from deltalake.exceptions import DeltaError

from ledger import durability, table_log
from ledger.audit import Head
from ledger.audit_verify import verify_audit
from ledger.db import Database
from ledger.durability import Checksums
from ledger.errors import StoreUnreachable
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import Table

SOURCE: Final = "verify"
"""Source of the problems that a verification finds."""


@dataclass(slots=True)
class TableReport:
    """What was looked at in a table, and what is wrong with it."""

    table: str
    files: int = 0
    size_bytes: int = 0
    without_checksum: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify_table(store: Store, table: Table) -> TableReport:
    """Checks the files of a table as it is now, and its log."""
    report = TableReport(table.name)
    is_local = "://" not in store.root
    folder = Path(store.root) / table.name
    checksums = durability.read_checksums(folder) if is_local else Checksums(None, {})
    if is_local:
        report.problems += _log_problems(folder, checksums)
    try:
        delta = store.delta(table)
        uris = [] if delta is None else sorted(delta.file_uris())
    except (DeltaError, StoreUnreachable, OSError) as error:
        report.problems.append(_problem(table.name, "log", f"the table cannot be opened: {error}", _redo(table, "")))
        return report
    for uri in uris:
        path = uri.removeprefix(store.uri(table)).lstrip("/")
        report.files += 1
        checksum = checksums.files.get(path) or checksums.files.get(unquote(path))
        damage, size_bytes = _file_damage(store, uri, checksum, is_local=is_local)
        report.size_bytes += size_bytes
        report.without_checksum += checksum is None
        if damage is not None:
            report.problems.append(_problem(f"{table.name}/{path}", "file", damage, _redo(table, unquote(path))))
    return report


def database_problems(database: Database) -> Iterator[Problem]:
    """What the database says of its own pages. PostgreSQL has checksums of its own (`initdb --data-checksums`)."""
    if database.engine.dialect.name != "sqlite":
        return
    try:
        with database.engine.connect() as connection:
            lines = [str(row[0]) for row in connection.execute(sa.text("PRAGMA integrity_check(20)"))]
    except sa.exc.DatabaseError as error:
        lines = [str(error.orig)]
    for line in lines:
        if line != "ok":
            remedy = "stop RootCost and put a copy from HOME/backups, or a backup of yours, in its place"
            yield Problem(SOURCE, database.url.removeprefix("sqlite:///"), "file", "", f"the database is damaged: {line}", remedy)


def audit_problems(database: Database, heads: Sequence[Head]) -> Iterator[Problem]:
    """What is wrong with the audit log, by entry. `heads` are those that were kept elsewhere."""
    remedy = "compare with a backup of the database; who can write to it directly can change it"
    for damage in verify_audit(database, heads).damages:
        yield Problem(SOURCE, "audit", damage.place, "", damage.reason, remedy)


def _log_problems(folder: Path, checksums: Checksums) -> Iterator[Problem]:
    """Damaged commits and checkpoints, and lines of the list itself."""
    listed_path = f"{folder.name}/{durability.CHECKSUMS}"
    for number in checksums.damaged_lines:
        remedy = "nothing is lost: files without a checksum are read to their end instead"
        yield _problem(listed_path, f"line {number}", "the line is damaged", remedy, severity="warning")
    remedy = f"restore it from a backup of {folder}"
    versions = table_log.versions(folder)
    for version in versions:
        path = table_log.commit_path(folder, version)
        checksum = checksums.files.get(f"{table_log.LOG}/{path.name}")
        if checksum is not None and durability.digest_of(path) != checksum:
            yield _problem(f"{folder.name}/{table_log.LOG}/{path.name}", "file", "the commit is not as it was written", remedy)
        elif checksum is None:
            try:
                table_log.read_commit(folder, version)
            except table_log.TornCommitError as error:
                yield _problem(f"{folder.name}/{table_log.LOG}/{path.name}", "file", str(error), remedy)
    checkpoint_versions = table_log.checkpoints(folder)
    if versions and not checkpoint_versions and versions != list(range(versions[-1] + 1)):
        missing_versions = sorted(set(range(versions[-1] + 1)) - set(versions))
        yield _problem(f"{folder.name}/{table_log.LOG}", f"version {missing_versions[0]}", "the commit is missing", remedy)
    for name in checkpoint_versions:
        checksum = checksums.files.get(f"{table_log.LOG}/{name}")
        if checksum is not None and durability.digest_of(folder / table_log.LOG / name) != checksum:
            yield _problem(f"{folder.name}/{table_log.LOG}/{name}", "file", "the checkpoint is not as it was written", remedy)


def _file_damage(store: Store, uri: str, checksum: str | None, *, is_local: bool) -> tuple[str | None, int]:
    """What is wrong with a data file, and its size where that is known."""
    path, size_bytes = Path(uri), 0
    try:
        size_bytes = path.stat().st_size if is_local else 0
        if checksum is not None:
            is_whole = durability.digest_of(path) == checksum
            return None if is_whole else "the file is not as it was written: its checksum differs", size_bytes
        pl.scan_parquet(uri, storage_options=store.storage_options or None, hive_partitioning=False, glob=False).collect(
            engine="streaming"
        )
    except FileNotFoundError:
        return "the file is missing", 0
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return f"the file cannot be read: {str(error).splitlines()[0]}", size_bytes
    return None, size_bytes


def _redo(table: Table, path: str) -> str:
    """What brings the rows of a file back."""
    partition = ", ".join(part for part in path.split("/")[:-1])
    of_partition = f" of {partition}" if partition else ""
    if table.kind == "fact":
        return f"restore it from a backup; without one read what was imported{of_partition} again"
    return "restore it from a backup, or run rootcost attribute --again, which computes the month again"


def _problem(path: str, place: str, reason: str, remedy: str, *, severity: str = "error") -> Problem:
    return Problem(SOURCE, f"tables/{path}", place, "", reason, remedy, severity=severity)
