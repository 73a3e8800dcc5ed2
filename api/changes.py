"""Changes of budgets over the API and the command line: who may make them, from which version, and whether they need a second person."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.orm import Session

from api.models import Budget, BudgetChange, Decision, NewBudget
from api.preconditions import NOTHING_EXPECTED, Precondition, RevisionError
from api.queries.budgets import budgets
from api.queries.gate import ScopedBooks
from api.queries.own_names import OwnNames
from ledger import db
from ledger.budgets import approvals, nesting, revisions
from ledger.budgets.revisions import Change
from ledger.budgets.spend import require_rate
from ledger.budgets.terms import Terms, parse_terms, terms_of
from ledger.errors import DeniedError, UsageError
from ledger.exchange_rates import Exchange
from ledger.periods import now

_ABOUT_CHANGE: Final = ("scope", "scope_name", "parent", "valid_from", "raised_until", "reason", "rename")


class BudgetExistsError(UsageError):
    """A budget of that name is in force already."""


def add_budget(books: ScopedBooks, budget: NewBudget) -> Budget:
    """Creates a budget. Raises `BudgetExistsError` if one of that name is in force."""

    def add(session: Session) -> None:
        existing = revisions.find(session, budget.name)
        if existing is not None and existing.ended_at is None:
            raise BudgetExistsError(
                "a budget of that name is in force",
                where=budget.name,
                remedy=f"change it with PUT /v1/budgets/{budget.name}, or choose another name",
            )
        _add(books, session, budget.name, budget, existing)

    books.whole.database.change(add)
    return _shown(books, budget.name)


def change_budget(books: ScopedBooks, name: str, change: BudgetChange, precondition: Precondition = NOTHING_EXPECTED) -> Budget:
    """Changes a budget, or creates it if there is none. A raise that needs a second person is recorded as a request: `pending` of the answer.

    Raises `RevisionError` if the budget is not what is expected.
    """

    def revise(session: Session) -> None:
        scopes = _stated_scopes(change)
        if scopes is not None:
            _need(books, name, scopes)  # first: whether a budget of others is in force is not told
        budget = revisions.find(session, name)
        _require(books, session, name, budget, precondition)
        if budget is None or budget.ended_at is not None:
            _add(books, session, name, change, budget)
            return
        current = revisions.newest(session, budget)
        _need(books, name, current.scopes)
        terms = _changed(books, session, change, terms_of(current).model_copy(update={"amount": current.limit(now())}))
        note = _note(books, change)
        if approvals.needs_second_person(books.settings.budgets, books.principal, current.limit(now()), terms.amount):
            approvals.ask(session, budget, terms, note, books.settings.budgets)
            return
        _require_free(session, terms.name, budget)
        revisions.revise(session, budget, terms, note)
        _require_fit(books, session, budget.budget_id)

    books.whole.database.change(revise)
    return _shown(books, name, change.rename)


def drop_budget(books: ScopedBooks, name: str, precondition: Precondition = NOTHING_EXPECTED, *, reason: str = "") -> None:
    """Ends a budget. Raises `ObjectMissingError` if none of that name is in force, `RevisionError` if it is not what is expected."""

    def drop(session: Session) -> None:
        budget = revisions.require(session, name)
        _need(books, name, revisions.newest(session, budget).scopes)
        _require(books, session, name, budget, precondition)
        children = [node.terms.name for node in nesting.tree(session).values() if node.terms.parent_id == budget.budget_id]
        if children:
            raise UsageError(
                f"budgets are parts of it: {', '.join(sorted(children))}",
                where=name,
                remedy="end them first, or give them another parent",
            )
        revisions.end(session, budget, Change(books.principal.id, reason))

    books.whole.database.change(drop)


def decide(books: ScopedBooks, request_id: str, decision: Decision) -> Budget:
    """Approves or refuses a raise that awaits a second person."""
    decided_names: list[str] = []

    def settle(session: Session) -> None:
        request = approvals.require_request(session, request_id)
        _need(books, str(request.terms["name"]), request.terms["scopes"])
        budget = approvals.decide(
            session, request, books.principal, books.settings.budgets, approve=decision.approve, reason=decision.reason
        )
        _require_fit(books, session, budget.budget_id)
        decided_names[:] = [budget.name]

    books.whole.database.change(settle)
    return _shown(books, decided_names[0])


def _require(books: ScopedBooks, session: Session, name: str, budget: db.Budget | None, precondition: Precondition) -> None:
    """Raises `RevisionError` unless the budget in force is what is expected. Of versions only those that the principal may see are told."""
    current = None if budget is None or budget.ended_at is not None else budget
    if precondition.holds(None if current is None else current.revision):
        return
    own_names = OwnNames.of(books)
    versions = [] if budget is None else [r for r in revisions.revisions_of(session, budget) if not r.ended]
    expected_versions = [version for version in versions if version.revision in precondition.revisions]
    earlier_version, current_version = (
        {"name": version.name, **revisions.told(version)} if version is not None and own_names.holds_all(version.scopes) else None
        for version in (expected_versions[-1] if expected_versions else None, versions[-1] if current is not None else None)
    )
    raise RevisionError(name, expected_version=earlier_version, current_version=current_version)


def _add(books: ScopedBooks, session: Session, name: str, change: BudgetChange, ended_budget: db.Budget | None) -> None:
    if ended_budget is not None:
        _need(books, name, revisions.newest(session, ended_budget).scopes)
    terms = _changed(books, session, change, None, name=name)
    budget = revisions.add(session, terms, _note(books, change))
    _require_fit(books, session, budget.budget_id)


def _changed(books: ScopedBooks, session: Session, change: BudgetChange, current: Terms | None, *, name: str = "") -> Terms:
    """The terms with what the change says; what it leaves out stays. Raises `DeniedError` unless they are the principal's to set."""
    values: dict[str, Any] = {"name": name} if current is None else current.model_dump()
    if change.period is not None and change.period != "range" and values.get("period") == "range":
        values |= {"range_start": None, "range_end": None}
    values |= {key: value for key, value in change.model_dump(exclude={*_ABOUT_CHANGE, "name"}).items() if value is not None}
    scopes = _stated_scopes(change)
    if scopes is not None:
        values["scopes"] = scopes
    if change.parent is not None:
        values["parent_id"] = revisions.require(session, change.parent).budget_id if change.parent else None
    if change.rename is not None:
        values["name"] = change.rename
    terms = parse_terms({"scopes": {}} | values, place=values["name"])
    _need(books, terms.name, terms.scopes)
    require_rate(books.whole, terms)
    return terms


