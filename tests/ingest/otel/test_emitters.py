"""The emitter table: every emitter's leaf, wrapper and meaning of input, against spans with hand-worked expectations."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from functools import lru_cache
from itertools import permutations
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.otel.decode import from_document
from ingest.otel.emitters import CLAIMS, CONTENT, EXTRA, OTHER, PROCESS, PROVIDER_USAGE, rows_of, table
from ingest.source import Reading
from ingest.sources.otlp import read_export
from ledger.settings import IngestSettings
from ledger.tables import METERS, SPANS, TOKEN_METERS
from tests.support.paths import DATA

HERE = DATA / "emitters"
SETTINGS = IngestSettings()
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@lru_cache
def cases() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (HERE / "spans.jsonl").read_text(encoding="utf-8").splitlines())


def attribute(key: str, value: Any) -> dict[str, Any]:
    """OTLP/JSON of one attribute."""
    if isinstance(value, bool):
        return {"key": key, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    if isinstance(value, float):
        return {"key": key, "value": {"doubleValue": Decimal(repr(value))}}
    if isinstance(value, list):
        return {"key": key, "value": {"arrayValue": {"values": [{"stringValue": v} for v in value]}}}
    return {"key": key, "value": {"stringValue": value}}


def read(case: dict[str, Any], **span: Any) -> Reading:
    """The reading of one span."""
    written = {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": case["name"],
        "kind": f"SPAN_KIND_{case.get('kind', 'INTERNAL')}",
        "startTimeUnixNano": "1795361678658483674",
        "endTimeUnixNano": "1795361678668583104",
        "attributes": [attribute(k, v) for k, v in case["attributes"].items()],
        **({"parentSpanId": case["parent"]} if "parent" in case else {}),
        **span,
    }
    scope = {"scope": {"name": case.get("scope", "")}, "spans": [written]}
    resource = {"attributes": [attribute(k, v) for k, v in case.get("resource", {}).items()]}
    export = from_document({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})
    return read_export(export, raw_id="r", uri="test", settings=SETTINGS)


def row(case: dict[str, Any], **span: Any) -> dict[str, Any]:
    reading = read(case, **span)
    assert reading.frame.height == 1, reading.problems
    return reading.frame.row(0, named=True)


@pytest.mark.parametrize("case", cases(), ids=lambda c: f"{c['emitter']}: {c['what']}")
def test_a_span_means_what_its_emitter_means(case: dict[str, Any]) -> None:
    reading = read(case)
    assert [p.reason for p in reading.problems] == []
    told = reading.frame.row(0, named=True)
    for column, expected in case["want"].items():
        if column == "reported_cost":
            assert told[column] == Decimal(expected)
        else:
            assert told[column] == expected, column
    assert told["emitter"] == case["emitter"]


def test_every_emitter_has_a_case_for_its_scope_and_its_input() -> None:
    by_emitter = {
        name: [c["want"] for c in cases() if c["emitter"] == name] for name in (r["emitter"] for r in rows_of("emitters"))
    }
    for name, wants in by_emitter.items():
        assert any(w.get("usage_scope") == "leaf" or w.get("usage_scope") == "aggregate" for w in wants), name
        counting = [w for w in wants if "input_includes_cache" in w]
        assert counting or name == "koog", f"{name}: nothing says what its input includes"  # Koog sends no counts at all


def test_prompts_and_answers_never_reach_a_column() -> None:
    for case in cases():
        assert "secret answer" not in json.dumps(row(case), default=str)
    drink = {
        "name": "chat",
        "attributes": {"gen_ai.operation.name": "chat", "gen_ai.prompt": "PAYLOAD", "gen_ai.input.messages": "PAYLOAD"},
    }
    assert "PAYLOAD" not in json.dumps(row(drink), default=str)


# --- the table itself ---------------------------------------------------------------------------------------------------------


def test_every_row_of_the_mapping_is_carried_or_left_out_with_a_reason() -> None:
    attributes = {r["attribute"]: r for r in rows_of("attributes")}
    scopes = {f"{r['emitter']}|{r['when']}" for r in rows_of("usage_scopes")}
    emitters = {r["emitter"] for r in rows_of("emitters")}
    with (HERE / "mapping.csv").open(encoding="utf-8", newline="") as lines:
        mapping = list(csv.DictReader(lines))
    assert len(mapping) == 446
    for told in mapping:
        kind, _, where = told["here"].partition(": ")
        match kind:
            case "attributes":
                for name in where.split(";"):
                    assert name in attributes, told
                    assert attributes[name]["column"] or attributes[name]["note"].startswith("left out: "), told
            case "scope":
                assert where in scopes, told
            case "emitter":
                assert where in emitters, told
            case "metric":
                assert where in {r["metric"] for r in rows_of("metrics")}, told
            case _:
                assert kind in ("not spans", "not usage", "built in"), told
                assert where, told


def test_the_table_names_only_columns_and_readers_that_exist() -> None:
    emitters = {r["emitter"] for r in rows_of("emitters")}
    for told in rows_of("attributes"):
        column = told["column"]
        assert (
            not column
            or column in SPANS.schema
            or column.startswith(EXTRA)
            or column in (CLAIMS, CONTENT)
            or column.removeprefix(PROCESS) in ("instance", "host", "pid")
            or column.removeprefix(PROVIDER_USAGE)
            in ("input_inclusive", "input_exclusive", "output_inclusive", "output_exclusive")
            or (
                column.startswith(OTHER)
                and column.removeprefix(OTHER) in METERS
                and column.removeprefix(OTHER) not in TOKEN_METERS
            )
        ), told
        assert bool(column) == bool(told["precedence"]) or column == CONTENT, told
        assert told["includes"] in ("", "true", "false", "unknown"), told
        assert told["emitter"] in emitters or told["emitter"] == "resource" or told["emitter"].startswith("otel-"), told
    for told in rows_of("usage_scopes"):
        assert told["emitter"] in emitters | {"*"}, told
        assert told["usage_scope"] in ("leaf", "aggregate", "cumulative", "none"), told


def test_events_and_metrics_name_what_the_table_knows() -> None:
    emitters = {r["emitter"] for r in rows_of("emitters")}
    for told in rows_of("events"):
        assert told["emitter"] in emitters | {""}, told
        assert told["place"] in ("own", "span", "alone"), told
    for told in rows_of("metrics"):
        assert told["emitter"] in emitters, told
        assert told["meter"] in SPANS.schema, told
        assert bool(told["attribute"]) == bool(told["value"]), told


def test_no_attribute_that_is_read_whole_is_content() -> None:
    """Content is dropped, or kept apart: it never decides a column, but for the counts inside an answer's JSON."""
    emitters = table(("agent",), ("team",))
    content = {r["attribute"] for r in rows_of("attributes") if r["column"] == CONTENT}
    assert not content & emitters.plain_attributes
    assert content & set(emitters.inner_paths) == {"gcp.vertex.agent.llm_response"}
    assert "gen_ai.input.messages" not in emitters.span_attributes


