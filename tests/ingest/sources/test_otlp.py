"""OTLP in: recorded exports give their own sums in any encoding, order and batching, and nothing broken breaks its neighbours."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest.otel.decode import decode_request
from ingest.source import ListedObject, RawObject, Reading
from ingest.sources import otlp
from ingest.sources.otlp import SOURCE, read_export, rejected
from ledger import ids
from ledger.errors import FormatError, ObjectMissingError
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.store import Store
from ledger.tables import SPANS
from tests.support.fetchers import NoFetcher
from tests.support.paths import DATA

REPLAYS = sorted((DATA / "otlp_genai_replays").glob("*.otlp.jsonl"))
SDK = DATA / "otel_sdk_captures"
LITELLM = DATA / "litellm_otlp"
SETTINGS = IngestSettings()
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def read_bytes(tmp_path: Path) -> Callable[[bytes], Reading]:
    """Reads bytes as a file, and gives all its rows and problems."""

    def read(body: bytes, name: str = "traces") -> Reading:
        path = tmp_path / name
        path.write_bytes(body)
        return whole(RawObject(uri=name, path=path, raw_id=hashlib.sha256(body).hexdigest(), size=len(body)))

    return read


def whole(item: RawObject) -> Reading:
    readings = list(SOURCE.read(item, SETTINGS))
    return Reading(pl.concat([r.frame for r in readings]), [p for r in readings for p in r.problems])


def of_file(path: Path) -> Reading:
    body = path.read_bytes()
    return whole(RawObject(uri=path.name, path=path, raw_id=hashlib.sha256(body).hexdigest(), size=len(body)))


def of_request(body: bytes, content_type: str = "", content_encoding: str = "") -> Reading:
    return read_export(decode_request(body, content_type, content_encoding), raw_id="r", uri="request", settings=SETTINGS)


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    """An OTLP/JSON request of these spans, each a good one but for what is given."""
    good = {"traceId": TRACE, "spanId": SPAN, "name": "chat", "startTimeUnixNano": "1795361678658483674"}
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [good | s for s in spans]}]}]}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def content(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Rows, without the file they came in."""
    return sorted(frame.drop("raw_id").rows(), key=repr)


# --- recorded replays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REPLAYS, ids=lambda p: p.name)
def test_token_sums_of_every_recorded_request_are_those_of_its_index(path: Path) -> None:
    with path.with_name(path.name.replace(".otlp.jsonl", ".index.csv")).open(encoding="utf-8", newline="") as lines:
        index = list(csv.DictReader(lines))
    requests = path.read_bytes().splitlines()
    assert len(requests) == len(index)
    for line, told in zip(requests, index, strict=True):
        reading = of_request(line, "application/json")
        frame = reading.frame
        assert reading.problems == []
        assert frame.height == int(told["spans"]), told["test"]
        assert (frame["input_tokens"].sum() or 0) == int(told["sum_input_tokens_all_spans"]), told["test"]
        assert (frame["output_tokens"].sum() or 0) == int(told["sum_output_tokens_all_spans"]), told["test"]


def test_no_recorded_request_repeats_itself_so_leaves_carry_all_of_it() -> None:
    frame = pl.concat([of_file(path).frame for path in REPLAYS])
    assert frame.height == 57 + 133 + 80
    with_usage = frame.filter(pl.col("input_tokens").is_not_null())
    assert with_usage["usage_scope"].unique().to_list() == ["leaf"]
    assert with_usage["input_includes_cache"].all()


def test_costs_of_the_recorded_emitter_are_kept_to_the_last_digit_it_sent() -> None:
    path = DATA / "otlp_genai_replays" / "openinference_litellm.otlp.jsonl"
    written = [
        value["value"]["doubleValue"]
        for line in path.read_text(encoding="utf-8").splitlines()
        for resource in json.loads(line, parse_float=Decimal)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        for value in span["attributes"]
        if value["key"] == "llm.cost.total"
    ]
    kept = of_file(path).frame["reported_cost"].drop_nulls()
    assert len(written) == 26
    assert sorted(kept) == sorted(Decimal(w).quantize(Decimal(1).scaleb(-18)) for w in written)


