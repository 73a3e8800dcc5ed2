"""A receiver of alerts on loopback that answers as it is told: accepts, fails, hangs, asks for patience, is gone, or answers and then has its sender killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_SECONDS = 1.0


@dataclass
class Delivery:
    """A request as it came in, and the status that was answered."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What came in. `behaviour` says how the next request is answered: ok, 500, 429, 410, 302, hang, drip, die."""

    url: str = ""
    behaviour: Callable[[], str] = lambda: "ok"
    deliveries: list[Delivery] = field(default_factory=list)
    victim: int = 0
    """Process that is killed after `die` was answered with 200."""

    def script(self, *words: str) -> None:
        """Answers in this order, then ok."""
        remaining = list(words)
        self.behaviour = lambda: remaining.pop(0) if remaining else "ok"

    @property
    def accepted(self) -> list[Delivery]:
        return [delivery for delivery in self.deliveries if delivery.status == 200]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver, until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            word = receiver.behaviour()
            status = {"ok": 200, "die": 200, "hang": 0, "drip": 0}.get(word) or (0 if word in ("hang", "drip") else int(word))
            receiver.deliveries.append(Delivery(self.path, {k.lower(): v for k, v in self.headers.items()}, body, status))
            if word == "hang":
                time.sleep(HANG_SECONDS)
                return
            with suppress(OSError):
                if word == "drip":
                    for letter in b"HTTP/1.1 200 OK\r\nx-slow: " + b"a" * 40:
                        self.wfile.write(bytes([letter]))
                        time.sleep(HANG_SECONDS / 20)
                    return
                self.send_response(status)
                if status in (429, 503):
                    self.send_header("Retry-After", "120")
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                self.wfile.flush()
            if word == "die" and receiver.victim:
                with suppress(ProcessLookupError):
                    os.kill(receiver.victim, signal.SIGKILL)

        do_GET = do_POST  # noqa: N815 - the name that the server calls

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
