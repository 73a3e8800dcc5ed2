"""The budgets that were in force when a chain started, as the principal may see them."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from api.models import ChainLimit
from api.queries.gate import ScopedBooks
from api.queries.own_names import OwnNames
from ledger.budgets.at_start import limits_at_start
from ledger.budgets.spend import BUDGET_COLUMNS
from ledger.budgets.terms import Terms


def chain_limits(books: ScopedBooks, start_time: datetime, calls: pl.DataFrame) -> list[ChainLimit]:
    """The limits of a chain with these calls, outermost first."""
    names_by_column = {
        column: frozenset(calls[column].drop_nulls().unique().to_list()) for column in BUDGET_COLUMNS if column in calls.columns
    }
    own_names = OwnNames.of(books)

    def is_visible(terms: Terms) -> bool:
        return own_names.holds_all({str(dimension): name for dimension, name in terms.scopes.items()})

    limits = limits_at_start(books.whole, start_time, names_by_column, is_visible)
    return [
        ChainLimit(
            budget_id=row.budget_id,
            name=row.terms.name,
            revision=row.revision,
            scopes=dict(row.terms.scopes),
            period=row.terms.period,
            enforcement=row.terms.enforcement,
            currency=row.terms.currency,
            limit=row.limit,
            remaining=row.remaining,
        )
        for row in limits
    ]
