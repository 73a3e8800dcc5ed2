"""Findings of a month: whatever a run or an import noticed under a name, with its money and remedy."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from api.queries.gate import WholeBooks
from ledger.money import MONEY
from ledger.tables import PROBLEMS

FINDING_COLUMNS = ("finding", "place", "description", "remedy", "severity", "rows", "cost", "currency", "month", "source")
_NAME = r"^[a-z]+(?:_[a-z]+)*: "
"""A finding has a name, as in ``reported_cost_differs: 12 calls are …``; other problems are of a line of a file."""
_ATTRIBUTION = "attribution"


def findings(books: WholeBooks, months: Sequence[str]) -> pl.DataFrame:
    """Problems with a name: those of the runs of these invoice months, and those of imports, which have no month; dearest first."""
    rows = books.whole.store.scan(PROBLEMS).filter(pl.col("reason").str.contains(_NAME)).collect()
    rows = rows.sort("seen_at").unique("problem_id", keep="last", maintain_order=True)
    is_of_run = pl.col("source") == _ATTRIBUTION
    rows = rows.with_columns(month=pl.when(is_of_run).then(pl.col("uri").str.strip_prefix(f"{_ATTRIBUTION}:")))
    rows = rows.filter(~is_of_run | pl.col("month").is_in(list(months)))
    parts = pl.col("reason").str.splitn(": ", 2).struct
    frame = rows.select(
        finding=parts.field("field_0"),
        place=pl.when(is_of_run).then("place").otherwise(pl.concat_str("uri", "place", separator=" ")),
        description=parts.field("field_1"),
        remedy="remedy",
        severity="severity",
        rows="rows",
        cost=pl.col("cost").cast(MONEY),
        currency="currency",
        month="month",
        source="source",
    )
    return frame.sort(pl.col("cost").abs(), "finding", "place", "month", descending=[True, False, False, False], nulls_last=True)
