"""Changes of budgets. A change adds a new revision and an audit row in the same transaction; nothing is overwritten."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from api.models import Budget, BudgetChange, NewBudget
from api.queries import budgets
from ledger import db, money
from ledger.books import Books
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now


class BudgetExistsError(UsageError):
    """A budget of that name is in force already."""


def add_budget(books: Books, budget: NewBudget, *, actor: str) -> Budget:
    """Creates a budget. Raises `BudgetExistsError` if one of that name is in force."""
    with books.database.session() as session:
        revision = _newest(session, budget.name)
        if revision is not None and not revision.deleted:
            raise BudgetExistsError(
                "a budget of that name is in force",
                where=budget.name,
                remedy=f"change it with PUT /v1/budgets/{budget.name}, or choose another name",
            )
        _revise(books, session, budget.name, budget, revision, actor=actor)
    return _shown(books, budget.name)


def change_budget(books: Books, name: str, change: BudgetChange, *, actor: str) -> Budget:
    """Changes a budget, or creates it if there is none."""
    with books.database.session() as session:
        _revise(books, session, name, change, _newest(session, name), actor=actor)
    return _shown(books, name)


def drop_budget(books: Books, name: str, *, actor: str) -> None:
    """Ends a budget. Raises `ObjectMissingError` if none of that name is in force."""
    with books.database.session() as session:
        revision = _newest(session, name)
        if revision is None or revision.deleted:
            raise ObjectMissingError("no such budget", where=name, remedy="GET /v1/budgets lists them")
        fields = {
            column: getattr(revision, column)
            for column in ("name", "scope", "scope_name", "period", "amount", "currency", "view")
        }
        session.add(db.Budget(**fields, revision=revision.revision + 1, recorded_at=now(), deleted=True))
        books.database.audit(session, actor, "budget.drop", name, before=_told(revision))


def _revise(books: Books, session: Session, name: str, change: BudgetChange, previous: db.Budget | None, *, actor: str) -> None:
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
    books.database.audit(
        session, actor, "budget.change" if is_active else "budget.add", name, before=before, after=_told(revision)
    )


def _newest(session: Session, name: str) -> db.Budget | None:
    return session.scalars(
        sa.select(db.Budget).where(db.Budget.name == name).order_by(db.Budget.revision.desc()).limit(1)
    ).first()


def _told(budget: db.Budget) -> dict[str, Any]:
    fields = {column: getattr(budget, column) for column in ("scope", "scope_name", "currency", "view", "revision")}
    return {**fields, "amount": money.text(budget.amount)}


def _shown(books: Books, name: str) -> Budget:
    return next(budget for budget in budgets(books) if budget.name == name)