@pytest.mark.slow
def test_sending_all_twice_and_shuffled_changes_nothing(tmp_path: Path) -> None:
    lines = [line for path in REPLAYS for line in path.read_bytes().splitlines()]
    lines += [path.read_bytes() for path in sorted(LITELLM.glob("*.bin"))]
    store = Store(tmp_path / "tables")
    store.merge(SPANS, pl.concat([of_request(line).frame for line in lines]), prefer="rank")
    version, before = store.version(SPANS), content(store.scan(SPANS).collect())
    assert len(before) == 270 + 573

    random.Random(7).shuffle(lines)
    for start in range(0, len(lines), 50):
        batch = lines[start : start + 50]
        store.merge(SPANS, pl.concat([of_request(line).frame for line in batch + batch[:3]]), prefer="rank")
    assert store.version(SPANS) == version
    assert content(store.scan(SPANS).collect()) == before

    other = Store(tmp_path / "other")
    for start in range(0, len(lines), 75):
        other.merge(SPANS, pl.concat([of_request(line).frame for line in lines[start : start + 75]]), prefer="rank")
    assert content(other.scan(SPANS).collect()) == before


# --- encodings ----------------------------------------------------------------------------------------------------------------


def test_the_sdk_s_encodings_give_the_same_rows() -> None:
    protobuf = (SDK / "otlp-http-protobuf.bin").read_bytes()
    zipped = gzip.compress(protobuf)
    bodies = {
        "protobuf": of_request(protobuf, "application/x-protobuf"),
        "gzip": of_request(zipped, "application/x-protobuf", "gzip"),
        "unannounced": of_request(zipped),
        "printed protobuf": of_request((SDK / "otlp-http-protobuf.decoded.json").read_bytes(), "application/json; charset=utf-8"),
    }
    first = content(bodies["protobuf"].frame)
    assert len(first) == 3
    for name, reading in bodies.items():
        assert content(reading.frame) == first, name
        assert reading.problems == []


def test_the_other_sdk_runs_differ_only_in_ids_and_times() -> None:
    of_the_run = ["trace_key", "span_key", "parent_key", "trace_id", "span_id", "parent_span_id", "start_time", "end_time"]
    named = ("otlp-http-protobuf.bin", "otlp-http-protobuf-gzip.bin", "otlp-http-json.json", "otel-sdk-grpc-01.bin")
    runs = [of_file(SDK / name).frame for name in named]
    for run in runs[1:]:
        assert content(run.drop(of_the_run)) == content(runs[0].drop(of_the_run))


def test_keys_are_those_of_the_ledger() -> None:
    for told in of_file(SDK / "otlp-http-protobuf.bin").frame.iter_rows(named=True):
        assert told["trace_key"] == ids.trace_key(told["trace_id"])
        assert told["span_key"] == ids.span_key(told["span_id"])
        assert told["parent_key"] == (ids.span_key(told["parent_span_id"]) if told["parent_span_id"] else None)


def test_the_agent_and_its_chat_are_as_the_program_wrote_them() -> None:
    by_operation = {r["operation"]: r for r in of_file(SDK / "otlp-http-protobuf.bin").frame.iter_rows(named=True)}
    agent, chat, tool = by_operation["invoke_agent"], by_operation["chat"], by_operation["execute_tool"]
    assert (agent["agent_name"], agent["agent_id"], agent["conversation_id"]) == ("planner", "ag-1", "conv-7")
    assert (chat["input_tokens"], chat["cache_read_tokens"], chat["output_tokens"]) == (1200, 1024, 80)
    assert (chat["provider"], chat["request_model"], chat["response_model"]) == ("openai", "gpt-4o", "gpt-4o-2024-08-06")
    assert tool["tool_name"] == "get_weather"
    assert chat["parent_key"] == tool["parent_key"] == agent["span_key"]
    assert chat["start_time"] == datetime(2026, 11, 22, 15, 34, 38, 658483, UTC)  # …658483674 ns, rounded down


