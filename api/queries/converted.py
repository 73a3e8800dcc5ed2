"""Costs converted into one currency: every amount at the rate of its day, with the rates applied. (RA-7)"""

from __future__ import annotations

import polars as pl

from api.models import CostRow, CostTable
from api.models.costs import RateUsed
from api.queries.costs import COST_KEYS, CostQuery, matching_costs
from api.queries.published import published
from ledger.books import Books
from ledger.errors import UsageError
from ledger.exchange_rates import AppliedRate, Exchange, convert


def costs_in(books: Books, query: CostQuery, currency: str) -> tuple[pl.DataFrame, list[AppliedRate]]:
    """The rows of `costs`, with the same columns, all in `currency`; and the rates that were applied.

    An amount is converted at the rate of the UTC day its charge period starts on. The total of one currency and day is converted once and
    split exactly, so totals do not depend on the grouping. Raises `UsageError` where a rate is missing; currencies are never mixed.
    """
    target = currency.strip().upper()
    if len(target) != 3 or not target.isalpha():
        raise UsageError(f"{currency!r} is no currency code", where="currency", remedy="write three letters, as EUR")
    keys = [name for name in query.dimensions_in_time if name != "currency"] + [k for k in COST_KEYS if k not in query.dimensions]
    dimensions = [pl.col(query.column(name)).alias(name) for name in query.dimensions if name != "currency"]
    local = pl.col("period_start").dt.convert_time_zone(books.settings.report.timezone)
    cut = {"hour": "1h", "day": "1d", "month": "1mo"}.get(query.granularity)
    time = [] if cut is None else [local.dt.truncate(cut).alias("period_start")]
    class_keys = [pl.col(k) for k in COST_KEYS if k not in query.dimensions and k != "currency"]
    rows = (
        matching_costs(books, query)
        .select(
            *dimensions, *time, *class_keys, "currency", day=pl.col("period_start").dt.date(), cost=pl.col(f"{query.basis}_cost")
        )
        .group_by([*dict.fromkeys([*keys, "currency", "day"])])
        .agg(cost=pl.when(pl.col("cost").count() > 0).then(pl.col("cost").sum()))
        .collect()
    )
    inner = [k for k in keys if k != "currency"]
    converted_rows, rates = convert(rows, target, Exchange.of(books), amount="cost", order_by=inner)
    totals = converted_rows.group_by([*inner, "currency"]).agg(
        cost=pl.when(pl.col("cost").count() > 0).then(pl.col("cost").sum())
    )
    names = [*query.dimensions_in_time, *(k for k in COST_KEYS if k not in query.dimensions)]
    by_time = query.granularity != "total"
    order = [*(["period_start"] if by_time else []), "cost", *(n for n in names if n != "period_start")]
    frame = totals.sort(order, descending=[name == "cost" for name in order], nulls_last=True)
    if by_time:
        frame = frame.with_columns(pl.col("period_start").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"))
    return frame.select(*names, "cost"), rates


def cost_table_in(books: Books, query: CostQuery, currency: str) -> CostTable:
    """The converted costs as a document, with the rates applied."""
    frame, rates = costs_in(books, query, currency)
    return CostTable.model_construct(
        by=list(query.dimensions),
        view=query.view,
        basis=query.basis,
        granularity=query.granularity,
        timezone=books.settings.report.timezone,
        start=query.start,
        end=query.end,
        runs={m.month: m.run_id for m in published(books)},
        totals=dict(frame.group_by("currency").agg(pl.col("cost").sum()).iter_rows()),
        rows=[CostRow.model_construct(**{"period_start": None, **row}) for row in frame.iter_rows(named=True)],
        rates=[RateUsed(day=rate.day, source=rate.source, target=rate.target, rate=rate.label) for rate in rates],
    )
