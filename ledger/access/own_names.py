"""The teams and agents whose budgets, alerts and anomalies somebody sees: a principal, or a receiver of alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import polars as pl

from ledger import names, registry
from ledger.books import Books
from ledger.periods import now


@dataclass(frozen=True, slots=True)
class OwnNames:
    """Teams, and the agents that they own now; None: all."""

    teams: frozenset[str] | None
    agents: frozenset[str] = frozenset()

    @classmethod
    def of_teams(cls, books: Books, teams: frozenset[str] | None) -> Self:
        """Reads the registry as it is in force now."""
        if teams is None:
            return cls(None)
        at = now()
        owners = registry.timeline(registry.rows(books)).filter(
            pl.col("kind").is_in(["agent", "alias"]),
            pl.col("valid_from") <= at,
            pl.col("valid_to").is_null() | (pl.col("valid_to") > at),
            pl.col("team").is_in(sorted(teams)).fill_null(value=False),
        )
        return cls(teams, frozenset(owners["name"]))

    def holds(self, scope: str, name: str) -> bool:
        """Whether a team or an agent is one of these; nothing else is."""
        if self.teams is None:
            return True
        own_names: frozenset[str] = {"team": self.teams, "agent": self.agents}.get(scope, frozenset())
        return names.key(name) in {names.key(own_name) for own_name in own_names}

    def holds_all(self, scopes: Mapping[str, str]) -> bool:
        """Whether a budget about these scopes is seen: every team and agent among them is, and there is one."""
        owners = [(scope, name) for scope, name in scopes.items() if scope in ("team", "agent")]
        return self.teams is None or (bool(owners) and all(self.holds(scope, name) for scope, name in owners))

    def holds_alert(self, payload: Mapping[str, Any], team: str | None = None) -> bool:
        """Whether an alert is about such a team or agent: the one that it names, else its owner when it was raised."""
        if isinstance(scopes := payload.get("scopes"), Mapping):
            return self.holds_all(scopes)
        scope = str(payload.get("scope", ""))
        if scope in ("team", "agent"):
            return self.holds(scope, str(payload.get("scope_name", "")))
        return self.teams is None or (team is not None and self.holds("team", team))

    def is_held(self) -> pl.Expr:
        """The same of rows with `scope` and `scope_name`."""
        teams = pl.Series(sorted(self.teams or ()), dtype=pl.String).implode()
        agents = pl.Series(sorted(self.agents), dtype=pl.String).implode()
        scope, name = pl.col("scope"), pl.col("scope_name")
        return ((scope == "team") & name.is_in(teams)) | ((scope == "agent") & name.is_in(agents))