def test_snake_case_and_other_spellings_of_json_are_read() -> None:
    span = {
        "trace_id": TRACE.upper(),
        "span_id": base64.b64encode(bytes.fromhex(SPAN)).decode(),
        "parent_span_id": "0000000000000000",
        "name": "chat",
        "kind": 3,
        "start_time_unix_nano": 1795361678658483674,
        "attributes": [{"key": "gen_ai.usage.input_tokens", "value": {"int_value": 7}}],
        "status": {"code": "STATUS_CODE_ERROR"},
    }
    (told,) = of_request(encoded({"resource_spans": [{"scope_spans": [{"spans": [span]}]}]})).frame.rows(named=True)
    assert (told["trace_id"], told["span_id"], told["parent_span_id"]) == (TRACE, SPAN, None)
    assert (told["input_tokens"], told["status"], told["usage_scope"]) == (7, "error", "leaf")


def test_links_are_kept_the_first_apart() -> None:
    links = [{"traceId": "00" * 15 + "0a", "spanId": "00" * 7 + "0b"}, {"traceId": "ff" * 16, "spanId": "ff" * 8}]
    (told,) = of_request(encoded(request({"links": links}))).frame.rows(named=True)
    assert (told["link_trace_key"], told["link_span_key"]) == (10, 11)
    assert json.loads(told["links"]) == [["00" * 15 + "0a", "00" * 7 + "0b"], ["ff" * 16, "ff" * 8]]
    (alone,) = of_request(encoded(request({"links": links[:1]}))).frame.rows(named=True)
    assert (alone["link_trace_key"], alone["links"]) == (10, None)


# --- LiteLLM ------------------------------------------------------------------------------------------------------------------


def test_each_call_through_litellm_is_one_leaf_with_its_call_id() -> None:
    frame = pl.concat([of_file(path).frame for path in sorted(LITELLM.glob("*.bin"))])
    assert frame.height == 4 + 3 * 12 + 480 + 53
    leaves = frame.filter(pl.col("usage_scope") == "leaf")
    assert leaves.height == 3 + 40 + 5
    assert leaves["gateway_call_id"].n_unique() == leaves.height
    assert leaves["name"].unique().to_list() == ["litellm_request"]
    assert frame.filter(pl.col("usage_scope").is_null())["gateway_call_id"].null_count() == frame.height - leaves.height
    assert (
        frame.filter(pl.col("usage_scope").is_null()).select("input_tokens").null_count().item() == frame.height - leaves.height
    )


def test_litellm_s_five_kinds_of_call() -> None:
    told = (
        of_file(LITELLM / "010-v1_traces.bin").frame.filter(pl.col("usage_scope") == "leaf").sort("start_time").rows(named=True)
    )
    streamed, claude, native, embedding, failed = told
    assert (streamed["input_tokens"], streamed["cache_read_tokens"], streamed["reasoning_tokens"]) == (1200, 1024, 32)
    assert (streamed["claimed_agent"], streamed["claimed_team"]) == ("planner", "ads")  # x-litellm-tags: team:ads,agent:planner
    assert (claude["request_model"], claude["response_model"], claude["provider"]) == (
        "claude-sonnet",
        "claude-sonnet-4-5",
        "anthropic",
    )
    for anthropic in (claude, native):
        # 3550 = 50 text + 1500 read + 2000 written, of which 1200 for five minutes and 800 for an hour
        assert [anthropic[c] for c in ("input_tokens", "cache_read_tokens", "cache_write_tokens")] == [3550, 1500, 2000]
        assert (anthropic["cache_write_5m_tokens"], anthropic["cache_write_1h_tokens"]) == (1200, 800)
        assert anthropic["input_includes_cache"]
        assert anthropic["reported_cost"] == Decimal("0.0102")
    assert (native["provider_request_id"], embedding["operation"]) == ("msg_e866c6c4ddc146aabf6e", "embeddings")
    assert embedding["provider_request_id"] is None  # LiteLLM repeats its own call id where the provider gave none
    assert embedding["reported_cost"] == Decimal("0.00000014")
    assert (failed["status"], failed["input_tokens"], failed["reported_cost"]) == ("error", None, None)


