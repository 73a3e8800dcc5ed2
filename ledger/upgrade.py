"""Brings the application database to the newest schema: the first start, and the upgrade of an older home.

Either all of it is done or nothing: every migration of an upgrade runs in one transaction, which a killed process leaves undone. On SQLite
a lock on a file lets one process at a time upgrade; PostgreSQL has an advisory lock. Before an older SQLite database is upgraded, a copy
of it is kept in the folder `backups` beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ledger.errors import LedgerDamagedError, LedgerVersionError
from ledger.filesystem import sync_folder

BACKUPS: Final = "backups"
"""Folder beside the SQLite database that holds copies of it, each made before an upgrade."""
BACKUPS_KEPT: Final = 3
"""Copies that are kept; the oldest goes first."""

_VERSION_TABLE: Final = "alembic_version"
_LOCK_KEY: Final = 727001
_BUSY_MILLISECONDS: Final = 600_000
"""How long an upgrade waits for other processes that use the database."""


@cache
def revisions() -> tuple[str, ...]:
    """The revisions of the schema that this version knows, oldest first.

    >>> revisions()[0]
    '0001'
    """
    names = (entry.name for entry in (files("ledger") / "migrations" / "versions").iterdir())
    return tuple(sorted(match[1] for name in names if (match := re.fullmatch(r"v(\d+)_\w+\.py", name))))


def upgrade(engine: sa.Engine, tables: Collection[str]) -> None:
    """Builds or upgrades the schema if it is not the newest. Any number of processes may do so at once. `tables`: names of its tables."""
    if engine.dialect.name == "sqlite":
        path = Path(engine.url.database) if engine.url.database else None
        if path is not None and path.exists() and path.stat().st_size and _revision(engine) == revisions()[-1]:
            return
        with _upgrade_lock(path):
            _upgrade_sqlite(engine.url, path, tables)
    elif _revision(engine) != revisions()[-1]:
        with engine.begin() as connection:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})"))
            _migrate(connection)


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return _stored_revision(connection)


def _stored_revision(connection: sa.Connection) -> str | None:
    """The revision of the schema; None for a database without one. Raises `LedgerVersionError` for one of a newer version."""
    if not sa.inspect(connection).has_table(_VERSION_TABLE):
        return None
    revision: str | None = connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    if revision is not None and revision not in revisions():
        raise LedgerVersionError(
            f"has schema {revision}, and this version of RootCost knows up to {revisions()[-1]}",
            where=connection.engine.url.render_as_string(hide_password=True),
            remedy="use the version that wrote it or a newer one, or restore a copy of the database that is older",
        )
    return revision


def _upgrade_sqlite(url: sa.URL, path: Path | None, tables: Collection[str]) -> None:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool if path else sa.pool.StaticPool)
    sa.event.listen(engine, "connect", _open_for_upgrade)
    sa.event.listen(engine, "begin", _begin)
    try:
        stored_revision = _revision(engine)
        if path is not None and stored_revision not in (None, revisions()[-1]):
            _keep_backup(path, str(stored_revision))
        with engine.begin() as connection:
            if stored_revision is None:
                _drop_empty_tables(connection, tables)
            _migrate(connection)
    finally:
        engine.dispose()


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    with as_file(files("ledger") / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _open_for_upgrade(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # else Python's driver commits before every CREATE TABLE
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    connection.execute("PRAGMA journal_mode=WAL")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _upgrade_lock(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with Path(f"{path}.upgrade.lock").open("a") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


def _drop_empty_tables(connection: sa.Connection, tables: Collection[str]) -> None:
    """Removes what a killed first start of version 0.1.0 left: tables without rows, and no revision.

    Raises `LedgerDamagedError` if one of the tables has rows.
    """
    table_names = set(sa.inspect(connection).get_table_names()) & {*tables, "source_jobs", _VERSION_TABLE}
    for name in sorted(table_names):
        if connection.execute(sa.text(f'SELECT 1 FROM "{name}" LIMIT 1')).first() is not None:  # noqa: S608 - names of this schema
            raise LedgerDamagedError(
                f"the table {name} has rows, but {_VERSION_TABLE} does not say which schema the database has",
                where=connection.engine.url.render_as_string(hide_password=True),
                remedy=f"restore a copy of the database (see the folder {BACKUPS}), or move this one away and import the registry again",
            )
    for name in sorted(table_names):
        connection.execute(sa.text(f'DROP TABLE "{name}"'))


def _keep_backup(path: Path, stored_revision: str) -> None:
    """Copies the database to `backups/`, synced to disk, and removes the oldest copies."""
    folder = path.parent / BACKUPS
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-schema-{stored_revision}.db"
    partial = target.with_suffix(".part")
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(partial)) as copy:
        source.backup(copy)
    partial.chmod(0o600)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(target)
    sync_folder(folder)
    for old_copy in sorted(folder.glob(f"{path.stem}-*-schema-*.db"))[:-BACKUPS_KEPT]:
        old_copy.unlink(missing_ok=True)
