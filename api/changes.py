"""Changes people make: budgets. Nothing is overwritten: a change is a new revision, with an audit row in the same transaction."""

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
    """Sets up a budget. Raises `BudgetExistsError` if one of that name is in force."""
    with books.database.session() as session:
        held = _newest(session, budget.name)
        if held is not None and not held.deleted:
            raise BudgetExistsError(
                "a budget of that name is in force",
                where=budget.name,
                remedy=f"change it with PUT /v1/budgets/{budget.name}, or choose another name",
            )
        _revise(books, session, budget.name, budget, held, actor=actor)
    return _shown(books, budget.name)


def change_budget(books: Books, name: str, change: BudgetChange, *, actor: str) -> Budget:
    """Makes a budget what it shall be from now on; sets it up if there is none."""
    with books.database.session() as session:
        _revise(books, session, name, change, _newest(session, name), actor=actor)
    return _shown(books, name)


def drop_budget(books: Books, name: str, *, actor: str) -> None:
    """Ends a budget. Raises `ObjectMissingError` if none of that name is in force."""
    with books.database.session() as session:
        held = _newest(session, name)
        if held is None or held.deleted:
            raise ObjectMissingError("no such budget", where=name, remedy="GET /v1/budgets lists them")
        kept = {
            column: getattr(held, column) for column in ("name", "scope", "scope_name", "period", "amount", "currency", "view")
        }
        session.add(db.Budget(**kept, revision=held.revision + 1, recorded_at=now(), deleted=True))
        books.database.audit(session, actor, "budget.drop", name, before=_told(held))


def _revise(books: Books, session: Session, name: str, change: BudgetChange, held: db.Budget | None, *, actor: str) -> None:
    fields = change.model_dump(exclude={"name"})
    revision = db.Budget(
        name=name, **fields, period="month", revision=1 if held is None else held.revision + 1, recorded_at=now(), deleted=False
    )
    session.add(revision)
    known = held is not None and not held.deleted
    before = _told(held) if held is not None and known else None
    books.database.audit(session, actor, "budget.change" if known else "budget.add", name, before=before, after=_told(revision))


def _newest(session: Session, name: str) -> db.Budget | None:
    return session.scalars(
        sa.select(db.Budget).where(db.Budget.name == name).order_by(db.Budget.revision.desc()).limit(1)
    ).first()


def _told(budget: db.Budget) -> dict[str, Any]:
    told = {column: getattr(budget, column) for column in ("scope", "scope_name", "currency", "view", "revision")}
    return {**told, "amount": money.text(budget.amount)}


def _shown(books: Books, name: str) -> Budget:
    return next(budget for budget in budgets(books) if budget.name == name)
