"""LiteLLM's logs as spans: every form they come in, every trap they hold, and nothing good lost to what is bad beside it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.source import Batch, ListedObject, RawObject, Reading
from ingest.sources.litellm.source import SOURCE, read_body, read_items
from ledger import ids
from ledger.errors import FormatError, ObjectMissingError
from ledger.settings import IngestSettings
from ledger.store import Store
from ledger.tables import SPANS
from tests.support.fetchers import NoFetcher
from tests.support.paths import DATA

CAPTURES = DATA / "litellm_proxy_captures"
PLAIN = IngestSettings()


def read(path: Path, settings: IngestSettings = PLAIN) -> Reading:
    item = RawObject(uri=path.name, path=path, raw_id=f"sha-{path.name}", size=path.stat().st_size)
    readings = list(SOURCE.read(item, settings))
    return Reading(pl.concat([SPANS.empty(), *(r.frame for r in readings)]), [p for r in readings for p in r.problems])


def read_bytes(folder: Path, content: bytes, name: str = "log.json") -> Reading:
    path = folder / name
    path.write_bytes(content)
    return read(path)


def spans(*items: object, settings: IngestSettings = PLAIN) -> Reading:
    return read_items(items, raw_id="request-1", uri="POST /v1/litellm", settings=settings)


def call(*items: object, settings: IngestSettings = PLAIN) -> dict[str, Any]:
    reading = spans(*items, settings=settings)
    assert reading.problems == [], reading.problems
    assert reading.frame.height == 1
    return reading.frame.row(0, named=True)


def payload(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A small payload of an ordinary call: 1200 in, of which 1024 cached, 80 out, of which 32 reasoning."""
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 80,
        "total_tokens": 1280,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 32, "audio_tokens": 0},
    }
    return {
        "id": f"chatcmpl-{number}",
        "litellm_call_id": f"call-{number}",
        "trace_id": f"sess-{number % 3}",
        "session_id": "",
        "call_type": "acompletion",
        "status": "success",
        "cache_hit": None,
        "custom_llm_provider": "openai",
        "model": "openai/gpt-4o",
        "model_group": "gpt-4o",
        "model_id": "dep-1",
        "api_base": "https://api.openai.com/v1",
        "startTime": 1795361505.924785 + number,
        "endTime": 1795361507.426676 + number,
        "prompt_tokens": 1200,
        "completion_tokens": 80,
        "total_tokens": 1280,
        "response_cost": Decimal("0.0025200000000000005"),
        "request_tags": [],
        "metadata": {"usage_object": usage},
        "model_map_information": {"model_map_key": "gpt-4o", "model_map_value": {}},
        "messages": [{"role": "user", "content": "secret prompt"}],
        "response": {"model": "gpt-4o-2024-08-06", "choices": [{"message": {"content": "secret answer"}}]},
    } | changes


def dumped(*items: object, **options: Any) -> str:
    return json.dumps(list(items), default=float, **options)


# --- what a real proxy sent -----------------------------------------------------------------------


def channel_of(path: Path) -> str:
    for mark, channel in (("generic", "webhook"), ("s3_v2", "s3"), ("spendlogs", "spend log"), ("custom", "callback")):
        if mark in path.name:
            return channel
    raise AssertionError(path)


@pytest.fixture(scope="module")
def captured() -> pl.DataFrame:
    frames = []
    for path in sorted(CAPTURES.glob("*.json")):
        reading = read(path)
        assert reading.problems == [], path.name
        frames.append(reading.frame.with_columns(seen_in=pl.lit(channel_of(path)), file=pl.lit(path.name)))
    return pl.concat(frames)


def test_every_capture_is_read_and_every_call_has_one_id_on_all_channels(captured: pl.DataFrame) -> None:
    assert captured.height == 69
    calls = captured.group_by("gateway_call_id").agg(pl.col("seen_in").unique().sort())
    assert calls.height == 47
    told = calls["seen_in"].list.join(", ").value_counts().rows()
    assert dict(told) == {
        "webhook": 38,
        "callback, s3, spend log, webhook": 5,
        "callback, spend log, webhook": 2,
        "callback, s3, webhook": 1,  # the failure: the proxy writes no spend log for it
        "callback, spend log": 1,
    }
    for column in (
        "trace_key",
        "span_key",
        "start_time",
        "end_time",
        "input_tokens",
        "output_tokens",
        "reported_cost",
        "provider_request_id",
    ):
        assert captured.group_by("gateway_call_id").agg(pl.col(column).n_unique().alias("n"))["n"].max() == 1, column


def test_the_otlp_spans_of_the_same_proxy_carry_the_same_ids(captured: pl.DataFrame) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    told: dict[str, tuple[str, str]] = {}
    for path in sorted((DATA / "litellm_otlp").glob("*.bin")):
        export = ExportTraceServiceRequest.FromString(path.read_bytes())
        for span in (s for r in export.resource_spans for scope in r.scope_spans for s in scope.spans):
            attributes = {a.key: a.value.string_value for a in span.attributes}
            if "litellm.call_id" in attributes:
                told[attributes["litellm.call_id"]] = (attributes["gen_ai.response.id"], span.trace_id.hex())
    calls = {row["gateway_call_id"]: row for row in captured.iter_rows(named=True)}
    assert set(told) > set(calls), "every call is in OTLP too, under the same call id"
    assert len(told) == 48, "and one call is only there: its payload was lost while the receiver was down"
    for call_id, (response_id, trace_id) in ((c, told[c]) for c in calls):
        # Where the provider gave no id (embeddings, failures) OTLP repeats the call id: no evidence of its own.
        assert calls[call_id]["provider_request_id"] == (None if response_id == call_id else response_id)
        # A caller's session takes the place of the trace in payloads, never in OTLP.
        assert calls[call_id]["trace_id"] in (trace_id, "sess-9", "trc-10")


