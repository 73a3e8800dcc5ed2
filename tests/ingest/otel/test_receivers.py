"""Real OpenTelemetry SDKs deliver over protobuf, JSON and gRPC; nothing private is written down; each request counts once."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import polars as pl
import pyarrow as pa
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.types import AnyValue

from api.queries.metric_check import compare
from api.receivers import ReceivedBatch
from attribution.chains.calls import merge_signals
from attribution.usage.spans import read_spans, select_signals
from ingest.otel.emitters import rows_of as rows_of_table
from ingest.otel.tool_arguments import ARGUMENTS
from ledger import registry
from ledger.access.keys import FIRST_KEY
from ledger.access.principals import Principal
from ledger.books import Books
from ledger.errors import FormatError, SpoolFull, StoreUnreachable
from ledger.settings import IngestSettings
from ledger.spool import Spool, _parts
from ledger.store import Store
from ledger.tables import METRIC_POINTS, PROBLEMS, SPANS
from rootcost.service.grpc_server import GrpcReceiver
from rootcost.service.receivers import Parsers, SpoolingReceiver, TraceReader
from tests.support.api_examples import TOKEN, reach
from tests.support.paths import DATA, ROOT

SDK = DATA / "otel_sdk_captures"
LITELLM = DATA / "litellm_otlp"
SETTINGS = IngestSettings()
PROTOBUF = "application/x-protobuf"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
START_NS = 1_795_361_678_658_483_674


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", reader=TraceReader(SETTINGS))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "tables")


def deliver(spool: Spool, signal: Any, body: bytes, kind: str = PROTOBUF) -> ReceivedBatch:
    received = Parsers(SETTINGS).otlp(signal, body, kind)
    spool.append(received.rows, received.problems, points=received.points, bodies=received.bodies)
    return received


def content(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(frame.drop("raw_id").rows(), key=repr)


def written_down(spool: Spool) -> bytes:
    """All that lies on disk, unpacked."""
    parts = [part for path in spool.pending() for part in _parts(path.read_bytes()) if part is not None]
    return b"".join(
        part.content if part.kind in ("spans", "problems") else pa.input_stream(pa.BufferReader(part.content), "zstd").read()
        for part in parts
    )


# --- what comes through the door ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*sorted(LITELLM.glob("*.bin")), SDK / "otlp-http-protobuf.bin"], ids=lambda p: p.name)
def test_what_comes_through_the_door_is_what_a_file_would_give(path: Path, spool: Spool, store: Store) -> None:
    from ingest.otel.decode import decode_request
    from ingest.sources.otlp import read_export

    body = path.read_bytes()
    direct = read_export(decode_request(body), raw_id="r", uri="x", settings=SETTINGS)
    received = deliver(spool, "traces", body)
    spool.drain(store)
    assert (received.accepted, received.rejected) == (direct.frame.height, 0)
    assert content(store.scan(SPANS).collect()) == content(direct.frame)


def a_span(**span: Any) -> ExportTraceServiceRequest:
    """A request of one chat span that carries all kinds of content."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "care"
    resource.resource.attributes.add(key="process.command_args").value.string_value = "SECRET"
    scope = resource.scope_spans.add()
    scope.scope.name = "gcp.vertex.agent"
    scope.scope.attributes.add(key="note").value.string_value = "SECRET"
    good = {"trace_id": bytes([7] * 16), "span_id": bytes([9] * 8), "start_time_unix_nano": START_NS, "name": "call_llm"}
    made = scope.spans.add(**(good | span))
    response = {
        "content": {"parts": [{"text": "SECRET"}]},
        "usage_metadata": {"cached_content_token_count": 40, "thoughts_token_count": 7, "total_token_count": 157},
    }
    for key, value in {
        "gen_ai.system": "gcp.vertex.agent",
        "gen_ai.operation.name": "generate_content",
        "gcp.vertex.agent.llm_request": "SECRET",
        "gcp.vertex.agent.llm_response": json.dumps(response),
        "gen_ai.input.messages": "SECRET",
        "gen_ai.prompt.0.content": "SECRET",
        "input.value": "SECRET",
        "ai.prompt": "SECRET",
    }.items():
        made.attributes.add(key=key).value.string_value = value
    made.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 100
    made.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = 50
    made.status.message = "SECRET"
    made.events.add(name="gen_ai.content.prompt").attributes.add(key="gen_ai.prompt").value.string_value = "SECRET"
    made.links.add(trace_id=bytes([1] * 16), span_id=bytes([2] * 8)).attributes.add(key="x").value.string_value = "SECRET"
    return request


