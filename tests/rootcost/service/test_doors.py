"""The receivers cannot be jammed: slow senders, very many members, wrong clocks, and bodies at which a reader fails."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from api.errors import RequestError
from api.routes.receive import inflate
from ingest.source import Reading
from ingest.sources import otlp
from ingest.sources.litellm import source as litellm
from ledger.books import Books
from ledger.periods import now
from ledger.spool import Body
from rootcost.service.http_protocol import TimedProtocol
from rootcost.service.receivers import OTLP_TRACES, Parsers, TraceReader
from tests.ingest.test_odd_files import ABSURD, PROMPT, payload
from tests.support.api_examples import TOKEN, app_of, reach

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PROTOBUF, JSON = "application/x-protobuf", "application/json"


@pytest.fixture
def http(books: Books) -> Iterator[httpx.Client]:
    with reach(books, receivers=Parsers(books.settings.ingest)) as client:
        client.headers.update(AUTH)
        yield client


def export(*days_from_now: float) -> bytes:
    """A trace export with a span for each start."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, days in enumerate(days_from_now, 1):
        start_ns = int((now() + timedelta(days=days)).timestamp()) * 10**9
        spans.add(trace_id=bytes([1] * 16), span_id=number.to_bytes(8, "big"), name="chat", start_time_unix_nano=start_ns)
    content: bytes = request.SerializeToString()
    return content


def test_very_many_members_of_a_gzip_body_are_refused_at_once() -> None:
    with pytest.raises(RequestError) as refusal:
        inflate(gzip.compress(b"", 9, mtime=0) * 100_000, "gzip", 64 << 20)
    assert (refusal.value.status, "more than 10000 compressed members" in refusal.value.detail) == (400, True)


@pytest.mark.slow
def test_a_body_that_trickles_is_given_up_and_so_is_a_head(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "rootcost.toml").write_text("[serve]\nrequest_seconds = 0.2\n")
    head = f"POST /v1/%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {JSON}\r\nContent-Length: 9\r\n\r\n "
    with Books.open(home) as books, listening(books) as port:
        assert b"408 Request Timeout" in answer_to(port, (head % "traces").encode())
        assert b"503 Service Unavailable" in answer_to(port, (head % "litellm").encode())
        for beginning in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y"):
            assert answer_to(port, beginning) == b""


@contextmanager
def listening(books: Books) -> Iterator[int]:
    """The app behind the protocol of `rootcost serve`, with short limits."""

    class HastyProtocol(TimedProtocol):
        HEAD_SECONDS = 0.2

    app = app_of(books, receivers=Parsers(books.settings.ingest))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=HastyProtocol, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def answer_to(port: int, request: bytes) -> bytes:
    """What comes until the server closes the connection."""
    parts = list[bytes]()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                parts.append(part)
    return b"".join(parts)


def test_a_body_at_which_a_reader_fails_is_refused_and_never_quoted(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError(PROMPT)

    for name in ("redact_export", "decode_events", "decode_request", "read_metrics"):
        monkeypatch.setattr(otlp, name, fail)
    monkeypatch.setattr(litellm, "read_body", fail)
    doors = (("traces", PROTOBUF), ("traces", JSON), ("logs", PROTOBUF), ("metrics", PROTOBUF), ("litellm", JSON))
    for path, kind in doors:
        answer = http.post(f"/v1/{path}", content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 400, path
        assert "cannot be read: KeyError at " in answer.json()["detail"]
    assert PROMPT not in caplog.text


@pytest.mark.clock
def test_a_stored_body_that_cannot_be_read_keeps_no_other_one_waiting(monkeypatch: pytest.MonkeyPatch, books: Books) -> None:
    sound, odd = export(0), export(-1)

    def fail_at_odd(bodies: Iterable[bytes], **options: Any) -> Reading:
        contents = list(bodies)
        if odd in contents:
            raise OverflowError
        return genuine(contents, **options)

    genuine = otlp.read_bodies
    monkeypatch.setattr(otlp, "read_bodies", fail_at_odd)
    rows, problems = TraceReader(books.settings.ingest)([Body(OTLP_TRACES, content) for content in (odd, sound)])
    assert rows.height == 1
    assert ["cannot be read: OverflowError" in p.reason for p in problems] == [True]


@pytest.mark.clock
def test_a_span_dated_far_from_now_is_rejected_and_its_neighbours_are_kept(http: httpx.Client) -> None:
    body = export(0, 26_000, -11 * 366)
    answer = http.post("/v1/traces", content=body, headers={"content-type": PROTOBUF})
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_spans) == (200, 2)
    assert "more than 24 hours in the future" in partial.error_message
    items = [payload(1), payload(2, startTime=4_099_000_000), payload(3, startTime=1_300_000_000)]
    assert http.post("/v1/litellm", json=items).json()["rejected"] == 2


def test_an_absurd_value_is_one_rejected_item_at_the_door(http: httpx.Client) -> None:
    for value in ABSURD.values():
        answer = http.post("/v1/litellm", json=[payload(1), payload(2, response_cost=value)])
        assert answer.status_code == 200 and answer.json()["accepted"] >= 1, value
    assert http.post("/v1/litellm", content=b"x" * 140_000).status_code == 400