def test_a_captured_call_in_full(captured: pl.DataFrame) -> None:
    found = captured.filter(pl.col("file") == "custom-success-03.standard_logging_object.json").row(0, named=True)
    expected = {
        "channel": "litellm",
        "source": "litellm",
        "emitter": "litellm",
        "operation": "chat",
        "usage_scope": "leaf",
        "status": "ok",
        "gateway_call_id": "acd12d22-867a-446a-aa38-45db9348f472",
        "provider_request_id": "chatcmpl-6202ae0d-ded9-4415-a902-4a2eea85d78a",
        "trace_id": "63b9cfb5e964d2ecae9d90d9147936df",
        "trace_key": ids.trace_key("63b9cfb5e964d2ecae9d90d9147936df"),
        "start_time": datetime(2026, 11, 22, 15, 31, 48, 208472, tzinfo=UTC),
        "provider": "anthropic",
        "request_model": "claude-sonnet",
        "response_model": "claude-sonnet-4-5",
        "api_base": "http://127.0.0.1:9100/v1/messages",
        "input_tokens": 3550,
        "input_includes_cache": True,
        "cache_read_tokens": 1500,
        "cache_write_tokens": 2000,
        "cache_write_5m_tokens": 1200,
        "cache_write_1h_tokens": 800,
        "output_tokens": 20,
        "total_tokens": 3570,
        "reported_cost": Decimal("0.0102"),
        "credential": "litellm_proxy_master_key",
        "credential_team": None,
        "service_tier": None,
        "region": None,
    }
    assert {key: found[key] for key in expected} == expected


def test_agent_team_environment_and_session_of_captured_calls(captured: pl.DataFrame) -> None:
    for file in ("custom-success-01.standard_logging_object.json", "custom-success-01.spendlogs_row.json"):
        found = captured.filter(pl.col("file") == file).row(0, named=True)
        assert (found["agent_id"], found["claimed_agent"], found["claimed_team"]) == ("researcher", None, "search")
        assert (found["environment"], found["end_user"], found["conversation_id"]) == ("prod", "end-user-1", "sess-9")
        assert found["trace_key"] == ids.trace_key("sess-9")
    tagged = captured.filter(pl.col("file") == "custom-success-02.spendlogs_row.json").row(0, named=True)
    assert (tagged["claimed_agent"], tagged["claimed_team"], tagged["agent_id"]) == ("planner", "ads", None)


def test_a_failure_costs_nothing_that_is_known(captured: pl.DataFrame) -> None:
    failed = captured.filter(pl.col("status") == "error")
    assert failed.height == 3
    used = ("input_tokens", "output_tokens", "total_tokens", "reported_cost", "provider_request_id", "input_includes_cache")
    assert all(failed[column].null_count() == 3 for column in used), "absent is null, never 0"
    assert json.loads(failed["attributes"][0])["error_code"] == "429"


def test_no_prompt_and_no_answer_passes_the_door(captured: pl.DataFrame) -> None:
    kept = captured.write_json() + spans(payload()).frame.write_json()
    for word in ("fake upstream", "FAIL429", "stream please", "hello from", "secret", "127.0.0.1:4000", "curl"):
        assert word not in kept, word


def test_what_comes_live_is_a_channel_of_its_own() -> None:
    body = dumped(payload(1), None, payload(2), spend_row(3)).encode()
    live = read_body(body, raw_id="r", uri="/v1/litellm", settings=PLAIN)
    assert (live.problems, live.frame["channel"].to_list()) == ([], ["litellm-callback"] * 2 + ["litellm-spend-logs"])
    filed = spans(payload(1), None, payload(2), spend_row(3)).frame
    assert filed["channel"].to_list() == ["litellm"] * 2 + ["litellm-spend-logs"]
    apart = ["channel", "raw_id"]
    assert live.frame.drop(apart).equals(filed.drop(apart)), "nothing else tells them apart"


def test_litellms_own_fixtures() -> None:
    row = read(DATA / "litellm_payloads" / "spend_logs_payload.json").frame.row(0, named=True)
    assert row["channel"] == "litellm-spend-logs"
    assert (row["input_tokens"], row["output_tokens"], row["reported_cost"]) == (10, 20, Decimal("0.000225"))
    assert row["start_time"] == datetime(2025, 1, 24, 9, 20, 46, 847371, tzinfo=UTC), "times without a zone are UTC"
    assert row["gateway_call_id"] == "chatcmpl-2283081b-dc89-41f6-93e6-d4f914774027", "older rows have no call id"
    assert row["conversation_id"] == "1234567890"
    assert row["credential"] is None
    sent = read(DATA / "litellm_payloads" / "standard_logging_payload.json").frame.row(0, named=True)
    assert (sent["request_model"], sent["response_model"], sent["api_base"]) == ("gpt-4o", "gpt-4o", "https://api.openai.com")


