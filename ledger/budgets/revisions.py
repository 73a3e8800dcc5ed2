"""Changes of budgets: a change adds a revision and an audit entry in the same transaction; nothing is overwritten."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger import money
from ledger.audit import record
from ledger.budget_tables import Budget, BudgetRevision
from ledger.budgets.terms import Terms, columns_of, terms_of
from ledger.errors import ObjectMissingError
from ledger.periods import now

FROM_FILE: Final = "file"
"""Origin of revisions that `rootcost budgets apply` made."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a budget, and why; from when on, and until when a raise lasts (None: for good)."""

    actor: str
    reason: str = ""
    valid_from: datetime | None = None
    raised_until: datetime | None = None
    origin: str = ""


def find(session: Session, name: str) -> Budget | None:
    """The budget in force of that name or id, else the one that ended last."""
    candidates = session.scalars(sa.select(Budget).where(sa.or_(Budget.name == name, Budget.budget_id == name))).all()
    in_force = [budget for budget in candidates if budget.ended_at is None]
    by_end = sorted((b for b in candidates if b.ended_at is not None), key=lambda b: b.ended_at or b.created_at)
    return in_force[0] if in_force else by_end[-1] if by_end else None


def require(session: Session, name: str) -> Budget:
    """The budget in force of that name or id; raises `ObjectMissingError` if there is none."""
    budget = find(session, name)
    if budget is None or budget.ended_at is not None:
        raise missing(name)
    return budget


def missing(name: str) -> ObjectMissingError:
    """The error of a budget that is not in force, or not the principal's."""
    return ObjectMissingError("no such budget", where=name, remedy="rootcost budgets list, or GET /v1/budgets, lists them")


def revisions_of(session: Session, budget: Budget) -> Sequence[BudgetRevision]:
    """All revisions, oldest first."""
    query = sa.select(BudgetRevision).where(BudgetRevision.budget_id == budget.budget_id).order_by(BudgetRevision.revision)
    return session.scalars(query).all()


def newest(session: Session, budget: Budget) -> BudgetRevision:
    """The revision that was recorded last."""
    return revisions_of(session, budget)[-1]


def add(session: Session, terms: Terms, change: Change) -> Budget:
    """Sets up a budget. One of that name that has ended is taken up again, with its id and its revisions."""
    previous = find(session, terms.name)
    at = now()
    if previous is None:
        budget = Budget(budget_id=f"bud-{secrets.token_hex(8)}", name=terms.name, revision=0, created_at=at)
        session.add(budget)
        session.flush()
    else:
        budget = previous
        budget.ended_at = None
    revision = _append(session, budget, terms, change, at)
    record(session, change.actor, "budget.add", budget.name, after=told(revision))
    return budget


def revise(session: Session, budget: Budget, terms: Terms, change: Change) -> Budget:
    """Gives a budget new terms. An amount that is the limit in force leaves base and raise as they are."""
    previous, at = newest(session, budget), now()
    before = told(previous)
    budget.name = terms.name
    revision = _append(session, budget, terms, change, at, previous)
    record(session, change.actor, "budget.change", budget.name, before=before, after=told(revision))
    return budget


def end(session: Session, budget: Budget, change: Change) -> None:
    """Ends a budget; its revisions are kept, and its name is free again."""
    previous, at = newest(session, budget), now()
    revision = _append(session, budget, terms_of(previous), change, at, previous)
    revision.ended = True
    budget.ended_at = at
    record(session, change.actor, "budget.drop", budget.name, before=told(previous))


def _append(
    session: Session, budget: Budget, terms: Terms, change: Change, at: datetime, previous: BudgetRevision | None = None
) -> BudgetRevision:
    columns = columns_of(terms)
    if previous is not None and change.raised_until is not None:
        columns |= {"amount": previous.amount, "raised_amount": terms.amount, "raised_until": change.raised_until}
    elif previous is not None and terms.amount == previous.limit(at):
        columns |= {name: getattr(previous, name) for name in ("amount", "raised_amount", "raised_until")}
    budget.revision += 1
    revision = BudgetRevision(
        budget_id=budget.budget_id,
        revision=budget.revision,
        **columns,
        # The first terms hold for the time before them, too: what was spent before they were made is measured by them.
        valid_from=change.valid_from or (at if budget.revision > 1 else None),
        recorded_at=at,
        recorded_by=change.actor,
        reason=change.reason,
        origin=change.origin,
        ended=False,
    )
    session.add(revision)
    session.flush()
    return revision


def told(revision: BudgetRevision) -> dict[str, Any]:
    """The terms of a revision as the audit log and refusals tell them."""
    terms = terms_of(revision)
    scope, scope_name = terms.subject
    texts = {"scope": scope, "scope_name": scope_name, "amount": money.text(revision.amount), "revision": revision.revision}
    columns = columns_of(terms) | texts | {"raised_amount": revision.raised_amount, "raised_until": revision.raised_until}
    return {
        name: money.text(value) if isinstance(value, Decimal) else value.isoformat() if isinstance(value, datetime) else value
        for name, value in columns.items()
        if name != "name" and value is not None
    }
