"""Builds the tree of a chain: nodes depth first, with own costs and subtree costs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import polars as pl

from api.models import CallCost, ChainSummary, ChainTree, SpanNode
from ledger.ids import span_key, trace_key

NodeKey = tuple[int, int]
"""trace_key and span_key."""


@dataclass(slots=True)
class _Node:
    key: NodeKey
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    calls: list[CallCost] = field(default_factory=list)
    parent: NodeKey | None = None
    edge: Literal["root", "parent", "link", "cut"] = "root"
    depth: int = 0

    @property
    def start(self) -> datetime:
        starts: list[datetime] = [r["start_time"] for r in self.rows] + [c.start_time for c in self.calls]
        return min(starts)

    def first(self, column: str) -> Any:
        """The value of the most complete row that has one."""
        return next((r[column] for r in self.rows if r[column] is not None), None)


def build_tree(
    summary: ChainSummary, spans: pl.DataFrame, calls: pl.DataFrame, call_costs: Mapping[NodeKey, CallCost]
) -> ChainTree:
    """The tree of a chain. `spans` are all spans of its traces, `calls` its rows of `calls`, `call_costs` the same with costs.

    Spans of the traces that belong to another chain are left out; several signals of one span or call become one node.
    """
    nodes = _nodes(spans, calls, call_costs)
    _set_parents(nodes)
    children: dict[NodeKey | None, list[NodeKey]] = defaultdict(list)
    for key in sorted(nodes, key=lambda k: (nodes[k].start, k)):
        children[nodes[key].parent].append(key)
    roots = _roots_of_chain(nodes, children, summary, set(call_costs))
    order = _depth_first(nodes, children, roots)
    span_nodes = [_span_node(nodes[key]) for key in order]
    _add_subtree_costs(span_nodes)
    cost: dict[str, Decimal] = defaultdict(Decimal)
    for node in span_nodes:
        _add(cost, node.own_cost)
    meters = [meter for call in call_costs.values() for meter in call.meters]
    bases = {meter.basis for meter in meters if meter.basis}
    return ChainTree(
        chain=summary,
        cost=dict(cost),
        basis=bases.pop() if len(bases) == 1 else "mixed" if bases else None,
        unpriced_calls=sum(any(meter.own_cost is None for meter in call.meters) for call in call_costs.values()),
        nodes=span_nodes,
    )


def _nodes(spans: pl.DataFrame, calls: pl.DataFrame, call_costs: Mapping[NodeKey, CallCost]) -> dict[NodeKey, _Node]:
    place = {
        row[column]: (row["trace_key"], row["span_key"])
        for column in ("provider_request_id", "gateway_call_id")
        for row in calls.iter_rows(named=True)
        if row[column]
    }
    nodes: dict[NodeKey, _Node] = {}
    for row in spans.sort("rank", "channel", descending=[True, False]).iter_rows(named=True):
        key = (row["trace_key"], row["span_key"])
        if key not in call_costs and row["usage_scope"] == "leaf":
            # The gateway's own row of a call that also has a span: one call, one node. (CA-1)
            key = place.get(row["gateway_call_id"], place.get(row["provider_request_id"], key))
        nodes.setdefault(key, _Node(key)).rows.append(row)
    for key, call in call_costs.items():
        nodes.setdefault(key, _Node(key)).calls.append(call)
    return nodes


def _set_parents(nodes: dict[NodeKey, _Node]) -> None:
    """Sets the parent of every node: its parent span, else its first link; breaks cycles. (CH-1, CH-3)"""
    for node in nodes.values():
        for row in node.rows:
            if row["parent_key"] is not None and (row["trace_key"], row["parent_key"]) in nodes:
                node.parent, node.edge = (row["trace_key"], row["parent_key"]), "parent"
                break
            if row["parent_key"] is None and node.parent is None:
                link_target = next((link for link in _links(row) if link in nodes), None)
                if link_target is not None:
                    node.parent, node.edge = link_target, "link"
        if node.parent == node.key:
            node.parent, node.edge = None, "cut"
    visited_nodes: set[NodeKey] = set()
    for key in sorted(nodes):
        path: list[NodeKey] = []
        at: NodeKey | None = key
        while at is not None and at not in visited_nodes and at not in path:
            path.append(at)
            at = nodes[at].parent
        if at is not None and at in path:
            latest = max(path[path.index(at) :], key=lambda k: (nodes[k].start, k[1], k[0]))
            nodes[latest].parent, nodes[latest].edge = None, "cut"
        visited_nodes.update(path)


def _links(row: Mapping[str, Any]) -> Iterator[NodeKey]:
    """Causal links of a span, in its own order; the first whose target is known counts. (CH-1)"""
    if row["link_trace_key"] is not None and row["link_span_key"] is not None:
        yield row["link_trace_key"], row["link_span_key"]
    for trace, span in json.loads(row["links"] or "[]"):
        yield trace_key(str(trace)), span_key(str(span))


def _is_root(row: Mapping[str, Any], chain_id: str) -> bool:
    return any(f"{row['trace_id']}{mark}{row['span_id']}" == chain_id for mark in ":/-.")


def _roots_of_chain(
    nodes: Mapping[NodeKey, _Node], children: Mapping[NodeKey | None, list[NodeKey]], summary: ChainSummary, own: set[NodeKey]
) -> list[NodeKey]:
    """Roots whose tree holds a call of the chain, or that the chain is named after; all of them if that leaves none."""
    chain_roots = []
    for root in children[None]:
        tree = _depth_first(nodes, children, [root], settle=False)
        if own.intersection(tree) or any(_is_root(row, summary.chain_id) for row in nodes[root].rows):
            chain_roots.append(root)
    return chain_roots or list(children[None])


def _depth_first(
    nodes: Mapping[NodeKey, _Node],
    children: Mapping[NodeKey | None, list[NodeKey]],
    roots: Iterable[NodeKey],
    *,
    settle: bool = True,
) -> list[NodeKey]:
    order: list[NodeKey] = []
    waiting = [(root, 0) for root in reversed(list(roots))]
    while waiting:
        key, depth = waiting.pop()
        if settle:
            nodes[key].depth = depth
        order.append(key)
        waiting.extend((child, depth + 1) for child in reversed(children.get(key, [])))
    return order


def _span_node(node: _Node) -> SpanNode:
    own: dict[str, Decimal] = defaultdict(Decimal)
    for call in node.calls:
        _add(own, call.own_cost)
    end_times = [r["end_time"] for r in node.rows if r["end_time"] is not None]
    channels = sorted({r["channel"] for r in node.rows} | {c for call in node.calls for c in call.channels.split("+")})
    texts = ("trace_id", "span_id", "name", "operation", "service_name", "agent_name", "tool_name", "status")
    fields = {column: node.first(column) for column in texts}
    if not node.rows:
        fields.update(
            trace_id=node.calls[0].trace_id, span_id=node.calls[0].span_id, name=node.calls[0].model, status=node.calls[0].status
        )
    return SpanNode(
        node_id=_id(node.key),
        parent_id=None if node.parent is None else _id(node.parent),
        depth=node.depth,
        edge=node.edge,
        channels="+".join(channels),
        start_time=node.start,
        end_time=max(end_times) if end_times else None,
        own_cost=dict(own),
        calls=node.calls,
        **fields,
    )


def _add_subtree_costs(span_nodes: list[SpanNode]) -> None:
    """Sets subtree costs, from the last node to the first: children follow their parents."""
    totals: dict[str, dict[str, Decimal]] = {node.node_id: dict(node.own_cost) for node in span_nodes}
    for node in reversed(span_nodes):
        node.subtree_cost = totals[node.node_id]
        if node.parent_id in totals:
            _add(totals[node.parent_id], node.subtree_cost)


def _add(total: dict[str, Decimal], more: Mapping[str, Decimal]) -> None:
    for currency, amount in more.items():
        total[currency] = total.get(currency, Decimal(0)) + amount


def _id(key: NodeKey) -> str:
    return f"{key[0] & (2**64 - 1):016x}:{key[1] & (2**64 - 1):016x}"