def test_the_pictures_of_an_answer_are_counted_where_usage_counts_nothing(tmp_path: Path) -> None:
    """Usage in tokens stands; an answer that is withheld has no number of pictures. Line by line, and in a block read by columns."""
    with (DATA / "litellm_payloads" / "images_expected.csv").open(encoding="utf-8", newline="") as file:
        expected_rows = {
            row["call"]: [row[c] for c in ("output_images", "input_tokens", "output_tokens")] for row in csv.DictReader(file)
        }
    lines = (DATA / "litellm_payloads" / "images.jsonl").read_text(encoding="utf-8")
    other_calls = "".join(json.dumps(payload(n), default=float) + "\n" for n in range(70))
    for content in (lines, lines + other_calls):
        frame = read_bytes(tmp_path, content.encode(), "log.jsonl").frame
        rows = {
            row["gateway_call_id"]: [
                json.loads(row["other_usage"] or "{}").get("output_images", ""),
                *(str(row[c] or "") for c in ("input_tokens", "output_tokens")),
            ]
            for row in frame.iter_rows(named=True)
            if row["gateway_call_id"] in expected_rows
        }
        assert rows == expected_rows


# --- the forms a log comes in ---------------------------------------------------------------------

THREE = [payload(n) for n in (1, 2, 3)]
LINES = "\n".join(json.dumps(p, default=float) for p in THREE)
PACKED = {
    "array": dumped(*THREE),
    "array with nulls": dumped(None, *THREE, None),
    "spread-out array": dumped(*THREE, indent=2),
    "json lines": LINES,
    "json lines, newline at the end": LINES + "\n",
    "json lines with blank and null lines": LINES.replace("\n", "\n\nnull\n") + "\r\n",
    "windows line ends": LINES.replace("\n", "\r\n"),
    "several arrays, one after another": "\n".join(dumped(p) for p in THREE),
    "several spread-out objects": "\n".join(json.dumps(p, default=float, indent=1) for p in THREE),
    "an API answer": json.dumps({"data": THREE, "total": 3, "page": 1}, default=float),
    "byte order mark": "\ufeff" + dumped(*THREE),
}


@pytest.mark.parametrize("form", PACKED)
@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_every_form_gives_the_same_calls(tmp_path: Path, form: str, packing: str) -> None:
    content = PACKED[form].encode()
    reading = read_bytes(tmp_path, gzip.compress(content) if packing == "gzip" else content)
    assert reading.problems == []
    expected = spans(*THREE).frame.drop("raw_id")
    assert reading.frame.drop("raw_id").equals(expected)


def test_a_single_object_and_a_posted_body(tmp_path: Path) -> None:
    one = json.dumps(THREE[0], default=float, indent=4).encode()
    assert read_bytes(tmp_path, one).frame.height == 1
    for body in (one, PACKED["array"].encode(), PACKED["json lines"].encode()):
        posted = read_body(body, raw_id="r", uri="POST /v1/litellm", settings=PLAIN)
        assert posted.problems == []
        assert posted.frame["gateway_call_id"].to_list()[0] == "call-1"
    assert read_body(b"[]", raw_id="r", uri="u", settings=PLAIN).frame.height == 0
    assert read_body(b"", raw_id="r", uri="u", settings=PLAIN).problems == []


