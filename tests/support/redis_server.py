"""A Redis server of our own, on loopback, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def binary() -> str | None:
    """The server program: ROOTCOST_REDIS_SERVER, else the one that is installed."""
    return os.environ.get("ROOTCOST_REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A server without persistence: what it held is gone when it ends."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Starts it, empty."""
        program = binary()
        assert program is not None
        command = [
            program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self._folder),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None and time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)

    def pause(self) -> None:
        """It holds its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A fresh server; skips the test where none is installed."""
    if binary() is None:
        pytest.skip("no redis-server on this machine: install the package redis-server")
    server = RedisServer(folder)
    try:
        yield server
    finally:
        server.stop()
