"""The open ledger: settings, tables and application state of one home folder."""

from __future__ import annotations

import contextlib
from copy import copy
from pathlib import Path
from typing import Self

from ledger import settings as _settings
from ledger.db import Database
from ledger.errors import LedgerDamagedError
from ledger.locks import write_lock
from ledger.private import UNFINISHED, make_private
from ledger.problems import Problem
from ledger.settings import Settings
from ledger.snapshot import snapshot
from ledger.store import Store
from ledger.table_repair import repair_tables
from ledger.tables import FACTS


class Books:
    """Settings, table store and database that every command and service uses.

    >>> import tempfile
    >>> with Books.open(tempfile.mkdtemp()) as books:
    ...     books.store.version(__import__("ledger.tables").tables.CHARGES) is None
    True
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.home
        make_private(self.home)
        _require_restored(self.home)
        self.store = Store(settings.tables_uri, settings.store.options)
        self.database = Database(settings.database_url, before_commit=self.store.sync)
        self.repairs: list[Problem] = repair_tables(self.store, self.database, write_lock(self))
        """What was damaged by a power cut or a disk and is rolled back; empty as a rule. It is listed in `problems`, too."""

    @classmethod
    def open(cls, home: Path | str | None = None) -> Books:
        """Reads the settings and opens the store and the database they name."""
        return cls(_settings.load(home))

    @property
    def folders(self) -> list[Path]:
        """The folders on this machine that the ledger writes to."""
        return [self.home, *([] if "://" in self.store.root else [Path(self.store.root)])]

    def snapshot(self) -> Books:
        """The same books, in which the facts stay as they are now: what reads them for minutes need not keep others from adding some."""
        books = copy(self)
        books.store = snapshot(self.store, FACTS)
        return books

    def close(self) -> None:
        """Writes the tables to disk and closes the connections."""
        try:
            self.store.sync()
        finally:
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_restored(home: Path) -> None:
    """Raises `LedgerDamagedError` for a home into which a backup was restored in part."""
    with contextlib.suppress(FileNotFoundError):
        backup_id = (home / UNFINISHED).read_text("utf-8").strip()
        raise LedgerDamagedError(
            f"the restore of the backup {backup_id} into it was not finished",
            where=str(home),
            remedy=f"repeat it: rootcost restore SOURCE --at {backup_id} --home {home}",
        )