def spend_row(number: int = 1, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((CAPTURES / "custom-success-03.spendlogs_row.json").read_text())
    return row | {"request_id": f"r-{number}", "litellm_call_id": f"c-{number}", "messages": "{}"} | changes


def test_spend_logs_as_csv_and_parquet_are_what_they_are_as_json(tmp_path: Path) -> None:
    rows = [spend_row(n, end_user=None) for n in range(3)]
    written = io.StringIO()
    table = csv.DictWriter(written, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    expected = spans(*rows).frame.drop("raw_id")
    assert expected["reported_cost"].to_list() == [Decimal("0.0102")] * 3
    from_csv = read_bytes(tmp_path, written.getvalue().encode(), "LiteLLM_SpendLogs.csv")
    assert from_csv.problems == []
    assert from_csv.frame.drop("raw_id").equals(expected)
    times = [
        pl.col(c).str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="ms").dt.replace_time_zone(None)
        for c in ("startTime", "endTime")
    ]
    pl.DataFrame(rows).with_columns(times).write_parquet(tmp_path / "export.parquet")
    from_parquet = read(tmp_path / "export.parquet")
    assert from_parquet.problems == []
    assert from_parquet.frame.drop("raw_id", "start_time", "end_time").equals(
        expected.drop("raw_id", "start_time", "end_time", strict=False)
    )
    assert from_parquet.frame["start_time"][0] == datetime(2026, 11, 22, 15, 31, 48, 208000, tzinfo=UTC), (
        "the database keeps milliseconds"
    )


def test_the_old_generic_format_spells_every_value_in_python() -> None:
    details = "completion_tokens_details=D(reasoning_tokens=32, audio_tokens=None), prompt_tokens_details=D(cached_tokens=1024)"
    old = {
        "id": "chatcmpl-1",
        "call_type": "acompletion",
        "cache_hit": "None",
        "startTime": "2026-11-22 15:31:45.924785",
        "endTime": "2026-11-22 15:31:47",
        "model": "gpt-4o",
        "user": "",
        "modelParameters": "{'stream': False}",
        "messages": "[{'role': 'user', 'content': 'secret'}]",
        "response": "ModelResponse(id='chatcmpl-1', usage=Usage(prompt_tokens=7))",
        "usage": f"Usage(completion_tokens=80, prompt_tokens=1200, total_tokens=1280, {details})",
        "metadata": "{'user_api_key_alias': 'search-prod', 'tags': ['agent:planner'], 'user_api_key_team_id': None, "
        "'auth': <Live object at 0x7f>, 'deployment': 'openai/gpt-4o'}",
        "cost": "0.0025200000000000005",
    }
    found = call(old)
    assert (found["input_tokens"], found["cache_read_tokens"], found["output_tokens"], found["reasoning_tokens"]) == (
        1200,
        1024,
        80,
        32,
    )
    assert (found["credential"], found["claimed_agent"], found["credential_team"]) == ("search-prod", "planner", None)
    assert (found["provider"], found["response_model"]) == ("openai", "gpt-4o")
    assert found["reported_cost"] == Decimal("0.002520000000000000")
    assert "secret" not in json.dumps(found, default=str)


def test_every_value_as_text() -> None:
    worded = {key: value if isinstance(value, str) else str(value) for key, value in payload().items()}
    found, sent = call(worded), call(payload())
    for column in (
        "input_tokens",
        "cache_read_tokens",
        "reasoning_tokens",
        "reported_cost",
        "start_time",
        "gateway_call_id",
        "cache_hit",
    ):
        assert found[column] == sent[column], column


# --- the traps ------------------------------------------------------------------------------------


def test_money_keeps_every_digit_there_is_room_for() -> None:
    assert call(payload(response_cost=Decimal("0.000000000123456789")))["reported_cost"] == Decimal("0.000000000123456789")
    text = dumped(payload()).replace("0.0025200000000000005", "0.1")  # 0.1 as a binary number is 0.1000000000000000055…
    assert read_body(text.encode(), raw_id="r", uri="u", settings=PLAIN).frame["reported_cost"][0] == Decimal("0.1")


def test_times_are_exact_to_the_microsecond() -> None:
    exact = payload(startTime=Decimal("1795361505.999999"), endTime=Decimal("1795361506.000001"))
    found = call(exact)
    assert (found["start_time"].microsecond, found["end_time"].microsecond) == (999_999, 1)


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({"cache_hit": True}, Decimal(0)),
        ({"cache_hit": "True"}, Decimal(0)),
        # A model in the map with a price of 0 is free; a deployment the map does not know is entered into it with zeros alone.
        ({"model_map_information": {"model_map_value": {"mode": "chat", "input_cost_per_token": 0}}}, Decimal(0)),
        (
            {"model_map_information": {"model_map_value": {"key": "m", "input_cost_per_token": 0, "output_cost_per_token": 0}}},
            None,
        ),
        ({"model_map_information": {"model_map_key": "m", "model_map_value": None}}, None),
        ({"model_map_information": None}, None),
        ({"zero_cost_diagnostic": {"reason": "missing_pricing_key"}}, None),
        ({"response_cost_failure_debug_info": {"error_str": "not mapped"}}, None),
        ({"status": "failure", "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "metadata": {}}, None),
    ],
)
def test_a_cost_of_zero_is_a_cost_only_where_nothing_is_owed(changes: dict[str, Any], cost: Decimal | None) -> None:
    assert call(payload(response_cost=Decimal(0), **changes))["reported_cost"] == cost


def test_a_cache_hit_is_a_call_of_its_own_that_no_provider_answered() -> None:
    hit = payload(
        id="chatcmpl-1_cache_hit1795361507.42",
        litellm_call_id="call-9",
        cache_hit=True,
        response_cost=0.0,
        saved_cache_cost=0.00252,
    )
    found = call(hit)
    assert (found["cache_hit"], found["reported_cost"], found["gateway_call_id"]) == (True, Decimal(0), "call-9")
    assert found["provider_request_id"] is None
    kept = json.loads(found["attributes"])
    assert (kept["avoided_cost"], kept["answer_of"]) == ("0.00252", "chatcmpl-1")
    first, again = (
        spend_row(request_id="r-1", litellm_call_id=None),
        spend_row(request_id="r-1_cache_hit1795.1", litellm_call_id=None, cache_hit="True"),
    )
    for row in (first, again):
        row["metadata"] = row["metadata"].replace("acd12d22-867a-446a-aa38-45db9348f472", "")
    frame = spans(first, again).frame
    assert frame["gateway_call_id"].n_unique() == frame["span_key"].n_unique() == 2


def test_an_answer_out_of_the_cache_does_not_make_the_call_it_repeats_free() -> None:
    """LiteLLM's spans repeat the first answer's id on a cache hit, and do not say that it is one."""
    from attribution.chains.calls import merge_signals

    paid, hit = (
        payload(1),
        payload(1, id="chatcmpl-1_cache_hit1795.4", litellm_call_id="call-2", cache_hit=True, response_cost=0.0),
    )
    told = spans(paid, hit).frame
    as_otlp = told.with_columns(
        channel=pl.lit("otlp"),
        source=pl.lit("otlp"),
        span_key=pl.col("span_key") + 1,
        cache_hit=None,
        provider_request_id=pl.lit("chatcmpl-1"),
    )
    calls = merge_signals(
        pl.concat([told, as_otlp.cast(told.schema)])
        .with_row_index("row")
        .with_columns(claim_source=pl.lit(None, dtype=pl.String))
    ).sort("gateway_call_id")
    assert calls["gateway_call_id"].to_list() == ["call-1", "call-2"]
    assert calls["cache_hit"].to_list() == [None, True]


def test_counts_that_are_all_zero_are_absent_and_a_zero_beside_others_is_zero() -> None:
    silent = payload(prompt_tokens=0, completion_tokens=0, total_tokens=0, metadata={"usage_object": {"prompt_tokens": 0}})
    assert call(silent)["input_tokens"] is None
    embedding = payload(call_type="aembedding", completion_tokens=0, total_tokens=1200, metadata={})
    found = call(embedding)
    assert (found["output_tokens"], found["operation"]) == (0, "embeddings")


def test_a_failure_and_the_fallback_that_answered_are_two_rows_of_one_call() -> None:
    silent: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "metadata": {}, "response_cost": 0.0}
    frame = spans(payload(id="call-1", status="failure", model_group="flaky", **silent), payload(1)).frame
    assert frame["gateway_call_id"].to_list() == ["call-1", "call-1"]
    assert frame["span_id"].to_list() == ["call-1_failed", "call-1"]
    assert frame["input_tokens"].to_list() == [None, 1200]


