"""Nested budgets: organisation > team > agent > workflow > chain. A child fits into what its parent leaves, or it says that it may exceed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import polars as pl
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger import names, registry
from ledger.books import Books
from ledger.budget_tables import Budget, BudgetRevision
from ledger.budgets.terms import PERIODS, Terms, terms_of
from ledger.errors import UsageError
from ledger.exchange_rates import Exchange
from ledger.money import proportion, readable_amounts
from ledger.periods import now

_LENGTHS: Final = ("chain", *(period for period in PERIODS if period not in ("chain", "range")), "range")


@dataclass(frozen=True, slots=True)
class Node:
    """A budget in the tree: its terms and the limit in force."""

    budget_id: str
    terms: Terms
    limit: Decimal


def tree(session: Session, at: datetime | None = None) -> dict[str, Node]:
    """Every budget in force by id, as it was recorded last."""
    instant = at or now()
    query = (
        sa.select(BudgetRevision)
        .join(Budget, sa.and_(Budget.budget_id == BudgetRevision.budget_id, Budget.revision == BudgetRevision.revision))
        .where(Budget.ended_at.is_(None))
    )
    return {r.budget_id: Node(r.budget_id, terms_of(r), r.limit(instant)) for r in session.scalars(query)}


def team_of(books: Books) -> dict[str, str]:
    """Agents, by the key of their name, and the teams that own them now."""
    at = now()
    owners = registry.timeline(registry.rows(books)).filter(
        pl.col("kind").is_in(["agent", "alias"]),
        pl.col("valid_from") <= at,
        pl.col("valid_to").is_null() | (pl.col("valid_to") > at),
        pl.col("team").is_not_null(),
    )
    return {names.key(agent): team for agent, team in owners.select("name", "team").iter_rows()}


def require_fit(nodes: Mapping[str, Node], budget_id: str, exchange: Exchange, team_of: Mapping[str, str]) -> None:
    """Raises `UsageError` unless a budget fits into its parent, and its children into it. `team_of`: agent to the team that owns it now."""
    node = nodes[budget_id]
    children = [child for child in nodes.values() if child.terms.parent_id == budget_id]
    if node.terms.parent_id is not None:
        parent = nodes.get(node.terms.parent_id)
        if parent is None:
            raise UsageError("its parent is no budget in force", where=f"{node.terms.name}: parent", remedy="name one that is")
        _require_acyclic(nodes, node)
        _require_inside(node.terms, parent.terms, team_of)
        siblings = [child for child in nodes.values() if child.terms.parent_id == parent.budget_id]
        _require_room(parent, siblings, node, exchange)
    if children:
        _require_room(node, children, None, exchange)


def _require_acyclic(nodes: Mapping[str, Node], node: Node) -> None:
    path = [node.budget_id]
    parent_id = node.terms.parent_id
    while parent_id is not None and parent_id in nodes:
        if parent_id in path:
            circle = " > ".join(nodes[budget_id].terms.name for budget_id in [*path, parent_id])
            raise UsageError(
                f"a budget cannot lie within itself: {circle}", where=f"{node.terms.name}: parent", remedy="choose another"
            )
        path.append(parent_id)
        parent_id = nodes[parent_id].terms.parent_id


def _require_inside(child: Terms, parent: Terms, team_of: Mapping[str, str]) -> None:
    """What counts against the child counts against the parent, too."""
    place = f"{child.name}: parent"
    if child.view != parent.view:
        raise UsageError(
            f"it counts the {child.view}'s cost and {parent.name} the {parent.view}'s", where=place, remedy="choose one view"
        )
    if child.level < parent.level or (child.level == parent.level and len(child.scopes) < len(parent.scopes)):
        raise UsageError(
            f"{child.described} is no part of {parent.described}",
            where=place,
            remedy="budgets nest as organisation, team, agent, workflow, chain",
        )
    for dimension, name in parent.scopes.items():
        own_name = child.scopes.get(dimension)
        if own_name is None and dimension == "team":
            own_name = team_of.get(names.key(child.scopes.get("agent", "")))
        is_implied = own_name is None and dimension in ("organisation", "team", "agent")
        if dimension != "organisation" and not is_implied and (own_name is None or names.key(own_name) != names.key(name)):
            told_name = "any" if own_name is None else own_name
            raise UsageError(
                f"{parent.name} is about {dimension} {name}, and this one about {told_name}",
                where=place,
                remedy="choose another parent",
            )
    if _LENGTHS.index(child.period) > _LENGTHS.index(parent.period) and "range" not in (child.period, parent.period):
        raise UsageError(
            f"a {child.period} is longer than the {parent.period} of {parent.name}", where=place, remedy="choose a shorter period"
        )


def _require_room(parent: Node, children: Sequence[Node], candidate: Node | None, exchange: Exchange) -> None:
    """Children of the parent's own period together, and each of a shorter one by itself, are not more than the parent."""
    bound = [child for child in children if not child.terms.exceeds_parent]
    amounts = {child.budget_id: _in_currency_of(parent, child, exchange) for child in bound}
    sharing_children = [child for child in bound if _shares_window(child.terms, parent.terms)]
    if candidate is not None and candidate not in bound:
        return
    for child in [candidate] if candidate is not None else bound:
        if amounts[child.budget_id] > parent.limit:
            own, limit = readable_amounts(amounts[child.budget_id], parent.limit)
            raise UsageError(
                f"{child.terms.name} has {own}, and its parent {parent.terms.name} only {limit} {parent.terms.currency}",
                where=f"{(candidate or parent).terms.name}: amount",
                remedy="lower it, raise the parent, or allow it (exceeds_parent)",
            )
    used = sum((amounts[child.budget_id] for child in sharing_children), Decimal(0))
    if used <= parent.limit or (candidate is not None and candidate not in sharing_children):
        return
    parts = ", ".join(f"{child.terms.name} {readable_amounts(amounts[child.budget_id])[0]}" for child in sharing_children)
    limit, sum_text, over = readable_amounts(parent.limit, used, used - parent.limit)
    raise UsageError(
        f"{parent.terms.name} has {limit} {parent.terms.currency}, and its budgets {sum_text} together ({parts}): {over} too much",
        where=f"{(candidate or parent).terms.name}: amount",
        remedy="lower some of them, raise the parent, or allow it (exceeds_parent)",
    )


def _shares_window(child: Terms, parent: Terms) -> bool:
    return child.period == parent.period and (child.range_start, child.range_end) == (parent.range_start, parent.range_end)


def _in_currency_of(parent: Node, child: Node, exchange: Exchange) -> Decimal:
    """The child's limit in the parent's currency, at today's rate."""
    source, target = child.terms.currency, parent.terms.currency
    if source == target:
        return child.limit
    rate = exchange.on(source, target, _today())
    if rate is None:
        raise UsageError(
            f"no exchange rate of today from {source} into {target}, the currency of {parent.terms.name}",
            where=f"{child.terms.name}: currency",
            remedy="import rates with `rootcost exchange import`, or choose the parent's currency",
        )
    return proportion(child.limit, rate.numerator, rate.denominator)


def _today() -> date:
    return now().date()
