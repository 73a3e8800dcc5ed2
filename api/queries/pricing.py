"""What one call costs: its part of the published costs of its hour and dimensions, worked out when somebody asks.

The finance page sums `costs`; the chain page divides the same rows among the calls they were summed from. So they agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import Basis, CallCost, MeterCost
from api.queries.published import published, scan_rollups, scan_runs
from ledger import money
from ledger.books import Books
from ledger.tables import CALLS, COSTS, METERS, USAGE_HOURLY

CallKey = tuple[int, int]
"""trace_key and span_key."""

METER_COLUMNS = tuple(m for m in METERS if m in CALLS.schema)
"""Columns of `calls` that hold quantities of a meter."""


def price_calls(books: Books, calls: pl.DataFrame, *, basis: Basis = "effective") -> dict[CallKey, CallCost]:
    """Every call (rows of `calls`) with the cost of each of its meters.

    A call was summed into a row of `usage_hourly`, and costs name the row they are for: the call's part is cost · its quantity /
    the row's quantity. Where no published cost names the row, the cost is null and the reason says why.
    """
    used = _used(calls)
    matched = _matched(books, used, f"{basis}_cost")
    meters: dict[CallKey, list[MeterCost]] = defaultdict(list)
    for row in used.iter_rows(named=True):
        meters[row["trace_key"], row["span_key"]].extend(_meter_costs(row, matched.get((row["usage_key"], row["meter"]), [])))
    return {
        (row["trace_key"], row["span_key"]): _call(row, meters[row["trace_key"], row["span_key"]])
        for row in calls.iter_rows(named=True)
    }


def _used(calls: pl.DataFrame) -> pl.DataFrame:
    """One row for each call and meter with a quantity, as `usage_hourly` sums them."""
    about = ["trace_key", "span_key", "usage_key", "hour", "reason"]
    long = calls.unpivot(on=METER_COLUMNS, index=about, variable_name="meter", value_name="quantity")
    return long.filter(pl.col("quantity").is_not_null() & (pl.col("quantity") != 0)).with_columns(
        pl.col("quantity").cast(money.MONEY)
    )


def _matched(books: Books, used: pl.DataFrame, cost_column: str) -> Mapping[tuple[int, str], list[dict[str, Any]]]:
    """Costs by the row of `usage_hourly` they are for: currency, basis, cost, and that row's whole quantity."""
    keyed = used.filter(pl.col("usage_key").is_not_null())
    hours: list[datetime] = keyed["hour"].unique().sort().to_list()
    if not hours:
        return {}
    start, end = hours[0], hours[-1] + timedelta(hours=1)
    mine = pl.col("usage_key").is_in(keyed["usage_key"].unique().implode())
    logged = scan_rollups(books, USAGE_HOURLY, published(books, start, end)).filter(mine)
    logged = logged.group_by("usage_key", "meter").agg(pl.col("quantity").sum())
    # Whatever its class: credits and taxes that follow the usage belong to what it cost. (RA-5)
    costs = scan_runs(books, COSTS, published(books)).filter(mine)
    amount = pl.col(cost_column)
    summed = costs.group_by("usage_key", "meter", "currency", "basis").agg(cost=pl.when(amount.count() > 0).then(amount.sum()))
    rows = summed.join(logged, on=["usage_key", "meter"], how="inner").sort("currency", "basis").collect()
    matched: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows.iter_rows(named=True):
        matched[row["usage_key"], row["meter"]].append(row)
    return matched


def _meter_costs(used: Mapping[str, Any], matched: list[dict[str, Any]]) -> list[MeterCost]:
    """A row a currency: there is one currency, unless two bills charge for the same thing."""
    meter, quantity = used["meter"], used["quantity"]
    if used["usage_key"] is None:
        return [MeterCost(meter=meter, quantity=quantity, own_cost=Decimal(0), reason="cache_hit")]
    if meter == "requests" and not matched:
        return []  # counted on every call, sold by few
    found = []
    priced = [row for row in matched if row["cost"] is not None and row["quantity"]]
    for currency in sorted({row["currency"] for row in priced}):
        rows = [row for row in priced if row["currency"] == currency]
        cost = money.proportion(sum((row["cost"] for row in rows), Decimal(0)), quantity, rows[0]["quantity"])
        bases = sorted({row["basis"] for row in rows})
        basis = bases[0] if len(bases) == 1 else "mixed"
        found.append(MeterCost(meter=meter, quantity=quantity, own_cost=cost, currency=currency, basis=basis))
    if found:
        return found
    reason = "unpriced" if matched else "no published cost names this usage"
    return [MeterCost(meter=meter, quantity=quantity, reason=reason)]


def _call(row: Mapping[str, Any], meters: list[MeterCost]) -> CallCost:
    own: dict[str, Decimal] = defaultdict(Decimal)
    for meter in meters:
        if meter.own_cost is not None and meter.currency is not None:
            own[meter.currency] += meter.own_cost
    shown = {name: row[name] for name in CallCost.model_fields if name in row}
    return CallCost(**shown, own_cost=dict(own), meters=meters)