def test_usage_recovered_from_a_broken_stream_is_kept() -> None:
    found = call(payload(status="failure", response_cost=Decimal("0.001")))
    assert (found["status"], found["input_tokens"], found["reported_cost"]) == ("error", 1200, Decimal("0.001"))


def test_cache_details_under_anthropics_names() -> None:
    usage = {"prompt_tokens": 3550, "completion_tokens": 20, "cache_creation_input_tokens": 2000, "cache_read_input_tokens": 1500}
    found = call(payload(prompt_tokens=3550, completion_tokens=20, total_tokens=3570, metadata={"usage_object": usage}))
    assert (found["cache_read_tokens"], found["cache_write_tokens"], found["cache_write_5m_tokens"]) == (1500, 2000, None)


def test_a_count_that_contradicts_itself_is_not_believed_to_be_inclusive() -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": 5000}, "completion_tokens_details": {"reasoning_tokens": 90}}
    found = call(payload(metadata={"usage_object": usage}))
    assert (found["input_includes_cache"], found["output_includes_reasoning"]) == (None, None)


def test_rows_that_bill_earlier_work_do_not_collapse_into_it() -> None:
    created = spend_row(
        request_id="batch_7",
        litellm_call_id="c-1",
        call_type="acreate_batch",
        prompt_tokens=0,
        completion_tokens=0,
        total_tokens=0,
        spend=0.0,
        session_id="batch_7",
    )
    created["metadata"] = "{}"
    billed = spend_row(request_id="batch_7_batch_cost", litellm_call_id="c-2", call_type="aretrieve_batch", session_id="batch_7")
    same = spend_row(request_id="batch_7_batch_cost", litellm_call_id="c-3", call_type="aretrieve_batch", session_id="batch_7")
    as_payload = payload(id="batch_7", litellm_call_id="c-4", call_type="aretrieve_batch")
    frame = spans(created, billed, same, as_payload).frame
    assert frame["gateway_call_id"].to_list() == ["c-1", "batch_7_batch_cost", "batch_7_batch_cost", "batch_7_batch_cost"]
    assert frame["trace_key"].n_unique() == 1
    assert frame["usage_scope"].to_list() == [None, "leaf", "leaf", "leaf"]
    assert frame["service_tier"].to_list() == [None, "batch", "batch", "batch"]
    tried: dict[str, Any] = {"litellm_call_id": "c-5", "call_type": "acompletion"}
    attempts = spans(
        spend_row(request_id="r-5", **tried),
        spend_row(request_id="r-4", metadata=json.dumps({"billed_retry_attempt": 1, "attempted_retries": 1}), **tried),
        spend_row(request_id="resp_1_background_cost", **tried),
    ).frame
    assert attempts["gateway_call_id"].n_unique() == attempts["span_key"].n_unique() == 3
    assert attempts["attempt"].to_list() == [0, 1, 0]


def test_a_tool_call_is_a_span_but_no_request_to_a_model() -> None:
    tool = {
        "name": "search",
        "namespaced_tool_name": "wiki-search",
        "mcp_server_name": "wiki",
        "arguments": {"q": "secret"},
        "mcp_server_cost_info": {"default_cost_per_query": 0.01, "tool_name_to_cost_per_query": {"search": 0.02}},
    }
    silent: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    found = call(
        payload(
            call_type="call_mcp_tool",
            model="MCP: search",
            response_cost=0.02,
            metadata={"mcp_tool_call_metadata": tool},
            **silent,
        )
    )
    assert (found["operation"], found["tool_name"], found["usage_scope"], found["input_tokens"]) == (
        "execute_tool",
        "wiki-search",
        None,
        None,
    )
    assert (found["name"], found["reported_cost"]) == ("execute_tool wiki-search", Decimal("0.02"))
    kept = json.loads(found["attributes"])
    assert kept["mcp_cost"] == {"default_cost_per_query": "0.01", "tool_name_to_cost_per_query": {"search": "0.02"}}
    assert "secret" not in found["attributes"]


@pytest.mark.parametrize(
    ("tags", "labels", "agent", "team"),
    [
        (["agent:planner", "team:ads"], None, "planner", "ads"),
        (["agent:second", "rootcost.agent:first"], None, "first", None),
        (["rootcost.agent: spaced out ", "TEAM:x"], None, "spaced out", "x"),
        (["agents:no", "teammate:no", "agent", ":", "agent:"], None, None, None),
        ([], {"agent": "labelled", "team": "t"}, "labelled", "t"),
        (["agent:tagged"], {"agent": "labelled"}, "tagged", None),
        ('["agent:in text"]', None, "in text", None),
    ],
)
def test_who_a_request_claims_to_be_for(tags: object, labels: object, agent: str | None, team: str | None) -> None:
    found = call(payload(request_tags=tags, metadata={"spend_logs_metadata": labels}))
    assert (found["claimed_agent"], found["claimed_team"], found["agent_id"], found["credential_team"]) == (
        agent,
        team,
        None,
        None,
    )


