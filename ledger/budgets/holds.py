"""Money that is held for calls under way: what a budget has encumbered. The one place where status learns of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal

from ledger.books import Books


def encumbered(books: Books, budget_ids: Collection[str], at: datetime) -> Mapping[str, Decimal]:
    """Open holds by budget id, in the budget's currency; a budget without any is left out. Nothing holds money yet."""
    del books, budget_ids, at
    return {}
