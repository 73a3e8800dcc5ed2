"""Chains: which span started the work, over parents and links, across services and traces. (CH-1 … CH-6)

Spans become rows of integer arrays; ancestry is found by pointer jumping: every span points at its parent, and in each round
at what its target points at, so a chain of depth d is resolved in log2(d) gathers, whatever its shape. A span that several links
lead to has no one parent: it is the root of a tree of its own, and `attribution.chains.fan_in` follows its links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.chains import cycles
from attribution.chains.span_index import SpanIndex
from ledger.ids import span_key, trace_key

Index = NDArray[np.int32]
Flags = NDArray[np.bool_]
NONE = -1


@dataclass(frozen=True, slots=True)
class Forest:
    """Spans as a forest. Arrays are parallel to the rows of the frame they were drawn from.

    `parent` is the row of the causal parent (the row itself for a root), `root` the row of its root; the flags say why an edge is
    missing or was cut, and where the parent is one by a link. `fans` are the roots that several known links lead to, each with the
    rows they come from: what lies under such a root belongs to all of them in equal parts.
    """

    parent: Index
    root: Index
    missing_parent: Flags
    cycle: Flags
    linked: Flags
    fans: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def container(self) -> Index:
        """The parent by a parent edge alone: a link tells who asked for the work, not whose sums contain it. (CA-2)"""
        return (
            np.where(self.linked, np.arange(len(self.parent), dtype=np.int32), self.parent) if self.linked.any() else self.parent
        )


def build_forest(spans: pl.DataFrame, rows: SpanIndex) -> Forest:
    """Draws the forest of spans, which `rows` finds by their keys.

    `spans` holds trace_key, span_key, parent_key, link_trace_key, link_span_key, links, trace_id, span_id, start_time. Time is used
    for nothing but to choose which edge of a cycle to cut: the one of the span that started last. (CH-3, CH-6)
    """
    count = spans.height
    own = np.arange(count, dtype=np.int32)
    has_parent = spans["parent_key"].is_not_null().to_numpy()
    parent = own.copy()
    named = np.flatnonzero(has_parent)
    up = rows.find(_key(spans, "trace_key")[named], _key(spans, "parent_key")[named])
    missing = np.zeros(count, dtype=bool)
    missing[named] = up == NONE
    parent[named] = np.where(up == NONE, named, up)
    cycle = has_parent & ~missing & (parent == own)
    linked = np.zeros(count, dtype=bool)
    fans = _apply_links(spans, rows, has_parent, parent, linked)
    root = pointer_jump(parent)
    loops = np.flatnonzero(parent[root] != root)
    if len(loops) or fans:
        order = _start_order(spans)
        if len(loops):
            cut = cycles.cut_tree_cycles(parent, root[loops], order)
            cycle[cut] = True
            root = pointer_jump(parent)
        if fans:
            cut = cycles.cut_fan_in_cycles(parent, root, fans, order)
            if len(cut):
                cycle[cut] = True
                linked[cut] = parent[cut] != cut
                root = pointer_jump(parent)
    return Forest(parent, root, missing, cycle, linked, fans)


def _key(spans: pl.DataFrame, column: str) -> NDArray[np.int64]:
    return spans[column].fill_null(0).to_numpy()


def _apply_links(
    spans: pl.DataFrame, rows: SpanIndex, has_parent: Flags, parent: Index, is_linked: Flags
) -> dict[int, tuple[int, ...]]:
    """Hangs parentless spans on the one known span they are linked to; returns those with several. (CH-1)

    A link said twice is one link; a link to an unknown span, or to the span itself, leads nowhere.
    """
    linked = np.flatnonzero((spans["link_span_key"].is_not_null() | spans["links"].is_not_null()).to_numpy() & ~has_parent)
    if not len(linked):
        return {}
    few = spans[linked].select("trace_key", "link_trace_key", "link_span_key", "links")
    several = few["links"].is_not_null().to_numpy()
    single = linked[~several]
    lone = few.filter(~several)
    to = rows.find(_key(lone, "link_trace_key"), _key(lone, "link_span_key"))
    found = to != NONE
    parent[single[found]] = to[found]
    is_linked[single[found]] = to[found] != single[found]
    fans: dict[int, tuple[int, ...]] = {}
    for row, targets in zip(linked[several].tolist(), _link_targets(few["links"].drop_nulls(), rows), strict=True):
        known = tuple(dict.fromkeys(t for t in targets if t not in (NONE, row)))
        if len(known) == 1:
            parent[row] = known[0]
            is_linked[row] = True
        elif known:
            fans[row] = known
    return fans


def _link_targets(links: pl.Series, rows: SpanIndex) -> list[list[int]]:
    """For each list of links, JSON [[trace id, span id], …], the rows they lead to, in their order."""
    pairs = links.str.json_decode(pl.List(pl.List(pl.String)))
    flat = pl.DataFrame({"pair": pairs, "of": np.arange(len(links), dtype=np.int32)}).explode("pair").drop_nulls("pair")
    ids = flat.select(trace=pl.col("pair").list.get(0), span=pl.col("pair").list.get(1), of="of").drop_nulls()
    to = rows.find(_keys(ids["trace"], trace_key), _keys(ids["span"], span_key))
    out: list[list[int]] = [[] for _ in range(len(links))]
    for of, row in zip(ids["of"].to_list(), to.tolist(), strict=True):
        out[of].append(row)
    return out


def _keys(ids: pl.Series, key_of: object) -> NDArray[np.int64]:
    assert callable(key_of)
    return np.array([key_of(text) for text in ids], dtype=np.int64)


def _start_order(spans: pl.DataFrame) -> cycles.SortKey:
    """What says which of the spans of a cycle is the last: the start; ties: the id as it is written. (CH-3)"""
    started = spans["start_time"].to_physical().to_numpy()
    traces, ids = spans["trace_id"], spans["span_id"]
    keys = spans["trace_key"], spans["span_key"]

    def order(row: int) -> tuple[int, str, str, int, int]:
        return started[row], traces[row] or "", ids[row] or "", keys[0][row], keys[1][row]

    return order


def pointer_jump(pointer: Index) -> Index:
    """Follows pointers to their ends: every row's last target. Rows that end in a loop stop somewhere on it.

    >>> jump(np.array([0, 0, 1, 2, 4], dtype=np.int32)).tolist()
    [0, 0, 0, 0, 4]
    """
    reached = pointer
    for _ in range(max(len(pointer), 2).bit_length() + 1):
        further = reached[reached]
        if np.array_equal(further, reached):
            return further
        reached = further
    return reached


def nearest_ancestor(parent: Index, flag: Flags) -> Index:
    """For every row, the nearest flagged row at or above it, or NONE. `parent` points a root at itself.

    >>> nearest(np.array([0, 0, 1, 2], dtype=np.int32), np.array([False, True, False, False])).tolist()
    [-1, 1, 1, 1]
    """
    if not flag.any():
        return np.full(len(flag), NONE, dtype=np.int32)
    own = np.arange(len(flag), dtype=np.int32)
    reached = pointer_jump(np.where(flag, own, parent))
    return np.where(flag[reached], reached, np.int32(NONE))


def topmost_ancestor(parent: Index, flag: Flags, near: Index) -> Index:
    """For every row, the highest flagged row at or above it, or NONE; `near` as `nearest_ancestor` gives it.

    >>> parent, flag = np.array([0, 0, 1, 2], dtype=np.int32), np.array([False, True, False, True])
    >>> topmost(parent, flag, nearest(parent, flag)).tolist()
    [-1, 1, 1, 1]
    """
    flagged = np.flatnonzero(flag).astype(np.int32)
    over = next_ancestor(parent, near, flagged)
    climb = np.arange(len(flag), dtype=np.int32)
    # Only flagged rows climb, each to the next flagged one above it.
    climb[flagged] = np.where(over == NONE, flagged, over)
    while True:
        further = climb[climb[flagged]]
        if np.array_equal(further, climb[flagged]):
            return np.where(near == NONE, np.int32(NONE), climb[near])
        climb[flagged] = further


def next_ancestor(parent: Index, near: Index, rows: Index) -> Index:
    """For each of `rows`, the nearest flagged row strictly above it, or NONE; `near` as `nearest_ancestor` gives it."""
    up = parent[rows]
    return np.where(up == rows, np.int32(NONE), near[up])
