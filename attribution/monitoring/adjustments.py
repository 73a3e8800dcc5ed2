"""Adjustments: what a new run of a closed month changes, by team and cause. (TI-3)

The new run is published like any other; the month stays closed, and the difference to what is booked becomes a document. However often a
month is computed again, its documents sum to the newest run to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl
from sqlalchemy.orm import Session

from attribution.monitoring import run_diff
from ledger.books import Books
from ledger.closing import documents
from ledger.closing.lines import LINE_SCHEMA, difference_of_lines, lines_of, sum_of_lines
from ledger.tables import COSTS

ACTOR = "attribution"


def adjustments(books: Books, months: Iterable[str], run_id: str) -> dict[str, pl.DataFrame]:
    """The lines to be booked for those of `months` that are closed and come out differently in a run."""
    closed_months = documents.closed_months(books.database)
    changes = {month: _changes(books, month, closed_months[month].run_id, run_id) for month in months if month in closed_months}
    return {month: lines for month, lines in changes.items() if not lines.is_empty()}


def book(session: Session, run_id: str, adjusted_months: Mapping[str, pl.DataFrame]) -> None:
    """Books adjustments, in the transaction that publishes the run."""
    for month, lines in adjusted_months.items():
        documents.add_document(session, month, run_id, lines, ACTOR)


def _changes(books: Books, month: str, booked_run: str, run_id: str) -> pl.DataFrame:
    with books.database.session() as session:
        booked_lines = documents.booked_lines(session, month)
    new_lines = lines_of(books.store.scan(COSTS, {"month": [month], "run_id": [run_id]}))
    total = difference_of_lines(new_lines, booked_lines)
    if total.is_empty():
        return total
    steps = run_diff.steps(books, month, (booked_run, run_id), lines_of)
    parts = [difference_of_lines(after, before).with_columns(cause=pl.lit(cause)) for cause, before, after in steps]
    lines = pl.concat(parts)
    if difference_of_lines(sum_of_lines([lines]), total).is_empty():
        return lines
    # What is booked is no longer what the earlier run shows: the whole difference has all causes.
    return total.select(*LINE_SCHEMA).with_columns(cause=pl.lit(" + ".join(cause for cause, _, _ in steps)))
