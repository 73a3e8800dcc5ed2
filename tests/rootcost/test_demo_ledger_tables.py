"""Tables for benchmarks: the shapes they promise, and a bill that fits the calls exactly."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from ledger.tables import CHARGES, SPANS
from rootcost.demo import ledger_tables
from rootcost.demo.ledger_tables import LedgerFiles, generate_ledger

SIZE = 40_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LedgerFiles:
    return generate_ledger(tmp_path_factory.mktemp("ledger"), SIZE)


@pytest.fixture(scope="module")
def spans(made: LedgerFiles) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in made.spans])


def test_they_are_rows_of_the_ledgers_tables(made: LedgerFiles, spans: pl.DataFrame) -> None:
    assert spans.schema == pl.Schema(SPANS.schema)
    assert pl.read_parquet_schema(made.charges) == CHARGES.schema
    assert spans.select(SPANS.key).is_unique().all()
    assert abs(spans.height - SIZE) < SIZE * 0.01


def test_every_parent_is_an_earlier_span_of_the_same_trace(spans: pl.DataFrame) -> None:
    children = spans.filter(pl.col("parent_key").is_not_null())
    above = children.join(spans, left_on=["trace_key", "parent_key"], right_on=["trace_key", "span_key"], suffix="_above")
    assert above.height == children.height
    assert (above["start_time_above"] < above["start_time"]).all()


def test_one_tree_in_twenty_continues_another(spans: pl.DataFrame) -> None:
    roots = spans.filter(pl.col("parent_key").is_null())
    linked = roots.filter(pl.col("link_span_key").is_not_null())
    assert (
        linked.join(spans, left_on=["link_trace_key", "link_span_key"], right_on=["trace_key", "span_key"], how="semi").height
        == linked.height
    )
    assert 0.03 < linked.height / roots.height < 0.07


def test_calls_are_leaves_inside_the_month(made: LedgerFiles, spans: pl.DataFrame) -> None:
    calls = spans.filter(pl.col("output_tokens").is_not_null())
    assert calls.height == made.calls
    assert calls.join(spans, left_on=["trace_key", "span_key"], right_on=["trace_key", "parent_key"], how="semi").height == 0
    assert set(calls["date"].dt.strftime("%Y-%m")) == {made.month}
    assert calls["request_model"].n_unique() == 40


def test_the_bill_is_what_the_calls_cost_and_a_little_more(made: LedgerFiles, spans: pl.DataFrame) -> None:
    """By hand: tokens times the public rate, less 12 %; what is beyond is usage that nobody logged, 10 % of 3 % of the pools."""
    bill = pl.read_parquet(made.charges)
    owed = sum(pl.read_parquet(made.expected)["effective_cost"], Decimal(0))
    rates = {name: (Decimal(i) / 10**12, Decimal(o) / 10**12) for name, (i, o) in ledger_tables._rates().items()}
    calls = (
        spans.filter(pl.col("output_tokens").is_not_null())
        .group_by("request_model")
        .agg(pl.col("input_tokens").sum(), pl.col("output_tokens").sum())
    )
    by_hand = sum((i * rates[m][0] + o * rates[m][1] for m, i, o in calls.iter_rows()), Decimal(0)) * Decimal("0.88")
    assert owed == by_hand
    billed = sum(bill["effective_cost"], Decimal(0))
    assert owed < billed < owed * Decimal("1.02")


def test_chunks_are_independent_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tables, "CHUNK_SPANS", 5_000)
    made = generate_ledger(tmp_path, 12_000)
    frame = pl.concat([pl.read_parquet(path) for path in made.spans])
    assert len(made.spans) == 3
    assert frame["span_key"].n_unique() == frame.height
    assert pl.Series([pl.read_parquet(path)["start_time"].min() for path in made.spans]).is_sorted()
