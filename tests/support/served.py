"""`rootcost serve` as a process of its own, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Served:
    """A `rootcost serve` process on loopback."""

    def __init__(
        self, home: Path, *, port: int, ui_port: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.home, self.port, self.ui_port = home, port, ui_port
        self.url = f"http://127.0.0.1:{port}"
        options = ["--ui-port", str(ui_port)] if ui_port is not None else ["--no-ui"]
        self.printed = home.parent / f"printed-{port}.txt"
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rootcost.cli", "--home", str(home), "serve", "--port", str(port), *options],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def until_ready(self, seconds: float = 180) -> Served:
        deadline = time.monotonic() + seconds
        while "Ctrl-C stops." not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return self

    def said(self) -> str:
        return self.printed.read_text()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Exit code, and seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(timeout=30), time.monotonic() - began

    def token(self) -> str:
        return (self.home / "token").read_text().strip()


@contextmanager
def serving(home: Path, **environment: str) -> Iterator[Served]:
    """The API and the scheduler of a home, without the dashboard, until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = Served(home, port=port, environment=environment)
    try:
        yield service.until_ready()
        code, seconds = service.stop()
        assert code == 0, f"it ended with {code} after {seconds:.0f} s: {service.said()}"
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait(timeout=30)