# --- files --------------------------------------------------------------------------------------------------------------------


def framed(*messages: bytes) -> bytes:
    return b"".join(len(m).to_bytes(4, "big") + m for m in messages)


@pytest.mark.parametrize(
    "form", ["lines", "gzip lines", "two gzip members", "framed", "framed zstd json", "printed", "list", "bom"]
)
def test_files_are_told_by_their_bytes(form: str, read_bytes: Callable[[bytes], Reading]) -> None:
    requests = (DATA / "otlp_genai_replays" / "openllmetry_openai_agents.otlp.jsonl").read_bytes().splitlines(keepends=True)
    protobuf = [(LITELLM / f"00{n}-v1_traces.bin").read_bytes() for n in (1, 2, 5)]
    documents = [json.loads(line) for line in requests]
    body = {
        "lines": lambda: b"".join(requests),
        "gzip lines": lambda: gzip.compress(b"".join(requests)),
        "two gzip members": lambda: gzip.compress(b"".join(requests[:4])) + gzip.compress(b"".join(requests[4:])),
        "framed": lambda: framed(*protobuf),
        "framed zstd json": lambda: framed(*(pa.compress(r, codec="zstd", asbytes=True) for r in requests)),
        "printed": lambda: json.dumps({"resourceSpans": [r for d in documents for r in d["resourceSpans"]]}, indent=1).encode(),
        "list": lambda: encoded(documents),
        "bom": lambda: b"\xef\xbb\xbf" + b"\r\n".join(r.rstrip() for r in requests),
    }[form]()
    reading = read_bytes(body)
    assert reading.problems == []
    expected = 4 + 12 + 12 if form == "framed" else 80
    assert reading.frame.height == expected
    if form != "framed":
        assert (reading.frame["input_tokens"].sum(), reading.frame["output_tokens"].sum()) == (7854, 2711)


def test_other_signals_in_a_collector_s_file_are_none_of_ours(read_bytes: Callable[[bytes], Reading]) -> None:
    reading = read_bytes(b"\n".join([encoded(request({})), encoded({"resourceMetrics": []}), encoded({"resourceLogs": []})]))
    assert (reading.frame.height, reading.problems) == (1, [])


def test_an_empty_file_has_no_rows(read_bytes: Callable[[bytes], Reading]) -> None:
    reading = read_bytes(b"")
    assert (reading.frame.height, reading.problems) == (0, [])
    assert reading.frame.schema == pl.Schema(SPANS.schema)


def test_a_long_file_comes_in_bounded_batches(tmp_path: Path) -> None:
    spans = [{"spanId": f"{n:016x}"} for n in range(1, 5001)]
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"\n".join(encoded(request(*spans)) for _ in range(9)))
    readings = list(SOURCE.read(RawObject("long", path, "r", path.stat().st_size), SETTINGS))
    assert [r.frame.height for r in readings] == [20_000, 20_000, 5_000]


class Folder(NoFetcher):
    """A fetcher of one folder with these files, all of the same bytes."""

    def __init__(self, path: Path, *names: str) -> None:
        super().__init__()
        self.path, self.names = path, names

    def list(self, uri: str) -> list[ListedObject]:
        return [ListedObject(f"{uri}/{name}", 1, "v1") for name in self.names]

    def get(self, uri: str) -> RawObject:
        return RawObject(uri, self.path, "r", 1)


def test_a_folder_gives_a_slice_for_each_file_that_may_be_an_export() -> None:
    fetcher = Folder(SDK / "otlp-http-protobuf.bin", "README.md", "a.jsonl", "b.bin", ".c.json")
    planned = [item for item in SOURCE.plan(fetcher, "logs") if not isinstance(item, Problem)]
    assert [(s.version, [o.uri for o in s.objects]) for s in planned] == [("v1", ["logs/a.jsonl"]), ("v1", ["logs/b.bin"])]


