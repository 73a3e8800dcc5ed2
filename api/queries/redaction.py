"""Chains that cross teams, as one of the teams sees them: foreign spans are boxes without names.

A chain that the principal's team started is its cost whole, so boxes of other teams keep their cost. In a chain that another team started, only
the principal's own spans have a cost, and the sums are theirs.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import polars as pl

from api.models import ChainSummary, ChainTree, SpanNode
from api.queries.gate import ScopedBooks
from ledger import registry

BOX = "another team"
"""Name of a span that is not shown."""


def chain_of_others(summary: ChainSummary) -> ChainSummary:
    """The summary of a chain that another team started: its id and times."""
    names = ("root_name", "initiator_agent", "initiator_team", "method", "reason", "tokens", "list_cost")
    return summary.model_copy(update=dict.fromkeys(names))


def own_parts(tree: ChainTree, books: ScopedBooks) -> ChainTree:
    """The tree with foreign spans as boxes; sums are of what is shown."""
    is_started_here = books.owns(tree.chain.initiator_team)
    teams_of_agents = _teams_of_agents(tree, books)
    own_nodes: dict[str, bool] = {}
    nodes = []
    for node in tree.nodes:  # depth first: a parent comes before its children
        teams = [call.executor_team for call in node.calls] or teams_of_agents.get(node.agent_name or "", [])
        is_own = books.owns(*teams) if teams else own_nodes.get(node.parent_id or "", is_started_here)
        own_nodes[node.node_id] = is_own
        nodes.append(node if is_own else _box(node, keeps_cost=is_started_here))
    if not is_started_here:
        _sum_up(nodes)
    cost: dict[str, Decimal] = defaultdict(Decimal)
    for node in nodes:
        for currency, amount in node.own_cost.items():
            cost[currency] += amount
    calls = [call for node in nodes for call in node.calls]
    return tree.model_copy(
        update={
            "chain": tree.chain if is_started_here else tree.chain.model_copy(update={"spans": len(nodes), "calls": len(calls)}),
            "cost": dict(cost),
            "unpriced_calls": sum(any(meter.own_cost is None for meter in call.meters) for call in calls),
            "nodes": nodes,
        }
    )


def _teams_of_agents(tree: ChainTree, books: ScopedBooks) -> dict[str, list[str | None]]:
    """The teams that the registry gives the agents of a tree at its start, or that its calls name."""
    teams: dict[str, list[str | None]] = defaultdict(list)
    for call in (call for node in tree.nodes for call in node.calls):
        teams[call.executor_agent or ""].append(call.executor_team)
    names = [node.agent_name for node in tree.nodes if node.agent_name and node.agent_name not in teams]
    owners = registry.timeline(registry.rows(books.whole)).filter(
        pl.col("kind").is_in(["agent", "alias"]),
        pl.col("name").is_in(names),
        pl.col("valid_from") <= tree.chain.start_time,
        pl.col("valid_to").is_null() | (pl.col("valid_to") > tree.chain.start_time),
    )
    for name, team in owners.select("name", "team").iter_rows():
        teams[name].append(team)
    teams.pop("", None)
    # An agent that nobody registered belongs to nobody who could see it.
    return dict(teams) | {name: [None] for name in names if name not in teams}


def _box(node: SpanNode, *, keeps_cost: bool) -> SpanNode:
    """A foreign span: its place and time, and its cost in a chain that the principal's team started."""
    names = ("trace_id", "span_id", "operation", "service_name", "agent_name", "tool_name", "status")
    update: dict[str, object] = dict.fromkeys(names) | {"name": BOX, "channels": "", "calls": [], "redacted": True}
    if not keeps_cost:
        update |= {"own_cost": {}, "subtree_cost": {}}
    return node.model_copy(update=update)


def _sum_up(nodes: list[SpanNode]) -> None:
    """Subtree costs of what is shown, from the last node to the first: children follow their parents."""
    totals = {node.node_id: dict(node.own_cost) for node in nodes}
    for n in range(len(nodes) - 1, -1, -1):
        node = nodes[n]
        nodes[n] = node.model_copy(update={"subtree_cost": totals[node.node_id]})
        above = totals.get(node.parent_id or "")
        if above is not None:
            for currency, amount in totals[node.node_id].items():
                above[currency] = above.get(currency, Decimal(0)) + amount