def test_prompts_and_answers_are_not_even_written_to_disk(spool: Spool, store: Store) -> None:
    deliver(spool, "traces", a_span().SerializeToString())
    on_disk = written_down(spool)
    assert b"call_llm" in on_disk
    assert b"SECRET" not in on_disk
    spool.drain(store)
    (told,) = store.scan(SPANS).collect().rows(named=True)
    assert "SECRET" not in repr(told)
    # What is read of the answer's JSON is its counts: 100 in, of which 40 cached; 50 out and 7 thoughts.
    assert [told[c] for c in ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")] == [100, 40, 50, 7]
    assert (told["link_trace_key"], told["service_name"]) == (0x0101010101010101, "care")


@pytest.mark.parametrize("attribute", sorted(ARGUMENTS))
def test_of_a_tools_arguments_only_two_bytes_of_their_hash_are_kept(spool: Spool, store: Store, attribute: str) -> None:
    from ingest.otel.decode import decode_request
    from ingest.sources.otlp import read_export

    request = a_span()
    spans = request.resource_spans[0].scope_spans[0].spans
    for number, arguments in enumerate(["SECRET one", "SECRET one", "SECRET two"], 1):
        span = spans.add(trace_id=bytes([3] * 16), span_id=bytes([number] * 8), start_time_unix_nano=START_NS, name="tool")
        span.attributes.add(key=attribute).value.string_value = arguments
    deliver(spool, "traces", request.SerializeToString())
    assert b"SECRET" not in written_down(spool)
    spool.drain(store)
    digests = [
        json.loads(row)["arguments_digest"]
        for row in store.scan(SPANS).filter(name="tool").sort("span_key").collect()["attributes"]
    ]
    assert digests[0] == digests[1] != digests[2]
    assert {len(digest) for digest in digests} == {4}
    document = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "03" * 16, "spanId": "0a" * 8, "startTimeUnixNano": str(START_NS),
         "attributes": [{"key": attribute, "value": {"stringValue": "SECRET one"}}]}
    ]}]}]})  # fmt: skip
    (row,) = read_export(decode_request(document.encode()), raw_id="r", uri="x", settings=SETTINGS).frame["attributes"]
    assert json.loads(row) == {"arguments_digest": digests[0]}, "JSON, protobuf and files give the same"
    assert {row["column"] for row in rows_of_table("attributes") if row["attribute"] == attribute} == {"content"}


def test_content_is_kept_where_the_settings_say_so(tmp_path: Path, store: Store) -> None:
    settings = IngestSettings(keep_content=True)
    spool = Spool(tmp_path / "spool", reader=TraceReader(settings))
    received = Parsers(settings).otlp("traces", a_span().SerializeToString(), PROTOBUF)
    spool.append(bodies=received.bodies)
    spool.drain(store)
    (told,) = store.scan(SPANS).collect().rows(named=True)
    kept = json.loads(told["attributes"])["content"]
    assert set(kept) == {
        "gcp.vertex.agent.llm_request",
        "gcp.vertex.agent.llm_response",
        "gen_ai.input.messages",
        "gen_ai.prompt.0.content",
        "input.value",
        "ai.prompt",
    }
    assert kept["gen_ai.prompt.0.content"] == "SECRET"
    assert told["cache_read_tokens"] == 40


def test_bad_spans_are_named_and_their_neighbours_are_kept(spool: Spool, store: Store) -> None:
    request = a_span()
    spans = request.resource_spans[0].scope_spans[0].spans
    spans.add(trace_id=b"short", span_id=bytes([9] * 8), start_time_unix_nano=START_NS)
    spans.add(trace_id=bytes([7] * 16), span_id=bytes(8), start_time_unix_nano=START_NS)
    spans.add(trace_id=bytes([7] * 16), span_id=bytes([8] * 8), start_time_unix_nano=1)
    spans.add(trace_id=bytes([7] * 16), span_id=bytes([8] * 8), start_time_unix_nano=START_NS, name="last")
    received = deliver(spool, "traces", request.SerializeToString())
    assert (received.accepted, received.rejected) == (2, 3)
    assert [(p.place, p.field) for p in received.problems] == [
        ("span 2", "trace_id"),
        ("span 3", "span_id"),
        ("span 4", "start_time_unix_nano"),
    ]
    spool.drain(store)
    assert sorted(store.scan(SPANS).collect()["name"]) == ["call_llm", "last"]
    assert store.scan(PROBLEMS).collect().height == 3


