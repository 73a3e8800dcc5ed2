"""Processes that are killed at an operation of their own: on a file, or a statement of the database."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable

FORK = multiprocessing.get_context("fork")
_AUDITED = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir", "shutil.rmtree", "sqlite3.connect"})


def forked(work: Callable[[], None]) -> int:
    """Runs `work` in a fork of this process; returns its exit code, negative for a signal."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def kill_self_at(number: int) -> None:
    """Arranges that this process is killed at its n-th operation on files or statement of the database."""
    import sqlalchemy as sa

    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1
        if count >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, _arguments: tuple[object, ...]) -> None:
        if event in _AUDITED:
            step()

    sync = os.fsync

    def counted_sync(handle: int) -> None:
        step()
        sync(handle)

    os.fsync = counted_sync  # type: ignore[assignment]
    sys.addaudithook(audit)
    sa.event.listen(sa.Engine, "before_cursor_execute", step)
