"""Revisions of a database: whether anything was committed to it, by whichever process, without reading any table.

    revisions_of(engine).current()   a text that stays the same only while nothing is committed; None if that cannot be known

SQLite counts the commits that a connection has seen others make; PostgreSQL tells which transactions a reader sees.
"""

from __future__ import annotations

import sqlite3
from threading import Lock

import sqlalchemy as sa


class Revisions:
    """A database whose revisions are not known."""

    def current(self) -> str | None:
        """The revision now."""
        return None

    def close(self) -> None:
        """Closes what is open."""


class _SqliteRevisions(Revisions):
    """A connection that only asks for the number of commits others have made; ours are those of others to it."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock, self._is_closed = Lock(), False
        self._connection: sqlite3.Connection | None = None

    def current(self) -> str | None:
        try:
            with self._lock:
                if self._is_closed:
                    return None
                if self._connection is None:
                    self._connection = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
                return str(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:  # whoever reads the tables is told
            return None

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class _PostgresRevisions(Revisions):
    """Two readers that see the same transactions see the same rows."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def current(self) -> str | None:
        try:
            with self._engine.connect() as connection:
                return str(connection.scalar(sa.text("SELECT pg_current_snapshot()::text")))
        except sa.exc.SQLAlchemyError:
            return None


def revisions_of(engine: sa.Engine) -> Revisions:
    """The revisions of a database."""
    if engine.dialect.name == "postgresql":
        return _PostgresRevisions(engine)
    is_file = engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:")
    return _SqliteRevisions(str(engine.url.database)) if is_file else Revisions()