@pytest.mark.slow
def test_a_body_cut_at_any_byte_is_refused_or_gives_whole_spans(spool: Spool) -> None:
    body = (SDK / "otlp-http-protobuf.bin").read_bytes()
    whole = {name: row for *_, name, row in ((r["name"], r) for r in rows_of(body))}
    counted = []
    for size in range(1, len(body)):
        try:
            received = Parsers(SETTINGS).otlp("traces", body[:size], PROTOBUF)
        except FormatError:
            counted.append(0)
            continue
        assert received.problems, size
        frame, _ = TraceReader(SETTINGS)(received.bodies)
        assert frame.height == received.accepted
        for row in frame.drop("raw_id").rows(named=True):
            assert row == whole[row["name"]]
        counted.append(received.accepted)
    assert counted == sorted(counted)
    assert set(counted) == {0, 1, 2, 3} or set(counted) == {0, 1, 2}


def rows_of(body: bytes) -> list[dict[str, Any]]:
    received = Parsers(SETTINGS).otlp("traces", body, PROTOBUF)
    return TraceReader(SETTINGS)(received.bodies)[0].drop("raw_id").rows(named=True)


def test_any_order_and_repetition_of_deliveries_is_the_same(tmp_path: Path) -> None:
    bodies = [path.read_bytes() for path in sorted(LITELLM.glob("*.bin"))]
    seen = []
    for seed in range(3):
        spool, store = Spool(tmp_path / f"spool-{seed}", reader=TraceReader(SETTINGS)), Store(tmp_path / f"tables-{seed}")
        order = [*bodies, *bodies[:2]]
        random.Random(seed).shuffle(order)
        for number, body in enumerate(order):
            deliver(spool, "traces", body)
            if number % 3 == seed:
                spool.drain(store)
        spool.drain(store)
        seen.append(content(store.scan(SPANS).collect()))
    assert len(seen[0]) == 573
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.slow
def test_much_is_read_by_a_process_of_its_own(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpoolingReceiver, "AT_HAND_BYTES", 0)
    porch = SpoolingReceiver(tmp_path / "spool", SETTINGS)
    bodies = [path.read_bytes() for path in sorted(LITELLM.glob("*.bin"))]
    try:
        deliver(porch, "traces", bodies[0])
        assert porch.drain(store) == 4
        assert porch._reader is not None
        process = porch._reader[0]
        process.kill()  # as when memory is short
        process.join()
        deliver(porch, "traces", bodies[1])
        with pytest.raises(StoreUnreachable, match="has ended"):
            porch.drain(store)
        assert porch.drain(store) == 12  # nothing was lost
    finally:
        porch.close()
    assert porch._reader is None


# --- gRPC ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def grpc_door(spool: Spool, port: int) -> Iterator[str]:
    def keep(received: ReceivedBatch, receiver: str) -> ReceivedBatch:
        spool.append(received.rows, received.problems, points=received.points, bodies=received.bodies)
        return received

    def sender(header: str) -> Principal | None:
        return FIRST_KEY if header == f"Bearer {TOKEN}" else None

    door = GrpcReceiver(Parsers(SETTINGS), keep, address=f"127.0.0.1:{port}", identify=sender, max_body_mb=4)
    door.start()
    try:
        yield door.address
    finally:
        door.stop()


def call(address: str, body: bytes, *, token: str = TOKEN, service: str = "trace.v1.TraceService") -> bytes:
    with grpc.insecure_channel(address) as channel:
        export = channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export")
        answered: bytes = export(body, metadata=(("authorization", f"Bearer {token}"),), timeout=20)
        return answered


