"""The state of a month in the books: closed, and opened again by two people. What is booked of it stays in either case. (TI-3)"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl
from sqlalchemy.orm import Session

from ledger.access.principals import Principal
from ledger.audit import record
from ledger.closing.documents import CLOSE, add_document, booked_lines
from ledger.closing.lines import difference_of_lines
from ledger.errors import DeniedError, UsageError
from ledger.period_tables import AccountingPeriod
from ledger.periods import now


def close(
    session: Session,
    month: str,
    run_id: str,
    lines: pl.DataFrame,
    principal: Principal,
    *,
    reason: str,
    waived_items: Collection[str],
) -> AccountingPeriod:
    """Closes a month at a run. Of a month that was closed before only what has changed since is booked, as an adjustment."""
    require_open(session, month)
    period = session.get(AccountingPeriod, month)
    if period is None:
        period = AccountingPeriod(month=month, revision=0)
        session.add(period)
    period.revision += 1
    period.closed_by, period.closed_at, period.reason = principal.id, now(), reason
    period.asked_by, period.asked_at, period.asked_reason = "", None, ""
    changes = difference_of_lines(lines, booked_lines(session, month)).with_columns(cause=pl.lit(CLOSE))
    document = add_document(session, month, run_id, changes, principal.id)
    terms = {"run": run_id, "document": document.number, "reason": reason, "waived": sorted(waived_items)}
    record(session, principal.id, "period.close", month, after=terms)
    return period


def ask_to_reopen(session: Session, month: str, principal: Principal, reason: str) -> AccountingPeriod:
    """Records that somebody wants a month open again. It stays closed until a second person agrees."""
    period = require_closed(session, month)
    if not reason.strip():
        raise UsageError("opening a closed month again needs a reason", where="reason", remedy="say why, for the audit log")
    if period.asked_at is not None:
        raise UsageError(
            f"{period.asked_by} has asked for it already", where=month, remedy="somebody else must approve or refuse it"
        )
    period.revision += 1
    period.asked_by, period.asked_at, period.asked_reason = principal.id, now(), reason
    record(session, principal.id, "period.ask", month, after={"reason": reason})
    return period


def decide_to_reopen(session: Session, month: str, principal: Principal, *, approve: bool, reason: str = "") -> AccountingPeriod:
    """Opens a month again, or leaves it closed. Raises `DeniedError` for who has asked, who can only withdraw it."""
    period = require_closed(session, month)
    if period.asked_at is None:
        raise UsageError(
            f"nobody has asked to open {month} again", where=month, remedy="ask first: rootcost periods reopen MONTH --reason"
        )
    if approve and principal.id == period.asked_by:
        raise DeniedError(f"{principal.name} has asked for it", where=month, remedy="somebody else must approve it")
    terms = {"asked_by": period.asked_by, "asked_reason": period.asked_reason, "reason": reason}
    period.revision += 1
    period.asked_by, period.asked_at, period.asked_reason = "", None, ""
    if approve:
        period.closed_at = None
    record(session, principal.id, "period.reopen" if approve else "period.refuse", month, after=terms)
    return period


def require_open(session: Session, month: str) -> None:
    """Raises `UsageError` for a closed month."""
    period = session.get(AccountingPeriod, month)
    if period is not None and period.closed_at is not None:
        raise UsageError(
            f"{month} is closed", where="month", remedy="what changes is booked by itself: rootcost periods documents lists it"
        )


def require_closed(session: Session, month: str) -> AccountingPeriod:
    """The closed month; raises `UsageError` if it is open."""
    period = session.get(AccountingPeriod, month)
    if period is None or period.closed_at is None:
        raise UsageError(f"{month} is not closed", where="month", remedy="rootcost periods list says which months are")
    return period
