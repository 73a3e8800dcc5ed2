"""A month matched in batches has the costs it has as a whole; cached batches are not matched again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from attribution.costs import matching, month, sink
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import CHARGES, COSTS, SPANS
from tests.oracle.books import World
from tests.oracle.comparison import engine
from tests.oracle.worlds import worlds
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans, write

D = Decimal


@pytest.fixture
def short_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every day is a batch, however little usage it has."""
    monkeypatch.setattr(month, "BATCH_ROWS", 0)


def rows(costs: pl.DataFrame) -> list[Any]:
    return sorted(costs.drop("run_id").rows(), key=repr)


@pytest.mark.slow
@settings(max_examples=8, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds())
def test_cut_or_whole_the_costs_are_the_same(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Charges by the hour, day and month, in part of an hour, of neighbouring invoices, with credits and taxes on top."""
    _, whole = engine(world)
    with monkeypatch.context() as patch:
        patch.setattr(month, "BATCH_ROWS", 0)
        _, cut = engine(world)
    assert rows(cut) == rows(whole)


def company(books: Books, *, days: range, bill: Decimal = D("3")) -> None:
    """An hourly charge and 1 000 tokens a day."""
    write(
        books,
        spans=spans(
            *(
                span(
                    day,
                    day,
                    agent_name="alpha",
                    start_time=at(9, day=day),
                    **SONNET,
                    input_tokens=1000,
                    account_id="1111",
                    region="us-east-1",
                )
                for day in days
            )
        ),
        charges=charges(
            *(charge(str(bill), charge_period_start=at(9, day=day), charge_period_end=at(10, day=day)) for day in days)
        ),
    )


def rated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills with the number of charge groups each time a batch with usage is matched."""
    seen: list[int] = []
    honest = matching.match_usage

    def counting(groups: pl.DataFrame, usage: pl.DataFrame, *options: Any) -> matching.MatchResult:
        if usage.height:
            seen.append(groups.height)
        return honest(groups, usage, *options)

    monkeypatch.setattr(matching, "match_usage", counting)
    return seen


def costs(books: Books, run_id: str) -> list[Any]:
    return rows(books.store.scan(COSTS, {"run_id": [run_id]}).collect())


@pytest.mark.slow
@pytest.mark.usefixtures("short_batches")
def test_a_late_day_matches_its_own_batch(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve days, one gets more usage: that day is rated again, eleven are taken as they stand, and all costs are as drawn anew."""
    company(books, days=range(1, 13))
    attribute(books)
    seen = rated(monkeypatch)
    late = span(
        77, 77, agent_name="alpha", start_time=at(9, day=5), **SONNET, input_tokens=500, account_id="1111", region="us-east-1"
    )
    books.store.append(SPANS, spans(late))
    again = attribute(books)
    assert len(seen) == 1
    anew = attribute(books, force=True)
    assert len(seen) == 1 + 12
    assert costs(books, again.run_id) == costs(books, anew.run_id)


@pytest.mark.slow
@pytest.mark.usefixtures("short_batches")
def test_a_restated_day_matches_its_own_batch(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    company(books, days=range(1, 13))
    attribute(books)
    seen = rated(monkeypatch)
    bill = books.store.scan(CHARGES).collect()
    dearer = pl.when(pl.col("charge_period_start") == at(9, day=5)).then(pl.lit(D("4")).cast(pl.Decimal(38, 12)))
    bill = bill.with_columns(dearer.otherwise(c).alias(c) for c in ("billed_cost", "effective_cost"))
    books.store.replace(CHARGES, bill, {"billing_month": "2026-10"})
    again = attribute(books)
    assert len(seen) == 1
    total = books.store.scan(COSTS, {"run_id": [again.run_id]}).select(pl.col("effective_cost").sum()).collect().item()
    assert total == D(11 * 3 + 4)


@pytest.mark.slow
@pytest.mark.usefixtures("short_batches")
def test_what_is_remembered_and_damaged_is_drawn_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    company(books, days=range(1, 4))
    first = attribute(books)
    for path in (books.home / "cache" / "stretches").rglob("*.arrow"):
        path.write_bytes(b"gone")
    seen = rated(monkeypatch)
    late = span(
        77, 77, agent_name="alpha", start_time=at(9, day=2), **SONNET, input_tokens=500, account_id="1111", region="us-east-1"
    )
    books.store.append(SPANS, spans(late))
    again = attribute(books)
    assert len(seen) == 3
    assert first.run_id != again.run_id
    total = books.store.scan(COSTS, {"run_id": [again.run_id]}).select(pl.col("effective_cost").sum()).collect().item()
    assert total == D(9)


@pytest.mark.slow
@pytest.mark.usefixtures("short_batches")
def test_only_the_batches_of_the_month_as_it_is_now_are_cached(books: Books) -> None:
    company(books, days=range(1, 4))
    attribute(books)
    folder = books.home / "cache" / "stretches" / "2026-10"
    before = {path.name for path in folder.iterdir()}
    books.store.append(
        SPANS, spans(span(77, 77, start_time=at(9, day=2), **SONNET, input_tokens=5, account_id="1111", region="us-east-1"))
    )
    attribute(books)
    after = {path.name for path in folder.iterdir()}
    assert len(after) == len(before)
    assert len(after - before) == 1


def test_costs_lie_in_memory_only_where_they_are_asked_for() -> None:
    held = sink.MemorySink()
    assert held.costs.schema == COSTS.schema
    assert held.batch_costs().collect().height == 0