def test_the_real_sdk_delivers_over_grpc(spool: Spool, store: Store, free_port: Callable[[], int]) -> None:
    with grpc_door(spool, free_port()) as address:
        provider = TracerProvider(resource=Resource({"service.name": "care"}))
        headers = (("authorization", f"Bearer {TOKEN}"),)
        provider.add_span_processor(BatchSpanProcessor(GrpcSpanExporter(endpoint=address, insecure=True, headers=headers)))
        tracer = provider.get_tracer("tests")
        for number in range(20):
            with tracer.start_as_current_span("chat M") as chat:
                chat.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": number})
        provider.shutdown()
    spool.drain(store)
    told = store.scan(SPANS).collect()
    assert (told.height, told["input_tokens"].sum()) == (20, 190)  # 0 + 1 + … + 19


def test_grpc_answers_as_http_does(spool: Spool, free_port: Callable[[], int]) -> None:
    request = a_span()
    request.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short")
    with grpc_door(spool, free_port()) as address:
        partial = ExportTraceServiceResponse.FromString(call(address, request.SerializeToString())).partial_success
        assert partial.rejected_spans == 1
        assert "span 2: trace_id" in partial.error_message
        assert call(address, a_span().SerializeToString()) == b""
        for body, token, code in ((b"\xff" * 9, TOKEN, "INVALID_ARGUMENT"), (b"", "wrong", "UNAUTHENTICATED")):
            with pytest.raises(grpc.RpcError) as fault:
                call(address, body, token=token)
            assert fault.value.code().name == code


def test_grpc_tells_a_sender_when_to_come_back(tmp_path: Path, free_port: Callable[[], int]) -> None:
    from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

    with grpc_door(Spool(tmp_path / "spool", limit_bytes=10), free_port()) as address, pytest.raises(grpc.RpcError) as fault:
        call(address, a_span().SerializeToString())
    assert fault.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = Status.FromString(dict(fault.value.trailing_metadata())["grpc-status-details-bin"]).details
    info = RetryInfo()
    assert details[0].Unpack(info)
    assert info.retry_delay.seconds > 0


def test_the_real_sdk_keeps_what_a_full_spool_refused(tmp_path: Path, store: Store, free_port: Callable[[], int]) -> None:
    """The exporter waits as it is told and delivers in the end."""
    spool = Spool(tmp_path / "spool", limit_bytes=10, reader=TraceReader(SETTINGS))
    with grpc_door(spool, free_port()) as address:
        provider = TracerProvider()
        exporter = GrpcSpanExporter(endpoint=address, insecure=True, headers=(("authorization", f"Bearer {TOKEN}"),), timeout=30)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        with provider.get_tracer("tests").start_as_current_span("patient"):
            pass
        room = threading.Timer(0.5, lambda: setattr(spool, "limit_bytes", 1 << 30))
        room.start()
        provider.shutdown()
        room.join()
    spool.drain(store)
    assert store.scan(SPANS).collect()["name"].to_list() == ["patient"]


# --- events and metrics: Claude Code --------------------------------------------------------------------------------------------

REQUEST = {
    "event.name": "api_request",
    "session.id": "s-7",
    "model": "claude-sonnet-4-6",
    "input_tokens": 3,
    "output_tokens": 5,
    "cache_read_tokens": 17241,
    "cache_creation_tokens": 16935,
    "cost_usd": 0.1068663,
    "duration_ms": 2500,
    "request_id": "req_1",
    "event.sequence": 4,
    "prompt.id": "p-1",
    "query_source": "repl_main_thread",
    "user.email": "someone@example.com",
    "user.account_uuid": "acc-1",
}
"""The recorded request of agents.md 10.3: its cost is that of the one-hour cache price."""


def an_event(*records: dict[str, Any], trace_id: bytes = b"", span_id: bytes = b"") -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "claude-code"
    scope = resource.scope_logs.add()
    scope.scope.name = "com.anthropic.claude_code.events"
    for said in records:
        record = scope.log_records.add(time_unix_nano=START_NS, trace_id=trace_id, span_id=span_id)
        record.body.string_value = f"claude_code.{said['event.name']}"
        for key, value in said.items():
            held = record.attributes.add(key=key).value
            setattr(held, {int: "int_value", float: "double_value"}.get(type(value), "string_value"), value)
    return request


