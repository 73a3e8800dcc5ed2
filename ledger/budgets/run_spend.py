"""Cost of single chains (runs), for budgets that limit each chain by itself: at list price, since a bill knows no runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import polars as pl

from ledger.books import Books
from ledger.budgets.periods import Window
from ledger.budgets.spend import Spelling, column_of
from ledger.budgets.terms import Terms
from ledger.periods import month_of, months_between
from ledger.published import published_months
from ledger.tables import CALLS


@dataclass(frozen=True, slots=True)
class Run:
    """A chain: its id, its first and last call, and what its calls cost at list price."""

    chain_id: str
    start: datetime
    end: datetime
    cost: Decimal


def dearest_run(books: Books, terms: Terms, window: Window, spelling: Spelling) -> Run | None:
    """The chain that cost most of those that began within the window, counting the calls that a budget is about."""
    months = {month_of(window.start), *months_between(window.start, window.end)}
    rollup_ids = [rollup for month in published_months(books.database) if month.month in months for rollup in month.rollup_ids]
    if not rollup_ids:
        return None
    calls = books.store.scan(CALLS, {"month": sorted(months), "rollup_id": rollup_ids})
    for dimension, name in terms.scopes.items():
        if dimension != "organisation":
            calls = calls.filter(pl.col(column_of(dimension, terms.view)) == spelling.of(dimension, name, ()))
    runs = (
        calls.group_by("chain_id")
        .agg(start=pl.col("start_time").min(), end=pl.col("start_time").max(), cost=pl.col("list_cost").sum())
        .filter(pl.col("start") >= window.start, pl.col("start") < window.end)
        .sort(["cost", "chain_id"], descending=[True, False])
        .head(1)
        .collect()
    )
    return Run(*runs.row(0)) if runs.height else None
