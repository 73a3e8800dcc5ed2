"""Locks between the processes of one ledger: serving a home, writing the tables, and exclusive tasks.

On SQLite these are advisory locks of the operating system on files in the home folder; on PostgreSQL, which several replicas may share,
advisory locks of the database, held by a connection of their own. Both are released when their process ends, so a crash never leaves
a ledger locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from ledger.errors import StoreUnreachable, UsageError
from ledger.private import make_private

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ledger.settings import Settings

WRITE = "write"
"""Name of the lock for writing the tables; every process that changes a table holds it."""

ATTRIBUTION = "attribution"
"""Name of the lock for attributing: a run reads a snapshot of the facts and writes conclusions, so that facts are added meanwhile.

What rewrites the files of conclusions or removes files that a snapshot may need holds both locks, this one first."""

BACKUP = "backup"
"""Name of the lock for making a backup: no file of the tables is removed while it is held. It is taken before the other two."""

_CONNECT_OPTIONS = {"connect_timeout": 5, "keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3}
_SESSION_SETTINGS = (
    # The server must notice a dead client machine in seconds, not after the two hours of TCP keepalive.
    "SELECT set_config(name, value, false) FROM (VALUES ('tcp_keepalives_idle', '2'), ('tcp_keepalives_interval', '1'), "
    "('tcp_keepalives_count', '3'), ('idle_session_timeout', '0')) AS kept(name, value) "
    "WHERE name IN (SELECT name FROM pg_settings)"
)


class Ledger(Protocol):
    """What the locks of a ledger are found by: `ledger.books.Books`."""

    settings: Settings
    home: Path


class AlreadyServedError(UsageError):
    """Another `rootcost serve` already runs on this home."""


class Lock(Protocol):
    """A lock that one process holds at a time."""

    def acquire(self) -> bool:
        """Acquires the lock if it is free, without waiting; returns whether it did."""
        ...

    def is_held(self) -> bool:
        """Whether this process still holds the lock: a database lock is lost with its connection."""
        ...

    def release(self) -> None:
        """Releases the lock."""
        ...


class FileLock:
    """An advisory lock on a file (flock)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def acquire(self) -> bool:
        """Acquires the lock if it is free, without waiting; returns whether it did."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def is_held(self) -> bool:
        """True until it is released."""
        return self._file is not None

    def release(self) -> None:
        """Closes the file, which releases the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


class DatabaseLock:
    """An advisory lock of PostgreSQL. Its connection must be a session: a pooler that shares them by transaction would lose it."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._key = int.from_bytes(hashlib.blake2b(f"rootcost {name}".encode(), digest_size=8).digest(), signed=True)
        self._connection: sa.Connection | None = None

    def acquire(self) -> bool:
        """Acquires the lock if it is free, without waiting. Raises `StoreUnreachable` if the database does not answer."""
        import sqlalchemy as sa

        self.release()
        try:
            engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool, connect_args=dict(_CONNECT_OPTIONS))
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text(_SESSION_SETTINGS))
            acquired_lock = bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}))
        except sa.exc.SQLAlchemyError as error:
            raise StoreUnreachable(
                str(error).splitlines()[0],
                where=sa.make_url(self._url).render_as_string(hide_password=True),
                remedy="check store.database_url, and that the server answers",
            ) from error
        if acquired_lock:
            self._connection = connection
        else:
            connection.close()
        return acquired_lock

    def is_held(self) -> bool:
        """Whether the connection that holds the lock still answers."""
        import sqlalchemy as sa

        if self._connection is None:
            return False
        try:
            self._connection.execute(sa.text("SELECT 1"))
        except sa.exc.SQLAlchemyError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Closes the connection, which releases the lock."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None


def lock_of(books: Ledger, name: str) -> Lock:
    """The lock of that name, shared by all processes of this ledger."""
    url = books.settings.database_url
    if url.startswith("postgresql"):
        return DatabaseLock(url, name)
    database_path = books.settings.store.database_url.removeprefix("sqlite:///")
    return FileLock(Path(f"{database_path}.{name}.lock") if database_path else books.home / f"{name}.lock")


@contextmanager
def exclusive(lock: Lock, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock for the length of a block. Calls `on_wait` once before it waits for another holder.

    Raises `StoreUnreachable` at the end if the lock was lost meanwhile: the work must then be repeated.
    """
    if not lock.acquire():
        if on_wait is not None:
            on_wait()
        # Polls: Ctrl-C would not interrupt a blocking call once a library has set its own signal handler.
        time.sleep(0.1)
        while not lock.acquire():
            time.sleep(0.1)
    try:
        yield
        if not lock.is_held():
            raise StoreUnreachable(
                "the connection that held a lock broke",
                where="store.database_url",
                remedy="the work is repeated",
            )
    finally:
        lock.release()


@contextmanager
def serve_lock(home: Path, address: str) -> Iterator[None]:
    """Holds the lock for serving `home`; raises `AlreadyServedError` that names the process which holds it."""
    make_private(home)
    path = home / "serve.lock"
    with path.open("a+", encoding="utf-8") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            pid, _, holder_address = lock_file.read().strip().partition(" ")
            raise AlreadyServedError(
                f"already served by process {pid or '(unknown)'}{f' on {holder_address}' if holder_address else ''}",
                where=str(home),
                remedy="stop that process first, or use another --home",
            ) from None
        lock_file.truncate(0)
        lock_file.write(f"{os.getpid()} {address}\n")
        lock_file.flush()
        try:
            yield
        finally:
            lock_file.truncate(0)


def is_served(home: Path) -> bool:
    """Whether a `rootcost serve` runs on a home, be it this process."""
    lock = FileLock(home / "serve.lock")
    is_free = lock.acquire()
    lock.release()
    return not is_free


def served_at(home: Path) -> str:
    """Where the `rootcost serve` of a home answers on this machine; "" if none runs."""
    if not (home / "serve.lock").exists() or not is_served(home):
        return ""
    return (home / "serve.lock").read_text("utf-8").strip().partition(" ")[2]


def home_write_lock(home: Path, *, on_wait: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
    """The write lock of a home folder on this machine, before its books are open."""
    make_private(home)
    return exclusive(FileLock(home / f"{WRITE}.lock"), on_wait=on_wait)


def write_lock(books: Ledger, *, on_wait: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
    """The lock for writing the tables, shared by all processes of this ledger."""
    return exclusive(lock_of(books, WRITE), on_wait=on_wait)


def attribution_lock(books: Ledger, *, on_wait: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
    """The lock for attributing, shared by all processes of this ledger. Whoever needs the write lock as well takes it within this one."""
    return exclusive(lock_of(books, ATTRIBUTION), on_wait=on_wait)


def backup_lock(books: Ledger, *, on_wait: Callable[[], None] | None = None) -> contextlib.AbstractContextManager[None]:
    """The lock for making a backup, shared by all processes of this ledger."""
    return exclusive(lock_of(books, BACKUP), on_wait=on_wait)
