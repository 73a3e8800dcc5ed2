"""Telemetry comes in from the real OpenTelemetry SDK and from LiteLLM's callback; a 2xx means it is safe on disk."""

from __future__ import annotations

import gzip
import io
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from api.client import ApiProblem, Client
from api.errors import RequestError
from api.receivers import Receivers
from api.routes.receive import BodyLimiter, inflate
from ledger.books import Books
from ledger.spool import Spool
from ledger.tables import PROBLEMS, SPANS
from tests.support.api_examples import TOKEN, app_of, reach

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PROTOBUF = {**AUTH, "Content-Type": "application/x-protobuf"}
JSON = {**AUTH, "Content-Type": "application/json"}


@pytest.fixture
def http(books: Books) -> Iterator[httpx.Client]:
    with reach(books) as client:
        yield client


def export(*names: str) -> ExportTraceServiceRequest:
    """An export request with a span a name."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, name in enumerate(names, 1):
        spans.add(
            trace_id=bytes([1] * 16), span_id=number.to_bytes(8, "big"), name=name, start_time_unix_nano=1_791_180_000 * 10**9
        )
    return request


def spooled(books: Books) -> list[str]:
    """What is in the ledger once the spool is drained."""
    Spool(books.home / "spool").drain(books.store)
    return books.store.scan(SPANS).select("name").collect()["name"].sort(nulls_last=True).to_list()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    document: dict[str, Any] = answer.json()
    return document


@contextmanager
def serving(books: Books, port: int, receivers: Receivers | None = None) -> Iterator[str]:
    """The app behind a real server on loopback."""
    app = app_of(books, receivers=receivers)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_the_real_sdk_delivers(books: Books, free_port: Callable[[], int], compression: Compression) -> None:
    with serving(books, free_port()) as url:
        provider = TracerProvider(resource=Resource({"service.name": "care"}))
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", headers=AUTH, compression=compression)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("tests")
        with tracer.start_as_current_span("invoke_agent support-bot"), tracer.start_as_current_span("chat M") as chat:
            chat.set_attribute("gen_ai.usage.input_tokens", 2000)
        provider.shutdown()
        with Client(url, TOKEN) as client:
            assert client.freshness().spool_files == 2
    assert spooled(books) == ["chat M", "invoke_agent support-bot"]
    assert books.store.scan(SPANS).collect()["input_tokens"].sum() == 2000


def test_the_answer_speaks_as_it_was_spoken_to(http: httpx.Client, books: Books) -> None:
    body = export("a", "").SerializeToString()
    answer = http.post("/v1/traces", content=body, headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, "span: name: is empty; name every span")
    sent = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "AQEBAQEBAQEBAQEBAQEBAQ==",
                                "spanId": "AAAAAAAAAAk=",
                                "name": "j",
                                "startTimeUnixNano": "1791180000000000000",
                            },
                            {},
                        ]
                    }
                ]
            }
        ]
    }
    answer = http.post("/v1/traces", json=sent, headers=AUTH)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"partialSuccess": {"rejectedSpans": "1", "errorMessage": "span: name: is empty; name every span"}}
    assert spooled(books) == ["a", "j"]
    assert books.store.scan(PROBLEMS).collect().height == 1


def test_full_success_is_an_empty_answer(http: httpx.Client) -> None:
    assert http.post("/v1/traces", content=export("a").SerializeToString(), headers=PROTOBUF).content == b""
    assert (
        http.post("/v1/traces", content=b"{}", headers={**JSON, "Content-Type": "application/json; charset=utf-8"}).json() == {}
    )


def test_what_cannot_be_read_is_refused(http: httpx.Client, books: Books) -> None:
    body = export("a").SerializeToString()
    assert problem(http.post("/v1/traces", content=b"\xff" * 9, headers=PROTOBUF), 400)["where"] == "body"
    assert problem(http.post("/v1/traces", content=b"{", headers=JSON), 400)["remedy"]
    assert (
        problem(http.post("/v1/traces", content=body, headers={**PROTOBUF, "Content-Encoding": "gzip"}), 400)["where"] == "body"
    )
    assert (
        problem(http.post("/v1/traces", content=body, headers={**PROTOBUF, "Content-Encoding": "br"}), 415)["where"]
        == "Content-Encoding"
    )
    assert (
        problem(http.post("/v1/traces", content=body, headers={**AUTH, "Content-Type": "text/plain"}), 415)["where"]
        == "Content-Type"
    )
    assert problem(http.post("/v1/traces", content=body, headers=AUTH), 415)["where"] == "Content-Type"
    assert spooled(books) == []


@pytest.mark.slow
@pytest.mark.parametrize("squeeze", [gzip.compress, zlib.compress])
def test_a_bomb_is_stopped_while_it_unfolds(
    home: Path, monkeypatch: pytest.MonkeyPatch, squeeze: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setenv("ROOTCOST_SERVE__MAX_BODY_MB", "1")
    encoding = "gzip" if squeeze is gzip.compress else "deflate"
    with Books.open(home) as books, reach(books) as http:
        bomb = squeeze(b"\0" * (50 << 20))
        assert len(bomb) < 1 << 20
        problem(http.post("/v1/traces", content=bomb, headers={**PROTOBUF, "Content-Encoding": encoding}), 413)
        problem(http.post("/v1/traces", content=b"\0" * ((1 << 20) + 1), headers=PROTOBUF), 413)

        def endless() -> Iterator[bytes]:
            for _ in range(20):
                yield b"\0" * (1 << 17)

        problem(http.post("/v1/traces", content=endless(), headers=PROTOBUF), 413)


def test_members_of_a_gzip_body_are_read_one_after_another() -> None:
    assert inflate(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", 100) == b"one two"
    raw = zlib.compressobj(wbits=-15)
    assert inflate(raw.compress(b"bare") + raw.flush(), "deflate", 100) == b"bare"


def test_a_full_spool_asks_to_come_back(books: Books) -> None:
    with reach(books, spool=Spool(books.home / "spool", limit_bytes=10)) as http:
        answer = http.post("/v1/traces", content=export("a").SerializeToString(), headers=PROTOBUF)
        assert problem(answer, 429)["type"] == "/problems/spool-full"
        assert int(answer.headers["retry-after"]) > 0
        # LiteLLM's callback sends again after 5xx only, and drops its batch at 429.
        answer = http.post("/v1/litellm", json=[{"id": "call-1"}], headers=AUTH)
        assert problem(answer, 503)["type"] == "/problems/spool-full"
        assert int(answer.headers["retry-after"]) > 0


def test_no_more_is_held_in_memory_than_the_gate_lets_in() -> None:
    gate = BodyLimiter(100)
    with gate.admit() as first, gate.admit() as second:
        first(80)
        with pytest.raises(RequestError) as told:
            second(30)
        assert (told.value.status, told.value.headers) == (429, {"Retry-After": "1"})
        second(20)
    with gate.admit() as alone:
        alone(1000)  # a single body is bounded by its own limit


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id": "c1"}, {"id": "c2"}]',
        b'{"id": "c1"}\n{"id": "c2"}',
        b'{"id": "c1"}\n{"id": "c2"}\n\n',
        b'[{"id": "c1"}, {"no": 1}, {"id": "c2"}]',
    ],
)
def test_litellm_s_callback_in_all_its_shapes(http: httpx.Client, books: Books, body: bytes) -> None:
    refused = int(b"no" in body)
    answer = Client("http://127.0.0.1", TOKEN, http=http).send_litellm(body)
    assert answer.model_dump() == {"accepted": 2, "rejected": refused, "reasons": ["id: is missing"] * refused}
    spooled(books)
    assert books.store.scan(SPANS).collect()["gateway_call_id"].sort().to_list() == ["c1", "c2"]
    assert books.store.scan(PROBLEMS).collect()["place"].to_list() == ["item 2"] * refused


def test_one_bad_item_is_no_error_and_a_bad_body_is(http: httpx.Client) -> None:
    assert http.post("/v1/litellm", json={}, headers=AUTH).json() == {
        "accepted": 0,
        "rejected": 1,
        "reasons": ["id: is missing"],
    }
    for body in (b'[{"id": "c1"', b"", b" \n"):
        with pytest.raises(ApiProblem) as fault:
            Client("http://127.0.0.1", TOKEN, http=http).send_litellm(body)
        assert fault.value.status == 400


def test_nothing_is_acknowledged_before_it_is_on_disk(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with reach(books) as http:
        monkeypatch.setattr("os.fsync", refuse)
        assert problem(http.post("/v1/litellm", json=[{"id": "c1"}], headers=AUTH), 503)["detail"] == "Input/output error"
    assert Spool(books.home / "spool").pending() == []


def test_many_senders_at_once_lose_nothing(books: Books, free_port: Callable[[], int]) -> None:
    with serving(books, free_port()) as url:

        def send(sender: int) -> None:
            with Client(url, TOKEN) as client:
                for n in range(10):
                    client.send_litellm(json.dumps([{"id": f"{sender}-{n}"}]).encode())

        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spooled(books)
    assert books.store.scan(SPANS).collect()["gateway_call_id"].n_unique() == 40


def test_received_spans_are_counted(http: httpx.Client) -> None:
    http.post(
        "/v1/traces",
        content=gzip.compress(export("a", "b", "").SerializeToString()),
        headers={**PROTOBUF, "Content-Encoding": "gzip"},
    )
    text = http.get("/metrics").text
    assert 'rootcost_received_spans_total{receiver="otlp"} 2.0' in text
    assert 'rootcost_rejected_items_total{receiver="otlp"} 1.0' in text
    assert io.StringIO(text).readline().startswith("# HELP")
