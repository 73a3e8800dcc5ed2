"""Delta tables opened for reading: each once a commit, since opening one reads its log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from deltalake import DeltaTable

from ledger import table_log

Stamp = tuple[int, int, int]
"""A commit: its number, and which file it is. A commit that was rolled back may be followed by another one with its number."""


def last_commit(folder: Path) -> Stamp | None:
    """The last commit of a table in a folder; None if its log does not tell: it is not there, cannot be read, or begins with a checkpoint."""
    try:
        number = max(table_log.versions(folder), default=None)
        file = None if number is None else table_log.commit_path(folder, number).stat()
    except OSError:  # whoever opens the table is told
        return None
    return None if number is None or file is None else (number, file.st_ino, file.st_mtime_ns)


class OpenedTables:
    """The tables of a folder as they are after their last commits. They are shared, so they are read only."""

    def __init__(self) -> None:
        self._tables: dict[Path, tuple[Stamp, DeltaTable]] = {}
        self._lock = Lock()

    def newest(self, folder: Path, open_table: Callable[[], DeltaTable | None]) -> DeltaTable | None:
        """The table as it is now; `open_table` opens it where a commit was added since it was last asked for."""
        stamp = last_commit(folder)
        with self._lock:
            entry = self._tables.get(folder)
        if entry is not None and entry[0] == stamp:
            return entry[1]
        delta = open_table()
        if delta is not None and stamp is not None and delta.version() == stamp[0]:
            with self._lock:
                self._tables[folder] = stamp, delta
        return delta
