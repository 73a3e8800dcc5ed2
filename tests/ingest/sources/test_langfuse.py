"""Langfuse's exports: recorded runs of frameworks, each request counted once, and never by a tokenizer's guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.sources.langfuse import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.log_sources import (
    PLAIN,
    D,
    booked,
    calls,
    chains,
    no_content,
    read,
    rows,
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

FOLDER = DATA / "langfuse"
TRACES = sorted(FOLDER.glob("*.trace.json"))
ONCE = {
    "autogen-2025-06-06": (41, 3),
    "beeai-2025-08-01": (0, 0),
    "crewai-2025-07-11": (190, 164),
    "langgraph-python-2025-08-22": (168, 66),
    "openai-agents-2025-09-30": (140, 44),
    "pydantic-ai-tools-2025-12-04": (1315, 209),
    "vercel-aisdk-2025-11-17": (62, 85),
}
"""Tokens in and out of each run, added up by hand from what the model's own spans say."""


def name(path: Path) -> str:
    return path.name.removesuffix(".trace.json")


def attributes(observation: dict[str, Any]) -> dict[str, Any]:
    metadata = observation["metadata"]
    told = json.loads(metadata) if isinstance(metadata, str) else metadata
    found: dict[str, Any] = told.get("attributes") or {}
    return found


@pytest.mark.parametrize("path", TRACES, ids=name)
def test_leaves_alone_say_what_a_run_used(path: Path) -> None:
    found = [row for row in rows(SOURCE, path) if row["usage_scope"] == "leaf"]
    assert (sum(r["input_tokens"] or 0 for r in found), sum(r["output_tokens"] or 0 for r in found)) == ONCE[name(path)]


def test_a_run_that_repeats_its_calls_is_not_counted_twice() -> None:
    [path] = FOLDER.glob("pydantic-ai-tools-*")
    told = [attributes(o) for o in json.loads(path.read_text())["observations"]]
    naive = sum(int(t.get("gen_ai.usage.input_tokens", 0)) for t in told)
    assert naive == 2 * ONCE[name(path)][0]
    found = rows(SOURCE, path)
    assert sum(r["input_tokens"] or 0 for r in found if r["usage_scope"] == "aggregate") == 1315
    assert {r["agent_name"] for r in found if r["usage_scope"] == "aggregate"} == {"joke_agent", "evaluator_agent"}


def test_where_a_framework_counts_nothing_nothing_is_counted_not_a_guess() -> None:
    """BeeAI's spans hold no counts; what Langfuse shows for them is its tokenizer's."""
    [path] = FOLDER.glob("beeai-*")
    shown = [o["usageDetails"].get("input", 0) for o in json.loads(path.read_text())["observations"]]
    assert sum(shown) == 1195 + 1988 + 2359
    found = rows(SOURCE, path)
    assert {r["input_tokens"] for r in found} == {None}
    assert {r["output_tokens"] for r in found} == {None}
    assert sum(r["operation"] == "chat" for r in found) == 5


@pytest.mark.slow
def test_every_run_is_one_chain_and_costs_its_leaves(books: Books) -> None:
    rates = {model: ("openai", {"input_tokens": "0.000002", "output_tokens": "0.000008"}) for model in _models()}
    booked(books, "langfuse", [FOLDER], rates=rates)
    found = calls(books)
    assert (found["input_tokens"].fill_null(0) + found["cache_read_tokens"].fill_null(0)).sum() == sum(
        i for i, _ in ONCE.values()
    )
    expected = sum((i * D("0.000002") + o * D("0.000008") for i, o in ONCE.values()), D(0))
    assert found["list_cost"].sum() == expected
    with_calls = chains(books)
    assert with_calls["reason"].drop_nulls().is_empty()
    assert with_calls.height <= len(TRACES)


@pytest.mark.slow
def test_files_in_any_order_are_the_same_rows_and_keep_their_spans_ids(tmp_path: Path) -> None:
    observations = [o for path in TRACES for o in json.loads(path.read_text())["observations"]]
    assert same_in_any_order(tmp_path, "langfuse", TRACES) == len(observations)
    found = {row["span_id"]: row for path in TRACES for row in rows(SOURCE, path)}
    for told in observations:
        row = found[told["id"]]
        assert (row["channel"], row["trace_id"]) == ("otlp", told["traceId"]), "what came over OTLP too is the same span"


def _models() -> set[str]:
    told = {o["model"] for path in TRACES for o in json.loads(path.read_text())["observations"] if o.get("model")}
    return told | {"gpt-5-2025-08-07", "gpt-4o-2024-08-06"}


def observation(number: int, **more: Any) -> dict[str, Any]:
    base = {"id": f"obs-{number}", "traceId": "trace-of-mine", "type": "GENERATION", "name": f"step {number}", "model": "gpt-4o"}
    base |= {"startTime": f"2026-10-05T10:00:0{number}.000Z", "endTime": f"2026-10-05T10:00:0{number}.500Z", "level": "DEFAULT"}
    return (
        base
        | {"parentObservationId": None, "usageDetails": {"input": 10 * number, "output": number, "total": 11 * number}}
        | more
    )


