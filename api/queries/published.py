"""Published months: the run in force for each month, and its rollups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

import polars as pl

from ledger.books import Books
from ledger.db import Database
from ledger.periods import month_of, month_start
from ledger.published import PublishedMonth, published_months
from ledger.tables import Table

_MONTHS: ContextVar[dict[Database, list[PublishedMonth]] | None] = ContextVar("published months of one answer", default=None)


@contextmanager
def one_publication() -> Iterator[None]:
    """All of an answer is read from the runs that are in force when it begins: a run published meanwhile changes no part of it.

    A decorator of every query that looks more than once. Runs that are no longer in force stay in the tables for the time of
    `maintenance.superseded_days`, so what an answer began with can be read to its end.
    """
    if _MONTHS.get() is not None:
        yield
        return
    token = _MONTHS.set({})
    try:
        yield
    finally:
        _MONTHS.reset(token)


def published(books: Books, start: datetime | None = None, end: datetime | None = None) -> list[PublishedMonth]:
    """Published months, oldest first; with a range, those it touches.

    A range is for what lies in the month it happened in: chains, calls, usage. Costs lie in the month of their invoice, which
    may be any later one, so they are looked for in all months: the statistics of their files tell which need not be opened.
    """
    months = _in_force(books.database)
    first = None if start is None else month_of(start)
    return [m for m in months if (first is None or m.month >= first) and (end is None or month_start(m.month) < end)]


def _in_force(database: Database) -> list[PublishedMonth]:
    months = _MONTHS.get()
    if months is None:
        return published_months(database)
    if database not in months:
        months[database] = published_months(database)
    return months[database]


def scan_runs(books: Books, table: Table, months: Sequence[PublishedMonth], *, month_column: str = "month") -> pl.LazyFrame:
    """Rows of a run's conclusions, of the published run of each month only."""
    return _scan(books, table, [(m.month, m.run_id) for m in months], month_column, "run_id")


def scan_rollups(books: Books, table: Table, months: Sequence[PublishedMonth]) -> pl.LazyFrame:
    """Rows of rollups' conclusions, of the rollups in force for each month only."""
    return _scan(books, table, [(m.month, rollup_id) for m in months for rollup_id in m.rollup_ids], "month", "rollup_id")


def _scan(books: Books, table: Table, pairs: Sequence[tuple[str, str]], month_column: str, run_column: str) -> pl.LazyFrame:
    if not pairs:
        return table.empty().lazy()
    partitions = {month_column: sorted({m for m, _ in pairs}), run_column: sorted({r for _, r in pairs})}
    # A run may cover several months of which another run has replaced some: the pair decides, not each half.
    in_force = pl.any_horizontal(
        (pl.col(month_column) == month) & pl.col(run_column).is_in(sorted(r for m, r in pairs if m == month))
        for month in partitions[month_column]
    )
    return books.store.scan(table, partitions).filter(in_force)
