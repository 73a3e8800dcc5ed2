"""The names of teams and agents whose budgets, alerts and anomalies a principal sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import polars as pl

from api.queries.gate import ScopedBooks
from ledger import names, registry
from ledger.periods import now


@dataclass(frozen=True, slots=True)
class OwnNames:
    """Teams of the principal, and the agents that they own now; None: all."""

    teams: frozenset[str] | None
    agents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, books: ScopedBooks) -> Self:
        """Reads the registry as it is in force now."""
        if books.teams is None:
            return cls(None)
        at = now()
        owners = registry.timeline(registry.rows(books.whole)).filter(
            pl.col("kind").is_in(["agent", "alias"]),
            pl.col("valid_from") <= at,
            pl.col("valid_to").is_null() | (pl.col("valid_to") > at),
            books.is_own("team"),
        )
        return cls(books.teams, frozenset(owners["name"]))

    def holds(self, scope: str, name: str) -> bool:
        """Whether a team or an agent is the principal's."""
        if self.teams is None:
            return True
        own_names = self.teams if scope == "team" else self.agents
        return names.key(name) in {names.key(own_name) for own_name in own_names}

    def holds_all(self, scopes: Mapping[str, str]) -> bool:
        """Whether a budget about these scopes is the principal's: every team and agent among them is, and there is one."""
        owners = [(scope, name) for scope, name in scopes.items() if scope in ("team", "agent")]
        return self.teams is None or (bool(owners) and all(self.holds(scope, name) for scope, name in owners))

    def holds_alert(self, payload: Mapping[str, Any]) -> bool:
        """Whether an alert is about such a team or agent."""
        return self.teams is None or self.holds(str(payload.get("scope", "")), str(payload.get("scope_name", "")))

    def is_held(self) -> pl.Expr:
        """The same of rows with `scope` and `scope_name`."""
        teams = pl.Series(sorted(self.teams or ()), dtype=pl.String).implode()
        agents = pl.Series(sorted(self.agents), dtype=pl.String).implode()
        name = pl.col("scope_name")
        return pl.when(pl.col("scope") == "team").then(name.is_in(teams)).otherwise(name.is_in(agents))