def the_span_of(said: dict[str, Any]) -> ExportTraceServiceRequest:
    """The same request as Claude Code's traces tell it."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "com.anthropic.claude_code.tracing"
    span = scope.spans.add(trace_id=bytes([5] * 16), span_id=bytes([6] * 8), name="claude_code.llm_request")
    span.start_time_unix_nano, span.end_time_unix_nano = START_NS - 2_500_000_000, START_NS
    for key in ("model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "request_id"):
        held = span.attributes.add(key=key).value
        setattr(held, "int_value" if isinstance(said[key], int) else "string_value", said[key])
    return request


def calls(store: Store) -> pl.DataFrame:
    """The calls attribution sees."""
    return merge_signals(
        select_signals(
            read_spans(store.scan(SPANS), registry.timeline(pl.DataFrame(schema=registry.SCHEMA))), spans_are_unique=False
        )
    ).filter(pl.col("usage_scope").is_not_null())


def test_an_event_of_claude_code_is_a_call(spool: Spool, store: Store) -> None:
    chatter = [{"event.name": "user_prompt", "prompt": "SECRET"}, {"event.name": "tool_result", "tool_parameters": "SECRET"}]
    received = deliver(spool, "logs", an_event(REQUEST, *chatter).SerializeToString())
    assert (received.accepted, received.rejected) == (1, 0)
    assert b"SECRET" not in written_down(spool)
    spool.drain(store)
    (told,) = store.scan(SPANS).collect().rows(named=True)
    assert (told["channel"], told["emitter"], told["usage_scope"], told["operation"]) == (
        "otlp-events",
        "claude-code",
        "leaf",
        "chat",
    )
    assert (told["trace_id"], told["span_id"], told["provider_request_id"]) == ("s-7", "req_1", "req_1")
    assert [told[c] for c in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")] == [3, 17241, 16935, 5]
    assert told["input_includes_cache"] is False
    assert told["reported_cost"] == Decimal("0.1068663")
    assert (told["end_time"] - told["start_time"]).total_seconds() == 2.5
    assert "someone" not in repr(told)


@pytest.mark.parametrize("in_a_span", [False, True])
def test_a_request_that_comes_as_span_and_as_event_counts_once(spool: Spool, store: Store, in_a_span: bool) -> None:
    place = {"trace_id": bytes([5] * 16), "span_id": bytes([4] * 8)} if in_a_span else {}
    deliver(spool, "traces", the_span_of(REQUEST).SerializeToString())
    deliver(spool, "logs", an_event(REQUEST, **place).SerializeToString())
    deliver(spool, "logs", an_event(REQUEST, **place).SerializeToString())
    spool.drain(store)
    assert store.scan(SPANS).collect().height == 2
    (told,) = calls(store).rows(named=True)
    assert (told["channels"], told["span_id"]) == ("otlp+otlp-events", "06" * 8)
    assert (told["input_tokens"], told["reported_cost"]) == (3, Decimal("0.1068663"))


def test_two_requests_of_a_session_are_two_calls(spool: Spool, store: Store) -> None:
    again = REQUEST | {"request_id": "req_2", "event.sequence": 5}
    nameless = [{k: v for k, v in REQUEST.items() if k != "request_id"} | {"event.sequence": n} for n in (6, 7)]
    deliver(spool, "logs", an_event(REQUEST, again, *nameless).SerializeToString())
    spool.drain(store)
    assert calls(store)["input_tokens"].to_list() == [3, 3, 3, 3]
    assert sorted(store.scan(SPANS).collect()["span_id"]) == ["req_1", "req_2", "s-7:6", "s-7:7"]


def test_an_event_that_describes_its_span_is_that_span_s_call(spool: Spool, store: Store) -> None:
    """OpenTelemetry's own event: it stands in the span of the request."""
    request = an_event(trace_id=b"", span_id=b"")
    record = request.resource_logs[0].scope_logs[0].log_records.add(time_unix_nano=START_NS)
    record.trace_id, record.span_id = bytes([5] * 16), bytes([6] * 8)
    record.event_name = "gen_ai.client.inference.operation.details"
    for key, value in {"gen_ai.operation.name": "chat", "gen_ai.input.messages": "SECRET"}.items():
        record.attributes.add(key=key).value.string_value = value
    record.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 3
    deliver(spool, "logs", request.SerializeToString())
    deliver(spool, "traces", the_span_of(REQUEST).SerializeToString())
    assert b"SECRET" not in written_down(spool)
    spool.drain(store)
    assert calls(store)["channels"].to_list() == ["otlp+otlp-events"]


