"""Real bills and real logs through the whole path: files in, published costs out."""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from attribution.run import attribute
from ingest.prices.litellm_map import import_litellm_map, import_prices
from ingest.run import ingest
from ledger.books import Books
from ledger.tables import BALANCE, CALLS, COST_COLUMNS, COSTS, SPANS
from tests.support.amounts import largest_difference
from tests.support.paths import DATA

D = Decimal
FOCUS_TOTALS = {
    "billed_cost": D("20.52022672899"),
    "effective_cost": D("14.97651418586"),
    "list_cost": D("20.39090575119"),
    "contracted_cost": D("14.97626039326"),
}


def test_focus_sample_ties_out_in_all_four_cost_columns(books: Books) -> None:
    """The totals, and every provider's, summed here from the file with nothing but csv and Decimal."""
    path = DATA / "focus_sample" / "focus_sample_1000.csv"
    written: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    names = {
        "billed_cost": "BilledCost",
        "effective_cost": "EffectiveCost",
        "list_cost": "ListCost",
        "contracted_cost": "ContractedCost",
    }
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for ours, theirs in names.items():
                written[row["ProviderName"], ours] += D(0) if row[theirs] == "NULL" else D(row[theirs])
    assert {c: sum(v for (_, column), v in written.items() if column == c) for c in COST_COLUMNS} == FOCUS_TOTALS

    ingest(books, "focus", [str(path)])
    attribute(books)
    balance = books.store.scan(BALANCE).collect()
    got: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in balance.iter_rows(named=True):
        parts = [row[name] for name in ("metered", "owner", "shared", "idle", "unallocated")]
        assert len({part is None for part in parts}) == 1  # a column is known in all classes or in none (MO-1b)
        got[row["provider"], row["cost_column"]] += sum((part for part in parts if part is not None), D(0))
        assert row["difference"] == 0
    assert dict(got) == dict(written)
    costs = books.store.scan(COSTS).collect()
    assert {c: costs[c].sum() for c in COST_COLUMNS} == FOCUS_TOTALS


@pytest.mark.slow
def test_aws_cur_anonymous_is_usage_and_tax(books: Books) -> None:
    ingest(books, "aws-cur", [str(DATA / "aws_cur_anonymous" / "aws_cur_legacy_anonymous.csv")])
    attribute(books)
    costs = books.store.scan(COSTS).collect()
    by_category = {c: costs.filter(pl.col("charge_category") == c)["billed_cost"].sum() for c in ("Usage", "Tax")}
    assert by_category == {"Usage": D("1.60230869740"), "Tax": D("0.08")}
    assert costs["billed_cost"].sum() == D("1.68230869740")


def captured() -> list[str]:
    folder = DATA / "litellm_proxy_captures"
    return [
        str(p) for p in sorted(folder.iterdir()) if p.suffix == ".json" and not p.name.endswith((".decoded.json", ".meta.json"))
    ]


@pytest.fixture
def priced(books: Books) -> Books:
    import_prices(books, import_litellm_map())
    return books


@pytest.mark.slow
def test_litellm_captures_are_one_call_each_over_five_channels_priced_as_litellm_does(priced: Books) -> None:
    books = priced
    files = captured()
    otlp = [str(p) for p in sorted((DATA / "litellm_otlp").glob("*.bin"))]
    random.Random(7).shuffle(files)
    ingest(books, "litellm", files[::2])
    ingest(books, "otlp", otlp)
    ingest(books, "litellm", files)
    attribute(books)
    calls = books.store.scan(CALLS).collect()
    ids = calls["gateway_call_id"]
    assert ids.null_count() == 0
    assert ids.is_unique().all()
    signals = books.store.scan(SPANS).collect()
    assert set(ids) == set(signals["gateway_call_id"].drop_nulls()), "every call that any channel told of, and no other"
    told = calls.filter(pl.col("reported_cost").is_not_null() & (pl.col("reported_cost") > 0))
    assert told.height >= 40
    gap = largest_difference(told["list_cost"], told["reported_cost"].cast(told["list_cost"].dtype))
    assert told["list_cost"].null_count() == 0
    assert gap is not None
    assert gap <= D("1e-12")
    assert calls["channels"].str.split("+").list.len().max() == 3


@pytest.mark.slow
def test_otlp_replays_twice_and_shuffled_change_nothing(priced: Books, tmp_path: Path) -> None:
    books = priced
    folder = DATA / "otlp_genai_replays"
    files = sorted(folder.glob("*.otlp.jsonl"))
    ingest(books, "otlp", [str(f) for f in files])
    attribute(books)
    before, spans = books.store.version(SPANS), books.store.scan(SPANS).collect().height
    lines = [line for file in files for line in file.read_text().splitlines()]
    random.Random(3).shuffle(lines)
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join(lines))
    ingest(books, "otlp", [str(mixed), *(str(f) for f in reversed(files))])
    assert books.store.version(SPANS) == before
    assert attribute(books).unchanged == ["2026-11"]
    assert spans == sum(len(s["spans"]) for line in lines for r in json.loads(line)["resourceSpans"] for s in r["scopeSpans"])


@pytest.mark.slow
def test_both_views_of_real_chains_cost_the_same(priced: Books) -> None:
    books = priced
    ingest(books, "otlp", [str(p) for p in sorted((DATA / "otlp_genai_replays").glob("*.otlp.jsonl"))])
    attribute(books)
    costs = books.store.scan(COSTS).collect()
    initiators = costs.group_by("initiator_agent").agg(pl.col("effective_cost").sum())["effective_cost"].sum()
    executors = costs.group_by("executor_agent").agg(pl.col("effective_cost").sum())["effective_cost"].sum()
    assert initiators == executors == costs["effective_cost"].sum() > 0
