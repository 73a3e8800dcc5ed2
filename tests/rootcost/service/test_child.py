"""Child processes end with the process that started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

from rootcost.service.child import end_with_parent

MODULE = """
import sys, time
print(*sys.argv[1:], sys.stdin.read() == "", flush=True)
time.sleep(60)
"""


def test_a_module_runs_with_its_arguments_until_the_pipe_closes(tmp_path: Path) -> None:
    (tmp_path / "forever.py").write_text(MODULE)
    child = subprocess.Popen(
        [sys.executable, "-m", "rootcost.service.child", "forever", "a", "--b"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"a --b True\n"
    child.stdin.close()
    assert child.wait(timeout=20) == -signal.SIGKILL
    child.stdout.close()


def _wait_with_parent(pipe: object) -> None:
    end_with_parent()
    pipe.send(os.getpid())  # type: ignore[attr-defined]
    signal.pause()


def _start_and_die(pipe: object) -> None:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=_wait_with_parent, args=(sender,), daemon=True).start()
    pipe.send(receiver.recv())  # type: ignore[attr-defined]
    os._exit(9)


def test_a_spawned_process_ends_when_its_parent_is_gone() -> None:
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    parent = context.Process(target=_start_and_die, args=(sender,))
    parent.start()
    grandchild = receiver.recv()
    handle = os.pidfd_open(grandchild)
    parent.join(20)

    assert select.select([handle], [], [], 20)[0], "the process outlives its parent"
    os.close(handle)
    receiver.close()
    sender.close()
