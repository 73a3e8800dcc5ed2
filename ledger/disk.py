"""A full disk is a state, not a defect: it is told in a sentence, nothing is half done meanwhile, and it ends when there is room again.

Nothing is remembered. Whoever is about to write asks whether there is room, so that work goes on by itself once somebody made some. A
reserve stays free for what is already accepted: the database and the commits of the tables.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ledger.errors import DiskFull, StoreUnreachable

_FAILURES: Final = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESTALE})
_FAILURE_MESSAGES: Final = (
    "input/output error",
    "disk i/o error",
    "read-only file system",
    "readonly database",
    "stale file handle",
    "(os error 5)",
    "(os error 30)",
)

RESERVE_BYTES: Final = 64 << 20
RESERVE_PERCENT: Final = 2
"""The reserve is the smaller of both, so that a small disk can be used, too."""

_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MESSAGES: Final = ("no space left on device", "disk quota exceeded", "database or disk is full", "(os error 27)")
"""What libraries write that do not pass the system's error number on."""


def require_room(folders: Iterable[Path], size_bytes: int = 0) -> None:
    """Raises `DiskFull` unless the disk of each folder has room for `size_bytes` and the reserve."""
    for folder in folders:
        if _free_bytes(folder) < size_bytes:
            raise disk_full(folder)


def shortage(folders: Iterable[Path]) -> str | None:
    """A sentence if one of the folders' disks has no room, else None."""
    try:
        require_room(folders, 1)
    except DiskFull as error:
        return str(error)
    return None


def disk_full(folder: Path | str) -> DiskFull:
    """The error that names the folder and what ends it."""
    return DiskFull(
        "the disk is full",
        where=str(folder),
        remedy="make room on it; what is sent meanwhile is refused and sent again, and everything goes on by itself",
    )


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that there is no room.

    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(ValueError("no such column"))
    (True, False)
    """
    return any(
        isinstance(cause, DiskFull)
        or (isinstance(cause, OSError) and cause.errno in _ERRNOS)
        or any(message in str(cause).lower() for message in _MESSAGES)
        for cause in _causes(error)
    )


def error_of(error: BaseException, folder: Path | str) -> StoreUnreachable | None:
    """The error to tell where a disk is full or fails below a library that only passes it on; None where no disk is to blame."""
    if is_full(error):
        return disk_full(folder)
    causes = list(_causes(error))
    is_failing = any(isinstance(cause, OSError) and cause.errno in _FAILURES for cause in causes) or any(
        message in str(cause).lower() for cause in causes for message in _FAILURE_MESSAGES
    )
    if not is_failing:
        return None
    return StoreUnreachable(
        "the disk cannot be read or written",
        where=str(folder),
        remedy="look for errors of the disk in the system's log; nothing that was acknowledged is lost, and what was being done can be repeated",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the folder's disk, without the reserve; it may not exist yet."""
    existing_folder = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    if existing_folder is None:
        return 0
    disk = os.statvfs(existing_folder)
    if not disk.f_blocks:  # a file system that does not tell: an error will
        return sys.maxsize
    size_bytes, free_bytes = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return free_bytes - min(RESERVE_BYTES, size_bytes * RESERVE_PERCENT // 100)
