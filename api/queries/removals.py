"""Removed facts: of which months what can no longer be shown, and since when."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from api.models import Step
from api.queries.gate import ScopedBooks
from ledger.settled_months import Removal, settled_months
from ledger.tables import CALLS, CHARGES, SPANS, Table


def removed_facts(books: ScopedBooks, table: Table, months: Collection[str] | None = None) -> dict[str, str]:
    """Months (of these, or of all) of which rows of a table were removed, and how that is told."""
    return {
        month: str(removal)
        for month, settled_month in settled_months(books.whole.database).items()
        if (months is None or month in months) and (removal := settled_month.removal_of(table.name)) is not None
    }


def removal_step(books: ScopedBooks, rows: pl.LazyFrame) -> Step | None:
    """What the explanation of rows of `costs` lacks, since facts of their invoices' months, or of the usage they pay for, were removed. (TI-2a)"""
    month_pairs = rows.select(month="month", usage=pl.col("usage_hour").dt.strftime("%Y-%m")).unique().collect()
    months = {*month_pairs["month"], *month_pairs["usage"].drop_nulls()}
    removals: dict[str, Removal] = {}
    names: dict[str, list[str]] = {}
    for month, settled_month in settled_months(books.whole.database).items():
        table_names = (
            [t.name for t in (CHARGES, CALLS, SPANS) if settled_month.removal_of(t.name) is not None] if month in months else []
        )
        if table_names:
            removals[month], names[month] = settled_month.removals[-1], table_names
    if not removals:
        return None
    sentences = [f"{month}: {removal}, and with them its {' and '.join(names[month])}" for month, removal in removals.items()]
    return Step(
        step="removal",
        rule="TI-2a",
        sentence=f"{'; '.join(sentences)}. The figure stays as it was published; the steps above show what is left.",
        facts={month: {"removed_at": removal.at.isoformat(), "cause": removal.cause} for month, removal in removals.items()},
    )