def test_a_folder_without_exports_says_what_would_be_one() -> None:
    with pytest.raises(ObjectMissingError, match="nothing here looks like a trace export"):
        list(SOURCE.plan(Folder(SDK / "otlp-http-protobuf.bin", "README.md", "b.txt"), "logs"))


# --- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "field", "reason"),
    [
        ({"traceId": ""}, "trace_id", "no trace id of 16 bytes, not all zero"),
        ({"traceId": "0" * 32}, "trace_id", "no trace id of 16 bytes, not all zero"),
        ({"traceId": TRACE[:30]}, "trace_id", "no trace id of 16 bytes, not all zero"),
        ({"traceId": "z" * 32}, "trace_id", "no trace id of 16 bytes, not all zero"),
        ({"spanId": "0" * 16}, "span_id", "no span id of 8 bytes, not all zero"),
        ({"spanId": 7}, "span_id", "no span id of 8 bytes, not all zero"),
        ({"startTimeUnixNano": "0"}, "start_time_unix_nano", "no start time"),
        ({"startTimeUnixNano": None}, "start_time_unix_nano", "no start time"),
        ({"startTimeUnixNano": "soon"}, "start_time_unix_nano", "no start time"),
        ({"startTimeUnixNano": "1795361678658"}, "start_time_unix_nano", "start time outside the years 2010 to 2100"),
        ({"startTimeUnixNano": "7258118400000000000"}, "start_time_unix_nano", "start time outside the years 2010 to 2100"),
    ],
)
def test_a_span_without_ids_or_start_is_left_out_alone(fault: dict[str, Any], field: str, reason: str) -> None:
    reading = of_request(encoded(request({}, fault, {"spanId": "00000000000000aa"})))
    assert reading.frame["span_id"].to_list() == [SPAN, "00000000000000aa"]
    (problem,) = reading.problems
    assert (problem.place, problem.field, problem.reason, problem.severity) == ("span 2", field, reason, "error")
    assert rejected(reading) == 1


@pytest.mark.parametrize(
    ("fault", "column", "field"),
    [
        ({"endTimeUnixNano": "1795361678658483673"}, "end_time", "end_time_unix_nano"),
        ({"endTimeUnixNano": "7258118400000000000"}, "end_time", "end_time_unix_nano"),
        ({"parentSpanId": "b7"}, "parent_span_id", "parent_span_id"),
        ({"links": [{"traceId": TRACE}]}, "link_span_key", "links"),
    ],
)
def test_a_span_with_a_lesser_fault_is_kept_without_it(fault: dict[str, Any], column: str, field: str) -> None:
    reading = of_request(encoded(request(fault)))
    assert reading.frame[column].to_list() == [None]
    (problem,) = reading.problems
    assert (problem.severity, problem.field) == ("warning", field)
    assert rejected(reading) == 0


def test_the_same_fault_of_many_spans_is_told_once_with_their_number() -> None:
    reading = of_request(encoded(request(*[{"traceId": ""}] * 40, {})))
    (problem,) = reading.problems
    assert (problem.place, problem.rows, reading.frame.height) == ("span 1", 40, 1)


def test_a_bad_line_is_a_problem_and_the_rest_goes_on(read_bytes: Callable[[bytes], Reading]) -> None:
    good = encoded(request({}))
    reading = read_bytes(b"\n".join([b'{"resourceSpans": [{"sco', good, b"", b"[7]", b"\xff\xfe", good]))
    assert reading.frame.height == 2
    assert [(p.place, p.field) for p in reading.problems] == [("line 1", "request"), ("line 4", "request"), ("line 5", "request")]


