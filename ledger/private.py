"""The ledger's folder belongs to its owner alone, whatever the umask: it holds bills, names, and now and then prompts."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

UNFINISHED: Final = "restore-unfinished"
"""A file in the home of a ledger into which a backup is being restored: the id of the backup. It goes when everything is there."""

_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OWNER_UMASK: Final = 0o077

_user_umask: int | None = None
_closed_homes: set[Path] = set()


def make_private(home: Path) -> None:
    """Makes the folder if it is not there, and closes it and all it holds to other users.

    From then on this process makes files for its owner only. A folder that was closed already is not walked.
    """
    global _user_umask
    umask = os.umask(_OWNER_UMASK)
    if umask != _OWNER_UMASK:
        _user_umask = umask
    is_new = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    if is_new or not _is_open(home):
        return
    _close(home)
    for folder, folders, files in os.walk(home):
        for name in (*folders, *files):
            _close(Path(folder) / name)
    _closed_homes.add(home)


def was_closed_now(home: Path) -> bool:
    """Whether this process has closed a folder that other users could read; true once."""
    if home not in _closed_homes:
        return False
    _closed_homes.remove(home)
    return True


def for_the_user(path: Path) -> None:
    """Gives a file that a user asked for the permissions that it has by the user's own umask."""
    if _user_umask is not None:
        path.chmod(0o666 & ~_user_umask)


def _is_open(path: Path) -> bool:
    return bool(path.lstat().st_mode & _FOR_OTHERS)


def _close(path: Path) -> None:
    # Of another user, or gone meanwhile: nothing that this process could change.
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & _FOR_OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_FOR_OTHERS)