def test_no_two_attributes_are_preferred_alike_for_one_column() -> None:
    """Or the order of attributes on a span would decide."""
    emitters = table(("agent",), ("team",))
    for told in rows_of("emitters"):
        ranks: dict[str, set[int]] = {}
        for targets in emitters.emitter(told["emitter"]).targets.values():
            for target in targets:
                assert target.rank not in ranks.setdefault(target.slot, set()), (told["emitter"], target)
                ranks[target.slot].add(target.rank)


@pytest.mark.parametrize(
    ("scope", "emitter"),
    [
        ("openinference.instrumentation.langchain", "openinference"),
        ("openinference.instrumentation.agno", "agno"),
        ("openinference.instrumentationlike", None),
        ("opentelemetry.instrumentation.openai.v1", "openllmetry"),
        ("opentelemetry.instrumentation.openai_v2", "otel"),
        ("opentelemetry.instrumentation.bedrock", "openllmetry-bedrock"),
        ("air", None),
        ("ai", "vercel-ai"),
        ("", None),
    ],
)
def test_scopes_are_compared_by_whole_words(scope: str, emitter: str | None) -> None:
    assert table().by_scope(scope) == emitter


# --- aliases (F3) -------------------------------------------------------------------------------------------------------------

ALIASES = {
    "gen_ai.usage.input_tokens": 67,
    "gen_ai.usage.prompt_tokens": 67,
    "llm.token_count.prompt": 67,
    "gen_ai.usage.output_tokens": 9,
}