def test_a_file_with_nothing_in_it_that_is_ours_is_refused_by_name(read_bytes: Callable[[bytes], Reading]) -> None:
    for body in (b"hello", b"{}x", b'{"a": 1}', b"\x00\x01\x02", b"\x1f\x8b\x08broken", bytes(100), b"[" * 100_000):
        with pytest.raises(FormatError) as caught:
            read_bytes(body)
        assert caught.value.where == "traces"


def test_a_gzip_file_that_ends_early_gives_what_it_holds(read_bytes: Callable[[bytes], Reading]) -> None:
    lines = (DATA / "otlp_genai_replays" / "openllmetry_openai.otlp.jsonl").read_bytes()
    reading = read_bytes(gzip.compress(lines)[:-3000])
    assert 0 < reading.frame.height < 133
    assert "compressed bytes end too early" in [p.reason for p in reading.problems]


def test_protobuf_cut_anywhere_gives_whole_spans_or_a_refusal() -> None:
    body = (LITELLM / "010-v1_traces.bin").read_bytes()
    all_rows = set(content(of_request(body).frame))
    kept = []
    for size in range(1, len(body), 997):
        try:
            reading = of_request(body[:size])
        except FormatError:
            kept.append(0)
            continue
        assert set(content(reading.frame)) <= all_rows
        assert reading.problems
        kept.append(reading.frame.height)
    assert kept == sorted(kept)  # the more bytes, the more spans
    assert kept[-1] > 40


def test_a_json_line_cut_anywhere_costs_that_line_only(read_bytes: Callable[[bytes], Reading]) -> None:
    line = encoded(request({}))
    for size in range(1, len(line), 37):
        reading = read_bytes(line + b"\n" + line[:size])
        assert reading.frame.height == 1
        assert [p.place for p in reading.problems] == ["line 2"]


def test_one_span_that_is_not_utf8_does_not_cost_its_neighbours() -> None:
    export = ExportTraceServiceRequest()
    export.ParseFromString((SDK / "otlp-http-protobuf.bin").read_bytes())
    broken = export.SerializeToString().replace(b"get_weather", b"get_\xff\xff\xff\xff\xff\xff\xff")
    reading = of_request(broken, "application/x-protobuf")
    assert sorted(reading.frame["operation"].to_list()) == ["chat", "invoke_agent"]
    assert reading.frame["service_name"].unique().to_list() == ["support-agent"]
    (problem,) = reading.problems
    assert "UTF-8" in problem.reason


def test_a_body_is_refused_beyond_its_limit_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(FormatError, match="more than 1000000 bytes"):
        decode_request(bomb, "application/json", "gzip", max_bytes=1_000_000)
    with pytest.raises(FormatError, match="more than 10 bytes"):
        decode_request(encoded(request({})), "application/json", max_bytes=10)


def test_a_file_that_unpacks_to_more_than_any_export_is_refused(
    monkeypatch: pytest.MonkeyPatch, read_bytes: Callable[[bytes], Reading]
) -> None:
    monkeypatch.setattr(otlp, "MAX_BODY_BYTES", 3_000_000)
    for body in (b"\n" + bytes(9_000_000), b"{" + b" " * 9_000_000):
        with pytest.raises(FormatError):
            read_bytes(gzip.compress(body))
    reading = read_bytes(gzip.compress(encoded(request({})) + b"\n{" + b" " * 9_000_000))
    assert reading.frame.height == 1
    assert "larger than any export" in reading.problems[-1].reason
    squeezed = pa.compress(b"{" + b" " * 9_000_000, codec="zstd", asbytes=True)
    with pytest.raises(FormatError):
        read_bytes(framed(squeezed))


@pytest.mark.parametrize("encoding", ["br", "gzip, snappy"])
def test_an_encoding_nobody_announced_support_for_is_refused(encoding: str) -> None:
    with pytest.raises(FormatError, match="is not understood"):
        decode_request(b"", "application/json", encoding)


def test_an_empty_request_is_a_request() -> None:
    assert of_request(b"", "application/x-protobuf").frame.height == 0
    assert of_request(b"{}", "application/json").frame.height == 0
    assert decode_request(encoded(request({}, {})), "application/json").span_count == 2


