"""How an emitter counts is decided by evidence in the record before the emitter table, and a contradiction is a finding. (CA-5, CA-6)"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.monitoring.count_findings import contradictions, differing_costs
from ledger.ids import trace_key
from tests.support.books_by_hand import span, spans
from tests.support.count_cases import CASES, costs_by_trace, reasons, rollup_of, rollup_of_spans

D = Decimal
CLAUDE: dict[str, Any] = {"provider": "anthropic", "response_model": "claude-sonnet-4-6", "usage_scope": "leaf"}
GPT: dict[str, Any] = {"provider": "openai", "response_model": "gpt-5.4", "usage_scope": "leaf"}


# ── the cases ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("case", "source", "costs"),
    [
        ("counts-strands/strands.json", "otlp", {"1": "0.0181599"}),
        ("counts-adk/adk-python-2.13.json", "otlp", {"3": "0.0081625"}),
        ("counts-openlit/openlit.json", "otlp", {"2": "0.03"}),
        ("counts-openlit/vercel-v4-v5.json", "otlp", {"1": "0.02625", "2": "0.02625", "3": "0.028875", "4": "0.0010275"}),
        ("counts-reasoning-outside/litellm.jsonl", "litellm", {"sess-1": "0.000612", "sess-3": "0.01", "sess-4": "0.008125"}),
        ("running-counter/strands.json", "otlp", {"2": "0.3465", "3": "0.3465"}),
        (
            "counts-langfuse-total/observations.json",
            "langfuse",
            {
                "trace-1": "0.016509",
                "trace-2": "0.00616925",
                "trace-3": "0.00616925",
                "trace-6": "0.005125",
                "trace-7": "0.00775",
            },
        ),
    ],
)
def test_a_case_costs_what_its_record_proves(case: str, source: str, costs: dict[str, str]) -> None:
    trace_costs = costs_by_trace(rollup_of(source, CASES / case))
    assert {trace: trace_costs[trace] for trace in costs} == {trace: D(cost) for trace, cost in costs.items()}


def test_langfuse_observations_are_read_by_what_their_total_counts() -> None:
    calls = rollup_of("langfuse", CASES / "counts-langfuse-total" / "observations.json").calls
    inputs = dict(calls.select("trace_key", "input_tokens").iter_rows())
    assert [inputs[trace_key(trace)] for trace in ("trace-1", "trace-2", "trace-3")] == [3, 86, 86]


# ── neighbours ──────────────────────────────────────────────────────────────────────────────────────────────────────


def strands(**usage: int) -> dict[str, Any]:
    attributes = [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.system", "value": {"stringValue": "strands-agents"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "us.anthropic.claude-sonnet-4-6"}},
        *({"key": f"gen_ai.usage.{name}", "value": {"intValue": str(count)}} for name, count in usage.items()),
    ]
    record = {
        "traceId": "1" * 32, "spanId": "2" * 16, "name": "chat", "kind": 1, "attributes": attributes,
        "startTimeUnixNano": "1788253200000000000", "endTimeUnixNano": "1788253206000000000",
    }  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "strands.telemetry.tracer"}, "spans": [record]}]}]}


@pytest.mark.parametrize(
    ("total", "bare"),
    [(21453, 3), (42453, 21003), (None, 21003), (7, 21003)],
    ids=["plain: the provider's", "full", "no total: the table's models", "absurd: the table's models"],
)
def test_strands_counts_as_its_total_says(tmp_path: Path, total: int | None, bare: int) -> None:
    usage = {"input_tokens": 21003, "output_tokens": 450, "cache_read_input_tokens": 20000, "cache_write_input_tokens": 1000}
    path = tmp_path / "strands.json"
    path.write_text(json.dumps(strands(**usage, **({} if total is None else {"total_tokens": total}))), encoding="utf-8")
    [call] = rollup_of("otlp", path).calls.iter_rows(named=True)
    assert (call["input_tokens"], call["cache_read_tokens"]) == (bare, 20000)


@pytest.mark.parametrize(
    ("version", "output"), [("1.26.0", 800), ("2.13.0", 500), ("", 800), ("main", 800)], ids=["old", "new", "none", "unreadable"]
)
def test_the_table_goes_by_version(tmp_path: Path, version: str, output: int) -> None:
    document = json.loads((CASES / "counts-adk" / "adk-python-2.13.json").read_text(encoding="utf-8"))
    document["resourceSpans"][0]["scopeSpans"][0]["scope"]["version"] = version
    path = tmp_path / "adk.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    calls = rollup_of("otlp", path).calls.drop_nulls("output_tokens")
    assert calls.select("output_tokens", "reasoning_tokens").rows() == [(output, 300)]


def call(number: int, **columns: Any) -> dict[str, Any]:
    return span(number, number, emitter="acme", emitter_version="1.2", **columns)


CACHED: dict[str, Any] = {**CLAUDE, "input_tokens": 6000, "cache_read_tokens": 5000, "output_tokens": 100}


@pytest.mark.parametrize(
    ("columns", "bare", "reason"),
    [
        # a total that counts more than input and output outranks the table
        ({"input_includes_cache": True, "total_tokens": 11100}, 6000, "count_contradiction"),
        ({"input_includes_cache": False, "total_tokens": 6100}, 6000, None),
        ({"input_includes_cache": True, "total_tokens": 9999}, 1000, None),
        # the provider's own usage outranks the total
        ({"input_includes_cache": True, "total_tokens": 11100, "count_evidence": "provider"}, 1000, None),
        # the reported cost outranks the table and the total: 1 000 x 3 + 5 000 x 0.30 + 100 x 15 millionths; 6 000 x 3 + ...
        ({"input_includes_cache": False, "total_tokens": 11100, "reported_cost": D("0.006")}, 1000, "count_contradiction"),
        ({"input_includes_cache": True, "reported_cost": D("0.021")}, 6000, "count_contradiction"),
        ({"input_includes_cache": True, "reported_cost": D("0.006")}, 1000, None),
        ({"input_includes_cache": True, "reported_cost": D("0.5")}, 1000, None),
        # a plain total is weak
        ({"total_tokens": 6100}, 1000, "input_semantics_unknown"),
        ({}, 1000, "input_semantics_unknown"),
    ],
)
def test_evidence_comes_in_the_order_of_the_rule(columns: dict[str, Any], bare: int, reason: str | None) -> None:
    rollup = rollup_of_spans(spans(call(1, **CACHED, **columns)))
    assert rollup.calls["input_tokens"].to_list() == [bare]
    flags = (reasons(rollup)[0] or "").split(",")
    assert [f for f in flags if f in ("count_contradiction", "input_semantics_unknown")] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("usage", "meters"),
    [
        # reasoning beside the output, told by the total or by the cost
        ({"output_tokens": 500, "reasoning_tokens": 300, "total_tokens": 900}, (100, 500, 300)),
        ({"output_tokens": 500, "reasoning_tokens": 300, "reported_cost": D("0.01225")}, (100, 500, 300)),
        ({"output_tokens": 500, "reasoning_tokens": 300, "total_tokens": 600}, (100, 200, 300)),
        # two readings explain the total: the table decides
        ({"output_tokens": 50, "cache_read_tokens": 50, "reasoning_tokens": 50, "total_tokens": 200}, (50, 0, 50)),
        # hostile totals decide nothing
        ({"output_tokens": 500, "reasoning_tokens": 300, "total_tokens": 10**12}, (100, 200, 300)),
        ({"output_tokens": 500, "reasoning_tokens": 300, "total_tokens": 0}, (100, 200, 300)),
    ],
)
def test_reasoning_lies_where_the_record_says(usage: dict[str, Any], meters: tuple[int, int, int]) -> None:
    semantics = {"input_tokens": 100, "input_includes_cache": True, "output_includes_reasoning": True}
    [row] = rollup_of_spans(spans(call(1, **GPT, **semantics, **usage))).calls.iter_rows(named=True)
    assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == meters


# ── findings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_contradiction_names_emitter_version_calls_and_money() -> None:
    rows = rollup_of_spans(
        spans(
            call(1, **CACHED, input_includes_cache=True, total_tokens=11100),
            call(2, **CACHED, input_includes_cache=True, total_tokens=11100),
            call(3, **CACHED, input_includes_cache=True, total_tokens=6100),
        )
    ).evidence
    assert rows.select("emitter", "emitter_version", "calls", "contradicted_calls", "contradicted_cost").rows() == [
        ("acme", "1.2", 3, 2, D("0.042"))
    ]
    [finding] = contradictions(rows, "USD", "attribution:2026-10")
    assert (finding.place, finding.rows) == ("acme 1.2", 2)
    assert "count_contradiction: 2 calls of claude-sonnet-4-6" in finding.reason
    assert "0.042000 USD" in finding.reason


@pytest.mark.parametrize(
    ("reported", "found"),
    [("0.0210", False), ("1.0", True), ("0.020", False)],
    ids=["the same", "48 times", "5 %, but less than 0.01 of money"],
)
def test_a_reported_cost_that_differs_is_a_finding_and_never_booked(reported: str, found: bool) -> None:
    semantics = {**CLAUDE, "input_tokens": 6500, "output_tokens": 100, "input_includes_cache": True, "reported_cost": D(reported)}
    rollup = rollup_of_spans(spans(call(1, **semantics)))
    assert rollup.calls["list_cost"].to_list() == [D("0.021")]
    assert rollup.usage["list_cost"].sum() == D("0.021")
    findings = differing_costs(rollup.evidence, "USD", "attribution:2026-10")
    assert [f.place for f in findings] == (["acme claude-sonnet-4-6"] if found else [])
    if found:
        assert "1 calls are reported at 1.000000 USD and cost 0.021000 USD" in findings[0].reason


def test_opposite_deviations_of_two_models_are_two_findings_and_a_cache_hit_is_none() -> None:
    plain = {"input_tokens": 1_000_000, "output_tokens": 0, "input_includes_cache": True}
    rows = [
        call(1, **CLAUDE, **plain, reported_cost=D("6")),
        call(2, **GPT, **plain, reported_cost=D("0.5")),
        call(3, **GPT, **plain, reported_cost=D("99"), cache_hit=True),
        call(4, **{**GPT, "response_model": "no-such-model"}, **plain, reported_cost=D("7")),
    ]
    evidence = rollup_of_spans(spans(*rows)).evidence
    reordered_rows = rollup_of_spans(spans(*reversed(rows))).evidence
    assert [f.place for f in differing_costs(evidence, "USD", "u")] == ["acme claude-sonnet-4-6", "acme gpt-5.4"]
    assert differing_costs(reordered_rows, "USD", "u") == differing_costs(evidence, "USD", "u")
    assert evidence.filter(pl.col("compared_calls") > 0)["reported_cost"].sum() == D("6.5")
