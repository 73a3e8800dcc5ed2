"""Zipkin's JSON: real traces of companies, with shared span ids, orphans and queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.sources.zipkin import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.log_sources import (
    D,
    booked,
    calls,
    chains,
    read,
    rows,
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

FOLDER = DATA / "zipkin"
NAMES = ("ascend", "yelp", "messaging-kafka", "envoy")
RATE = D("0.000003")
RATES = {"gpt-4o": ("openai", {"input_tokens": str(RATE)})}


def trace(name: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())
    return told


def halves(spans: list[dict[str, Any]]) -> set[str]:
    """Ids that a client and a server share."""
    kinds: dict[str, set[str]] = {}
    for span in spans:
        kinds.setdefault(span["id"], set()).add(span.get("kind", ""))
    return {own for own, told in kinds.items() if {"CLIENT", "SERVER"} <= told}


@pytest.mark.parametrize("name", NAMES)
def test_every_span_of_a_real_trace_is_there_once(name: str) -> None:
    spans, found = trace(name), rows(SOURCE, FOLDER / f"{name}.json")
    assert len(found) == len(spans)
    assert len({row["span_key"] for row in found}) == len(spans)
    assert {row["trace_id"] for row in found} == {spans[0]["traceId"].zfill(32)}
    below = {row["span_id"]: row["parent_span_id"] for row in found if row["span_id"].endswith("/server")}
    assert below == {f"{own}/server": own for own in halves(spans)}


def roots(spans: list[dict[str, Any]]) -> int:
    """Spans that start a chain: without a parent, or whose parent is nowhere in the trace."""
    known = {span["id"] for span in spans}
    shared = halves(spans)
    own = [span for span in spans if not (span["id"] in shared and span.get("kind") == "SERVER")]
    return sum(span.get("parentId") not in known for span in own)


@pytest.mark.parametrize("name", NAMES)
def test_each_chain_has_one_root_shares_sum_to_all_and_orphans_are_named(name: str, books: Books, tmp_path: Path) -> None:
    """Every span asks a model for as many tokens as it took microseconds, so that each has its share."""
    spans = trace(name)
    for span in spans:
        span["tags"] = {"gen_ai.operation.name": "execute_tool"}
    leaves = [span for span in spans if span["id"] not in {s.get("parentId") for s in spans} and span["id"] not in halves(spans)]
    for span in leaves:
        used = {
            "gen_ai.operation.name": "chat",
            "gen_ai.response.model": "gpt-4o",
            "gen_ai.usage.input_tokens": str(span.get("duration", 1)),
        }
        span["tags"] = used
    (tmp_path / "t.json").write_text(json.dumps(spans))
    services = sorted({span.get("localEndpoint", {}).get("serviceName", "") for span in spans} - {""})
    owners = "agent,team,services\n" + "".join(f"agent of {s},Team,{s}\n" for s in services)
    booked(books, "zipkin", [tmp_path / "t.json"], rates=RATES, owners=owners)
    total = sum(int(span["tags"]["gen_ai.usage.input_tokens"]) for span in leaves)
    assert calls(books)["list_cost"].sum() == total * RATE
    assert calls(books).height == len(leaves)
    known = {span["id"] for span in spans}
    lost = {span["id"] for span in spans if span.get("parentId") and span["parentId"] not in known}
    named = chains(books).filter(pl.col("reason") == "missing_parent")
    assert chains(books).height <= roots(spans)
    assert bool(named.height) == bool(lost & _tops(spans, leaves))


def _tops(spans: list[dict[str, Any]], leaves: list[dict[str, Any]]) -> set[str]:
    """The ids where the paths of leaves end."""
    parents = {span["id"]: span.get("parentId") for span in spans}
    found = set()
    for leaf in leaves:
        at = leaf["id"]
        while parents.get(at) in parents:
            at = str(parents[at])
        found.add(at)
    return found


def test_files_in_any_order_are_the_same_rows_and_keep_their_spans_ids(tmp_path: Path) -> None:
    assert same_in_any_order(tmp_path, "zipkin", sorted(FOLDER.glob("*.json"))) == sum(len(trace(name)) for name in NAMES)
    assert {row["channel"] for row in rows(SOURCE, FOLDER / "yelp.json")} == {"otlp"}, "what came over OTLP too is the same span"


def test_what_a_server_did_hangs_below_the_server_not_below_who_called_it(tmp_path: Path) -> None:
    def span(own: str, parent: str | None, kind: str, service: str, name: str) -> dict[str, Any]:
        told = {"traceId": "00a1", "id": own, "kind": kind, "name": name, "timestamp": 1791194400000000, "duration": 10}
        told |= {"localEndpoint": {"serviceName": service}, "shared": kind == "SERVER"}
        return told | ({"parentId": parent} if parent else {})

    spans = [
        span("1", None, "CLIENT", "shop", "call"),
        span("1", None, "SERVER", "agent", "serve"),
        span("2", "1", "CLIENT", "agent", "ask the model"),
        span("3", "1", "CLIENT", "shop", "log"),
    ]
    for document in (json.dumps(spans), json.dumps([spans]), "".join(json.dumps(s) + "\n" for s in reversed(spans))):
        found = {row["name"]: row for row in written(SOURCE, tmp_path, document, "t.json").frame.to_dicts()}
        assert found["serve"]["parent_key"] == found["call"]["span_key"] == 1
        assert found["ask the model"]["parent_key"] == found["serve"]["span_key"]
        assert found["ask the model"]["parent_span_id"] == found["serve"]["span_id"] == "1/server"
        assert found["log"]["parent_key"] == 1


def test_a_server_whose_client_said_nothing_keeps_the_id() -> None:
    [row] = rows(SOURCE, FOLDER / "envoy.json")
    assert (row["span_id"], row["parent_span_id"]) == ("978883983d506fa5", None)


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    spans = trace("ascend")
    del spans[0]["timestamp"]
    spans[1]["id"] = "0"
    reading = written(SOURCE, tmp_path, json.dumps(spans), "t.json")
    assert reading.frame.height == len(spans) - 2
    assert {p.field for p in reading.problems} == {"start_time_unix_nano", "span_id"}
    with pytest.raises(FormatError, match="no trace of Zipkin"):
        written(SOURCE, tmp_path, '{"spans": 1}', "t.json")


def test_cut_off_anywhere_its_whole_spans_are_read(tmp_path: Path) -> None:
    """Halves of one span may be apart, so a cut can part them: ids of both are those of the whole or the one that is left."""
    content = (FOLDER / "messaging-kafka.json").read_bytes()
    assert survives_cuts(SOURCE, tmp_path, content, "t.json") > 50


def test_nothing_but_what_is_mapped_gets_in() -> None:
    told = read(SOURCE, FOLDER / "yelp.json").frame.write_csv()
    assert "http.path" not in told


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [trace("ascend")])
