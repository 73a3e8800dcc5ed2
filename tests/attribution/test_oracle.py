"""The engine against the oracle: the same owners and the same cents, whatever the logs, the bill and the registry hold.

`tests/oracle` draws every conclusion a second time, slowly and obviously. Amounts may differ by the last of twelve digits a
row, since the order within a pool decides who gets it (MO-1); totals may not differ at all. ORACLE_DEPTH=20 looks twenty
times as far.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from attribution.costs import settling
from attribution.costs.month import compute_in_memory
from attribution.pricing import PriceBook
from attribution.run import attribute
from attribution.usage.reader import Usage
from attribution.usage.rollup import build_rollup
from ledger import registry
from ledger.books import Books
from ledger.db import Owner, Published
from ledger.money import MONEY, split
from ledger.tables import CHARGES, COST_COLUMNS, COSTS, PRICES, TIME, TOKEN_METERS
from tests.oracle import books as oracle
from tests.oracle.books import World
from tests.oracle.money import UNIT
from tests.oracle.money import split as oracle_split
from tests.oracle.worlds import at_the_edge_of_the_month, worlds
from tests.support.books_by_hand import at, charges, spans, write

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
"""A world is printed only where one fails; schemathesis, in the same process, has hypothesis write down every one."""

DEPTH = int(os.environ.get("ORACLE_DEPTH", "1"))
MONTH = "2026-10"
WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team")

QUICK = [phase for phase in Phase if phase != Phase.shrink or "ORACLE_SHRINK" in os.environ]
"""Shrinking a world of twenty rows takes minutes; who looks for the reason of a failure sets ORACLE_SHRINK=1."""

Key = tuple[Any, ...]

BILLED_WITH = {"reasoning_tokens": "output_tokens", "cache_write_1h_tokens": "cache_write_5m_tokens"}
"""Meters that have a name of their own in the logs and seldom on a bill: the engine tells them by the log's word, the oracle by the bill's."""


def engine(world: World) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hourly usage and costs, as the engine draws them, without a store."""
    note(repr(world))
    known = registry.timeline(pl.DataFrame(list(world.owners), schema=registry.SCHEMA))
    book = PriceBook(_prices(world))
    drawn = build_rollup(spans(*world.spans).lazy(), MONTH, known, book, world.settings, rollup_id="r")
    bill = (
        charges(*({c: v for c, v in row.items() if c != "read_at"} for row in world.charges))
        if world.charges
        else CHARGES.empty()
    )
    times = {(row["raw_id"], row["read_at"]) for row in world.charges if row.get("read_at")}
    read_times = pl.DataFrame(sorted(times), schema=settling.NO_READ_TIMES.schema, orient="row")
    costs = compute_in_memory(
        settling.with_read_times(bill.lazy(), read_times),
        Usage.from_frame(drawn.usage),
        known,
        book,
        world.settings.attribution,
        run_id="r",
        month=MONTH,
    )
    return drawn.usage, costs


def _prices(world: World) -> pl.DataFrame:
    if not world.prices:
        return PRICES.empty()
    kinds = {"rate": PRICES.schema["rate"], "valid_from": TIME, "recorded_at": TIME}
    return PRICES.conform(pl.DataFrame(list(world.prices), schema_overrides=kinds))


# ── what was used, and by whom ──────────────────────────────────────────────────────────────────────────────────────


def usage_differs(world: World, usage: pl.DataFrame) -> str:
    """Owners, method, hour and meter whose tokens the engine counts otherwise; empty if there are none.

    A fan-in of three ways splits a token in three; at twelve places that leaves a last digit a row.
    """
    theirs, ours = defaultdict[Key, Fraction](Fraction), defaultdict[Key, Fraction](Fraction)
    for row in usage.filter(pl.col("meter").is_in(TOKEN_METERS)).iter_rows(named=True):
        key = *(row[c] for c in WHO), row["method"], row["hour"].isoformat(), row["model"], row["meter"]
        theirs[key] += Fraction(row["quantity"])
    for use in oracle.conclude(world).uses:
        if use.model is not None:
            hour = use.start.replace(minute=0).isoformat()
            ours[*who(use.owner), use.owner.method, hour, use.model, use.meter] += use.quantity
    wrong = [key for key in {*theirs, *ours} if abs(theirs[key] - ours[key]) > 20 * UNIT]
    return "\n".join(f"{key}\n   engine {theirs[key]}, oracle {ours[key]}" for key in sorted(wrong, key=str))


def who(owner: Any) -> Key:
    """Both views of an owner."""
    return owner.initiator, owner.initiator_team, owner.executor, owner.executor_team


@settings(max_examples=80 * DEPTH, phases=QUICK)
@given(worlds(charges=0))
def test_every_token_has_the_same_owner(world: World) -> None:
    """CH, ID, CA: who started it, who worked on it, how that was found, and how much it used."""
    usage, _ = engine(world)
    assert not (differs := usage_differs(world, usage)), differs


# ── what was paid, and by whom ──────────────────────────────────────────────────────────────────────────────────────


def _key(cost: Mapping[str, Any]) -> Key:
    """What amounts are summed by. Model and meter belong to metered cost of models; other cost is told by its class."""
    where = cost["month"], cost["currency"], cost["provider"], cost["basis"], cost["cost_class"]
    metered = cost["cost_class"] == "metered" and cost["model"] is not None
    meter = BILLED_WITH.get(cost["meter"], cost["meter"])
    return *where, *(cost[c] for c in WHO), *((cost["model"], meter) if metered else (None, None))


