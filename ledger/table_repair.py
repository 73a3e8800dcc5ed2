"""Repair when a ledger is opened: tables that a power cut or a failing disk left with a damaged end.

The last commits of a table that are not whole on disk (an empty or cut-off commit file, data files missing, short or cut off) are rolled
back to the last whole version; their commit files are moved to `_damaged` in the table's folder. What had been said about them is taken
back first, so that it is done again: published months, rollups of usage, and checkpoints of sources. Commits that are not sealed
(`ledger.durability`) have no statement resting on them: then nothing is taken back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger import durability, problems, table_log
from ledger.audit import record
from ledger.db import Checkpoint, Database, Drawing, Published, Rollup
from ledger.filesystem import make_folder, sync_folder
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import PROBLEMS, RAW_FILES, TABLES

SOURCE: Final = "store"
"""Source of the problems that a repair leaves."""

_ACTOR: Final = "repair"
_UNSEALED_WINDOW_SECONDS: Final = 120
"""Of a table without checksums, the commits written this long before the last one are looked at, too."""
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLES: Final = 5

log = logging.getLogger("rootcost.repair")


@dataclass(frozen=True, slots=True)
class Rollback:
    """A table and the last whole commit it goes back to; None if it has none. `since`: statements made later are taken back."""

    table: str
    folder: Path
    damage: str
    version: int | None
    last_version: int
    since: datetime | None


@dataclass(slots=True)
class _Statements:
    """What was said and is taken back."""

    months: list[str]
    sources: list[str]


def repair_tables(store: Store, database: Database, lock: AbstractContextManager[None]) -> list[Problem]:
    """Rolls damaged tables back and takes back what was said about them; returns what to tell. `lock` is the lock for writing the tables."""
    if "://" in store.root or not any(_needs_repair(folder) for folder in _folders(store)):
        return []
    with lock:
        for folder in _folders(store):
            _drop_torn_checkpoints(folder)
        rollbacks = [rollback for folder in _folders(store) if (rollback := find_damage(folder)) is not None]
        if not rollbacks:
            return []
        with database.session() as session:
            statements = _take_back(session, rollbacks)
            for rollback in rollbacks:
                record(
                    session,
                    _ACTOR,
                    "roll back",
                    rollback.table,
                    before={"version": rollback.last_version, "damage": rollback.damage},
                    after={"version": rollback.version, "months": statements.months, "sources": statements.sources},
                )
        for rollback in rollbacks:
            _roll_back(rollback)
        uris = _uris_since(store, [r.since for r in rollbacks if r.since is not None and _is_fact(r.table)])
        messages = [_problem(rollback, statements, uris) for rollback in rollbacks]
        stored_rows = store.scan(PROBLEMS, {"source": [SOURCE]}).collect()
        known_ids = set(stored_rows["problem_id"])
        store.append(PROBLEMS, problems.to_frame(m for m in messages if m.problem_id not in known_ids))
        store.sync()
    for message in messages:
        log.warning("%s: %s — %s", message.uri, message.reason, message.remedy)
    return messages


def find_damage(folder: Path) -> Rollback | None:
    """The last whole commit of a table whose end is damaged; None for a table whose end is whole."""
    versions, sealed_version = table_log.versions(folder), durability.sealed_version(folder)
    if not versions:
        if sealed_version is None or sealed_version < 0 or table_log.checkpoints(folder):
            return None
        return Rollback(folder.name, folder, "every commit file is missing", None, sealed_version, _BEGINNING)
    first_damage = _first_damage(folder, versions, sealed_version)
    if first_damage is None:
        return None
    version, damage = first_damage
    whole_version: int | None = version - 1
    while whole_version is not None and whole_version >= versions[0]:
        if table_log.damage(folder, whole_version, may_be_vacuumed=True) is None:
            break
        whole_version -= 1
    checkpoint_versions = table_log.checkpoints(folder).values()
    if whole_version is not None and whole_version < versions[0] and whole_version not in checkpoint_versions:
        whole_version = None
    has_statements = sealed_version is None or whole_version is None or whole_version < sealed_version
    since = _made_at(folder, whole_version) if has_statements else None
    return Rollback(folder.name, folder, damage, whole_version, max(versions[-1], sealed_version or 0), since)


def _first_damage(folder: Path, versions: Sequence[int], sealed_version: int | None) -> tuple[int, str] | None:
    """The first commit at the table's end that is not whole. The last one is looked at always, others if they are not sealed."""
    if sealed_version is None:
        newest = table_log.commit_path(folder, versions[-1]).stat().st_mtime
        first = next(v for v in versions if table_log.commit_path(folder, v).stat().st_mtime >= newest - _UNSEALED_WINDOW_SECONDS)
    else:
        first = min(max(sealed_version + 1, versions[0]), versions[-1])
    for version in range(first, max(versions[-1], sealed_version or 0) + 1):
        damage = table_log.damage(folder, version, may_be_vacuumed=sealed_version is None and version < versions[-1])
        if damage is not None:
            return version, damage
    return None


