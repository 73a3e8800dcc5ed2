"""Child processes end with the service, however it ends: by a signal, `kill -9`, or for lack of memory.

The child holds the reading end of a pipe whose writing end only its parent has. When the parent is gone the system closes that end, on
Linux and on macOS, and the child, which waits for nothing else in a thread of its own, ends at once.

    python -m rootcost.service.child MODULE ARGUMENTS…      runs a module; the pipe is standard input
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable


def end_with_parent() -> None:
    """Ends this process, which `multiprocessing` started, as soon as its parent is gone."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        raise RuntimeError("only a process that multiprocessing started has a parent to end with")
    _end_after(parent.join)


def _end_with_pipe(pipe: int) -> None:
    """Ends this process, and those it started, as soon as the other end of `pipe` is closed."""

    def wait() -> None:
        while os.read(pipe, 1):
            pass

    _end_after(wait)


def _end_after(wait: Callable[[], None]) -> None:
    def end() -> None:
        wait()
        # Without cleaning up: what a half-done write leaves behind is what a killed process leaves behind.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=end, name="end with parent", daemon=True).start()


def main() -> None:
    """Runs the module that the arguments name, as `python -m` does, until it or the parent ends."""
    import runpy

    pipe = os.dup(sys.stdin.fileno())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    _end_with_pipe(pipe)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
