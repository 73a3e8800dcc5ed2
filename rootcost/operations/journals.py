"""Journals of a month: of its documents once it is closed, else an accrual that is taken back on the first of the next month."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl

from ledger.closing import documents
from ledger.closing.cents import BookedLine, booked_cents
from ledger.closing.lines import lines_of
from ledger.errors import UsageError
from ledger.periods import month_start
from ledger.published import runs_in_force
from ledger.tables import COSTS
from rootcost.journals.journal import Booking, Journal, holes, journals, last_day

if TYPE_CHECKING:
    from ledger.books import Books
    from ledger.closing.accounts import Accounts


@dataclass(frozen=True, slots=True)
class MonthJournals:
    """The journals of a month, the lines they book, the teams without a cost center, and what is on no invoice by currency."""

    journals: list[Journal]
    lines: list[BookedLine]
    holes: list[str]
    not_billed: dict[str, Decimal]


def month_journals(books: Books, month: str, accounts: Accounts, *, max_lines: int = 0) -> MonthJournals:
    """The journals of a month. Raises `UsageError` if it has no published run."""
    month_start(month)
    with books.database.session() as session:
        booked_documents = documents.documents_of(session, month)
        lines = documents.document_lines(session, month)
    bookings = [
        Booking(
            number=document.number,
            kind=document.kind,
            month=month,
            run_id=document.run_id,
            posting_date=last_day(month) if document.kind == documents.ACTUAL else document.made_at.date(),
        )
        for document in booked_documents
    ]
    if not bookings:
        run_id = runs_in_force(books.database).get(month)
        if run_id is None:
            raise UsageError(f"{month} is not published", where="--month", remedy="rootcost attribute")
        number = f"{month}-accrual"
        bookings = [Booking(number=number, kind="accrual", month=month, run_id=run_id, posting_date=last_day(month))]
        costs = lines_of(books.store.scan(COSTS, {"month": [month], "run_id": [run_id]}))
        # An accrual books what will be billed: the bill to date, and estimates.
        amount = pl.coalesce("billed_cost", "effective_cost")
        lines = costs.with_columns(number=pl.lit(number), cause=pl.col("basis"), basis=pl.lit("billed"), billed_cost=amount)
    estimates = lines.filter(pl.col("basis") != "billed").group_by("currency").agg(pl.col("effective_cost").sum())
    cents = booked_cents(lines)
    month_entries: list[Journal] = []
    for booking in bookings:
        of_document = [line for line in cents if line.number == booking.number]
        for journal in journals(booking, of_document, accounts, max_lines=max_lines):
            month_entries += [journal, journal.reversal()] if booking.kind == "accrual" else [journal]
    not_billed = {currency: amount for currency, amount in sorted(estimates.iter_rows()) if amount}
    return MonthJournals(month_entries, cents, holes(cents, accounts), not_billed)
