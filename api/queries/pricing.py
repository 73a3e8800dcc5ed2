"""The cost of one call: its share of the published costs of its hourly usage row, computed on request.

The finance page sums `costs`; the chain page splits the same rows over their calls. So both agree exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from api.models import Basis, CallCost, MeterCost
from api.queries.calls import CALL
from api.queries.gate import WHOLE, ScopedBooks, published, scan_runs
from api.queries.shares import split_over_calls, usage_of_calls
from ledger.tables import COSTS

CallKey = tuple[int, int]
"""trace_key and span_key."""


def price_calls(books: ScopedBooks, calls: pl.DataFrame, *, basis: Basis = "effective") -> dict[CallKey, CallCost]:
    """Every call (rows of `calls`) with the cost of each of its meters.

    A call is part of a row of `usage_hourly`, and costs refer to such a row: `api.queries.shares` splits them over its calls.
    Where no published cost refers to the row, the cost is null and has a reason.
    """
    quantities = usage_of_calls(calls)
    rows = costs_of(books, quantities).with_columns(cost=pl.col(f"{basis}_cost"))
    parts = split_over_calls(books, rows, quantities)
    return price(calls, quantities, rows, parts)


def costs_of(books: ScopedBooks, quantities: pl.DataFrame) -> pl.DataFrame:
    """Published cost rows for the usage rows of these calls, numbered by `row`, in a fixed order.

    Of any class: credits and taxes that follow the usage belong to what it cost. (RA-5) They may lie in the month of any later invoice.
    """
    keys = quantities["usage_key"].drop_nulls().unique()
    if not keys.len():
        return COSTS.empty().with_row_index("row")
    rows = scan_runs(books, COSTS, published(books), WHOLE).filter(pl.col("usage_key").is_in(keys.implode())).collect()
    order = ["month", "usage_key", "meter", "currency", "basis", "cost_class", "pool_id", "lot_id", "charge_category"]
    return rows.sort(order, nulls_last=True, maintain_order=True).with_row_index("row")


def price(calls: pl.DataFrame, quantities: pl.DataFrame, rows: pl.DataFrame, parts: pl.DataFrame) -> dict[CallKey, CallCost]:
    """Calls with their costs from rows already read: `quantities` from `usage_of_calls`, `rows` from `costs_of`, `parts` from `split_over_calls`."""
    call_parts = parts.join(rows.select("row", "meter", "currency", "basis"), on="row")
    keys = [*CALL, "meter", "currency", "basis"]
    meter_sums = call_parts.group_by(keys).agg(cost=pl.when(pl.col("cost").count() > 0).then(pl.col("cost").sum())).sort(keys)
    cost_rows: dict[tuple[int, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in meter_sums.iter_rows(named=True):
        cost_rows[row["trace_key"], row["span_key"], row["meter"]].append(row)
    meters: dict[CallKey, list[MeterCost]] = defaultdict(list)
    whole = quantities.group_by([*CALL, "meter"], maintain_order=True).agg(
        pl.col("quantity").sum(), hit=pl.col("usage_key").is_null().all()
    )
    for row in whole.iter_rows(named=True):
        key = (row["trace_key"], row["span_key"])
        meters[key].extend(_meter_costs(row["meter"], row["quantity"], cost_rows.get((*key, row["meter"]), []), hit=row["hit"]))
    return {
        (row["trace_key"], row["span_key"]): _call(row, meters[row["trace_key"], row["span_key"]])
        for row in calls.iter_rows(named=True)
    }


def _meter_costs(meter: str, quantity: Decimal, cost_rows: Sequence[Mapping[str, Any]], *, hit: bool) -> list[MeterCost]:
    """One row per currency; there are several only if two bills charge for the same usage."""
    if hit:
        return [MeterCost(meter=meter, quantity=quantity, own_cost=Decimal(0), reason="cache_hit")]
    if meter == "requests" and not cost_rows:
        return []  # counted on every call, but rarely priced
    costs = []
    priced_rows = [row for row in cost_rows if row["cost"] is not None]
    for currency in sorted({row["currency"] for row in priced_rows}):
        rows = [row for row in priced_rows if row["currency"] == currency]
        bases = sorted({row["basis"] for row in rows})
        costs.append(
            MeterCost(
                meter=meter,
                quantity=quantity,
                own_cost=sum((row["cost"] for row in rows), Decimal(0)),
                currency=currency,
                basis=bases[0] if len(bases) == 1 else "mixed",
            )
        )
    if costs:
        return costs
    reason = "unpriced" if cost_rows else "no published cost names this usage"
    return [MeterCost(meter=meter, quantity=quantity, reason=reason)]


def _call(row: Mapping[str, Any], meters: list[MeterCost]) -> CallCost:
    own: dict[str, Decimal] = defaultdict(Decimal)
    for meter in meters:
        if meter.own_cost is not None and meter.currency is not None:
            own[meter.currency] += meter.own_cost
    fields = {name: row[name] for name in CallCost.model_fields if name in row}
    return CallCost(**fields, own_cost=dict(own), meters=meters)
