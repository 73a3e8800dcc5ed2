"""The limits that were in force when a chain started, and what remained of them then.

Nothing is kept per chain: of ten million chains a few are looked at, and revisions, which are only added, say what was in force at any instant.
What is computed when it is asked for follows every later bill of the time before the chain, as each other figure does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa

from ledger import names
from ledger.books import Books
from ledger.budget_tables import Budget, BudgetRevision
from ledger.budgets.periods import Window, window_at
from ledger.budgets.spend import Spelling, column_of, converted, of_budget, read_spend, total
from ledger.budgets.terms import Terms, terms_of
from ledger.exchange_rates import Exchange


@dataclass(frozen=True, slots=True)
class LimitAtStart:
    """A budget that counted when a chain started: the revision, its limit, and what earlier use had left of its window."""

    budget_id: str
    revision: int
    terms: Terms
    window: Window
    limit: Decimal
    remaining: Decimal


def limits_at_start(
    books: Books, at: datetime, names_by_column: Mapping[str, frozenset[str]], is_visible: Callable[[Terms], bool]
) -> list[LimitAtStart]:
    """The limits in force at the instant a chain started, outermost first.

    `names_by_column` are the chain's names by the columns that budgets are about (`initiator_team`, …, `model`). A revision counts that had been
    recorded by then and was valid; a later raise changes nothing. Of a budget of each chain the whole limit remained.
    """
    timezone = books.settings.report.timezone
    choices = []
    for budget_id, revision in _revisions_at(books, at):
        terms = terms_of(revision)
        if terms.enforcement != "none" and _is_about(terms, names_by_column) and is_visible(terms):
            window = Window(at, at) if terms.period == "chain" else window_at(terms, at, timezone)
            if terms.period == "chain" or window.holds(at):
                choices.append((budget_id, revision, terms, window))
    if not choices:
        return []
    spend = read_spend(books, min(window.start for *_, window in choices), at)
    exchange, spelling = Exchange.of(books), Spelling(books)
    limits = []
    for budget_id, revision, terms, window in choices:
        before = Window(window.start, at)
        rows = converted(of_budget(spend, terms, spelling), terms.currency, exchange, before, timezone).rows
        limit = revision.limit(at)
        limits.append(LimitAtStart(budget_id, revision.revision, terms, window, limit, limit - total(rows, before)))
    return sorted(limits, key=lambda row: (row.terms.level, len(row.terms.scopes), row.terms.name))


def _revisions_at(books: Books, at: datetime) -> list[tuple[str, BudgetRevision]]:
    """The revision in force of each budget that had begun by then and not ended: of those valid then, the one recorded last."""
    with books.database.session() as session:
        query = (
            sa.select(BudgetRevision)
            .join(Budget, Budget.budget_id == BudgetRevision.budget_id)
            .where(sa.or_(Budget.ended_at.is_(None), Budget.ended_at > at))
            .where(BudgetRevision.recorded_at <= at)
            .where(sa.or_(BudgetRevision.valid_from.is_(None), BudgetRevision.valid_from <= at))
            .order_by(BudgetRevision.budget_id, BudgetRevision.revision)
        )
        newest = {revision.budget_id: revision for revision in session.scalars(query)}
        session.expunge_all()
    return [(budget_id, revision) for budget_id, revision in newest.items() if not revision.ended]


def _is_about(terms: Terms, names_by_column: Mapping[str, frozenset[str]]) -> bool:
    return all(
        dimension == "organisation"
        or names.key(name) in {names.key(other) for other in names_by_column.get(column_of(dimension, terms.view), ())}
        for dimension, name in terms.scopes.items()
    )
