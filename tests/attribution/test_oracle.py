"""The engine against the oracle: the same owners and the same cents, whatever the logs, the bill and the registry hold.

`tests/oracle` draws every conclusion a second time, slowly and obviously. Amounts may differ by the last of twelve digits a
row, since the order within a pool decides who gets it (MO-1); totals may not differ at all. ORACLE_DEPTH=20 looks twenty
times as far.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, currently_in_test_context, given, note, settings
from hypothesis import strategies as st

from attribution.run import attribute
from ledger.audit import record
from ledger.books import Books
from ledger.db import Owner, Published
from ledger.money import MONEY, split
from ledger.tables import CHARGES, COSTS
from tests.oracle.books import World, conclude
from tests.oracle.comparison import costs_differ, differences, engine, lost, usage_differs
from tests.oracle.days import days_differ, reported
from tests.oracle.money import split as oracle_split
from tests.oracle.worlds import at_the_edge_of_the_month, with_starts_of_long_ago, worlds, worlds_of_bills_in_arrival
from tests.support.books_by_hand import at, charge, charges, price, span, spans, write

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
"""A world is printed only where one fails; schemathesis, in the same process, has hypothesis write down every one."""

DEPTH = int(os.environ.get("ORACLE_DEPTH", "1"))
MONTH = "2026-10"
QUICK = [phase for phase in Phase if phase != Phase.shrink or "ORACLE_SHRINK" in os.environ]
"""Shrinking a world of twenty rows takes minutes; who looks for the reason of a failure sets ORACLE_SHRINK=1."""

# ── what was used, and by whom ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@settings(max_examples=15 * DEPTH, phases=QUICK)
@given(worlds(charges=0))
def test_every_token_has_the_same_owner(world: World) -> None:
    """CH, ID, CA: who started it, who worked on it, how that was found, and how much it used."""
    note(repr(world))
    assert not (differs := usage_differs(conclude(world), engine(world).usage)), differs


def assert_same_costs(world: World, costs: pl.DataFrame) -> None:
    """Nothing is lost, and who pays how much is what the oracle says. (MO-2)"""
    assert not (missing := lost(world, costs)), missing
    assert not (differs := costs_differ(conclude(world), costs)), differs


# ── what was paid, and by whom ──────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=25 * DEPTH, phases=QUICK)
@given(worlds_of_bills_in_arrival())
def test_every_dollar_has_the_same_owner(world: World) -> None:
    """RA, ES, MO: who pays how much of which column, in which class, and nothing gets lost; also of a bill read in the midst (ES-1a)."""
    note(repr(world))
    assert_same_costs(world, engine(world).costs)


# ── in whatever order, how often and in however many pieces it comes ────────────────────────────────────────────────


def opened(folder: str, name: str, world: World) -> Books:
    """Books that hold a world's registry, prices and settings, and no facts yet."""
    if currently_in_test_context():
        note(repr(world))
    books = Books.open(Path(folder) / name)
    books.settings = books.settings.model_copy(
        update={"ingest": world.settings.ingest, "attribution": world.settings.attribution}
    )
    with books.database.session() as session:
        record(session, "test", "registry.import", "by hand")
        session.add_all(Owner(**row) for row in world.owners)
    write(books, prices=[dict(p) for p in world.prices])
    return books


def drawn(books: Books) -> pl.DataFrame:
    """The costs in force, without what names the run."""
    attribute(books)
    with books.database.session() as session:
        runs = [p.run_id for p in session.query(Published)]
    costs = books.store.scan(COSTS).filter(pl.col("run_id").is_in(runs)).collect()
    return costs.drop("run_id").sort(pl.all())


def put_charges(books: Books, rows: Iterable[Mapping[str, Any]]) -> None:
    """The bill as it now stands, in place of what was there. (TI-2)"""
    for month in (MONTH, "2026-11"):
        mine = [{"charge_id": f"c{n}", **row} for n, row in enumerate(rows) if row["billing_month"] == month]
        bill = charges(*mine) if mine else CHARGES.empty()
        books.store.replace(CHARGES, bill, {"scope": "by-hand", "billing_month": month})


@settings(max_examples=2 * DEPTH, phases=QUICK)
@given(worlds(), st.data())
def test_order_repetition_and_pieces_change_nothing(world: World, data: st.DataObject) -> None:
    """CA-3, CH-2, TI-2: once and in order, or shuffled, in pieces, twice, with the bill first and restated: the same books.

    TI-1a: and the report by day has metered money on the day of its use, in timezones on both sides of UTC.
    """
    with TemporaryDirectory() as folder:
        with opened(folder, "plain", world) as books:
            write(books, spans=spans(*world.spans))
            put_charges(books, world.charges)
            plain = drawn(books)
            assert not (differs := days_differ(books, conclude(world).costs)), differs
        with opened(folder, "mixed", world) as books:
            mixed = data.draw(st.permutations(list(world.spans)))
            cut = data.draw(st.integers(0, len(mixed)))
            put_charges(books, list(world.charges)[: data.draw(st.integers(0, len(world.charges)))])
            for piece in (mixed[:cut], mixed[cut:], mixed[: cut + 1]):
                if piece:
                    write(books, spans=spans(*piece))
                if data.draw(st.booleans()):
                    drawn(books)
            put_charges(books, data.draw(st.permutations(list(world.charges))))
            again = drawn(books)
            assert attribute(books).unchanged == [MONTH], "a second run has nothing to do"
    assert again.equals(plain), f"{plain}\n{again}"
    assert_same_costs(world, plain)