def _needs_repair(folder: Path) -> bool:
    return bool(table_log.torn_checkpoints(folder)) or find_damage(folder) is not None


def _folders(store: Store) -> list[Path]:
    root = Path(store.root)
    return sorted(root / name for name in TABLES if (root / name / table_log.LOG).is_dir())


def _made_at(folder: Path, version: int | None) -> datetime:
    if version is None:
        return _BEGINNING
    try:
        return table_log.read_commit(folder, version).made_at
    except table_log.TornCommitError:
        return _BEGINNING


def _is_fact(table: str) -> bool:
    return TABLES[table].kind == "fact"


def _take_back(session: Session, rollbacks: Sequence[Rollback]) -> _Statements:
    """Deletes statements made after the last whole commit of the tables that they rest on."""
    statements = _Statements([], [])
    fact_times = [r.since for r in rollbacks if r.since is not None and _is_fact(r.table)]
    if fact_times:
        late = Checkpoint.at > min(fact_times)
        statements.sources = sorted(session.scalars(sa.select(Checkpoint.source).where(late).distinct()))
        session.execute(sa.delete(Checkpoint).where(late))
    conclusion_times = [r.since for r in rollbacks if r.since is not None and not _is_fact(r.table)]
    if conclusion_times:
        since = min(conclusion_times)
        lost_ids = set(session.scalars(sa.select(Rollup.rollup_id).where(Rollup.made_at > since)))
        session.execute(sa.delete(Rollup).where(Rollup.made_at > since))
        for drawing in session.scalars(sa.select(Drawing)).all():
            if drawing.made_at > since or lost_ids & set(drawing.rollup_ids):
                session.delete(drawing)
        for month in session.scalars(sa.select(Published).order_by(Published.month)).all():
            if month.published_at > since or lost_ids & set(month.rollup_ids):
                statements.months.append(month.month)
                session.delete(month)
    return statements


def _roll_back(rollback: Rollback) -> None:
    """Moves the commits after the last whole one out of the log, newest first: killed in between, the rest is found again."""
    folder, whole_version = rollback.folder, -1 if rollback.version is None else rollback.version
    aside = folder / "_damaged" / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    make_folder(aside)
    durability.note_version(folder, whole_version)
    versions = {table_log.commit_path(folder, v).name: v for v in table_log.versions(folder)} | table_log.checkpoints(folder)
    for name, version in sorted(versions.items(), key=lambda entry: -entry[1]):
        if version > whole_version:
            (folder / table_log.LOG / name).rename(aside / name)
    for name in table_log.torn_checkpoints(folder):
        (folder / table_log.LOG / name).rename(aside / name)
    if rollback.version is None:
        (folder / table_log.LOG).rename(aside / table_log.LOG)
    else:
        sync_folder(folder / table_log.LOG)
    sync_folder(aside)
    sync_folder(folder)


def _drop_torn_checkpoints(folder: Path) -> None:
    """Removes checkpoints that are cut off: the commits that they sum up are still there, and deltalake reads those instead."""
    for name in table_log.torn_checkpoints(folder):
        (folder / table_log.LOG / name).unlink()
        log.warning("%s: the checkpoint %s was cut off and is removed", folder.name, name)


def _uris_since(store: Store, times: Sequence[datetime]) -> list[str]:
    """Addresses of files that were imported after the last whole commit, as far as it is still known."""
    if not times:
        return []
    rows = store.scan(RAW_FILES).collect()
    return sorted(set(rows.filter(rows["fetched_at"] > min(times))["uri"]))


def _problem(rollback: Rollback, statements: _Statements, uris: Sequence[str]) -> Problem:
    if rollback.version is None:
        result = "the table had no whole commit and is empty now"
    else:
        result = f"it was rolled back to version {rollback.version} of {_made_at(rollback.folder, rollback.version):%Y-%m-%d %H:%M:%S} UTC"
    if rollback.since is None:
        remedy = "nothing that was acknowledged is lost: repeat the command that was running"
    elif _is_fact(rollback.table):
        sources = f"the sources {', '.join(statements.sources)} are read again from their beginning by their next run; " * bool(
            statements.sources
        )
        files = ", ".join(uris[:_EXAMPLES]) + f" and {len(uris) - _EXAMPLES} more" * (len(uris) > _EXAMPLES)
        remedy = f"{sources}ingest what was imported since then again{f': {files}' if uris else ''}"
    else:
        months = f"{', '.join(statements.months)} is no longer published: " if statements.months else ""
        remedy = f"{months}run rootcost attribute, which computes it again"
    return Problem(
        source=SOURCE,
        uri=f"tables/{rollback.table}",
        place=f"version {rollback.last_version}",
        field="",
        reason=f"the last write is damaged on disk ({rollback.damage}); {result}",
        remedy=remedy,
    )
