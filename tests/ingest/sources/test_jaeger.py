"""Jaeger's JSON: the whole chain belongs to the root, whatever the form it is saved in."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.sources.jaeger import SOURCE
from ingest.sources.otlp import SOURCE as OTLP
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.log_sources import (
    D,
    booked,
    calls,
    chains,
    no_content,
    read,
    rows,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

GENAI = DATA / "jaeger" / "genaiTestTrace.json"
RATES = {
    model: ("example-ai", {"input_tokens": "0.000003", "cache_read_tokens": "0.0000003", "output_tokens": "0.000015"})
    for model in ("model-a", "model-b")
}


def tags(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def test_from_graphql_to_the_last_tool_all_belongs_to_the_triage_agent(books: Books) -> None:
    trace = json.loads(GENAI.read_text())
    asked = [t for t in map(tags, trace["spans"]) if t.get("gen_ai.operation.name") == "chat"]
    cost = sum(
        (
            (t["gen_ai.usage.input_tokens"] - t["gen_ai.usage.cache_read.input_tokens"]) * D("0.000003")
            + t["gen_ai.usage.cache_read.input_tokens"] * D("0.0000003")
            + t["gen_ai.usage.output_tokens"] * D("0.000015")
            for t in asked
        ),
        D(0),
    )
    booked(books, "jaeger", [GENAI], rates=RATES, owners="agent,team\ntriage-agent,Care\nsummarizer,Data\n")
    [chain] = chains(books).to_dicts()
    assert (chain["spans"], chain["calls"], chain["list_cost"]) == (57, len(asked), cost)
    assert (chain["root_name"], chain["initiator_agent"], chain["initiator_team"]) == (
        "POST /api/graphql",
        "triage-agent",
        "Care",
    )
    found = calls(books)
    assert found["initiator_agent"].unique().to_list() == ["triage-agent"]
    assert sorted(found["executor_agent"]) == ["summarizer", *["triage-agent"] * 4]
    assert found["method"].unique().to_list() == ["path"]


def test_every_span_keeps_its_service_parent_and_time() -> None:
    trace = json.loads(GENAI.read_text())
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    by_id = {row["span_id"]: row for row in rows(SOURCE, GENAI)}
    assert len(by_id) == len(trace["spans"]) == 57
    for span in trace["spans"]:
        row = by_id[span["spanID"]]
        assert row["service_name"] == services[span["processID"]]
        assert row["parent_span_id"] == (span["references"][0]["spanID"] if span["references"] else None)
        assert int(row["start_time"].timestamp() * 10**6) == span["startTime"]
        assert (row["end_time"] - row["start_time"]).total_seconds() * 10**6 == span["duration"]
    assert {row["channel"] for row in by_id.values()} == {"otlp"}


def forms(trace: dict[str, Any]) -> dict[str, str]:
    """The ways one trace is saved."""
    indexed = [
        {k: v for k, v in span.items() if k != "processID"} | {"process": trace["processes"][span["processID"]]}
        for span in trace["spans"]
    ]
    return {
        "ui.json": json.dumps(trace, indent=2),
        "api.json": json.dumps({"data": [trace], "total": 0, "limit": 0, "offset": 0, "errors": None}),
        "index.jsonl": "".join(json.dumps(span) + "\n" for span in indexed),
        "hits.jsonl": "".join(json.dumps({"_index": "jaeger-span-2026-02-02", "_source": span}) + "\n" for span in indexed),
    }


@pytest.mark.parametrize("name", ["ui.json", "api.json", "index.jsonl", "hits.jsonl"])
def test_one_trace_is_the_same_in_every_form(name: str, tmp_path: Path) -> None:
    trace = json.loads(GENAI.read_text())
    expected = read(SOURCE, GENAI).frame.drop("raw_id").sort("span_id")
    random.Random(5).shuffle(trace["spans"])
    reading = written(SOURCE, tmp_path, forms(trace)[name], name)
    assert reading.problems == []
    assert reading.frame.drop("raw_id").sort("span_id").equals(expected)


def test_a_span_that_came_over_otlp_too_is_one_span(books: Books, tmp_path: Path) -> None:
    ids = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}
    told = {"gen_ai.operation.name": "chat", "gen_ai.response.model": "model-a", "gen_ai.usage.input_tokens": 1000}
    value = {"stringValue": "x"}
    span = {
        **ids,
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": "1791194400000000000",
        "endTimeUnixNano": "1791194401000000000",
    }
    span["attributes"] = [
        {"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {**value, "stringValue": v}} for k, v in told.items()
    ]
    sent = json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "s"}, "spans": [span]}]}]})
    kept = {"traceID": ids["traceId"], "spanID": ids["spanId"], "operationName": "chat", "startTime": 1791194400000000}
    kept |= {"duration": 1000000, "processID": "p1", "references": []}
    kept["tags"] = [{"key": k, "value": v} for k, v in {**told, "span.kind": "client", "otel.scope.name": "s"}.items()]
    stored = json.dumps({"traceID": ids["traceId"], "spans": [kept], "processes": {"p1": {"serviceName": "shop"}}})
    one, other = written(OTLP, tmp_path, sent, "sent.json").frame, written(SOURCE, tmp_path, stored, "stored.json").frame
    assert one.select("trace_key", "span_key", "date", "channel").equals(other.select("trace_key", "span_key", "date", "channel"))
    (tmp_path / "otlp").mkdir()
    (tmp_path / "otlp" / "sent.json").write_text(sent)
    from ingest.run import ingest

    ingest(books, "otlp", [str(tmp_path / "otlp")])
    booked(books, "jaeger", [tmp_path / "stored.json"])
    assert calls(books)["input_tokens"].to_list() == [1000]


def test_a_parent_by_follows_from_and_links_to_other_traces(tmp_path: Path) -> None:
    def span(number: int, *references: tuple[str, str, int]) -> dict[str, Any]:
        refs = [{"refType": kind, "traceID": trace, "spanID": f"{at:x}"} for kind, trace, at in references]
        start = 1791194400000000 + number
        return {
            "traceID": "a1",
            "spanID": f"{number:x}",
            "operationName": f"o{number}",
            "startTime": start,
            "duration": 5,
            "references": refs,
        }

    spans = [
        span(1),
        span(2, ("FOLLOWS_FROM", "a1", 1)),
        span(3, ("FOLLOWS_FROM", "b2", 9)),
        span(4, ("FOLLOWS_FROM", "a1", 3), ("CHILD_OF", "a1", 2)),
    ]
    reading = written(SOURCE, tmp_path, json.dumps({"data": [{"traceID": "a1", "spans": spans, "processes": {}}]}), "t.json")
    by_name = {row["name"]: row for row in reading.frame.to_dicts()}
    assert by_name["o2"]["parent_key"] == 1
    assert (by_name["o3"]["parent_key"], by_name["o3"]["link_trace_key"], by_name["o3"]["link_span_key"]) == (None, 0xB2, 9)
    assert (by_name["o4"]["parent_key"], by_name["o4"]["link_span_key"]) == (2, 3)


def nezha() -> list[dict[str, str]]:
    with (DATA / "nezha_shared" / "traces.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def as_jaeger(spans: list[dict[str, str]]) -> str:
    """Real traces as Jaeger would save them; every span that calls nobody asks a model for as many tokens as it took microseconds."""
    parents = {(row["TraceID"], row["ParentID"]) for row in spans}
    traces: dict[str, dict[str, Any]] = {}
    for row in spans:
        trace = traces.setdefault(row["TraceID"], {"traceID": row["TraceID"], "spans": [], "processes": {}})
        service = row["PodName"].rsplit("-", 2)[0]
        trace["processes"][service] = {"serviceName": service, "tags": []}
        asks = {
            "gen_ai.operation.name": "chat",
            "gen_ai.response.model": "model-a",
            "gen_ai.usage.input_tokens": int(row["Duration"]),
        }
        leaf = (row["TraceID"], row["SpanID"]) not in parents
        references = (
            [] if row["ParentID"] == "root" else [{"refType": "CHILD_OF", "traceID": row["TraceID"], "spanID": row["ParentID"]}]
        )
        trace["spans"].append(
            {
                "traceID": row["TraceID"],
                "spanID": row["SpanID"],
                "operationName": row["OperationName"],
                "startTime": int(row["StartTimeUnixNano"]) // 1000,
                "duration": int(row["Duration"]),
                "references": references,
                "processID": service,
                "tags": [{"key": k, "value": v} for k, v in asks.items()] if leaf else [],
            }
        )
    return json.dumps({"data": list(traces.values())})


@pytest.mark.slow
def test_real_traces_have_one_root_a_chain_and_shares_that_sum_to_all(books: Books, tmp_path: Path) -> None:
    spans = nezha()
    parents = {(row["TraceID"], row["ParentID"]) for row in spans}
    leaves = [row for row in spans if (row["TraceID"], row["SpanID"]) not in parents]
    tokens: dict[str, int] = {}
    for row in leaves:
        tokens[row["TraceID"]] = tokens.get(row["TraceID"], 0) + int(row["Duration"])
    (tmp_path / "t.json").write_text(as_jaeger(spans))
    rate = D("0.000003")
    booked(
        books,
        "jaeger",
        [tmp_path / "t.json"],
        rates=RATES,
        owners="agent,team,services\nshop,Shop,frontend\ntrains,Rail,ts-gateway-service\n",
    )
    found = chains(books)
    assert found.height == len(tokens) == 6
    assert dict(zip(found["trace_ids"].list.first(), found["list_cost"], strict=True)) == {t: n * rate for t, n in tokens.items()}
    by_agent = dict(calls(books).group_by("initiator_agent").agg(pl.col("list_cost").sum()).iter_rows())
    assert set(by_agent) == {"shop", "trains"}
    assert sum(by_agent.values(), D(0)) == sum(tokens.values()) * rate
    assert found["reason"].drop_nulls().is_empty()


@pytest.mark.slow
def test_an_orphan_is_named_and_costs_what_it_costs(books: Books, tmp_path: Path) -> None:
    spans = nezha()
    trace = spans[0]["TraceID"]
    inner = next(
        row
        for row in spans
        if row["TraceID"] == trace and row["ParentID"] != "root" and any(s["ParentID"] == row["SpanID"] for s in spans)
    )
    whole = json.loads(as_jaeger(spans))
    for one in whole["data"]:
        one["spans"] = [span for span in one["spans"] if span["spanID"] != inner["SpanID"]]
    (tmp_path / "t.json").write_text(json.dumps(whole))
    booked(books, "jaeger", [tmp_path / "t.json"], rates=RATES)
    lost = chains(books).filter(pl.col("reason") == "missing_parent")
    assert lost.height == sum(row["ParentID"] == inner["SpanID"] for row in spans)
    parents = {(row["TraceID"], row["ParentID"]) for row in spans}
    leaves = sum(int(row["Duration"]) for row in spans if (row["TraceID"], row["SpanID"]) not in parents)
    assert calls(books)["list_cost"].sum() == leaves * D("0.000003")


@pytest.mark.parametrize("case", ["10", "16", "24"])
def test_edge_cases_of_critical_paths_are_one_chain_a_trace(case: str, books: Books, tmp_path: Path) -> None:
    """Uber's cases begin in 1970; they are moved to a year that spans exist in."""
    document = json.loads((DATA / "crisp_cases" / f"{case}.json").read_text())
    refused = read(SOURCE, DATA / "crisp_cases" / f"{case}.json")
    assert {p.field for p in refused.problems} == {"start_time_unix_nano"}
    for trace in document["data"]:
        parents = {reference["spanID"] for span in trace["spans"] for reference in span.get("references") or ()}
        for span in trace["spans"]:
            span["startTime"] += 1791194400000000
            if span["spanID"] not in parents:
                span["tags"] = [
                    {"key": "gen_ai.response.model", "value": "model-a"},
                    {"key": "gen_ai.usage.input_tokens", "value": 7},
                ]
    (tmp_path / "t.json").write_text(json.dumps(document))
    booked(books, "jaeger", [tmp_path / "t.json"])
    assert chains(books)["spans"].to_list() == [len(trace["spans"]) for trace in document["data"]]


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    trace = json.loads(GENAI.read_text())
    trace["spans"][3]["spanID"] = ""
    trace["spans"][4]["startTime"] = "soon"
    trace["spans"][5] = 7
    reading = written(SOURCE, tmp_path, json.dumps(trace), "t.json")
    assert reading.frame.height == 54
    assert {p.field for p in reading.problems} == {"span_id", "start_time_unix_nano", "span"}
    with pytest.raises(FormatError, match="no trace of Jaeger"):
        written(SOURCE, tmp_path, '{"spans": 1}', "t.json")


@pytest.mark.slow
def test_cut_off_anywhere_it_is_whole_spans_or_refused(tmp_path: Path) -> None:
    survives_cuts(SOURCE, tmp_path, GENAI.read_bytes(), "t.json")
    lines = forms(json.loads(GENAI.read_text()))["index.jsonl"]
    assert survives_cuts(SOURCE, tmp_path, lines.encode(), "t.jsonl") > 50


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, GENAI), "You are a triage assistant", "Latency", '"window"')


@pytest.mark.slow
def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [json.loads(GENAI.read_text())])