def test_claims_follow_the_settings() -> None:
    settings = IngestSettings(agent_tags=["bot"], team_tags=["squad"])
    found = call(payload(request_tags=["agent:a", "bot:b", "squad:s", "env:prod", "tenant:acme"]), settings=settings)
    assert (found["claimed_agent"], found["claimed_team"], found["environment"], found["tenant"]) == ("b", "s", "prod", "acme")


def test_who_the_gateway_authenticated() -> None:
    key = {
        "user_api_key_alias": "search-prod",
        "user_api_key_hash": "88dc",
        "user_api_key_team_alias": "Search",
        "user_api_key_team_id": "t-1",
        "user_api_key_end_user_id": "u-1",
    }
    found = call(payload(metadata=key))
    assert (found["credential"], found["credential_team"], found["end_user"]) == ("search-prod", "Search", "u-1")
    assert call(payload(metadata=key | {"user_api_key_alias": None, "user_api_key_team_alias": ""}))["credential_team"] == "t-1"
    raw = call(spend_row(api_key="sk-live-secret", metadata="{}", team_id="t-2", agent_id="a-2"))
    assert (raw["credential_team"], raw["agent_id"]) == ("t-2", "a-2")
    assert "sk-live" not in json.dumps(raw, default=str), "a key itself has no place in the books"
    assert call(spend_row(agent_id="invoked", billing_agent_id="payer"))["agent_id"] == "payer"


def test_the_callers_own_span_counts_only_from_a_trusted_gateway() -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headed = {"requester_metadata": {"headers": {"traceparent": f"00-{trace}-{span}-01", "baggage": "rootcost.agent=planner"}}}
    trusted = IngestSettings(trusted_sources=["litellm"])
    same = call(payload(trace_id=trace, metadata=headed), settings=trusted)
    assert (same["parent_span_id"], same["parent_key"], same["link_span_key"]) == (span, ids.span_key(span), None)
    other = call(payload(trace_id="sess-9", metadata=headed), settings=trusted)
    assert (other["parent_key"], other["link_trace_key"], other["link_span_key"]) == (
        None,
        ids.trace_key(trace),
        ids.span_key(span),
    )
    untrusted = call(payload(trace_id=trace, metadata=headed))
    assert (untrusted["parent_key"], untrusted["link_span_key"]) == (None, None)
    assert untrusted["claimed_agent"] == "planner", "shown, and marked as a claim"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"api_base": "https://user:pass@host.example:8443/v1/?api_key=s#f"}, {"api_base": "https://host.example:8443/v1"}),
        ({"api_base": "https://bedrock-runtime.eu-west-1.amazonaws.com"}, {"region": "eu-west-1"}),
        ({"api_base": "https://evil-bedrock-runtime.eu-west-1.amazonaws.com.example.org"}, {"region": None}),
        (
            {"api_base": "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4/publishers"},
            {"region": "europe-west4", "account_id": "p-1"},
        ),
        ({"api_base": "https://api.openai.com/v1"}, {"region": None, "account_id": None}),
        ({"cost_breakdown": {"vertex_location": "us-central1"}}, {"region": "us-central1"}),
        ({"cost_breakdown": {"service_tier": "flex"}}, {"service_tier": "flex"}),
        ({"cost_breakdown": {"service_tier": "default"}}, {"service_tier": None}),
        ({"response": {"service_tier": "priority"}}, {"service_tier": "priority"}),
        (
            {"model": "bedrock/us-east-1/anthropic.claude-v2", "custom_llm_provider": "bedrock"},
            {"region": "us-east-1", "provider": "bedrock"},
        ),
        (
            {"model": "bedrock/arn:aws:bedrock:us-west-2:111122223333:application-inference-profile/ab12"},
            {
                "region": "us-west-2",
                "account_id": "111122223333",
                "resource_id": "arn:aws:bedrock:us-west-2:111122223333:application-inference-profile/ab12",
            },
        ),
        ({"response": {"model": "gpt-4o"}, "model_group": "fast"}, {"request_model": "fast", "response_model": "gpt-4o"}),
        ({"response": {"model": "fast"}, "model_group": "fast"}, {"response_model": "gpt-4o"}),
        ({"response": None}, {"response_model": "gpt-4o"}),
    ],
)
def test_where_it_ran(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = call(payload(**changes))
    assert {key: found[key] for key in expected} == expected


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (7, "item"),
        ("text", "item"),
        ([], "item"),
        ({}, "item"),
        ({"hello": "world"}, "item"),
        ({"date": "2026-11-22", "spend": 1.0, "api_requests": 3}, "item"),
        ({"startTime": "2026-11-22", "spend": 1.0, "users": {}, "models": {}}, "item"),
        ({"batch_id": "b", "lines": []}, "lines"),
        (payload(startTime=None, endTime=None), "startTime"),
        (payload(startTime="yesterday"), "startTime"),
        (payload(startTime=1795361505924785), "startTime"),
        (payload(startTime=float("inf")), "startTime"),
        (payload(startTime=True), "startTime"),
        (payload(prompt_tokens="many"), "prompt_tokens"),
        (payload(prompt_tokens=-1), "prompt_tokens"),
        (payload(prompt_tokens=1.5), "prompt_tokens"),
        (payload(completion_tokens=2**63), "completion_tokens"),
        (payload(total_tokens={"a": 1}), "total_tokens"),
        (payload(metadata={"usage_object": {"prompt_tokens_details": {"cached_tokens": "x"}}}), "cached_tokens"),
        (payload(response_cost="dear"), "response_cost"),
        (payload(response_cost=[1]), "response_cost"),
        (payload(id=None, litellm_call_id=""), "litellm_call_id"),
    ],
)
def test_a_bad_item_is_told_and_its_neighbours_are_kept(bad: object, field: str) -> None:
    reading = spans(payload(1), bad, payload(3))
    assert reading.frame["gateway_call_id"].to_list() == ["call-1", "call-3"]
    assert [(p.source, p.uri, p.place, p.field, p.severity) for p in reading.problems] == [
        ("litellm", "POST /v1/litellm", "item 2", field, "error")
    ]
    assert reading.problems[0].reason
    assert reading.problems[0].remedy


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"metadata": "not json"}, "metadata"),
        ({"metadata": 7}, "metadata"),
        ({"request_tags": {"agent": "x"}}, "request_tags"),
        ({"request_tags": "agent:x"}, "request_tags"),
        ({"hidden_params": [1]}, "hidden_params"),
        ({"response_cost": -0.5}, "response_cost"),
        ({"startTime": None}, "startTime"),
    ],
)
def test_what_is_only_dented_is_kept_with_a_warning(changes: dict[str, Any], field: str) -> None:
    reading = spans(payload(**changes))
    assert reading.frame.height == 1
    assert [(p.field, p.severity) for p in reading.problems] == [(field, "warning")]


