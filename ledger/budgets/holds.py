"""Money that is held for calls under way: what a budget has encumbered. The one place where status learns of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa

from ledger.books import Books
from ledger.reservation_tables import ReservationLevel


def encumbered(books: Books, budget_ids: Collection[str], at: datetime) -> Mapping[str, Decimal]:
    """Open and uncertain reservations in the windows that `at` lies in, by budget id, in the budget's currency; a budget without any is left out."""
    level = ReservationLevel
    query = (
        sa.select(level.budget_id, sa.func.sum(level.nanos))
        .where(
            level.budget_id.in_(budget_ids),
            level.state.in_(("open", "uncertain")),
            level.window_start <= at,
            level.window_end > at,
        )
        .group_by(level.budget_id)
    )
    with books.database.session() as session:
        return {budget_id: Decimal(int(nanos)).scaleb(-9) for budget_id, nanos in session.execute(query) if nanos}
