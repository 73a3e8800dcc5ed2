"""What a record says that is priced apart is read: speed, geography, tiers, and iterations by a model of their own. (CA-7, ES-2)"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.otel.metrics import read_metrics
from ingest.source import ListedObject
from ingest.sources import by_name
from ingest.sources.litellm import s3
from ledger.books import Books
from ledger.problems import Problem
from ledger.tables import PROBLEMS
from tests.support.cli_books import Command
from tests.support.count_cases import CASES, rollup_of
from tests.support.fetchers import NoFetcher
from tests.support.log_sources import read

D = Decimal


def costs(source: str, path: Path) -> list[Decimal | None]:
    return rollup_of(source, path).calls.sort("start_time", "model", descending=[False, True])["list_cost"].to_list()


def test_the_cases_cost_what_their_records_say() -> None:
    assert costs("litellm", CASES / "told-and-unread" / "speed-and-geo.jsonl") == [D("0.06"), D("0.033")]
    [fast] = (CASES / "codex" / "fast-mode").glob("*.jsonl")
    assert costs("codex", fast) == [D("0.0198"), D("0.069")]
    [advisor] = (CASES / "claude-advisor" / "advisor").glob("*.jsonl")
    assert costs("claude-code", advisor) == [D("0.0318"), D("1")]


def payload(**usage: Any) -> dict[str, Any]:
    """The first payload of the case with other usage fields."""
    lines = (CASES / "told-and-unread" / "speed-and-geo.jsonl").read_text(encoding="utf-8").splitlines()
    document: dict[str, Any] = json.loads(lines[0])
    counts = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
    document["metadata"]["usage_object"] = counts | usage
    return document | {"response_cost": 0}


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"speed": "fast", "inference_geo": "us"}, "0.066"),
        ({"speed": "standard", "inference_geo": "global"}, "0.03"),
        ({"speed": "FAST"}, "0.06"),
        ({"inference_geo": "not_available"}, "0.03"),
        ({"speed": {"fast": True}, "inference_geo": ["us"]}, "0.03"),
        ({"speed": "x" * 10_000, "inference_geo": "y" * 10_000}, "0.03"),
    ],
    ids=["both", "neither", "upper case", "not available", "objects", "huge"],
)
def test_speed_and_geography_are_priced(tmp_path: Path, usage: dict[str, Any], cost: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(payload(**usage)) + "\n", encoding="utf-8")
    assert costs("litellm", path) == [D(cost)]


IMAGE_COUNTS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 1079, "input_tokens": 23, "output_tokens": 1056}


@pytest.mark.parametrize(
    ("usage", "meters"),
    [
        ({}, (23, None, 1056, None)),
        (
            {"input_tokens_details": {"image_tokens": 3, "text_tokens": 20}, "output_tokens_details": {"reasoning_tokens": 56}},
            (20, None, 1000, 56),
        ),
        ({"input_tokens_details": {"cached_tokens": 13}}, (10, 13, 1056, None)),
        ({"input_tokens": 10, "cache_read_input_tokens": 13}, (10, 13, 1056, None)),
        ({"prompt_tokens": 500, "completion_tokens": 7}, (500, None, 7, None)),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, (None, None, None, None)),
    ],
    ids=["image", "details", "cached inside", "cached beside", "two names that differ", "nothing"],
)
def test_usage_under_the_providers_own_names_is_read(
    tmp_path: Path, usage: dict[str, Any], meters: tuple[int | None, ...]
) -> None:
    """An answer of images has input_tokens and output_tokens beside zeros: 23 and 1056. What LiteLLM counts itself comes first."""
    document = json.loads((CASES / "failed-attempt" / "image.jsonl").read_text(encoding="utf-8"))
    document |= dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    document["metadata"]["usage_object"] = IMAGE_COUNTS | usage
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    calls = rollup_of("litellm", path).calls
    assert calls.select("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens").rows() == [meters]
    if not usage:
        original = rollup_of("litellm", CASES / "failed-attempt" / "image.jsonl").calls
        assert original.select("input_tokens", "output_tokens").rows() == [(23, 1056)]


@pytest.mark.parametrize(
    ("parts", "cost"),
    [
        ({"response": {"usage": {"speed": "fast", "inference_geo": "us"}}}, "0.066"),
        ({"response": {"usage": {"service_tier": "batch"}}}, "0.015"),
        ({"model_parameters": {"service_tier": "batch"}}, "0.015"),
        ({"model_parameters": {"service_tier": "batch"}, "response": {"service_tier": "default"}}, "0.03"),
        ({"response": {"usage": ["fast"]}, "model_parameters": {"service_tier": {"batch": 1}}}, "0.03"),
    ],
    ids=["answer's usage", "answer's tier", "tier asked for", "asked for and not given", "nonsense"],
)
def test_the_answer_says_what_was_given_and_the_request_what_was_asked(tmp_path: Path, parts: dict[str, Any], cost: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(payload() | parts) + "\n", encoding="utf-8")
    assert costs("litellm", path) == [D(cost)]


def unread(source: str, path: Path) -> dict[str, int]:
    """Field paths of usage that is told as unread, with the number of records."""
    problems = read(by_name(source), path).problems
    return {p.field: p.rows for p in problems if p.reason.startswith("unread_usage: ")}


def test_ca7_usage_that_is_not_read_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        payload(server_tool_use={"code_runs": 2, "web_search_requests": 1}, video_minutes="0", note="x" * 500),
        payload(server_tool_use={"code_runs": 3}, iterations=[{"model": "m", "input_tokens": 7}], turbo="yes"),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert unread("litellm", path) == {
        "usage.server_tool_use.code_runs": 2, "usage.iterations[].model": 1, "usage.iterations[].input_tokens": 1, "usage.turbo": 1,
    }  # fmt: skip
    path.write_text(json.dumps(payload(**{f"field_{n}": n for n in range(1, 5001)})) + "\n", encoding="utf-8")
    paths = unread("litellm", path)
    assert (len(paths), paths["usage"]) == (21, 4980)


def test_ca7_sessions_and_spans_tell_of_unread_usage_and_known_records_do_not(tmp_path: Path) -> None:
    [path] = (CASES / "claude-advisor" / "advisor").glob("*.jsonl")
    assert unread("claude-code", path) == {}
    line = json.loads(path.read_text(encoding="utf-8"))
    line["message"]["usage"]["gpu_seconds"] = 4
    line["message"]["content"] = [{"usage": {"of_a_tool": 9}}]
    session = tmp_path / path.name
    session.write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert unread("claude-code", session) == {"usage.gpu_seconds": 1}
    spans = json.loads((CASES / "running-counter" / "strands.json").read_text(encoding="utf-8"))
    for span in spans["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        values = {"gen_ai.usage.video_seconds": 3, "gen_ai.usage.details.x": 7, "gen_ai.usage.images": 0}
        span["attributes"] += [{"key": name, "value": {"intValue": str(value)}} for name, value in values.items()]
    export = tmp_path / "spans.json"
    export.write_text(json.dumps(spans), encoding="utf-8")
    assert unread("otlp", CASES / "running-counter" / "strands.json") == {}
    assert unread("otlp", export) == {"gen_ai.usage.video_seconds": 5}


def test_ca7_a_log_compressed_otherwise_is_a_problem(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    folder.mkdir()
    (folder / "a.jsonl.bz2").write_bytes(b"BZh9")
    (folder / "notes.txt.bz2").write_bytes(b"BZh9")
    rootcost = Command(home)
    for source in ("claude-code", "litellm"):
        rootcost("ingest", source, folder)
        with Books.open(home) as books:
            problems = books.store.scan(PROBLEMS).filter(pl.col("source") == source).collect()
        assert [
            (uri.endswith("a.jsonl.bz2"), reason.partition(":")[0]) for uri, reason in problems.select("uri", "reason").rows()
        ] == [(True, "unread_file")]


def message(iterations: object) -> str:
    [path] = (CASES / "claude-advisor" / "advisor").glob("*.jsonl")
    line = json.loads(path.read_text(encoding="utf-8"))
    line["message"]["usage"]["iterations"] = iterations
    return json.dumps(line) + "\n"


@pytest.mark.parametrize(
    ("iterations", "models"),
    [
        ([{"model": "claude-sonnet-4-6", "input_tokens": 60}], ["claude-sonnet-4-6"]),
        (
            [{"model": "claude-opus-4-7", "input_tokens": 9}, {"model": "claude-haiku-4-5", "input_tokens": 8}],
            ["claude-haiku-4-5", "claude-opus-4-7", "claude-sonnet-4-6"],
        ),
        ("none", ["claude-sonnet-4-6"]),
        ([None, 7, {"model": None}], ["claude-sonnet-4-6"]),
    ],
    ids=["the same model", "two advisors", "no list", "no objects"],
)
def test_an_iteration_by_a_model_of_its_own_is_a_call(tmp_path: Path, iterations: object, models: list[str]) -> None:
    path = tmp_path / "11111111-1111-4111-8111-000000000001.jsonl"
    path.write_text(message(iterations) * 2, encoding="utf-8")  # delivered twice: still once each
    assert sorted(rollup_of("claude-code", path).calls["model"]) == models


def test_ca7_vertex_langfuse_events_and_metrics_tell_of_unread_usage(tmp_path: Path) -> None:
    vertex = tmp_path / "vertex.jsonl"
    usage = {
        "promptTokenCount": 9,
        "trafficType": "ON_DEMAND",
        "gpuSeconds": 4,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
    }
    call = {"logging_time": "2026-10-05T09:00:03Z", "model": "gemini-2.5-pro", "full_response": {"usageMetadata": usage}}
    partner = {"response_payload": [json.dumps({"type": "message", "id": "m", "usage": {"input_tokens": 7, "seats": 2}})]}
    lines = [{**call, "request_id": 1}, {**call, "request_id": 2, "full_response": json.dumps([call["full_response"]])}]
    lines.append({"logging_time": "2026-10-05T09:00:03Z", "request_id": 3, **partner})
    vertex.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert unread("vertex", vertex) == {"usage.gpuSeconds": 2, "usage.seats": 1}

    langfuse = tmp_path / "langfuse.json"
    details = {"input": 5, "output": 2, "output_images": 3, "input_cached_text": 0}
    observation = {"id": "o", "traceId": "t", "type": "GENERATION", "startTime": "2026-10-05T09:00:03Z", "usageDetails": details}
    langfuse.write_text(
        json.dumps({"id": "t", "timestamp": "2026-10-05T09:00:03Z", "observations": [observation]}), encoding="utf-8"
    )
    assert unread("langfuse", langfuse) == {"langfuse.observation.usage_details.output_images": 1}

    events = tmp_path / "events.json"
    counts = {"input_token_count": 9, "max_tokens": 800, "video_token_count": 3, "gen_ai.usage.seats": 2, "prompt_length": 70}
    attributes = [{"key": name, "value": {"intValue": str(value)}} for name, value in counts.items()]
    record = {"timeUnixNano": "1791190800000000000", "eventName": "gemini_cli.api_response", "attributes": attributes}
    events.write_text(json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}), encoding="utf-8")
    assert unread("otlp", events) == {"video_token_count": 1, "gen_ai.usage.seats": 1}


def test_ca7_metrics_tell_of_unread_usage() -> None:
    def metric(name: str, kind: str, unit: str = "{token}") -> dict[str, Any]:
        attributes = [{"key": "gen_ai.token.type", "value": {"stringValue": kind}}]
        point = {"timeUnixNano": "1791190800000000000", "asInt": "5", "attributes": attributes}
        return {"name": name, "unit": unit, "sum": {"aggregationTemporality": 1, "dataPoints": [point]}}

    metrics = [
        metric("gen_ai.client.token.usage", "input"),
        metric("gen_ai.client.token.usage", "cached"),
        metric("acme.tokens.cached", "input"),
        metric("acme.lines", "input", unit="1"),
    ]
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()
    reading = read_metrics(body, raw_id="r", uri="u", content_type="application/json")
    assert reading.frame["meter"].to_list() == ["input_tokens"]
    assert [problem.field for problem in reading.problems] == [
        "gen_ai.client.token.usage{gen_ai.token.type=cached}",
        "acme.tokens.cached",
    ]


class Listing(NoFetcher):
    """A folder or bucket with one file in a compression that is not read."""

    def list(self, uri: str) -> list[ListedObject]:
        return [
            ListedObject(f"{uri}/a.jsonl.bz2", 9, "v1", datetime(2026, 11, 30, tzinfo=UTC)),
            ListedObject(f"{uri}/b.bz2", 9, "v1"),
        ]

    def level(self, uri: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        return [], self.list(uri)

    def checkpoint(self, key: str) -> None:
        return None


@pytest.mark.parametrize("source", ["otlp", "vertex", "litellm"])
def test_ca7_files_in_another_compression_are_problems(source: str) -> None:
    plan = s3.plan(Listing(), "s3://logs", ("*.jsonl",)) if source == "litellm" else by_name(source).plan(Listing(), "logs")
    assert [(part.uri.endswith("a.jsonl.bz2"), part.reason.partition(":")[0]) for part in plan if isinstance(part, Problem)] == [
        (True, "unread_file")
    ]