@pytest.mark.slow
@settings(max_examples=2 * DEPTH, phases=QUICK)
@given(worlds())
def test_nothing_happens_twice_or_never_where_two_months_meet(world: World) -> None:
    """TI-1, CH-6: chains, held time and charges across midnight of the last day; each call in the period it started in."""
    edge = at_the_edge_of_the_month(world)
    with TemporaryDirectory() as folder, opened(folder, "edge", edge) as books:
        write(books, spans=spans(*edge.spans))
        put_charges(books, edge.charges)
        costs = drawn(books)
    assert_same_costs(edge, costs)


@pytest.mark.slow
@settings(max_examples=2 * DEPTH, phases=QUICK)
@given(worlds(), st.lists(st.sampled_from([1, 3, 40, 399]), min_size=1, max_size=5))
def test_a_start_of_long_ago_owns_what_it_started(world: World, days: list[int]) -> None:
    """CH-1a: agents, steps and holders that began up to 399 days before the calls below or behind them; the window is two days."""
    old = with_starts_of_long_ago(world, days)
    with TemporaryDirectory() as folder, opened(folder, "old", old) as books:
        write(books, spans=spans(*old.spans))
        put_charges(books, old.charges)
        attribute(books, [MONTH])
        costs = books.store.scan(COSTS, {"month": [MONTH]}).collect()
    assert_same_costs(old, costs)


@pytest.mark.slow
def test_a_report_that_has_money_on_another_day_is_found() -> None:
    """The check of days itself: two calls on a daily charge, half an hour on either side of midnight in Pago Pago. (TI-1a)"""
    used: dict[str, Any] = {
        "usage_scope": "leaf",
        "provider": "bedrock",
        "response_model": "amazon.nova-pro-v1:0",
        "input_tokens": 1000,
    }
    logged = [span(n, n, agent_name="cx", start_time=at(10 + n, 30) - timedelta(hours=1), **used) for n in (1, 2)]
    day: dict[str, Any] = {
        "charge_period_start": at(0),
        "charge_period_end": at(0, day=6),
        "sku_meter": "USE1-NovaPro-input-tokens",
    }
    world = World(logged, [charge("0.006", tokens_k="2", **day)])
    with TemporaryDirectory() as folder, opened(folder, "days", world) as books:
        write(books, spans=spans(*world.spans))
        put_charges(books, world.charges)
        drawn(books)
        costs = conclude(world).costs
        assert sorted(reported(books, "Pacific/Pago_Pago").values()) == [Fraction("0.003"), Fraction("0.003")]
        assert not days_differ(books, costs)
        moved = [replace(cost, used_at=cost.used_at and cost.used_at + timedelta(hours=1)) for cost in costs]
        assert "Pacific/Pago_Pago" in days_differ(books, moved)


# ── to the last digit ───────────────────────────────────────────────────────────────────────────────────────────────

AMOUNTS = st.decimals(min_value=Decimal(-(10**9)), max_value=Decimal(10**9), places=12)


@settings(max_examples=100 * DEPTH)
@given(st.lists(st.tuples(AMOUNTS, st.lists(st.integers(0, 10**15), min_size=1, max_size=8)), min_size=1, max_size=4))
def test_a_split_is_the_same_to_the_last_digit(pools: list[tuple[Decimal, list[int]]]) -> None:
    """MO-1: cumulative, half to even, in a given order; a pool without weight is left to the caller."""
    rows = [(n, k, amount, weight) for n, (amount, weights) in enumerate(pools) for k, weight in enumerate(weights)]
    frame = pl.DataFrame(rows, schema={"pool": pl.Int64, "row": pl.Int64, "cost": MONEY, "w": pl.Int64}, orient="row")
    theirs = split(frame.sort("w").lazy(), amounts=["cost"], weight="w", pool="pool", order_by=["row"]).collect()
    for n, (amount, weights) in enumerate(pools):
        parts = theirs.filter(pl.col("pool") == n).sort("row")["cost"].to_list()
        if any(weights):
            assert parts == oracle_split(Fraction(amount), [Fraction(w) for w in weights])
            assert sum(parts) == amount
        else:
            assert parts == [None] * len(weights)


def test_a_charge_without_a_quantity_tells_no_price() -> None:
    """ES-1, RA-3: a model's charge of 0.05 for a call of 0.0015 at list paid for much that nobody logged; the next hour is estimated at list."""
    sonnet: dict[str, Any] = {"usage_scope": "leaf", "provider": "openrouter", "response_model": "anthropic/claude-sonnet-4-6"}
    calls = [span(n, n, start_time=at(9 + n), input_tokens=500, **sonnet) for n in (1, 2)]
    of_model: dict[str, Any] = {"sku_meter": "anthropic/claude-sonnet-4-6", "consumed_unit": None, "sub_account_id": None}
    bill = charge("0.05", provider_name="OpenRouter", service_name="OpenRouter", **of_model)
    world = World(calls, [bill], prices=[price("anthropic/claude-sonnet-4-6", "input_tokens", "0.000003", provider="openrouter")])
    assert not differences(world)
    estimate = engine(world).costs.filter(pl.col("basis") == "estimated")
    assert estimate["effective_cost"].to_list() == [Decimal("0.0015")]