def test_aliases_are_one_value_in_any_order() -> None:
    for order in permutations(ALIASES):
        told = row({"name": "x", "attributes": {name: ALIASES[name] for name in order}})
        assert (told["input_tokens"], told["output_tokens"], told["total_tokens"]) == (67, 9, None)


@given(st.permutations(["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"]))
def test_where_aliases_disagree_the_specification_wins_and_it_is_told(order: list[str]) -> None:
    counts = {"gen_ai.usage.input_tokens": 67, "gen_ai.usage.prompt_tokens": 67, "llm.token_count.prompt": 134}
    reading = read({"name": "x", "attributes": {name: counts[name] for name in order}})
    assert reading.frame["input_tokens"].to_list() == [67]
    (problem,) = reading.problems
    assert (problem.severity, problem.field, problem.place) == ("warning", "input_tokens", "span 1")
    assert problem.reason == "two attributes of one span disagree: 67 is taken, 134 is not"


@pytest.mark.parametrize("nothing", ["", "None", "null", "undefined"])
def test_nothing_in_any_spelling_is_null_and_gives_way_to_an_alias(nothing: str) -> None:
    told = row(
        {
            "name": "chat",
            "attributes": {"gen_ai.usage.input_tokens": nothing, "gen_ai.usage.prompt_tokens": 5, "gen_ai.system": nothing},
        }
    )
    assert (told["input_tokens"], told["output_tokens"], told["provider"]) == (5, None, None)


@pytest.mark.parametrize("nonsense", [-1, "many", 10**13, 1.5, True])
def test_a_count_that_is_none_is_told_and_left_empty(nonsense: Any) -> None:
    reading = read({"name": "chat", "attributes": {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": nonsense}})
    assert reading.frame["input_tokens"].to_list() == [None]
    (problem,) = reading.problems
    assert problem.severity == "warning"
    assert "is no number of tokens" in problem.reason


def test_a_count_sent_as_a_double_or_text_is_a_count() -> None:
    for written in (1200, 1200.0, "1200"):
        assert row({"name": "chat", "attributes": {"gen_ai.usage.input_tokens": written}})["input_tokens"] == 1200


def test_money_keeps_the_shortest_digits_of_the_double() -> None:
    told = row({"name": "chat", "attributes": {"llm.cost.total": 0.00033000000000000005, "gen_ai.operation.name": "chat"}})
    assert told["reported_cost"] == Decimal("0.000330000000000000")  # 18 places


# --- who claims to be the root ------------------------------------------------------------------------------------------------


def test_only_keys_named_in_the_settings_are_claims_and_the_first_named_wins() -> None:
    attributes = {
        "agent": "second",
        "baggage.rootcost.agent": "third",
        "rootcost.agent": "first",
        "rootcost.team": "care",
        "owner": "x",
    }
    told = row({"name": "x", "attributes": attributes})
    assert (told["claimed_agent"], told["claimed_team"]) == ("first", "care")


def test_a_service_s_own_team_is_no_claim_about_the_root() -> None:
    told = row({"name": "x", "attributes": {}, "resource": {"service.name": "support", "team": "cx"}})
    assert (told["service_name"], told["claimed_team"]) == ("support", None)
    assert json.loads(told["attributes"]) == {"resource_team": "cx"}


def test_the_rank_counts_what_is_told() -> None:
    poor = row({"name": "chat", "attributes": {"gen_ai.operation.name": "chat"}})
    rich = row({"name": "chat", "attributes": {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1}})
    assert rich["rank"] == poor["rank"] + 2  # the count, and what it includes


def test_frames_are_the_table_s() -> None:
    frame = read(cases()[0]).frame
    assert frame.schema == pl.Schema(SPANS.schema)