def costs_differ(world: World, costs: pl.DataFrame) -> str:
    """What the engine pays otherwise than the oracle, beyond the last digit of each of its rows; empty if nothing."""
    theirs, ours = defaultdict[Key, dict[str, Fraction]](_nothing), defaultdict[Key, dict[str, Fraction]](_nothing)
    slack: defaultdict[Key, Fraction] = defaultdict(lambda: 2 * UNIT)
    unpriced: defaultdict[Key, int] = defaultdict(int)
    for row in costs.iter_rows(named=True):
        _add(theirs, slack, _key(row), row, unpriced)
    for cost in oracle.conclude(world).costs:
        told = {f: getattr(cost, f) for f in ("month", "currency", "provider", "basis", "cost_class", "model", "meter")}
        key = _key(told | dict(zip(WHO, cost.who, strict=True)))
        _add(ours, slack, key, cost.amounts or dict.fromkeys(COST_COLUMNS), unpriced)
        slack[key] += cost.slack
    wrong = []
    for key in sorted({*theirs, *ours}, key=str):
        # What a column of an estimate other than these two means is left to the engine. (ES-1)
        for column in COST_COLUMNS if key[3] == "billed" else ("effective_cost", "list_cost"):
            left, right = theirs[key][column], ours[key][column]
            if abs(left - right) > slack[key]:
                wrong.append(f"{key}\n   {column}: engine {float(left):.12f}, oracle {float(right):.12f}")
    return "\n".join(wrong)


def _nothing() -> dict[str, Fraction]:
    return dict.fromkeys(COST_COLUMNS, Fraction(0))


def _add(
    totals: defaultdict[Key, dict[str, Fraction]],
    slack: defaultdict[Key, Fraction],
    key: Key,
    amounts: Mapping[str, Any],
    unpriced: defaultdict[Key, int],
) -> None:
    slack[key] += UNIT
    unpriced[key] += amounts["effective_cost"] is None
    for column in COST_COLUMNS:
        totals[key][column] += Fraction(amounts[column] or 0)


def conserved(world: World, costs: pl.DataFrame) -> None:
    """MO-2: in every currency, month, provider and column, what was charged is what was allocated, to the last digit."""
    charged, allocated = defaultdict[Key, Decimal](Decimal), defaultdict[Key, Decimal](Decimal)
    for row in world.charges:
        for column in COST_COLUMNS:
            charged[row["billing_currency"], row["billing_month"], row["provider_name"], column] += row[column]
    for row in costs.filter(pl.col("basis") == "billed").iter_rows(named=True):
        for column in COST_COLUMNS:
            allocated[row["currency"], row["month"], row["provider"], column] += row[column]
    assert {k: v for k, v in allocated.items() if v} == {k: v for k, v in charged.items() if v}


@settings(max_examples=120 * DEPTH, phases=QUICK)
@given(worlds(), st.sampled_from([None, None, *(at(hour, 30, day=6) for hour in (9, 11, 12))]))
def test_every_dollar_has_the_same_owner(world: World, read_at: datetime | None) -> None:
    """RA, ES, MO: who pays how much of which column, in which class, and nothing gets lost; also of a bill read in the midst (ES-1a)."""
    if read_at is not None:
        world = replace(world, charges=[{**row, "read_at": read_at, "final": False} for row in world.charges])
    _, costs = engine(world)
    conserved(world, costs)
    assert not (differs := costs_differ(world, costs)), differs


# ── in whatever order, how often and in however many pieces it comes ────────────────────────────────────────────────


def opened(folder: str, name: str, world: World) -> Books:
    """Books that hold a world's registry, prices and settings, and no facts yet."""
    note(repr(world))
    books = Books.open(Path(folder) / name)
    books.settings = books.settings.model_copy(
        update={"ingest": world.settings.ingest, "attribution": world.settings.attribution}
    )
    with books.database.session() as session:
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


@settings(max_examples=5 * DEPTH, phases=QUICK)
@given(worlds(), st.data())
def test_order_repetition_and_pieces_change_nothing(world: World, data: st.DataObject) -> None:
    """CA-3, CH-2, TI-2: once and in order, or shuffled, in pieces, twice, with the bill first and restated: the same books."""
    with TemporaryDirectory() as folder:
        with opened(folder, "plain", world) as books:
            write(books, spans=spans(*world.spans))
            put_charges(books, world.charges)
            plain = drawn(books)
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
    conserved(world, plain)
    assert not (differs := costs_differ(world, plain)), differs


@settings(max_examples=4 * DEPTH, phases=QUICK)
@given(worlds())
def test_nothing_happens_twice_or_never_where_two_months_meet(world: World) -> None:
    """TI-1, CH-6: chains, held time and charges across midnight of the last day; each call in the period it started in."""
    edge = at_the_edge_of_the_month(world)
    with TemporaryDirectory() as folder, opened(folder, "edge", edge) as books:
        write(books, spans=spans(*edge.spans))
        put_charges(books, edge.charges)
        costs = drawn(books)
    conserved(edge, costs)
    assert not (differs := costs_differ(edge, costs)), differs


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
