"""Daily spend: the published costs by day of the reporting timezone and owner, as budgets and anomalies use them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ledger.books import Books
from ledger.calendars import time_of_use, used_near
from ledger.periods import month_end, month_start
from ledger.published import runs_in_force
from ledger.tables import COSTS

SCOPES = ("team", "agent")
VIEWS = ("initiator", "executor")


def daily_spend(books: Books, months: Sequence[str]) -> pl.DataFrame:
    """Effective cost per day of use, currency, basis, team and agent in both views, of the days of `months` in the reporting timezone. (TI-1a)

    An invoice may hold charges of any earlier day, so every published month is scanned; files without these days are not read.
    """
    runs = runs_in_force(books.database)
    schema = {
        "day": pl.Date,
        **{f"{view}_{scope}": pl.String for view in VIEWS for scope in SCOPES},
        "currency": pl.String,
        "basis": pl.String,
        "cost": COSTS.schema["effective_cost"],
    }
    if not runs:
        return pl.DataFrame(schema=schema)
    zone = books.settings.report.timezone
    costs = books.store.scan(COSTS, {"month": list(runs), "run_id": list(runs.values())})
    if months:
        costs = costs.filter(used_near(month_start(min(months)), month_end(max(months))))
    days = costs.with_columns(day=time_of_use(zone).dt.date())
    is_in_months = pl.col("day").dt.strftime("%Y-%m").is_in(list(months))
    return (
        days.filter(is_in_months)
        .group_by([c for c in schema if c != "cost"])
        .agg(cost=pl.col("effective_cost").sum())
        .collect()
        .select(list(schema))
    )
