"""Leader election: of the processes that serve one ledger, one runs the scheduled jobs.

Leading is holding a lock (see `ledger.locks`): of the database on PostgreSQL, of a file on SQLite. It is asked for every second, so a leader
that dies is followed within seconds: its connection breaks, the server lets the lock go, and the next one to ask has it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ledger.db import Leader
from ledger.errors import SettingsError
from ledger.locks import lock_of
from ledger.periods import now
from ledger.sources import process

if TYPE_CHECKING:
    from ledger.books import Books

log = logging.getLogger("rootcost.leader")

POLL_SECONDS = 1.0
"""How often the lock is tried, and checked by its holder."""
_MAX_MISMATCHES = 3


class Leadership:
    """Whether this process is the leader. `address` is the URL it serves, for display."""

    def __init__(self, books: Books, address: str = "") -> None:
        self._books = books
        self._address = address
        self._lock = lock_of(books, "leader")
        self.leads = False
        self._strange = 0

    def keep(self) -> bool:
        """Becomes the leader if there is none, or checks that it still is.

        Raises `SettingsError` where the leader writes other tables than this process would: figures in the database would name
        runs that the other's tables do not hold. Raises `StoreUnreachable` where the database does not answer; it does not lead then.
        """
        was, self.leads = self.leads, False
        if was and self._lock.is_held():
            self.leads = True
            return True
        if was:
            log.warning("the lead is lost: the connection that held it broke")
        if self._lock.acquire():
            try:
                self._note()
            except BaseException:
                self._lock.release()
                raise
            self.leads = True
            log.info("%s leads", process())
            return True
        self._same_tables()
        return False

    def resign(self) -> None:
        """Releases the lock, so that another process can lead."""
        self.leads = False
        self._lock.release()

    def _tables(self) -> str:
        uri = self._books.settings.tables_uri
        return uri if "://" in uri else str(Path(uri).absolute())

    def _note(self) -> None:
        with self._books.database.session() as session:
            session.add(Leader(process=process(), address=self._address, tables_uri=self._tables(), since=now()))

    def _same_tables(self) -> None:
        with self._books.database.session() as session:
            newest = session.scalars(sa.select(Leader).order_by(Leader.id.desc()).limit(1)).first()
        # A new leader may not have stored its row yet, so one mismatch is not enough.
        self._strange = self._strange + 1 if newest is not None and newest.tables_uri != self._tables() else 0
        if newest is not None and self._strange >= _MAX_MISMATCHES:
            raise SettingsError(
                f"the leader of this database, {newest.process}, keeps its tables at {newest.tables_uri}, this process at {self._tables()}",
                where="store.uri",
                remedy="replicas of one database share one store: give all of them the same store.uri",
            )
