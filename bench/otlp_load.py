"""Sends OTLP/HTTP protobuf as fast as it is taken, or at a rate: `python -m bench.otlp_load URL TOKEN`. Prints one JSON line.

Bodies are encoded once; each time they are sent their spans get new ids, so that no two are alike. A sender told 429 or 503
waits as long as it is told and sends the same again. Latency is from the first byte sent to the last byte of the answer, of 2xx only.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.request.max_tokens": 1024,
    "gen_ai.request.temperature": 0.2,
    "server.address": "api.openai.com",
    "server.port": 443,
}
_RESOURCE = {
    "service.name": "support-agent",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.38.0",
    "deployment.environment.name": "prod",
}


class Batch:
    """An export of agent runs of five spans: an agent, three chats, a tool; about 420 bytes a span."""

    def __init__(self, spans: int, seed: int) -> None:
        draw = random.Random(seed)
        export = ExportTraceServiceRequest()
        resource = export.resource_spans.add()
        _attributes(resource.resource, _RESOURCE)
        scope = resource.scope_spans.add()
        scope.scope.name = "opentelemetry.instrumentation.openai_v2"
        now = time.time_ns()
        for n in range(spans):
            span = scope.spans.add(trace_id=b"trace%011d" % n, span_id=b"\xff%07d" % n, flags=256)
            span.parent_span_id = b"\xff%07d" % (n - n % 5) if n % 5 else b""
            span.start_time_unix_nano, span.end_time_unix_nano = now + n * 1000, now + n * 1000 + 400_000_000
            span.name, span.kind, said = _one(n % 5, draw)
            _attributes(span, said)
        self._body = bytearray(export.SerializeToString())
        self._traces, self._trace_of = self._found(rb"trace(\d{11})", 16)
        self._spans, self._span_of = self._found(rb"\xff(\d{7})", 8)
        self._trace_of //= 5
        self._draw = np.random.default_rng()  # other ids in every run

    def _found(self, mark: bytes, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where ids stand, byte by byte, and which each is."""
        found = list(re.finditer(mark, self._body))
        return np.array([m.start() for m in found])[:, None] + np.arange(size), np.array([int(m[1]) for m in found])

    def renewed(self) -> bytes:
        """The same spans with new ids."""
        written = np.frombuffer(self._body, np.uint8)
        for places, of, size in ((self._traces, self._trace_of, 16), (self._spans, self._span_of, 8)):
            ids = self._draw.integers(1, 256, (int(of.max()) + 1, size), dtype=np.uint8)
            written[places] = ids[of]
        return bytes(self._body)


def _one(place: int, draw: random.Random) -> tuple[str, int, dict[str, object]]:
    if place == 0:
        said = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner", "gen_ai.agent.id": "ag-1"}
        return "invoke_agent planner", 1, {**said, "gen_ai.conversation.id": f"conv-{draw.randrange(10_000)}"}
    if place == 3:
        said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_weather", "gen_ai.tool.type": "function"}
        return "execute_tool get_weather", 1, {**said, "gen_ai.tool.call.id": f"call_{draw.randbytes(12).hex()}"}
    used = {"gen_ai.usage.input_tokens": draw.randrange(5000), "gen_ai.usage.output_tokens": draw.randrange(900)}
    told = {"gen_ai.response.id": f"chatcmpl-{draw.randbytes(14).hex()}", "gen_ai.usage.cache_read.input_tokens": 0}
    return "chat gpt-4o", 3, {**_CHAT, **told, **used}


def _attributes(holder: object, said: Mapping[str, object]) -> None:
    for key, value in said.items():
        held = holder.attributes.add(key=key).value  # type: ignore[attr-defined]
        kind = {int: "int_value", float: "double_value"}.get(type(value), "string_value")
        setattr(held, kind, value)


class _Sender(threading.Thread):
    """One connection, kept alive."""

    def __init__(self, url: str, token: str, given: argparse.Namespace, number: int) -> None:
        super().__init__(daemon=True)
        self.batch = Batch(given.spans, number)
        self._where, self._token, self._given = urlsplit(url), token, given
        self._pause = given.spans * given.connections / given.rate if given.rate else 0.0
        self.latencies: list[float] = []
        self.told_to_wait = 0
        self.fault = ""

    def run(self) -> None:
        try:
            self._send()
        except OSError as fault:
            self.fault = f"{type(fault).__name__}: {fault}"

    def _send(self) -> None:
        assert self._where.hostname is not None
        with socket.create_connection((self._where.hostname, self._where.port or 80), timeout=120) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            until, due = time.monotonic() + self._given.seconds, time.monotonic()
            while time.monotonic() < until:
                body = self.batch.renewed()
                status, wait = 0, 0.0
                while status // 100 != 2:
                    time.sleep(wait)
                    began = time.monotonic()
                    status, wait = self._exchange(line, body)
                    if status not in (200, 429, 503):
                        raise OSError(f"status {status}")
                    self.told_to_wait += status != 200
                self.latencies.append(time.monotonic() - began)
                due += self._pause
                time.sleep(max(0.0, due - time.monotonic()))

    def _exchange(self, line: socket.socket, body: bytes) -> tuple[int, float]:
        head = (
            f"POST {self._where.path} HTTP/1.1\r\nHost: {self._where.netloc}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        line.sendall(head.encode() + body)
        told = b""
        while b"\r\n\r\n" not in told:
            part = line.recv(65536)
            if not part:
                raise OSError("the connection was closed")
            told += part
        start, _, rest = told.partition(b"\r\n\r\n")
        headers = dict(row.lower().split(b": ", 1) for row in start.split(b"\r\n")[1:])
        left = int(headers.get(b"content-length", b"0")) - len(rest)
        while left > 0:
            left -= len(line.recv(65536))
        return int(start.split(b" ", 2)[1]), float(headers.get(b"retry-after", b"0.2"))


def main() -> None:
    """Sends, and tells what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--spans", type=int, default=500, help="spans of a batch")
    parser.add_argument("--rate", type=float, default=0, help="spans a second; 0: as fast as they are taken")
    given = parser.parse_args()
    senders = [_Sender(given.url, given.token, given, number) for number in range(given.connections)]
    began = time.monotonic()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    seconds = time.monotonic() - began
    latencies = np.sort([s for sender in senders for s in sender.latencies])
    spans = len(latencies) * given.spans
    told = {
        "spans": spans,
        "spans a second": round(spans / seconds),
        "p50 ms": round(float(np.quantile(latencies, 0.5)) * 1000, 1) if spans else None,
        "p99 ms": round(float(np.quantile(latencies, 0.99)) * 1000, 1) if spans else None,
        "told to wait": sum(sender.told_to_wait for sender in senders),
        "faults": [sender.fault for sender in senders if sender.fault],
        "cpu seconds of the sender": round(time.process_time(), 1),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