def test_codex_s_events_count_where_no_span_tells_of_them(spool: Spool, store: Store) -> None:
    def completed(**place: bytes) -> bytes:
        request = an_event()
        record = request.resource_logs[0].scope_logs[0].log_records.add(time_unix_nano=START_NS, **place)
        counts = {"input_token_count": 100, "cached_token_count": 40, "output_token_count": 10, "reasoning_token_count": 5}
        for key, value in {"event.name": "codex.sse_event", "event.kind": "response.completed", "model": "gpt-5.1"}.items():
            record.attributes.add(key=key).value.string_value = value
        record.attributes.add(key="conversation.id").value.string_value = "c-1"
        for key, count in counts.items():
            record.attributes.add(key=key).value.int_value = count
        body: bytes = request.SerializeToString()
        return body

    assert deliver(spool, "logs", completed()).accepted == 1
    assert deliver(spool, "logs", completed(trace_id=bytes([1] * 16), span_id=bytes([1] * 8))).accepted == 0
    spool.drain(store)
    (told,) = store.scan(SPANS).collect().rows(named=True)
    assert (told["input_tokens"], told["cache_read_tokens"], told["input_includes_cache"]) == (100, 40, True)
    assert (told["conversation_id"], told["response_model"], told["emitter"]) == ("c-1", "gpt-5.1", "codex")


def test_logs_as_json_and_protobuf_say_the_same(spool: Spool) -> None:
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

    request = an_event(REQUEST, trace_id=bytes([5] * 16), span_id=bytes([6] * 8))
    document = MessageToDict(request)
    record = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    record["traceId"], record["spanId"] = "05" * 16, "06" * 8  # OTLP/JSON has hex
    document["resourceLogs"][0]["scopeLogs"][0]["logRecords"].append({"timeUnixNano": {"no": "number"}})
    doors = Parsers(SETTINGS)
    told = doors.otlp("logs", json.dumps(document).encode(), "application/json")
    plain = doors.otlp("logs", request.SerializeToString(), PROTOBUF)
    assert told.rows is not None
    assert plain.rows is not None
    assert content(told.rows) == content(plain.rows)
    assert [p.place for p in told.problems] == ["log record 2"]
    for body in (b"{", b"[]", b'{"resourceSpans": []}', b"\xff" * 8):
        with pytest.raises(FormatError):
            doors.otlp("logs", body, "application/json" if body[:1] in b"{[" else PROTOBUF)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logs", "metrics"])
def test_logs_and_metrics_cut_at_any_byte_are_refused_or_read_in_part(kind: Any) -> None:
    body = (an_event(REQUEST, REQUEST | {"request_id": "req_2"}) if kind == "logs" else usage(input=3)).SerializeToString()
    most = Parsers(SETTINGS).otlp(kind, body, PROTOBUF).accepted
    for size in range(1, len(body)):
        try:
            received = Parsers(SETTINGS).otlp(kind, body[:size], PROTOBUF)
        except FormatError:
            continue
        assert received.accepted < most or received.problems
        assert received.problems


