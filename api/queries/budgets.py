"""Queries of budgets: how they stand, their revisions, raises that await a second person, and names to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from api.models import Budget, BudgetNames, BudgetRequestRow, BudgetRevisionRow
from api.queries.costs import parse_month
from api.queries.gate import ScopedBooks
from api.queries.own_names import OwnNames
from api.queries.publication import one_publication
from ledger import money
from ledger.budget_tables import BudgetRequest, BudgetRevision
from ledger.budgets import known_names, revisions, status
from ledger.budgets.approvals import request_state
from ledger.budgets.status import Candidate, Standing
from ledger.calendars import in_zone
from ledger.periods import month_of, next_month, now


@one_publication
def budgets(books: ScopedBooks, month: str | None = None, at: datetime | None = None) -> list[Budget]:
    """Budgets in force, by name, as they stand in `month` or at an instant; by default in the newest period that cost is known of."""
    candidates = _own(books)
    moment = at if month is None else _moment(month, books.settings.report.timezone)
    rows = status.standings(books.whole, moment, candidates=candidates)
    pending = {row.budget: row for row in reversed(budget_requests(books)) if row.state == "waiting"}
    names_by_id = {candidate.budget.budget_id: candidate.budget.name for candidate in candidates}
    notes = known_names.notes(books.whole, {row.budget_id: row.terms for row in rows})
    zone = ZoneInfo(books.settings.report.timezone)
    return [
        _row(
            position,
            candidate,
            pending.get(position.terms.name),
            names_by_id,
            [*position.notes, *notes[position.budget_id]],
            zone,
            position.data_until if books.sees_all else None,  # how new other teams' costs are is theirs
        )
        for position, candidate in zip(rows, candidates, strict=True)
    ]


@one_publication
def budget_standings(books: ScopedBooks, at: datetime | None = None, *, with_outlook: bool = True) -> list[Standing]:
    """The same without names and requests: the figures alone."""
    return status.standings(books.whole, at, candidates=_own(books), with_outlook=with_outlook)


def _own(books: ScopedBooks) -> list[Candidate]:
    """Budgets in force that the principal sees."""
    own_names = OwnNames.of(books)
    return [c for c in status.budgets_in_force(books.whole) if own_names.holds_all(c.newest.scopes)]


def _moment(month: str, timezone: str) -> datetime:
    """The last instant of a month; of the one that is running, this one."""
    zone = ZoneInfo(timezone)
    at = in_zone(parse_month(next_month(month)), zone) - timedelta(microseconds=1)
    return now() if month_of(now().astimezone(zone)) == month else at


def _row(
    position: Standing,
    candidate: Candidate,
    pending: BudgetRequestRow | None,
    names_by_id: Mapping[str, str],
    notes: list[str],
    zone: ZoneInfo,
    data_until: datetime | None,
) -> Budget:
    terms, revision = position.terms, candidate.newest
    scope, scope_name = terms.subject
    outlook = position.outlook
    is_raised = position.amount != revision.amount and revision.raised_until is not None
    return Budget(
        **{name: getattr(terms, name) for name in _TERMS},
        budget_id=position.budget_id,
        scope=scope,
        scope_name=scope_name,
        scopes=dict(terms.scopes),
        parent=names_by_id.get(terms.parent_id or ""),
        amount=position.amount,
        base_amount=revision.amount if is_raised else None,
        raised_until=revision.raised_until if is_raised else None,
        revision=revision.revision,
        recorded_at=revision.recorded_at,
        month=month_of(position.window.start.astimezone(zone)),
        period_start=position.window.start,
        period_end=position.window.end,
        billed=position.billed,
        estimated=position.estimated,
        encumbered=position.encumbered,
        spent=position.spent,
        left=position.available,
        used_percent=money.proportion(Decimal(100), position.spent, position.amount),
        forecast=outlook.forecast,
        low=outlook.low,
        high=outlook.high,
        exhausted_at=outlook.exhausted_at,
        state=position.state,
        data_until=data_until,
        notes=notes,
        pending=pending,
    )


_TERMS = (
    "name", "view", "period", "currency", "basis", "infrastructure", "shared", "owner", "enforcement", "on_outage", "exceeds_parent",
    "thresholds", "recipients",
)  # fmt: skip


def budget_revisions(books: ScopedBooks, name: str) -> list[BudgetRevisionRow]:
    """Revisions of a budget in force, newest first."""
    own_names = OwnNames.of(books)
    with books.whole.database.session() as session:
        budget = revisions.require(session, name)
        rows = [r for r in revisions.revisions_of(session, budget) if own_names.holds_all(r.scopes)]
    if not rows:
        raise revisions.missing(name)
    return [_revision_row(revision) for revision in reversed(rows)]


def _revision_row(revision: BudgetRevision) -> BudgetRevisionRow:
    return BudgetRevisionRow(
        terms=revisions.told(revision),
        **{
            name: getattr(revision, name)
            for name in ("revision", "name", "amount", "currency", "valid_from", "recorded_at", "recorded_by", "reason", "ended")
        },
    )


def budget_requests(books: ScopedBooks) -> list[BudgetRequestRow]:
    """Raises that await a second person or were decided about, newest first."""
    own_names, at = OwnNames.of(books), now()
    with books.whole.database.session() as session:
        rows = session.scalars(sa.select(BudgetRequest).order_by(BudgetRequest.asked_at.desc(), BudgetRequest.request_id)).all()
    return [_request_row(row, at) for row in rows if own_names.holds_all(row.terms["scopes"])]


def _request_row(request: BudgetRequest, at: datetime) -> BudgetRequestRow:
    return BudgetRequestRow(
        budget=request.terms["name"],
        amount=request.terms["amount"],
        current_amount=request.terms["current_amount"],
        currency=request.terms["currency"],
        raised_until=request.terms.get("raised_until"),
        state=request_state(request, at),
        **{
            name: getattr(request, name)
            for name in ("request_id", "asked_by", "asked_at", "reason", "expires_at", "decided_by", "decided_at")
        },
    )


def budget_names(books: ScopedBooks) -> BudgetNames:
    """Names that a budget of the principal's can be about."""
    own_names = OwnNames.of(books)
    known_by_dimension = known_names.read(books.whole)
    return BudgetNames(
        names={
            dimension: sorted(name for name in names if own_names.teams is None or own_names.holds_all({dimension: name}))
            for dimension, names in known_by_dimension.items()
        }
    )