def _stated_scopes(change: BudgetChange) -> dict[Any, str] | None:
    """What the change says that is compared; None if it leaves it as it is."""
    return change.scopes if change.scopes is not None or change.scope is None else {change.scope: change.scope_name or ""}


def _note(books: ScopedBooks, change: BudgetChange) -> Change:
    return Change(books.principal.id, change.reason or "", change.valid_from, change.raised_until)


def _require_free(session: Session, name: str, budget: db.Budget) -> None:
    """Raises `BudgetExistsError` if another budget in force has the name."""
    other = revisions.find(session, name)
    if other is not None and other.ended_at is None and other.budget_id != budget.budget_id:
        raise BudgetExistsError("another budget in force has that name", where=name, remedy="choose another name")


def _require_fit(books: ScopedBooks, session: Session, budget_id: str) -> None:
    nesting.require_fit(nesting.tree(session), budget_id, Exchange.of(books.whole), nesting.team_of(books.whole))


def _need(books: ScopedBooks, budget: str, scopes: dict[Any, str]) -> None:
    """Raises `DeniedError` unless every team and agent is one of the principal's."""
    if not OwnNames.of(books).holds_all(scopes):
        about = ", ".join(f"{dimension} {name}" for dimension, name in scopes.items())
        raise DeniedError(
            f"{books.principal.name} may set budgets for {', '.join(sorted(books.teams or ()))} only, and this one is for the {about}",
            where=budget,
            remedy="ask an administrator, or choose a team or agent of yours",
        )


def _shown(books: ScopedBooks, name: str, new_name: str | None = None) -> Budget:
    """The budget as it stands; under its old name where a change of name awaits a second person."""
    rows = budgets(books)
    return next(row for wanted_name in (new_name, name) for row in rows if wanted_name in (row.name, row.budget_id))
