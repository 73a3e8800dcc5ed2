"""The names of teams and agents whose budgets, alerts and anomalies a principal sees."""

from __future__ import annotations

from typing import Self

from api.queries.gate import ScopedBooks
from ledger.access import own_names


class OwnNames(own_names.OwnNames):
    """Teams of the principal, and the agents that they own now; None: all."""

    __slots__ = ()

    @classmethod
    def of(cls, books: ScopedBooks) -> Self:
        """Reads the registry as it is in force now."""
        return cls.of_teams(books.whole, books.teams)
