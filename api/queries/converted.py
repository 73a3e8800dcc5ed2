"""Costs converted into one currency: every amount at the rate of its day, with the rates applied. (RA-7)"""

from __future__ import annotations

import polars as pl

from api.models import CostTable
from api.models.costs import RateUsed
from api.queries.costs import CostQuery, as_cost_table, finished, matching_costs, part, part_amount, part_sums, period
from api.queries.gate import ScopedBooks
from api.queries.publication import one_publication
from ledger.errors import UsageError
from ledger.exchange_rates import AppliedRate, Exchange, convert


@one_publication
def costs_in(books: ScopedBooks, query: CostQuery, currency: str) -> tuple[pl.DataFrame, list[AppliedRate]]:
    """The rows of `costs`, with the same columns, all in `currency`; and the rates that were applied.

    An amount is converted at the rate of the UTC day its charge period starts on. The total of one currency and day is converted once and
    split exactly, so totals do not depend on the grouping. Raises `UsageError` where a rate is missing; currencies are never mixed.
    """
    target = currency.strip().upper()
    if len(target) != 3 or not target.isalpha():
        raise UsageError(f"{currency!r} is no currency code", where="currency", remedy="write three letters, as EUR")
    keys = [name for name in query.keys if name != "currency"]
    dimensions = [pl.col(query.column(name)).alias(name) for name in query.dimensions if name != "currency"]
    time = [period(books, query)] if query.granularity != "total" else []
    rows = (
        matching_costs(books, query)
        .select(
            *dimensions,
            *time,
            "currency",
            day=pl.col("period_start").dt.date(),
            part=part(query),
            amount=part_amount(query),
        )
        .group_by([*keys, "part", "currency", "day"])
        .agg(amount=pl.when(pl.col("amount").count() > 0).then(pl.col("amount").sum()), rows=pl.len().cast(pl.Int64))
        .collect()
    )
    converted_rows, rates = convert(rows, target, Exchange.of(books.whole), amount="amount", order_by=[*keys, "part"])
    totals = converted_rows.group_by([*keys, "currency"]).agg(*part_sums())
    omitted_rows = (
        converted_rows.filter(pl.col("part") == "omitted").group_by([*keys, "currency"]).agg(omitted=pl.col("rows").sum())
    )
    totals = totals.join(omitted_rows, on=[*keys, "currency"], how="left", nulls_equal=True)
    totals = totals.with_columns(omitted_rows=pl.col("omitted").fill_null(0))
    return finished(totals, query), rates


@one_publication
def cost_table_in(books: ScopedBooks, query: CostQuery, currency: str) -> CostTable:
    """The converted costs as a document, with the rates applied."""
    frame, rates = costs_in(books, query, currency)
    used_rates = [RateUsed(day=rate.day, source=rate.source, target=rate.target, rate=rate.label) for rate in rates]
    return as_cost_table(books, query, frame, used_rates)