def usage(*, at_ns: int = START_NS, cumulative: bool = False, **counts: int) -> ExportMetricsServiceRequest:
    """The token counter of Claude Code."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "claude-code"
    metric = resource.scope_metrics.add().metrics.add(name="claude_code.token.usage", unit="tokens")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2 if cumulative else 1
    for kind, count in counts.items():
        point = metric.sum.data_points.add(start_time_unix_nano=START_NS - 10**9, time_unix_nano=at_ns, as_double=float(count))
        for key, value in {"type": kind, "model": "claude-sonnet-4-6", "session.id": "s-7"}.items():
            point.attributes.add(key=key).value.string_value = value
    return request


def test_metrics_are_kept_apart_and_counted_nowhere(spool: Spool, store: Store) -> None:
    body = usage(input=3, output=5, cacheRead=17241, cacheCreation=16935).SerializeToString()
    assert deliver(spool, "metrics", body).accepted == 4
    deliver(spool, "metrics", body)
    spool.drain(store)
    assert store.scan(SPANS).collect().height == 0
    told = store.scan(METRIC_POINTS).collect()
    assert dict(told.select("meter", "quantity").iter_rows()) == {
        "input_tokens": 3,
        "output_tokens": 5,
        "cache_read_tokens": 17241,
        "cache_write_tokens": 16935,
    }
    assert told["conversation_id"].unique().to_list() == ["s-7"]


def test_metrics_are_compared_with_what_spans_and_events_say(spool: Spool, store: Store) -> None:
    deliver(spool, "logs", an_event(REQUEST).SerializeToString())
    deliver(spool, "traces", the_span_of(REQUEST).SerializeToString())
    deliver(spool, "metrics", usage(input=3, output=5).SerializeToString())
    spool.drain(store)
    assert compare(store).filter(pl.col("difference") != 0).height == 0
    # A second request, of which the event was lost.
    deliver(spool, "metrics", usage(input=10, at_ns=START_NS + 10**9).SerializeToString())
    spool.drain(store)
    (told,) = compare(store).filter(pl.col("difference") != 0).rows(named=True)
    assert (told["meter"], told["metrics_quantity"], told["calls_quantity"], told["difference"]) == ("input_tokens", 13, 3, 10)
    assert (told["service_name"], told["conversation_id"], told["model"]) == ("claude-code", "s-7", "claude-sonnet-4-6")


def test_a_cumulative_counter_is_its_last_value(spool: Spool, store: Store) -> None:
    for second, total in enumerate((3, 7, 12), 1):
        deliver(spool, "metrics", usage(input=total, at_ns=START_NS + second * 10**9, cumulative=True).SerializeToString())
    spool.drain(store)
    assert compare(store).select("metrics_quantity").item() == 12


def test_the_real_sdk_s_logs_and_metrics_arrive_over_grpc(spool: Spool, store: Store, free_port: Callable[[], int]) -> None:
    with grpc_door(spool, free_port()) as address:
        options: dict[str, Any] = {"endpoint": address, "insecure": True, "headers": (("authorization", f"Bearer {TOKEN}"),)}
        logs = LoggerProvider(resource=Resource({"service.name": "claude-code"}))
        logs.add_log_record_processor(SimpleLogRecordProcessor(GrpcLogExporter(**options)))
        emit(logs)
        logs.shutdown()
        reader = PeriodicExportingMetricReader(GrpcMetricExporter(**options))
        metrics = MeterProvider([reader], resource=Resource({"service.name": "claude-code"}))
        counter = metrics.get_meter("com.anthropic.claude_code").create_counter("claude_code.token.usage")
        counter.add(3, {"type": "input", "model": "claude-sonnet-4-6"})
        metrics.shutdown()
    spool.drain(store)
    assert store.scan(SPANS).collect()["provider_request_id"].to_list() == ["req_9"]
    assert store.scan(METRIC_POINTS).collect()["quantity"].to_list() == [3]


def emit(logs: LoggerProvider) -> None:
    attributes: dict[str, AnyValue] = {
        "event.name": "api_request",
        "request_id": "req_9",
        "session.id": "s",
        "model": "claude-sonnet-4-6",
        "input_tokens": 3,
    }
    logger = logs.get_logger("com.anthropic.claude_code.events")
    logger.emit(body="claude_code.api_request", timestamp=START_NS, attributes=attributes)


def test_the_real_sdk_s_logs_arrive_over_http(books: Books, free_port: Callable[[], int]) -> None:
    from tests.api.routes.test_receive import serving

    with serving(books, free_port(), Parsers(SETTINGS)) as url:
        logs = LoggerProvider(resource=Resource({"service.name": "claude-code"}))
        logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs", headers=AUTH)))
        emit(logs)
        logs.shutdown()
        body = usage(input=3).SerializeToString()
        headers = {**AUTH, "Content-Type": PROTOBUF}
        assert httpx.post(f"{url}/v1/metrics", content=body, headers=headers).status_code == 200
    Spool(books.home / "spool", reader=TraceReader(SETTINGS)).drain(books.store)
    assert books.store.scan(SPANS).collect()["provider_request_id"].to_list() == ["req_9"]
    assert books.store.scan(METRIC_POINTS).collect()["quantity"].to_list() == [3]


# --- JSON over HTTP, as the SDK writes it ---------------------------------------------------------------------------------------


def test_json_and_protobuf_through_the_doors_are_the_same(books: Books) -> None:
    with reach(books, receivers=Parsers(SETTINGS)) as http:
        for name, kind in (("otlp-http-json.json", "application/json"), ("otlp-http-protobuf.bin", PROTOBUF)):
            answer = http.post("/v1/traces", content=(SDK / name).read_bytes(), headers={**AUTH, "Content-Type": kind})
            assert answer.status_code == 200, answer.text
    Spool(books.home / "spool", reader=TraceReader(SETTINGS)).drain(books.store)
    told = books.store.scan(SPANS).collect()
    of_the_run = [
        "trace_key",
        "span_key",
        "parent_key",
        "trace_id",
        "span_id",
        "parent_span_id",
        "start_time",
        "end_time",
        "raw_id",
    ]
    by_run = [part.drop(of_the_run).sort("operation") for part in told.partition_by("trace_key")]
    assert len(by_run) == 2
    assert by_run[0].equals(by_run[1])


def test_usage_that_is_no_token_is_told_as_well(spool: Spool, store: Store) -> None:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    span = scope.spans.add(trace_id=bytes([5] * 16), span_id=bytes([6] * 8), name="chat", start_time_unix_nano=START_NS)
    for key, value in {"gen_ai.operation.name": "chat", "rootcost.usage.seconds": "1.50"}.items():
        span.attributes.add(key=key).value.string_value = value
    counts = {
        "rootcost.usage.web_searches": 2,
        "gen_ai.usage.audio.cache_read.input_tokens": 12,
        "rootcost.usage.output_images": 0,
    }
    for key, count in counts.items():
        span.attributes.add(key=key).value.int_value = count
    span.attributes.add(key="rootcost.usage.pages").value.string_value = "many"
    received = deliver(spool, "traces", request.SerializeToString())
    assert received.rejected == 0
    spool.drain(store)
    (told,) = store.scan(SPANS).collect().rows(named=True)
    assert json.loads(told["other_usage"]) == {"cache_read_audio_tokens": "12", "seconds": "1.5", "web_searches": "2"}
    (problem,) = store.scan(PROBLEMS).collect().rows(named=True)
    assert (problem["severity"], problem["field"], problem["reason"]) == (
        "warning",
        "rootcost.usage.pages",
        "text of 4 characters is no quantity",
    )


def test_a_full_spool_raises_what_the_api_answers(tmp_path: Path) -> None:
    with pytest.raises(SpoolFull):
        deliver(Spool(tmp_path / "spool", limit_bytes=10), "traces", a_span().SerializeToString())


SOAK = """
import sys
from pathlib import Path
import psutil
from bench.otlp_load import Batch
from ledger.settings import IngestSettings
from ledger.spool import Spool
from ledger.store import Store
from rootcost.service.receivers import Parsers, TraceReader
settings, folder = IngestSettings(), Path(sys.argv[1])
parsers, spool, batch = Parsers(settings), Spool(folder / "spool", reader=TraceReader(settings)), Batch(500, 1)
for day in range(16):
    for _ in range(10):
        received = parsers.otlp("traces", batch.renewed(), "application/x-protobuf")
        spool.append(received.rows, received.problems, bodies=received.bodies)
    assert spool.drain(Store(folder / f"tables-{day}")) == 5000
    print(psutil.Process().memory_info().rss >> 20, flush=True)
"""


@pytest.mark.slow
def test_memory_stays_where_it_is_while_telemetry_flows(tmp_path: Path) -> None:
    """A short soak; `python -m bench.otlp --soak 600` is the long one."""
    root = ROOT
    told = subprocess.run([sys.executable, "-c", SOAK, str(tmp_path)], check=True, capture_output=True, text=True, cwd=root)
    resident = [int(line) for line in told.stdout.split()]
    assert len(resident) == 16
    assert max(resident[8:]) - max(resident[4:8]) < 60, resident
