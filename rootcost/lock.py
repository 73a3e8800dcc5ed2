"""Two processes, one home: who may serve it, and whose turn it is to write.

Both are advisory locks of the operating system on files in the home folder: they vanish with the process that held them,
however it ended, so a crash never leaves a ledger locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ledger.errors import UsageError


class AlreadyServedError(UsageError):
    """Another `rootcost serve` already runs on this home."""


@contextmanager
def serving(home: Path, address: str) -> Iterator[None]:
    """Holds the right to serve `home`; raises `AlreadyServedError` that names the process which has it."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "serve.lock"
    with path.open("a+", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            pid, _, where = held.read().strip().partition(" ")
            raise AlreadyServedError(
                f"already served by process {pid or '(unknown)'}{f' on {where}' if where else ''}",
                where=str(home),
                remedy="stop that one first, or give this one another --home",
            ) from None
        held.truncate(0)
        held.write(f"{os.getpid()} {address}\n")
        held.flush()
        try:
            yield
        finally:
            held.truncate(0)


@contextmanager
def writing(home: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the turn to write the tables of `home`. Waits for whoever has it, after telling `waiting` once."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "write.lock").open("a+", encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            _wait_for(held)
        yield


def _wait_for(held: TextIO) -> None:
    """Asks again and again: a blocking flock would not be woken by Ctrl-C once a library has set its own signal handler."""
    while True:
        time.sleep(0.1)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
