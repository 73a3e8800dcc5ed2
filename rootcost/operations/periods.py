"""Periods: the months in the books, their checklist, closing one and opening it again. (TI-3)"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from api.models import PeriodCheck, PeriodClose, PeriodDecision, PeriodDocumentRow, PeriodReopening, PeriodRow
from api.preconditions import NOTHING_EXPECTED, Precondition, RevisionError
from api.queries.gate import WholeBooks
from ledger.closing import documents, states
from ledger.closing.lines import lines_of
from ledger.db import AccountingPeriod
from ledger.errors import ObjectMissingError, UsageError
from ledger.locks import attribution_lock
from ledger.periods import month_start
from ledger.published import runs_in_force
from ledger.tables import COSTS
from rootcost.operations.checklist import MUST_PASS, Month, checklist

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def periods(books: WholeBooks) -> list[PeriodRow]:
    """Every month with facts or a published run, newest first."""
    return [_row(books, month) for month in reversed(_months(books))]


def period(books: WholeBooks, name: str) -> PeriodRow:
    """One month. Raises `ObjectMissingError` if nothing is known of it."""
    return _row(books, _month(books, name))


def checks(books: WholeBooks, name: str) -> list[PeriodCheck]:
    """The checklist of a month."""
    return checklist(_month(books, name))


def close(books: WholeBooks, name: str, terms: PeriodClose, precondition: Precondition = NOTHING_EXPECTED) -> PeriodRow:
    """Closes a month. Raises `UsageError` that names what blocks, `RevisionError` if it is not what is expected."""
    with attribution_lock(books.whole):
        month = _month(books, name)
        with books.whole.database.session() as session:
            _require(session, name, precondition)
            states.require_open(session, name)
        _require_unblocked(month, terms)
        assert month.run_id is not None, "a month without a run is blocked"
        lines = lines_of(month.rows(COSTS))
        with books.whole.database.session() as session:
            states.close(session, name, month.run_id, lines, books.principal, reason=terms.reason, waived_items=terms.waive)
    return period(books, name)


def ask_to_reopen(
    books: WholeBooks, name: str, terms: PeriodReopening, precondition: Precondition = NOTHING_EXPECTED
) -> PeriodRow:
    """Asks for a closed month to be opened again; a second person decides."""
    with books.whole.database.session() as session:
        _require(session, name, precondition)
        states.ask_to_reopen(session, name, books.principal, terms.reason)
    return period(books, name)


def decide_to_reopen(
    books: WholeBooks, name: str, decision: PeriodDecision, precondition: Precondition = NOTHING_EXPECTED
) -> PeriodRow:
    """Opens a month again, or leaves it closed."""
    with attribution_lock(books.whole), books.whole.database.session() as session:
        _require(session, name, precondition)
        states.decide_to_reopen(session, name, books.principal, approve=decision.approve, reason=decision.reason)
    return period(books, name)


def _require_unblocked(month: Month, terms: PeriodClose) -> None:
    found_checks = checklist(month)
    items = {check.item for check in found_checks}
    if unknown_items := sorted(set(terms.waive) - items):
        raise UsageError(
            f"{', '.join(unknown_items)}: no such item", where="waive", remedy=f"one of: {', '.join(sorted(items - MUST_PASS))}"
        )
    if fixed_items := sorted(set(terms.waive) & MUST_PASS):
        raise UsageError(f"{', '.join(fixed_items)} cannot be waived", where="waive", remedy="do what the checklist says of it")
    if terms.waive and not terms.reason.strip():
        raise UsageError("what is waived needs a reason", where="reason", remedy="say why, for the audit log")
    blocking_checks = [check for check in found_checks if check.item in _blocking(found_checks) and check.item not in terms.waive]
    if blocking_checks:
        raise UsageError(
            "; ".join(f"{check.item}: {check.figure}" for check in blocking_checks),
            where=month.month,
            remedy="; ".join(f"{check.item}: {check.remedy}" for check in blocking_checks),
        )


def _require(session: Session, name: str, precondition: Precondition) -> None:
    """Raises `RevisionError` unless the month is what is expected; one that was never closed has revision 0."""
    row = session.get(AccountingPeriod, name)
    revision = 0 if row is None else row.revision
    if not precondition.holds(revision):
        current = {
            "month": name,
            "revision": revision,
            "closed_at": None if row is None or not row.closed_at else str(row.closed_at),
        }
        raise RevisionError(name, expected_version=None, current_version=current)


def _months(books: WholeBooks, names: Collection[str] = ()) -> list[Month]:
    """These months, or all, oldest first."""
    from attribution.run import months_due, months_with_facts

    runs, due_months = runs_in_force(books.whole.database), set(months_due(books.whole))
    known_months = {*runs, *months_with_facts(books.whole)}
    return [
        Month(books.whole, month, runs.get(month), month in due_months)
        for month in sorted(known_months)
        if not names or month in names
    ]


def _month(books: WholeBooks, name: str) -> Month:
    month_start(name)
    month = next(iter(_months(books, [name])), None)
    if month is None:
        raise ObjectMissingError("nothing is known of this month", where=name, remedy="rootcost periods list has the months")
    return month


def _blocking(found_checks: Collection[PeriodCheck]) -> list[str]:
    return [check.item for check in found_checks if check.blocks and not check.passed]


def _row(books: WholeBooks, month: Month) -> PeriodRow:
    with books.whole.database.session() as session:
        closing = session.get(AccountingPeriod, month.month)
        document_rows = [
            PeriodDocumentRow.model_validate(document, from_attributes=True)
            for document in documents.documents_of(session, month.month)
        ]
    row = PeriodRow(
        month=month.month,
        state="open",
        revision=0 if closing is None else closing.revision,
        run_id=month.run_id,
        documents=document_rows,
    )
    if closing is not None and closing.closed_at is not None:
        request_terms = {"asked_by": closing.asked_by, "asked_reason": closing.asked_reason} if closing.asked_at else {}
        return row.model_copy(
            update={"state": "closed", "closed_by": closing.closed_by, "closed_at": closing.closed_at, **request_terms}
        )
    blocking = _blocking(checklist(month))
    if not set(blocking) & MUST_PASS:
        row.state = "provisional" if blocking else "final"
    return row.model_copy(update={"blocking": blocking})
