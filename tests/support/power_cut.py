"""A power cut without a power cut: what was not synced is lost.

While it is active, `os.fsync` of a file or a folder is noted. `cut` then does to a folder what the loss of power may do: files that were
never synced, or were written to after it, are empty, and names that their folder was not synced with are gone. SQLite syncs on its own, below
Python; its files are left as they are.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self


class PowerCut:
    """Notes which files and folder entries are on disk."""

    def __init__(self) -> None:
        self.files: dict[int, int] = {}
        """Inode to the size that was synced."""
        self.entries: dict[int, set[str]] = {}
        """Inode of a folder to the names that were synced with it."""
        self._fsync = os.fsync

    def __enter__(self) -> Self:
        os.fsync = self._noted  # type: ignore[assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.fsync = self._fsync

    def _noted(self, handle: int) -> None:
        self._fsync(handle)
        state = os.fstat(handle)
        if stat.S_ISDIR(state.st_mode):
            self.entries[state.st_ino] = set(os.listdir(handle))
        else:
            self.files[state.st_ino] = state.st_size

    def forget(self, folder: Path) -> None:
        """As if nothing below the folder had been synced yet."""
        for path in [folder, *folder.rglob("*")]:
            self.files.pop(path.stat().st_ino, None)
            self.entries.pop(path.stat().st_ino, None)

    def cut(self, home: Path) -> None:
        """The power goes: tables and spool of a home are what was synced."""
        for folder in [*home.glob("tables"), *home.glob("tables/**/"), *home.glob("spool")]:
            if not folder.exists():
                continue
            entries = self.entries.get(folder.stat().st_ino, set())
            for path in folder.iterdir():
                if path.is_file() and path.name not in entries:
                    path.unlink()
                elif path.is_file() and self.files.get(path.stat().st_ino) != path.stat().st_size:
                    path.write_bytes(b"")
                elif path.is_dir() and path.name not in entries and not path.name.startswith("rootcost-part-"):
                    _remove(path)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)
