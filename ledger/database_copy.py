"""The application database as one SQLite file, whatever it lies in, and back.

SQLite copies itself while others write (its online backup); the rows of PostgreSQL are read in one snapshot. A copy is upgraded like any
SQLite database, so that one of an earlier version can be loaded into either.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa

from ledger import access_tables as _access_tables  # noqa: F401 - declares tables
from ledger.audit import AuditHead
from ledger.db import Base, Database
from ledger.errors import LedgerDamagedError, TableError, UsageError

_OTHER_TABLES: Final = frozenset({"alembic_version", "source_jobs"})
"""Tables without rows of ours: the schema's revision, and the scheduler's jobs, which it makes anew from the sources."""
_ROWS: Final = 1_000
"""Rows that are copied at a time."""


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite database, or None for another database.

    >>> sqlite_path("sqlite:////srv/rootcost.db"), sqlite_path("postgresql+psycopg://host/db")
    (PosixPath('/srv/rootcost.db'), None)
    """
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def copy_to_file(database: Database, target: Path) -> None:
    """Writes the database, as it is at one moment, to a new SQLite file."""
    source_path = sqlite_path(database.url)
    if source_path is None:
        copy = Database(f"sqlite:///{target}")
        try:
            _copy_rows(database.engine, copy.engine)
        finally:
            copy.close()
        Path(f"{target}.upgrade.lock").unlink(missing_ok=True)
        return
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{quote(str(source_path))}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(target)) as target_connection,
        ):
            source.backup(target_connection)
    except sqlite3.DatabaseError as error:
        remedy = "run rootcost verify; earlier backups are as they were"
        raise LedgerDamagedError(f"the database cannot be copied: {error}", where=str(source_path), remedy=remedy) from error


def load_from_file(source: Path, url: str) -> None:
    """Copies the rows of a SQLite file, which is upgraded first, into a database, unless that has them already: all of them or none."""
    copy, database = Database(f"sqlite:///{source}"), Database(url)
    try:
        if _first_table_with_rows(database) is None:
            _copy_rows(copy.engine, database.engine)
    finally:
        copy.close()
        database.close()


def require_empty(database: Database) -> None:
    """Raises `UsageError` if a table of the database has rows."""
    if (name := _first_table_with_rows(database)) is not None:
        raise UsageError(
            f"holds a ledger: its table {name} has rows",
            where=sa.make_url(database.url).render_as_string(hide_password=True),
            remedy="name an empty database (ROOTCOST_STORE__DATABASE_URL), or none: then it is SQLite in the new home",
        )


def _first_table_with_rows(database: Database) -> str | None:
    with database.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if table is AuditHead.__table__:  # a new database has it, too
                continue
            if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
                return str(table.name)
    return None


def _copy_rows(source: sa.Engine, target: sa.Engine) -> None:
    """Copies every row of every table, read in one snapshot and written in one transaction."""
    unknown_names = set(sa.inspect(source).get_table_names()) - Base.metadata.tables.keys() - _OTHER_TABLES
    if unknown_names:
        raise TableError(f"cannot be copied: {', '.join(sorted(unknown_names))} are not declared", where="the database")
    with source.connect() as connection, target.begin() as writing:
        reading = connection.execution_options(
            **({"isolation_level": "REPEATABLE READ"} if source.dialect.name == "postgresql" else {})
        )
        for table in Base.metadata.sorted_tables:
            rows = reading.execution_options(yield_per=_ROWS).execute(sa.select(table)).mappings()
            writing.execute(sa.delete(table))
            for partition in rows.partitions():
                writing.execute(sa.insert(table), [dict(row) for row in partition])
            if target.dialect.name == "postgresql" and table.autoincrement_column is not None:
                # The next row gets a number of its own.
                number = table.autoincrement_column
                last_id = sa.select(sa.func.max(number)).scalar_subquery()
                sequence = sa.func.pg_get_serial_sequence(table.name, number.name)
                writing.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(last_id, 1), last_id.is_not(None))))
