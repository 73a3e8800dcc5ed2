"""Phoenix's spans: pages of its API, data frames, printed spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.sources.phoenix import SOURCE
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
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

PAGE = DATA / "phoenix" / "page.json"
VERCEL = DATA / "phoenix" / "vercel-v6-spans.json"
RATES = {
    "gpt-4o-2024-08-06": ("openai", {"input_tokens": "0.0000025", "cache_read_tokens": "0.00000125", "output_tokens": "0.00001"})
}


def test_a_page_is_one_chain_and_costs_its_leaves(books: Books) -> None:
    booked(books, "phoenix", [PAGE], rates=RATES, owners="agent,team\nplanner,Care\nresearcher,Data\n")
    [chain] = chains(books).to_dicts()
    cost = (188 + 1000) * D("0.0000025") + 512 * D("0.00000125") + 130 * D("0.00001")
    assert (chain["initiator_agent"], chain["initiator_team"], chain["list_cost"]) == ("planner", "Care", cost)
    found = calls(books)
    assert found.filter(pl.col("list_cost").is_not_null())["executor_agent"].to_list() == ["planner", "researcher"]
    silent = next(row for row in rows(SOURCE, PAGE) if row["span_id"].endswith("6"))
    assert (silent["usage_scope"], silent["input_tokens"], silent["output_tokens"]) == ("leaf", None, None)


def frame_records() -> list[dict[str, Any]]:
    """The page as a data frame has it: a column for every attribute."""
    told = []
    for span in json.loads(PAGE.read_text())["data"]:
        columns = {f"attributes.{k}": v for k, v in span["attributes"].items()}
        context = {f"context.{k}": v for k, v in span["context"].items()}
        plain = {k: span[k] for k in ("name", "span_kind", "parent_id", "start_time", "end_time", "status_code")}
        told.append(plain | context | columns)
    return told


def printed() -> list[dict[str, Any]]:
    """The page as OpenTelemetry's Python SDK prints spans."""
    told = []
    for span in json.loads(PAGE.read_text())["data"]:
        context = {
            "trace_id": "0x" + span["context"]["trace_id"],
            "span_id": "0x" + span["context"]["span_id"],
            "trace_state": "[]",
        }
        attributes = span["attributes"] | {"openinference.span.kind": span["span_kind"]}
        plain = {k: span[k] for k in ("name", "start_time", "end_time")} | {"kind": "SpanKind.INTERNAL"}
        told.append(
            plain | {"context": context, "parent_id": span["parent_id"] and "0x" + span["parent_id"], "attributes": attributes}
        )
    return told


def test_the_same_spans_in_every_form_are_the_same_rows(tmp_path: Path) -> None:
    expected = read(SOURCE, PAGE).frame.drop("raw_id").sort("span_id")
    records = frame_records()
    pl.DataFrame(records, infer_schema_length=None).write_parquet(tmp_path / "spans.parquet")
    forms: dict[str, bytes | str] = {
        "lines.jsonl": "".join(json.dumps(r) + "\n" for r in reversed(records)),
        "records.json": json.dumps(records),
        "printed.jsonl": "".join(json.dumps(r, indent=4) + "\n" for r in printed()),
        "spans.parquet": (tmp_path / "spans.parquet").read_bytes(),
    }
    for name, content in forms.items():
        reading = written(SOURCE, tmp_path, content, name)
        assert reading.problems == []
        assert reading.frame.drop("raw_id").sort("span_id").equals(expected), name


def test_files_in_any_order_are_the_same_rows_and_keep_their_spans_ids(tmp_path: Path) -> None:
    assert same_in_any_order(tmp_path, "phoenix", [PAGE, VERCEL]) == 6 + 10
    assert {row["channel"] for row in rows(SOURCE, PAGE)} == {"otlp"}, "what came over OTLP too is the same span"


def test_otlp_pages_are_read_as_otlp(tmp_path: Path) -> None:
    span = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "ChatCompletion"}
    span |= {"startTimeUnixNano": "1791194400000000000", "endTimeUnixNano": "1791194401000000000"}
    attributes = [
        {"key": "openinference.span.kind", "value": {"stringValue": "LLM"}},
        {"key": "llm.token_count.prompt", "value": {"intValue": "7"}},
    ]
    page = json.dumps({"data": [span | {"attributes": attributes}], "next_cursor": None})
    [row] = written(SOURCE, tmp_path, page, "p.json").frame.to_dicts()
    assert (row["input_tokens"], row["usage_scope"], row["operation"]) == (7, "leaf", "chat")


def test_recorded_spans_of_the_vercel_sdk_count_the_inner_request() -> None:
    told = [span for span in json.loads(VERCEL.read_text()) if ".do" in span["name"]]
    tokens = [s["attributes"].get("gen_ai.usage.input_tokens", s["attributes"].get("ai.usage.tokens")) for s in told]
    leaves = [row for row in rows(SOURCE, VERCEL) if row["usage_scope"] == "leaf"]
    assert sorted(row["input_tokens"] for row in leaves) == sorted(tokens)
    assert sum(row["output_tokens"] or 0 for row in leaves) == 20 + 9 + 156 + 112
    first = json.loads(VERCEL.read_text())[0]
    assert leaves[0]["start_time"].timestamp() * 1000 == first["startTime"][0] * 1000 + first["startTime"][1] // 10**6


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    page = json.loads(PAGE.read_text())
    page["data"][0]["start_time"] = "later"
    page["data"][1]["context"] = {}
    page["data"][3]["attributes"]["llm"]["token_count"]["prompt"] = -4
    reading = written(SOURCE, tmp_path, json.dumps(page), "p.json")
    assert reading.frame.height == 4
    assert {p.field for p in reading.problems} == {"start_time_unix_nano", "span", "llm.token_count.prompt"}
    with pytest.raises(FormatError, match="no span of Phoenix"):
        written(SOURCE, tmp_path, '{"spans": 1}', "p.json")


def test_cut_off_anywhere_it_is_whole_spans_or_refused(tmp_path: Path) -> None:
    survives_cuts(SOURCE, tmp_path, PAGE.read_bytes(), "p.json")
    lines = "".join(json.dumps(r) + "\n" for r in frame_records())
    assert survives_cuts(SOURCE, tmp_path, lines.encode(), "p.jsonl") > 30
    pl.DataFrame(frame_records(), infer_schema_length=None).write_parquet(tmp_path / "whole.parquet")
    survives_cuts(SOURCE, tmp_path, (tmp_path / "whole.parquet").read_bytes(), "p.parquet")


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, PAGE), "SECRET")
    no_content(read(SOURCE, VERCEL), "haiku", "Logic dances")


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [json.loads(PAGE.read_text())])
