"""What the engine concludes of a world, and where it differs from the oracle.

The engine runs in memory: no home, no store, one process. Amounts may differ by the last of twelve digits a row, since the order within a
pool decides who gets it (MO-1); totals may not differ at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import polars as pl

from attribution.columns import is_call_usage
from attribution.costs import settling
from attribution.costs.month import compute_in_memory
from attribution.pricing import PriceBook
from attribution.usage.reader import Usage
from attribution.usage.rollup import build_rollup
from ledger import periods, registry
from ledger.tables import CHARGES, COST_COLUMNS, COSTS, PRICES, SPANS, TIME
from tests.oracle.books import Conclusions, World, conclude
from tests.oracle.money import UNIT
from tests.support.books_by_hand import charges, spans

WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team")
Key = tuple[Any, ...]

BILLED_WITH = {"reasoning_tokens": "output_tokens", "cache_write_1h_tokens": "cache_write_5m_tokens"}
"""Meters that have a name of their own in the logs and seldom on a bill: the engine tells them by the log's word, the oracle by the bill's."""


class EngineResult(NamedTuple):
    """Hourly usage and costs, as the engine computes them."""

    usage: pl.DataFrame
    costs: pl.DataFrame


def engine(world: World) -> EngineResult:
    """Hourly usage of all months, and the costs of every month that has charges or spans."""
    timeline = registry.timeline(pl.DataFrame(list(world.owners), schema=registry.SCHEMA))
    book = PriceBook(_prices(world))
    span_rows = spans(*world.spans) if world.spans else SPANS.empty()
    rollup = build_rollup(span_rows.lazy(), None, timeline, book, world.settings, rollup_id="r")
    bill = _bill(world)
    months = {row["billing_month"] for row in world.charges} | {f"{row['start_time']:%Y-%m}" for row in world.spans}
    costs = [
        compute_in_memory(
            bill.filter(pl.col("billing_month") == month),
            Usage.from_frame(rollup.usage),
            timeline,
            book,
            world.settings.attribution,
            run_id="r",
            month=month,
            other_invoices=_other_invoices(bill, month),
        )
        for month in sorted(months)
    ]
    return EngineResult(rollup.usage, pl.concat([COSTS.empty(), *costs], how="diagonal_relaxed"))


def _bill(world: World) -> pl.LazyFrame:
    """The charges, with the moment at which their file was read, where the world says so. (ES-1a)"""
    rows = [{c: v for c, v in row.items() if c != "read_at"} for row in world.charges]
    bill = charges(*rows) if rows else CHARGES.empty()
    times = {(row["raw_id"], row["read_at"]) for row in world.charges if row.get("read_at")}
    read_times = pl.DataFrame(sorted(times), schema=settling.NO_READ_TIMES.schema, orient="row")
    return settling.with_read_times(bill.lazy(), read_times)


def _other_invoices(bill: pl.LazyFrame, month: str) -> pl.LazyFrame:
    """Charges on the invoices beside it, for hours of this month or, since its own may be late, on the one before. (RA-2a)"""
    start, end = periods.month_start(month), periods.month_end(month)
    overlaps = (pl.col("charge_period_start") < end) & (pl.col("charge_period_end") > start)
    overlaps |= pl.col("billing_month") < month
    is_beside = pl.col("billing_month").is_in(periods.adjacent_months(month))
    return bill.filter(is_beside & (pl.col("charge_category") == "Usage") & overlaps)


def _prices(world: World) -> pl.DataFrame:
    if not world.prices:
        return PRICES.empty()
    kinds = {"rate": PRICES.schema["rate"], "valid_from": TIME, "recorded_at": TIME}
    return PRICES.conform(pl.DataFrame(list(world.prices), schema_overrides=kinds))


def differences(world: World, result: EngineResult | None = None) -> str:
    """Every difference between engine and oracle: who used what, who pays what, and what got lost; empty if there is none.

    `result` is what the engine concludes of the world, where that is known.
    """
    usage, costs = result or engine(world)
    conclusions = conclude(world)
    return "\n".join(filter(None, (lost(world, costs), usage_differs(conclusions, usage), costs_differ(conclusions, costs))))


def usage_differs(conclusions: Conclusions, usage: pl.DataFrame) -> str:
    """Owners, method, hour and meter whose tokens the engine counts otherwise; empty if there are none.

    A fan-in of three ways splits a token in three; at twelve places that leaves a last digit a row.
    """
    engine_sums, oracle_sums = defaultdict[Key, Fraction](Fraction), defaultdict[Key, Fraction](Fraction)
    for row in usage.filter(is_call_usage()).iter_rows(named=True):
        key = *(row[c] for c in WHO), row["method"], row["hour"].isoformat(), row["model"], row["meter"]
        engine_sums[key] += Fraction(row["quantity"])
    for use in conclusions.uses:
        if use.model is not None:
            hour = use.start.replace(minute=0).isoformat()
            oracle_sums[*_owners(use.owner), use.owner.method, hour, use.model, use.meter] += use.quantity
    wrong = [key for key in {*engine_sums, *oracle_sums} if abs(engine_sums[key] - oracle_sums[key]) > 20 * UNIT]
    return "\n".join(f"{key}\n   engine {engine_sums[key]}, oracle {oracle_sums[key]}" for key in sorted(wrong, key=str))


def _owners(owner: Any) -> Key:
    """Both views of an owner."""
    return owner.initiator, owner.initiator_team, owner.executor, owner.executor_team


def _key(cost: Mapping[str, Any]) -> Key:
    """What amounts are summed by. Model and meter belong to metered cost of models; other cost is told by its class."""
    place = cost["month"], cost["currency"], cost["provider"], cost["basis"], cost["cost_class"]
    is_metered = cost["cost_class"] == "metered" and cost["model"] is not None
    meter = BILLED_WITH.get(cost["meter"], cost["meter"])
    return *place, *(cost[c] for c in WHO), *((cost["model"], meter) if is_metered else (None, None))


def costs_differ(conclusions: Conclusions, costs: pl.DataFrame) -> str:
    """What the engine pays otherwise than the oracle, beyond the last digit of each of its rows; empty if nothing."""
    engine_sums, oracle_sums = defaultdict[Key, dict[str, Fraction]](_nothing), defaultdict[Key, dict[str, Fraction]](_nothing)
    slack: defaultdict[Key, Fraction] = defaultdict(lambda: 2 * UNIT)
    unpriced_keys, oracle_unpriced_keys = set[Key](), set[Key]()
    for row in costs.iter_rows(named=True):
        _add(engine_sums, slack, _key(row), row, unpriced_keys)
    for cost in conclusions.costs:
        cost_fields = {f: getattr(cost, f) for f in ("month", "currency", "provider", "basis", "cost_class", "model", "meter")}
        key = _key(cost_fields | dict(zip(WHO, cost.who, strict=True)))
        _add(oracle_sums, slack, key, cost.amounts or dict.fromkeys(COST_COLUMNS), oracle_unpriced_keys)
        slack[key] += cost.slack
    wrong = [
        f"{key}\n   unpriced: engine {key in unpriced_keys}, oracle {key in oracle_unpriced_keys}"
        for key in unpriced_keys ^ oracle_unpriced_keys
    ]
    for key in sorted({*engine_sums, *oracle_sums}, key=str):
        # What a column of an estimate other than these two means is left to the engine. (ES-1)
        for column in COST_COLUMNS if key[3] == "billed" else ("effective_cost", "list_cost"):
            engine_amount, oracle_amount = engine_sums[key][column], oracle_sums[key][column]
            if abs(engine_amount - oracle_amount) > slack[key]:
                wrong.append(f"{key}\n   {column}: engine {float(engine_amount):.12f}, oracle {float(oracle_amount):.12f}")
    return "\n".join(wrong)


def _nothing() -> dict[str, Fraction]:
    return dict.fromkeys(COST_COLUMNS, Fraction(0))


def _add(
    totals: defaultdict[Key, dict[str, Fraction]],
    slack: defaultdict[Key, Fraction],
    key: Key,
    amounts: Mapping[str, Any],
    unpriced_keys: set[Key],
) -> None:
    slack[key] += UNIT
    if amounts["effective_cost"] is None:
        unpriced_keys.add(key)
    for column in COST_COLUMNS:
        totals[key][column] += Fraction(amounts[column] or 0)


def lost(world: World, costs: pl.DataFrame) -> str:
    """MO-2: in every currency, month, provider and column, what was charged is what was allocated, to the last digit; else where it is not."""
    bill_sums, allocation = defaultdict[Key, Decimal](Decimal), defaultdict[Key, Decimal](Decimal)
    for row in world.charges:
        for column in COST_COLUMNS:
            bill_sums[row["billing_currency"], row["billing_month"], row["provider_name"], column] += row[column]
    for row in costs.filter(pl.col("basis") == "billed").iter_rows(named=True):
        for column in COST_COLUMNS:
            allocation[row["currency"], row["month"], row["provider"], column] += row[column]
    wrong = [key for key in {*bill_sums, *allocation} if bill_sums[key] != allocation[key]]
    return "\n".join(f"{key}: charged {bill_sums[key]}, allocated {allocation[key]}" for key in sorted(wrong))
