"""CH-1 to CH-3: what hangs on what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from ledger.ids import span_key, trace_key

Row = dict[str, Any]
Key = tuple[int, int]
"""Trace and span: what tells nodes apart."""


@dataclass
class Node:
    """One span, however many channels told of it."""

    key: Key
    signals: list[Row]
    parents: list[Key] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    call_signals: list[Row] = field(default_factory=list)
    """All signals of the call that stands here, wherever they came from."""

    @property
    def witnesses(self) -> list[Row]:
        """The signals that may say who works here."""
        return self.call_signals or self.signals

    @property
    def told(self) -> Row:
        """The signal that speaks for it: a span knows its own place better than a gateway's log row does."""
        return min(self.signals, key=lambda s: (s["channel"] != "otlp", s["channel"]))

    @property
    def order(self) -> tuple[datetime, str, str]:
        """What a cycle is cut by: the start; ties: the id. (CH-3)

        Reading: an id is trace and span together, and compares as it is written.
        """
        return self.told["start_time"], self.told["trace_id"], self.told["span_id"]


@dataclass(frozen=True)
class Path:
    """One way from a span to a root, the span itself first, and the share of its cost that goes that way. (CH-1)"""

    weight: Fraction
    nodes: tuple[Node, ...]

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @property
    def flags(self) -> set[str]:
        """Everything that is odd on the way."""
        return {flag for node in self.nodes for flag in node.flags}


def graph(spans: Iterable[Row]) -> dict[Key, Node]:
    """All spans with their edges, free of cycles."""
    nodes: dict[Key, Node] = {}
    for row in spans:
        key = row["trace_key"], row["span_key"]
        nodes.setdefault(key, Node(key, [])).signals.append(row)
    for node in nodes.values():
        node.parents = _parents(node, nodes) if _is_span(node) else _only_root(node, nodes)
    _cut_cycles(nodes)
    for node in nodes.values():
        if len(node.parents) > 1:
            node.flags.add("fan_in")
    return nodes


def _parents(node: Node, nodes: Mapping[Key, Node]) -> list[Key]:
    """CH-1, CH-2. Reading: who names a parent has one, though it be missing; links count only where none is named.

    Reading: a link said twice is one link, and one to a span that is unknown, or to itself, leads nowhere.
    """
    row = node.told
    if row.get("parent_key") is not None:
        parent = row["trace_key"], row["parent_key"]
        if parent not in nodes:
            node.flags.add("missing_parent")
            return []
        return [parent]
    known: list[Key] = []
    for target in links(row):
        if target in nodes and target != node.key and target not in known:
            known.append(target)
    return known


def _is_span(node: Node) -> bool:
    """Whether any channel but a gateway's log told of a node."""
    return any(not s["channel"].startswith("litellm") for s in node.signals)


def _only_root(node: Node, nodes: Mapping[Key, Node]) -> list[Key]:
    """What a gateway's row of a call without a span hangs on: the root of its trace, if there is exactly one. (CH-1)

    Reading: the row says that it belongs to the trace and not where in it; with one root, everything in the trace is below that.
    """
    trace = [other for other in nodes.values() if other.key[0] == node.key[0] and _is_span(other)]
    roots = [other.key for other in trace if other.told.get("parent_key") is None]
    return roots if len(roots) == 1 else []


def links(row: Row) -> list[Key]:
    """The span links of a row, first one first."""
    if row.get("links"):
        return [(trace_key(trace), span_key(span)) for trace, span in json.loads(row["links"])]
    if row.get("link_span_key") is not None:
        return [(row["link_trace_key"], row["link_span_key"])]
    return []


def _cut_cycles(nodes: Mapping[Key, Node]) -> None:
    """CH-3: of the spans that are each other's ancestors, the one that started last loses what ties it to the others."""
    while True:
        above = {key: ancestors(key, nodes) for key in nodes}
        ring = next((key for key in sorted(nodes) if key in above[key]), None)
        if ring is None:
            return
        together = {key for key in above[ring] if ring in above[key]}
        last = max((nodes[key] for key in together), key=lambda node: node.order)
        last.parents = [parent for parent in last.parents if parent not in together]
        last.flags.add("cycle")


def ancestors(key: Key, nodes: Mapping[Key, Node]) -> set[Key]:
    """All spans above one; itself too, if it is in a cycle."""
    found: set[Key] = set()
    waiting = list(nodes[key].parents)
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += nodes[parent].parents
    return found


def enclosing(key: Key, nodes: Mapping[Key, Node]) -> set[Key]:
    """All spans that contain one. Reading: a parent does, a link only leads on to other work. (CA-2)"""
    found: set[Key] = set()
    while nodes[key].parents and (nodes[key].told.get("parent_key") is not None or not _is_span(nodes[key])):
        key = nodes[key].parents[0]
        found.add(key)
    return found


def paths(node: Node, nodes: Mapping[Key, Node]) -> list[Path]:
    """Every way up from a span. At a fan-in it forks, in equal weights; they sum to 1. (CH-1)"""
    if not node.parents:
        return [Path(Fraction(1), (node,))]
    share = Fraction(1, len(node.parents))
    return [Path(share * path.weight, (node, *path.nodes)) for parent in node.parents for path in paths(nodes[parent], nodes)]