def test_ids_of_its_own_users_sessions_and_tags(tmp_path: Path) -> None:
    agent = observation(1, type="AGENT", name="planner", usageDetails={}, model=None)
    asks = observation(
        2, parentObservationId="obs-1", usageDetails={"input": 20, "input_cached_tokens": 80, "output": 2, "total": 102}
    )
    trace = {
        "id": "trace-of-mine",
        "timestamp": "2026-10-05T10:00:00Z",
        "userId": "u-7",
        "sessionId": "s-1",
        "environment": "prod",
    }
    reading = written(SOURCE, tmp_path, json.dumps(trace | {"tags": ["team:ads"], "observations": [asks, agent]}), "t.json")
    by_id = {row["span_id"]: row for row in reading.frame.to_dicts()}
    call = by_id["obs-2"]
    assert (call["trace_id"], call["parent_span_id"], call["parent_key"]) == (
        "trace-of-mine",
        "obs-1",
        by_id["obs-1"]["span_key"],
    )
    assert (call["input_tokens"], call["cache_read_tokens"], call["input_includes_cache"]) == (20, 80, False)
    assert (call["end_user"], call["conversation_id"], call["environment"], call["claimed_team"]) == ("u-7", "s-1", "prod", "ads")
    assert by_id["obs-1"]["agent_name"] == "planner"


def test_pages_of_the_api_and_files_of_the_export_say_the_same(tmp_path: Path) -> None:
    told = [observation(n) for n in (1, 2, 3)]
    page = json.dumps({"data": told, "meta": {"page": 1, "totalItems": 3}})
    names = {"traceId": "trace_id", "startTime": "start_time", "endTime": "end_time", "usageDetails": "usage_details"}
    names |= {"parentObservationId": "parent_observation_id", "model": "provided_model_name"}
    exported = [{names.get(k, k): v for k, v in one.items()} for one in told]
    for one in exported:
        one["start_time"] = one["start_time"].replace("T", " ").removesuffix("Z") + "000"
        one["end_time"] = one["end_time"].replace("T", " ").removesuffix("Z") + "000"
        one["usage_details"] = json.dumps(one["usage_details"])
    first = written(SOURCE, tmp_path, page, "page.json").frame
    second = written(SOURCE, tmp_path, "".join(json.dumps(one) + "\n" for one in reversed(exported)), "export.jsonl").frame
    assert first.drop("raw_id").sort("span_id").equals(second.drop("raw_id").sort("span_id"))
    assert first["input_tokens"].sum() == 60


def test_usage_that_was_not_provided_is_a_guess(tmp_path: Path) -> None:
    told = [observation(1, providedUsageDetails={}), observation(2, providedUsageDetails={"input": 20, "output": 2})]
    assert written(SOURCE, tmp_path, json.dumps(told), "t.json").frame["input_tokens"].to_list() == [None, 20]


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"usageDetails": {"promptTokens": 100, "completionTokens": 7, "totalTokens": 107}}, (100, None, None, 7, 107)),
        (
            {"usageDetails": {"inputTokens": 12, "outputTokens": 7, "totalTokens": 119, "cacheReadInputTokens": 100}},
            (12, 100, None, 7, 119),
        ),
        (
            {"usageDetails": {"inputTokens": 112, "cachedInputTokens": 100, "outputTokens": 7, "reasoningTokens": 5}},
            (112, 100, None, 7, None),
        ),
        ({"usageDetails": {"input": 12, "inputTokens": 12, "cacheWriteInputTokens": 3, "output": 7}}, (12, None, 3, 7, None)),
        ({"usageDetails": None, "promptTokens": 100, "completionTokens": 7, "totalTokens": 107}, (100, None, None, 7, 107)),
        ({"usageDetails": {}, "usage": {"input": 100, "output": 7, "total": 107, "unit": "TOKENS"}}, (100, None, None, 7, 107)),
        ({"usageDetails": {}, "usage": {"input": 900, "output": 70, "unit": "CHARACTERS"}}, (None,) * 5),
        ({"usageDetails": {}, "promptTokens": 0, "completionTokens": 0, "totalTokens": 0}, (None,) * 5),
    ],
)
def test_usage_in_every_spelling_is_read(tmp_path: Path, usage: dict[str, Any], counts: tuple[int | None, ...]) -> None:
    """Usage of OpenAI's, Bedrock's and Vercel's SDKs as they spell it, and the plain counts of older versions."""
    [row] = written(SOURCE, tmp_path, json.dumps([observation(1, **usage)]), "t.json").frame.to_dicts()
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "total_tokens")
    assert tuple(row[name] for name in names) == counts


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    told = [observation(1, startTime="later"), observation(2), {"id": "x"}, 7]
    reading = written(SOURCE, tmp_path, json.dumps({"data": told}), "t.json")
    assert reading.frame["span_id"].to_list() == ["obs-2"]
    assert {p.field: p.rows for p in reading.problems} == {"span": 2, "start_time_unix_nano": 1}
    with pytest.raises(FormatError, match="no observation of Langfuse"):
        written(SOURCE, tmp_path, '{"spans": 1}', "t.json")


def test_cut_off_anywhere_it_is_whole_observations_or_refused(tmp_path: Path) -> None:
    survives_cuts(SOURCE, tmp_path, (FOLDER / "autogen-2025-06-06.trace.json").read_bytes(), "t.json")
    content = "".join(json.dumps(observation(n)) + "\n" for n in range(1, 6)).encode()
    assert survives_cuts(SOURCE, tmp_path, content, "t.jsonl") > 50


def test_scores_beside_the_observations_are_left_out(books: Books, tmp_path: Path) -> None:
    for folder, content in (("observations_v2", observation(1)), ("scores", {"id": "s", "value": 1})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part.jsonl").write_text(json.dumps(content) + "\n")
    assert booked(books, "langfuse", [tmp_path]) == []
    assert calls(books).height == 1


def test_nothing_that_was_said_gets_in() -> None:
    for path in TRACES:
        no_content(read(SOURCE, path, PLAIN), "What is Langfuse", "joke idea", "Barcelona", "html lang")
    kept = pl.concat([read(SOURCE, path).frame for path in TRACES])["attributes"].drop_nulls().to_list()
    assert max(map(len, kept)) < 400


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [json.loads(TRACES[0].read_text()), observation(1)])
