"""Takes wrong facts out again: spans that a wrong clock or a test sent, months of a bill that is not one's own. Audited."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from ingest.bills import datasets
from ingest.sources import by_name
from ledger.audit import record
from ledger.books import Books
from ledger.db import Published
from ledger.settled_months import settled_months
from ledger.tables import CHARGES, SPANS

AUDIT_ACTION = "facts.retract"


@dataclass(slots=True)
class Retraction:
    """What was taken out, or would be."""

    table: str
    rows: int = 0
    months: list[str] = field(default_factory=list)
    emptied_months: list[str] = field(default_factory=list)
    """Those of `months` that hold no fact any more: they are no longer published."""


def retract(books: Books, source_name: str, start: datetime, end: datetime, *, actor: str, dry_run: bool = False) -> Retraction:
    """Takes out what one source brought of ``[start, end)``: spans by their start, bills by their whole invoice months.

    Raises `UsageError` for an unknown source. It is done again without harm where it was broken off; `rootcost attribute` follows.
    """
    if by_name(source_name).kind == "bill":
        result = _retract_charges(books, source_name, start, end, dry_run=dry_run)
    else:
        result = _retract_spans(books, source_name, start, end, dry_run=dry_run)
    if result.rows and not dry_run:
        result.emptied_months = sorted(set(result.months) - _months_with_facts(books) - settled_months(books.database).keys())
        with books.database.session() as session:
            session.execute(sa.delete(Published).where(Published.month.in_(result.emptied_months)))
            counts = {"table": result.table, "rows": result.rows, "months": result.months}
            bounds = {"start": start.isoformat(), "end": end.isoformat()}
            record(session, actor, AUDIT_ACTION, source_name, before=counts | bounds)
    return result


def _retract_spans(books: Books, source_name: str, start: datetime, end: datetime, *, dry_run: bool) -> Retraction:
    is_meant = (pl.col("source") == source_name) & pl.col("start_time").is_between(start, end, closed="left")
    is_near = pl.col("date").is_between(start.date(), end.date())
    counts = books.store.scan(SPANS).filter(is_near, is_meant).group_by("date").len().sort("date").collect()
    for day in counts["date"] if not dry_run else ():
        other_rows = books.store.scan(SPANS, {"date": [str(day)]}).filter(~is_meant).collect()
        books.store.replace(SPANS, other_rows, {"date": str(day)}, note=f"{source_name} {day} retracted")
    months = counts["date"].dt.strftime("%Y-%m").unique().sort().to_list()
    return Retraction(SPANS.name, int(counts["len"].sum()), months)


def _retract_charges(books: Books, source_name: str, start: datetime, end: datetime, *, dry_run: bool) -> Retraction:
    first, last = start.strftime("%Y-%m"), end.strftime("%Y-%m")
    is_meant = (pl.col("source") == source_name) & (pl.col("billing_month") >= first) & (pl.col("billing_month") < last)
    counts = books.store.scan(CHARGES).filter(is_meant).group_by("scope", "billing_month").len().collect()
    for scope, month, _ in counts.sort("scope", "billing_month").iter_rows() if not dry_run else ():
        datasets.withdraw(books.store, scope, month)
    return Retraction(CHARGES.name, int(counts["len"].sum()), counts["billing_month"].unique().sort().to_list())


def _months_with_facts(books: Books) -> set[str]:
    days = books.store.scan(SPANS).select(pl.col("date").unique()).collect()["date"]
    invoice_months = books.store.scan(CHARGES).select(pl.col("billing_month").unique()).collect()["billing_month"]
    return {*days.dt.strftime("%Y-%m"), *invoice_months}
