"""Documents of a month: what is booked of it. The sum of all of them is the run that the newest one names, to the last digit. (TI-3)"""

from __future__ import annotations

from typing import Final

import polars as pl
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.audit import record
from ledger.closing.lines import LINE_AMOUNTS, LINE_KEYS, LINE_SCHEMA, sum_of_lines
from ledger.db import Database
from ledger.money import text
from ledger.period_tables import AccountingPeriod, PeriodDocument, PeriodLine
from ledger.periods import now

ACTUAL: Final = "actual"
ADJUSTMENT: Final = "adjustment"
CLOSE: Final = "close"
"""Cause of the lines of a close."""
DOCUMENT_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {"number": pl.String, "cause": pl.String, **LINE_SCHEMA}
"""Columns of the lines of documents."""


def closed_months(database: Database) -> dict[str, PeriodDocument]:
    """Every closed month with its newest document."""
    with database.session() as session:
        months = session.scalars(sa.select(AccountingPeriod.month).where(AccountingPeriod.closed_at.is_not(None))).all()
        return {month: document for month in sorted(months) if (document := newest_document(session, month)) is not None}


def frozen_runs() -> sa.Select[tuple[str]]:
    """The ids of runs that documents were made from: their rows are never removed."""
    return sa.select(PeriodDocument.run_id)


def documents_of(session: Session, month: str) -> list[PeriodDocument]:
    """The documents of a month, oldest first."""
    query = sa.select(PeriodDocument).where(PeriodDocument.month == month).order_by(PeriodDocument.sequence)
    return list(session.scalars(query))


def newest_document(session: Session, month: str) -> PeriodDocument | None:
    """The document that was booked last."""
    return next(reversed(documents_of(session, month)), None)


def document_lines(session: Session, month: str) -> pl.DataFrame:
    """All lines of a month's documents, with their number and cause, in the order in which they were booked."""
    columns = [getattr(PeriodLine, name) for name in ("number", "cause", *LINE_KEYS, *LINE_AMOUNTS)]
    query = sa.select(*columns).join(PeriodDocument, PeriodDocument.number == PeriodLine.number)
    rows = session.execute(query.where(PeriodDocument.month == month).order_by(PeriodDocument.sequence, PeriodLine.id)).all()
    return pl.DataFrame([tuple(row) for row in rows], DOCUMENT_SCHEMA, orient="row")


def booked_lines(session: Session, month: str) -> pl.DataFrame:
    """What is booked of a month: the sum of its documents."""
    return sum_of_lines([document_lines(session, month)])


def add_document(session: Session, month: str, run_id: str, lines: pl.DataFrame, actor: str) -> PeriodDocument:
    """Books lines, which have a cause each: the actual cost if nothing is booked yet, else an adjustment."""
    previous = newest_document(session, month)
    sequence = 1 if previous is None else previous.sequence + 1
    document = PeriodDocument(
        number=f"{month}-{sequence}",
        month=month,
        sequence=sequence,
        kind=ACTUAL if previous is None else ADJUSTMENT,
        run_id=run_id,
        adjusts=None if previous is None else previous.number,
        made_by=actor,
        made_at=now(),
    )
    session.add(document)
    session.flush()
    columns = ("cause", *LINE_KEYS, *LINE_AMOUNTS)
    session.add_all(PeriodLine(number=document.number, **row) for row in lines.select(columns).iter_rows(named=True))
    amounts = lines.group_by("currency").agg(pl.col(LINE_AMOUNTS).sum()).sort("currency").iter_rows(named=True)
    totals = {row["currency"]: {name: text(row[name]) for name in LINE_AMOUNTS} for row in amounts}
    terms = {"number": document.number, "kind": document.kind, "run": run_id, "adjusts": document.adjusts}
    record(session, actor, "period.book", month, after=terms | {"lines": lines.height, "totals": totals})
    return document
