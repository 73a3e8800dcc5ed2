"""Temporary folders and files that another process may remove once the one that made them is gone.

Each is locked (flock on the folder or file itself) as long as its process uses it. The system releases the lock when the process ends,
however it ends, so that a lock that can be had belongs to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "rootcost-"
"""Prefix of the names of temporary folders."""
PART_PREFIX: Final = ".fetching-"
"""Prefix of the names of files that are still being written."""


class Scratch:
    """A temporary folder of this process, below `parent` or the system's folder for temporary files; `remove` deletes it."""

    def __init__(self, work: str, parent: str | Path | None = None) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{work}-", dir=parent))
            self._handle = os.open(self.path, os.O_RDONLY)
            _lock(self._handle)
            if self.path.exists():
                return
            os.close(self._handle)  # removed between its creation and its lock

    def remove(self) -> None:
        """Deletes the folder with all it holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._handle)


@contextmanager
def scratch_folder(work: str, parent: str | Path | None = None) -> Iterator[Path]:
    """A temporary folder for the length of a block."""
    scratch = Scratch(work, parent)
    try:
        yield scratch.path
    finally:
        scratch.remove()


@contextmanager
def part_file(folder: Path) -> Iterator[Path]:
    """A file to write and then to move to its final name; what was not moved is deleted at the end of the block."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=PART_PREFIX)
    _lock(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(handle)


def remove_abandoned(parent: Path, pattern: str) -> list[Path]:
    """Removes the temporary folders and files below `parent` whose process is gone; returns them."""
    return [path for path in abandoned(parent, pattern) if _remove(path)]


def abandoned(parent: Path, pattern: str) -> list[Path]:
    """The temporary folders and files below `parent` that match a glob pattern and whose process is gone."""
    try:
        return [path for path in sorted(parent.glob(pattern)) if _is_abandoned(path)]
    except OSError:
        return []


def _is_abandoned(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or a file system without locks
        return False
    finally:
        os.close(handle)
    return True


def _remove(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()


def _lock(handle: int) -> None:
    # A file system without locks: nobody can tell, so nobody removes it.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