def test_what_is_left_out_is_counted_and_named() -> None:
    reading = of_request(encoded(request({"traceId": ""}, {"traceId": ""}, {})))
    assert rejected(reading) == 2
    assert [(p.place, p.field, p.rows) for p in reading.problems] == [("span 1", "trace_id", 2)]


# --- anything at all ----------------------------------------------------------------------------------------------------------


def never_a_traceback(body: bytes, *headers: str) -> None:
    try:
        reading = of_request(body, *headers)
    except FormatError:
        return
    assert reading.frame.schema == pl.Schema(SPANS.schema)


@hypothesis_settings(max_examples=150)
@given(st.binary(max_size=400))
def test_random_bytes_are_read_or_refused(body: bytes) -> None:
    for headers in ((), ("application/json",), ("application/x-protobuf",), ("application/json", "gzip")):
        never_a_traceback(body, *headers)
    never_a_traceback(b'{"resourceSpans":' + body)


@hypothesis_settings(max_examples=150)
@given(st.data())
def test_protobuf_with_damaged_bytes_is_read_or_refused(draw: st.DataObject) -> None:
    body = bytearray((SDK / "otlp-http-protobuf.bin").read_bytes())
    for place in draw.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=6)):
        body[place] = draw.draw(st.integers(0, 255))
    never_a_traceback(bytes(body))


def junk() -> st.SearchStrategy[Any]:
    leaf = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([TRACE, SPAN, "\ud800"])
    )
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
    )


KEYS = (
    "traceId",
    "spanId",
    "parentSpanId",
    "name",
    "kind",
    "startTimeUnixNano",
    "endTimeUnixNano",
    "attributes",
    "links",
    "status",
    "flags",
)
VALUES = ("stringValue", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue", "bytesValue")
NAMES = (
    "gen_ai.usage.input_tokens",
    "gen_ai.operation.name",
    "llm.cost.total",
    "metadata",
    "tag.tags",
    "metadata.usage_object",
    "attempt",
)


def attribute_junk() -> st.SearchStrategy[Any]:
    value = st.dictionaries(st.sampled_from(VALUES), junk(), max_size=1) | junk()
    return st.lists(
        st.fixed_dictionaries({"key": st.sampled_from(NAMES) | st.text(max_size=5), "value": value}) | junk(), max_size=5
    )


@pytest.mark.slow
@hypothesis_settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(KEYS), junk(), max_size=4), attribute_junk())
def test_json_of_any_shape_is_read_or_refused(span: dict[str, Any], attributes: Any) -> None:
    document = request({"attributes": attributes} | span)
    never_a_traceback(encoded(document), "application/json")


@hypothesis_settings(max_examples=100)
@given(junk(), st.sampled_from(["resourceSpans", "scopeSpans", "spans", "resource", "scope"]))
def test_json_with_junk_at_any_level_is_read_or_refused(thing: Any, level: str) -> None:
    document = request({})
    (resource,) = document["resourceSpans"]
    holder = {"resourceSpans": document, "scopeSpans": resource, "resource": resource}.get(level, resource["scopeSpans"][0])
    holder[level] = thing
    never_a_traceback(encoded(document), "application/json")


def deliveries(bodies: list[bytes]) -> Iterator[pl.DataFrame]:
    for body in bodies:
        yield of_request(body).frame


def test_what_a_span_becomes_does_not_depend_on_its_neighbours() -> None:
    export = ExportTraceServiceRequest()
    export.ParseFromString((LITELLM / "010-v1_traces.bin").read_bytes())
    alone: list[bytes] = []
    for resource in export.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                single = ExportTraceServiceRequest()
                held = single.resource_spans.add(resource=resource.resource).scope_spans.add(scope=scope.scope)
                held.spans.append(span)
                alone.append(single.SerializeToString())
    together = of_request(export.SerializeToString()).frame
    assert content(pl.concat(deliveries(alone))) == content(together)