def test_a_cut_off_array_keeps_its_whole_items(tmp_path: Path) -> None:
    whole = dumped(*THREE)
    for end in (len(whole) - 1, len(whole) - 40, whole.index("call-3") + 3):
        reading = read_bytes(tmp_path, whole[:end].encode())
        kept = 3 if end == len(whole) - 1 else 2
        assert reading.frame.height == kept
        assert [(p.place, p.field) for p in reading.problems] == [(f"item {kept + 1}", "body")]
        assert "cut off" in reading.problems[0].reason


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    first, second, third = LINES.encode().split(b"\n")
    for bad in (
        second[:200],
        second.replace(b'"call-2"', b'"call-\xff2"'),
        b"garbage",
        b'{"a":' * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b"\x00\x01",
    ):
        reading = read_bytes(tmp_path, b"\n".join([first, bad, third]))
        assert reading.frame["gateway_call_id"].to_list() == ["call-1", "call-3"], bad[:20]
        assert [p.place for p in reading.problems] == ["line 2"]
    leading = read_bytes(tmp_path, b"\n".join([first[:300], second, third]))
    assert leading.frame.height == 2
    assert [p.place for p in leading.problems] == ["line 1"]


def test_a_damaged_item_in_an_array_costs_only_itself(tmp_path: Path) -> None:
    good = [json.dumps(p, default=float) for p in THREE]
    deep = '{"a":' * 50_000 + "1" + "}" * 50_000
    for bad in (deep, good[1].replace('"call-2"', "call-2"), '{"n": ' + "9" * 5000 + "}"):
        reading = read_bytes(tmp_path, f"[{good[0]}, {bad}, {good[2]}]".encode())
        assert reading.frame["gateway_call_id"].to_list() == ["call-1", "call-3"], bad[:20]
        assert [p.place for p in reading.problems] == ["item 2"]
    mis_encoded = f"[{good[0]}, {good[1]}, {good[2]}]".encode().replace(b'"call-2"', b'"call-\xe92"')
    reading = read_bytes(tmp_path, mis_encoded)
    assert reading.frame.height == 2
    assert "UTF-8" in reading.problems[0].reason


