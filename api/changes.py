"""Changes of budgets. A change adds a new revision and an audit row in the same transaction; nothing is overwritten."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.models import Budget, BudgetChange, NewBudget
from api.preconditions import NOTHING_EXPECTED, Precondition, RevisionError
from api.queries import budgets
from api.queries.gate import ScopedBooks
from api.queries.own_names import OwnNames
from ledger import db, money
from ledger.audit import record
from ledger.errors import DeniedError, ObjectMissingError, UsageError
from ledger.periods import now


class BudgetExistsError(UsageError):
    """A budget of that name is in force already."""


def add_budget(books: ScopedBooks, budget: NewBudget) -> Budget:
    """Creates a budget. Raises `BudgetExistsError` if one of that name is in force."""

    def add(session: Session) -> None:
        revision = _newest(session, budget.name)
        if revision is not None and not revision.deleted:
            raise BudgetExistsError(
                "a budget of that name is in force",
                where=budget.name,
                remedy=f"change it with PUT /v1/budgets/{budget.name}, or choose another name",
            )
        _revise(books, session, budget.name, budget, revision)

    books.whole.database.change(add)
    return _shown(books, budget.name)


def change_budget(books: ScopedBooks, name: str, change: BudgetChange, precondition: Precondition = NOTHING_EXPECTED) -> Budget:
    """Changes a budget, or creates it if there is none. Raises `RevisionError` if it is not what `precondition` expects."""
    books.whole.database.change(lambda session: _revise(books, session, name, change, _newest(session, name), precondition))
    return _shown(books, name)


def drop_budget(books: ScopedBooks, name: str, precondition: Precondition = NOTHING_EXPECTED) -> None:
    """Ends a budget. Raises `ObjectMissingError` if none of that name is in force, `RevisionError` if it is not what `precondition` expects."""

    def drop(session: Session) -> None:
        revision = _newest(session, name)
        if revision is None or revision.deleted:
            raise ObjectMissingError("no such budget", where=name, remedy="GET /v1/budgets lists them")
        _need(books, name, revision.scope, revision.scope_name)
        _require(books, session, name, revision, precondition)
        fields = {
            column: getattr(revision, column)
            for column in ("name", "scope", "scope_name", "period", "amount", "currency", "view")
        }
        session.add(db.Budget(**fields, revision=revision.revision + 1, recorded_at=now(), deleted=True))
        record(session, books.principal.id, "budget.drop", name, before=_told(revision))

    books.whole.database.change(drop)


def _require(books: ScopedBooks, session: Session, name: str, current: db.Budget | None, precondition: Precondition) -> None:
    """Raises `RevisionError` unless the budget in force is what `precondition` expects. Of versions only those that the principal may see are told."""
    current = None if current is None or current.deleted else current
    if precondition.holds(None if current is None else current.revision):
        return
    own_names = OwnNames.of(books)
    versions = session.scalars(
        sa.select(db.Budget).where(db.Budget.name == name, db.Budget.revision.in_(precondition.revisions), ~db.Budget.deleted)
    ).all()
    earlier_version, current_version = (
        {"name": name, **_told(version)} if version is not None and own_names.holds(version.scope, version.scope_name) else None
        for version in (max(versions, key=lambda version: version.revision, default=None), current)
    )
    raise RevisionError(name, expected_version=earlier_version, current_version=current_version)


def _revise(
    books: ScopedBooks,
    session: Session,
    name: str,
    change: BudgetChange,
    previous: db.Budget | None,
    precondition: Precondition = NOTHING_EXPECTED,
) -> None:
    for scope, scope_name in ((change.scope, change.scope_name), *([(previous.scope, previous.scope_name)] if previous else [])):
        _need(books, name, scope, scope_name)
    _require(books, session, name, previous, precondition)
    fields = change.model_dump(exclude={"name"})
    revision = db.Budget(
        name=name,
        **fields,
        period="month",
        revision=1 if previous is None else previous.revision + 1,
        recorded_at=now(),
        deleted=False,
    )
    session.add(revision)
    is_active = previous is not None and not previous.deleted
    before = _told(previous) if previous is not None and is_active else None
    record(
        session, books.principal.id, "budget.change" if is_active else "budget.add", name, before=before, after=_told(revision)
    )


def _need(books: ScopedBooks, budget: str, scope: str, scope_name: str) -> None:
    """Raises `DeniedError` unless the team or agent is one of the principal's."""
    if not OwnNames.of(books).holds(scope, scope_name):
        raise DeniedError(
            f"{books.principal.name} may set budgets for {', '.join(sorted(books.teams or ()))} only, and this one is for the "
            f"{scope} {scope_name}",
            where=budget,
            remedy="ask an administrator, or choose a team or agent of yours",
        )


def _newest(session: Session, name: str) -> db.Budget | None:
    return session.scalars(
        sa.select(db.Budget).where(db.Budget.name == name).order_by(db.Budget.revision.desc()).limit(1)
    ).first()


def _told(budget: db.Budget) -> dict[str, Any]:
    fields = {column: getattr(budget, column) for column in ("scope", "scope_name", "currency", "view", "revision")}
    return {**fields, "amount": money.text(budget.amount)}


def _shown(books: ScopedBooks, name: str) -> Budget:
    return next(budget for budget in budgets(books) if budget.name == name)
