"""Vertex AI's logs: usage, ids and times of every call, and never a word that was said."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest import checkpoints
from ingest.google import client
from ingest.run import ingest
from ingest.source import RawObject, Window
from ingest.sources.vertex import calls as vertex_calls
from ingest.sources.vertex.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.settings import IngestSettings
from ledger.tables import SPANS
from tests.support.gcp_server import Google, Row, Table, refusal, serving, without_words, written
from tests.support.paths import DATA

DATA = DATA / "vertex"
CALLS = DATA / "calls.jsonl"
ADDRESS = "bigquery://acme-agents.logs.request_response_logging"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client, "MAX_RETRY_SECONDS", 5.0)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)


def logged() -> list[Row]:
    rows = [json.loads(line) for line in CALLS.read_text().splitlines()]
    return [row | {"logging_time": datetime.fromisoformat(row["logging_time"])} for row in rows]


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    rows = logged()
    held = Google(tables={ADDRESS.removeprefix("bigquery://"): Table(list(rows[0]), rows, parted_by="logging_time")})
    with serving(held):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", held.address)
        yield held


def spans(books: Books) -> pl.DataFrame:
    return books.store.scan(SPANS).collect().sort("start_time", "span_id")


def told(row: dict[str, Any]) -> dict[str, str]:
    """A span in the words of expected.csv."""
    columns = {
        "request_id": row["span_id"].removeprefix("vertex_"),
        "response_id": row["provider_request_id"],
        "start": row["start_time"].replace(tzinfo=None).isoformat(),
        "model": row["request_model"],
        "region": row["region"],
        "tier": row["service_tier"],
        **{
            short: row[f"{short}_tokens"]
            for short in (
                "input",
                "cache_read",
                "cache_write",
                "output",
                "reasoning",
                "input_audio",
                "input_image",
                "output_image",
            )
        },
        "other": row["other_usage"],
        "status": row["status"],
    }
    return {name: "" if value is None else str(value) for name, value in columns.items()}


def expected() -> list[dict[str, str]]:
    with (DATA / "expected.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "line"} for row in csv.DictReader(file)]


def test_every_call_is_counted_as_by_hand(books: Books) -> None:
    report = ingest(books, "vertex", [str(CALLS)])

    assert report.rows == 7 and report.problems == []
    assert [told(row) for row in spans(books).iter_rows(named=True)] == expected()


def test_no_word_of_a_prompt_or_an_answer_gets_in(google: Google, books: Books) -> None:
    ingest(books, "vertex", [str(CALLS)])
    ingest(books, "vertex", [ADDRESS])

    assert "CANARY" in CALLS.read_text()
    files = [path for path in books.settings.home.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"CANARY" in path.read_bytes()]
    assert "CANARY" not in spans(books).write_json()


def test_the_question_asks_for_no_prompt_and_no_answer(google: Google, books: Books) -> None:
    ingest(books, "vertex", [ADDRESS])

    sql = google.queries[-1]["query"]
    for column in ("contents", "candidates[0].content", "request_payload", "otel_log", "systemInstruction"):
        assert f"$.{column}" not in sql.replace("$.candidates[0].groundingMetadata.webSearchQueries') IS NOT NULL", "")
        assert f"{column}," not in sql
    assert "JSON_QUERY(chunk, '$.usageMetadata')" in sql and "JSON_QUERY(full_request, '$.labels')" in sql


def test_who_called_is_what_the_request_s_labels_say(books: Books) -> None:
    ingest(books, "vertex", [str(CALLS)])
    first, second = spans(books).head(2).iter_rows(named=True)

    assert (first["agent_name"], first["claimed_agent"], first["claimed_team"]) == ("triage-bot", "front-desk", "care")
    assert (second["agent_name"], second["claimed_agent"], second["claimed_team"]) == (None, None, "data")
    assert first["account_id"] == "acme-agents" and first["provider"] == "vertex_ai" and first["usage_scope"] == "leaf"
    assert json.loads(first["attributes"]) == {"labels": {"adk_agent_name": "triage-bot", "agent": "front-desk", "team": "care"}}


def test_the_table_live_is_the_same_calls_as_its_extract_and_twice_is_once(google: Google, books: Books) -> None:
    ingest(books, "vertex", [str(CALLS)])
    before = spans(books)
    live = ingest(books, "vertex", [ADDRESS])
    again = ingest(books, "vertex", [ADDRESS])

    assert live.rows == 7 and live.errors == 0
    assert again.rows == 7 and again.rows_changed == 0  # all of them lie in the hour that is asked for again
    assert spans(books).select(pl.exclude("raw_id", "rank")).equals(before.select(pl.exclude("raw_id", "rank")))


def test_days_are_read_one_by_one_and_the_mark_follows(google: Google, books: Books) -> None:
    (table,) = google.tables.values()
    table.rows.append(table.rows[0] | {"request_id": 9, "logging_time": datetime(2026, 10, 7, 3, tzinfo=UTC)})
    ingest(books, "vertex", [ADDRESS])

    days = [[p["parameterValue"]["value"][:10] for p in q["queryParameters"]] for q in google.queries[1:]]
    assert days == [["2026-10-05", "2026-10-06"], ["2026-10-06", "2026-10-07"], ["2026-10-07", "2026-10-07"]]
    assert checkpoints.load(books, "vertex") == {ADDRESS: "2026-10-07T03:00:00+00:00"}
    assert spans(books).height == 8


def test_a_day_that_cannot_be_read_is_read_next_time(google: Google, books: Books) -> None:
    (table,) = google.tables.values()
    table.rows.append(table.rows[0] | {"request_id": 9, "logging_time": datetime(2026, 10, 7, 3, tzinfo=UTC)})
    answer, asked = google.answer, [0]

    def failing(method: str, path: str, query: Any, body: Row) -> tuple[int, Row]:
        asked[0] += "query" in body
        return refusal(403, "accessDenied", "Access Denied") if asked[0] == 4 else answer(method, path, query, body)

    google.answer = failing  # type: ignore[method-assign]
    report = ingest(books, "vertex", [ADDRESS])

    assert report.errors == 1 and spans(books).height == 7
    assert checkpoints.load(books, "vertex")[ADDRESS] < "2026-10-07T03:00:00+00:00"
    google.answer = answer  # type: ignore[method-assign]
    ingest(books, "vertex", [ADDRESS])
    assert spans(books).height == 8


def test_days_asked_for_are_read_and_leave_the_mark(google: Google, books: Books) -> None:
    report = ingest(books, "vertex", [ADDRESS], window=Window(date(2026, 10, 4), date(2026, 10, 6)))

    assert report.rows == 7 and checkpoints.load(books, "vertex") == {}
    assert ingest(books, "vertex", [ADDRESS], window=Window(date(2026, 11, 1))).rows == 0


def test_a_call_logged_late_is_found_by_the_overlap(google: Google, books: Books) -> None:
    ingest(books, "vertex", [ADDRESS])
    (table,) = google.tables.values()
    table.rows.append(table.rows[0] | {"request_id": 10, "logging_time": datetime(2026, 10, 5, 9, 30, tzinfo=UTC)})

    ingest(books, "vertex", [ADDRESS])

    assert spans(books).height == 8


def test_extracts_in_any_packing_and_order_are_the_same_calls(books: Books, tmp_path: Path) -> None:
    lines = CALLS.read_text().splitlines()
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "b.json.gz").write_bytes(gzip.compress("\n".join(reversed(lines[:3])).encode()))
    (folder / "a.json").write_text("[" + ",".join(lines[2:5]) + "]")
    # Parquet has JSON columns as text.
    rest = [{k: json.dumps(v) if isinstance(v, dict) else v for k, v in json.loads(line).items()} for line in lines[4:]]
    pl.DataFrame([{k: v for k, v in row.items() if k != "request_payload"} for row in rest]).write_parquet(folder / "c.parquet")

    report = ingest(books, "vertex", [str(folder)])

    assert report.errors == 0 and [told(row) for row in spans(books).iter_rows(named=True)] == expected()


def test_a_stream_logged_as_text_of_events_is_read(books: Books, tmp_path: Path) -> None:
    row = json.loads(CALLS.read_text().splitlines()[4])
    events = [json.loads(part) for part in row["response_payload"]]
    row["response_payload"] = ["".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)]
    (tmp_path / "c.jsonl").write_text(json.dumps(row))

    ingest(books, "vertex", [str(tmp_path / "c.jsonl")])

    assert told(spans(books).row(0, named=True)) == expected()[4]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"request_id": None}, "request_id", "is missing"),
        ({"logging_time": None}, "logging_time", "is missing"),
        ({"logging_time": "soon"}, "logging_time", "text of 4 characters is no time"),
        (
            {"full_response": {"usageMetadata": {"promptTokenCount": -1}}},
            "usageMetadata.promptTokenCount",
            "-1 is no number of tokens",
        ),
        ({"full_response": "{"}, "full_response", "is no valid JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_row_costs_only_itself(books: Books, tmp_path: Path, change: Row, field: str, reason: str) -> None:
    good = json.loads(CALLS.read_text().splitlines()[0])
    (tmp_path / "c.jsonl").write_text(
        "\n".join(json.dumps(r) for r in (good, good | {"request_id": 2} | change, good | {"request_id": 3}))
    )

    report = ingest(books, "vertex", [str(tmp_path / "c.jsonl")])

    assert report.rows == 2
    assert [(p.place, p.field, p.reason) for p in report.problems] == [("line 2", field, reason)]


@pytest.mark.slow
def test_cut_at_every_byte_whole_calls_are_kept_and_the_rest_is_told(tmp_path: Path) -> None:
    kept = ("logging_time", "request_id", "full_response")
    lines = [written({k: v for k, v in without_words(row).items() if k in kept}).encode() + b"\n" for row in logged()[4:6]]
    content, path = b"".join(lines), tmp_path / "cut.jsonl"
    for cut in range(1, len(content)):
        path.write_bytes(content[:cut])
        rows, problems = 0, 0
        try:
            for reading in SOURCE.read(RawObject(str(path), path, "x", cut), IngestSettings()):
                rows, problems = rows + reading.frame.height, problems + len(reading.problems)
        except FormatError:
            problems += 1
        assert rows == sum(cut >= len(b"".join(lines[: n + 1])) - 1 for n in range(2)), cut
        assert bool(problems) == (cut not in (len(lines[0]) - 1, len(lines[0]), len(content) - 1)), cut


def test_strangers_are_refused(google: Google, books: Books, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    google.tables["p.d.other"] = Table(["a"])

    (file,) = ingest(books, "vertex", [str(tmp_path / "x.json")]).problems
    (table,) = ingest(books, "vertex", ["bigquery://p.d.other"]).problems

    assert "logging_time, request_id" in file.remedy and "lacks logging_time, request_id" in table.reason


def test_latency_that_cannot_be_is_not_believed() -> None:
    row = json.loads(CALLS.read_text().splitlines()[0])
    for latency in (-5, 10**12, "soon", None):
        found = vertex_calls.of_row(row | {"metadata": {"request_latency": latency}}, IngestSettings())
        assert found["start_time"] == found["end_time"]


@pytest.mark.slow
def test_the_log_and_the_caller_s_own_span_are_one_call(books: Books, tmp_path: Path) -> None:
    """A span of the GenAI conventions with the same response id, the prompt with cached tokens and the answer with thoughts."""
    from attribution.run import attribute
    from ledger.tables import CALLS as CALLS_TABLE

    start = int(datetime(2026, 10, 5, 9, tzinfo=UTC).timestamp()) * 10**9
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gcp.vertex_ai",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.response.id": "y0S_aMGPArCYqsMPntGNyA4",
        "gen_ai.usage.input_tokens": 200000,
        "gen_ai.usage.output_tokens": 50000,
        "gen_ai.agent.name": "front-desk",
    }
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "chat gemini-2.5-flash",
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 3 * 10**9),
        "attributes": [
            {"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for k, v in attributes.items()
        ],
    }
    (tmp_path / "trace.json").write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    ingest(books, "otlp", [str(tmp_path / "trace.json")])
    ingest(books, "vertex", [str(CALLS)])

    attribute(books, months=["2026-10"])
    calls = books.store.scan(CALLS_TABLE).collect()

    (call,) = calls.filter(provider_request_id="y0S_aMGPArCYqsMPntGNyA4").to_dicts()
    assert call["channels"] == "otlp+vertex" and call["initiator_agent"] == "front-desk"
    assert (call["input_tokens"], call["cache_read_tokens"]) == (50000, 150000)
    assert (call["output_tokens"], call["reasoning_tokens"]) == (40000, 10000)
    assert calls.filter(pl.col("channels").str.contains("vertex")).height == 7