def test_a_cut_off_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    many = "\n".join(json.dumps(payload(n), default=float) for n in range(2000)).encode()
    packed = gzip.compress(many)
    reading = read_bytes(tmp_path, packed[: len(packed) // 2])
    assert 0 < reading.frame.height < 2000
    assert reading.problems[-1].place == "end of file"
    assert "the compressed stream is cut off" in reading.problems[-1].reason
    with pytest.raises(FormatError):
        read_bytes(tmp_path, packed[:12])


@pytest.mark.parametrize(
    "content",
    [b"hello", b"<xml/>", b"\x89PNG\r\n\x1a\n", b"PAR1 no it is not", b"\x1f\x8bxx", b"a,b\n1,2\n", b'{"id": 1', b"\xff\xfe{"],
)
def test_what_is_no_log_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(FormatError) as told:
        read_bytes(tmp_path, content, "thing.json")
    assert "thing.json" in str(told.value)
    assert told.value.remedy


def test_a_damaged_table_costs_only_its_bad_rows(tmp_path: Path) -> None:
    header = (
        "request_id,call_type,startTime,endTime,model,spend,prompt_tokens,completion_tokens,total_tokens,metadata,litellm_call_id"
    )
    rows = [f'r-{n},acompletion,2026-11-22 10:00:0{n},,gpt-4o,0.1,10,5,15,"{{""a"": 1}}",c-{n}' for n in range(5)]
    rows[1] = "r-1,acompletion"
    rows[3] = rows[3].replace(",10,5,", ",ten,5,")
    reading = read_bytes(tmp_path, "\n".join([header, *rows]).encode(), "t.csv")
    assert reading.frame["gateway_call_id"].to_list() == ["c-0", "c-2", "c-4"]
    assert [(p.place, p.field) for p in reading.problems] == [("row 2", "row"), ("row 4", "prompt_tokens")]


def test_hostile_text_does_no_harm(tmp_path: Path) -> None:
    wild = payload(
        litellm_call_id="id\u0000\ud800\u202e",
        model="m" * 100_000,
        request_tags=["agent:" + "x" * 100_000, {"a": []}, None, 5],
        metadata={"requester_metadata": {"headers": {"traceparent": "00-zz"}}, "usage_object": {}},
        api_base="http://[::1",
        end_user={"a": 1},
    )
    reading = spans(wild, settings=IngestSettings(trusted_sources=["litellm"]))
    assert reading.frame.height == 1
    row = reading.frame.row(0, named=True)
    assert (row["claimed_agent"], row["api_base"], row["end_user"]) == (None, None, None)
    reading.frame.write_parquet(tmp_path / "x.parquet")
    for text in ("'" * 500_000, "\\'" * 200_000, "(" * 300_000, "{'a':" * 100_000, "a=" * 300_000, "a" * 900_000):
        assert spans(payload(metadata=text)).frame.height == 1


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from([*payload(), "usage_object", "spend", "request_id", "lines"]), inner, max_size=6)
        ),
        max_leaves=20,
    )
)
def test_no_json_at_all_ends_in_a_traceback(value: Any) -> None:
    reading = spans(value, payload(1) | value if isinstance(value, dict) else value, payload(2))
    assert "call-2" in reading.frame["gateway_call_id"].to_list()
    assert reading.frame.schema == SPANS.schema


# --- many deliveries, one table -------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=12)
@given(st.randoms(use_true_random=False))
def test_any_order_any_batching_any_repetition_gives_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random
) -> None:
    items = [*(payload(n) for n in range(8)), *(spend_row(n) for n in range(3))]
    expected = Store(tmp_path_factory.mktemp("once"))
    expected.merge(SPANS, spans(*items).frame, prefer="rank")
    poor = [payload(n, metadata={}, model_id=None) for n in range(4)]  # the same calls, told with less
    deliveries = items + chance.sample(items, 6) + poor
    chance.shuffle(deliveries)
    store = Store(tmp_path_factory.mktemp("often"))
    while deliveries:
        size = chance.randint(1, len(deliveries))
        store.merge(SPANS, spans(*deliveries[:size]).frame, prefer="rank")
        deliveries = deliveries[size:]
    order = ["channel", "span_key"]
    assert store.scan(SPANS).sort(order).collect().equals(expected.scan(SPANS).sort(order).collect())


def test_all_captures_twice_and_shuffled_leave_one_row_a_call_and_channel(tmp_path: Path, captured: pl.DataFrame) -> None:
    store = Store(tmp_path)
    frame = captured.select(list(SPANS.schema))
    for seed in (1, 2):
        for part in frame.sample(fraction=1, shuffle=True, seed=seed).iter_slices(10):
            store.merge(SPANS, part, prefer="rank")
    held = store.scan(SPANS).collect()
    assert held.height == 47 + 8
    assert held.filter(channel="litellm")["gateway_call_id"].is_unique().all()
    # 43 x gpt-4o 0.00252, 2 x Claude 0.0102, one embedding 0.00000014, and a failure.
    assert held.filter(channel="litellm")["reported_cost"].sum() == Decimal("0.12876014")


# --- planning -------------------------------------------------------------------------------------


class Folder(NoFetcher):
    """Lists local files."""

    def list(self, uri: str) -> list[ListedObject]:
        paths = [Path(uri)] if Path(uri).is_file() else sorted(p for p in Path(uri).rglob("*") if p.is_file())
        return [ListedObject(str(p), p.stat().st_size, "v1") for p in paths]

    def get(self, uri: str) -> RawObject:
        return RawObject(uri, Path(uri), f"sha-{Path(uri).name}", Path(uri).stat().st_size)


def planned(uri: Path) -> Iterator[Batch]:
    for entry in SOURCE.plan(Folder(), str(uri)):
        assert isinstance(entry, Batch)
        yield entry


def test_a_folder_gives_its_logs_and_a_named_file_is_taken_at_its_word(tmp_path: Path) -> None:
    nested = tmp_path / "2026-11-22" / "15"
    nested.mkdir(parents=True)
    names = [
        "time-15-31-45_chatcmpl-1.json",
        "batch.jsonl",
        "a.ndjson",
        "b.json.gz",
        "c.csv",
        "d.parquet",
        "notes.txt",
        "_SUCCESS",
        ".hidden.json",
    ]
    for name in names:
        (nested / name).write_text("[]")
    slices = list(planned(tmp_path))
    assert [Path(s.objects[0].uri).name for s in slices] == sorted(names[:6], key=str)
    assert all(len(s.objects) == 1 and s.billing_month is None for s in slices)
    assert [Path(s.objects[0].uri).name for s in planned(nested / "notes.txt")] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ObjectMissingError, match="nothing here"):
        list(planned(tmp_path / "empty"))
    assert all(any(fnmatch(n, p) for p in SOURCE.patterns) for n in names[:6])
