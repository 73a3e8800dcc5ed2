"""The forest of spans: causal parents by parent edges and links, across services and traces. (CH-1 … CH-6)

Spans are rows of integer arrays. Ancestors are found by pointer jumping: every row points at its parent, and each round replaces its
target by the target's target, so a chain of depth d takes log2(d) gathers, whatever its shape. A span with several links has no single
parent: it is the root of its own tree, and `attribution.chains.fan_in` follows its links.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """A forest of spans. Arrays are parallel to the rows of the frame of nodes.

    `parent` is the row of the causal parent (the row itself for a root), `root` the row of its root. `missing_parent` and `cycle` flag
    absent and cut edges, `linked` parents that come from a link. `fans` maps roots with several known links to the linked rows: the cost
    below such a root is split over them in equal parts.
    """

    parent: Index
    root: Index
    missing_parent: Flags
    cycle: Flags
    linked: Flags
    fans: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def container(self) -> Index:
        """The parent by a parent edge alone: a link says who asked for the work, not which wrapper counts its usage. (CA-2)"""
        return (
            np.where(self.linked, np.arange(len(self.parent), dtype=np.int32), self.parent) if self.linked.any() else self.parent
        )


def build_forest(nodes: pl.DataFrame, node_index: SpanIndex) -> Forest:
    """Builds the forest of spans; `node_index` finds their rows by key.

    `nodes` holds trace_key, span_key, parent_key, link_trace_key, link_span_key, links, trace_id, span_id, start_time. Time is used
    for nothing but to choose which edge of a cycle to cut: the one of the span that started last. (CH-3, CH-6)
    """
    count = nodes.height
    row_numbers = np.arange(count, dtype=np.int32)
    has_parent = nodes["parent_key"].is_not_null().to_numpy()
    parent = row_numbers.copy()
    child_rows = np.flatnonzero(has_parent)
    parent_rows = node_index.find(_key(nodes, "trace_key")[child_rows], _key(nodes, "parent_key")[child_rows])
    missing_parent = np.zeros(count, dtype=bool)
    missing_parent[child_rows] = parent_rows == NONE
    parent[child_rows] = np.where(parent_rows == NONE, child_rows, parent_rows)
    cycle = has_parent & ~missing_parent & (parent == row_numbers)
    is_linked = np.zeros(count, dtype=bool)
    fans = _apply_links(nodes, node_index, has_parent, parent, is_linked)
    root = pointer_jump(parent)
    loop_rows = np.flatnonzero(parent[root] != root)
    if len(loop_rows) or fans:
        order = _start_order(nodes)
        if len(loop_rows):
            cut_rows = cycles.cut_tree_cycles(parent, root[loop_rows], order)
            cycle[cut_rows] = True
            root = pointer_jump(parent)
        if fans:
            cut_rows = cycles.cut_fan_in_cycles(parent, root, fans, order)
            if len(cut_rows):
                cycle[cut_rows] = True
                is_linked[cut_rows] = parent[cut_rows] != cut_rows
                root = pointer_jump(parent)
    return Forest(parent=parent, root=root, missing_parent=missing_parent, cycle=cycle, linked=is_linked, fans=fans)


def _key(spans: pl.DataFrame, column: str) -> NDArray[np.int64]:
    return spans[column].fill_null(0).to_numpy()


def _apply_links(
    spans: pl.DataFrame, span_index: SpanIndex, has_parent: Flags, parent: Index, is_linked: Flags
) -> dict[int, tuple[int, ...]]:
    """Sets the parent of parentless spans with one known link; returns the spans with several and their targets. (CH-1)

    Repeated links count once; a link to an unknown span, or to the span itself, is ignored.
    """
    link_rows = np.flatnonzero((spans["link_span_key"].is_not_null() | spans["links"].is_not_null()).to_numpy() & ~has_parent)
    if not len(link_rows):
        return {}
    link_columns = spans[link_rows].select("trace_key", "link_trace_key", "link_span_key", "links")
    has_many = link_columns["links"].is_not_null().to_numpy()
    single_rows = link_rows[~has_many]
    single_links = link_columns.filter(~has_many)
    target_rows = span_index.find(_key(single_links, "link_trace_key"), _key(single_links, "link_span_key"))
    is_known = target_rows != NONE
    parent[single_rows[is_known]] = target_rows[is_known]
    is_linked[single_rows[is_known]] = target_rows[is_known] != single_rows[is_known]
    fans: dict[int, tuple[int, ...]] = {}
    for row, targets in zip(
        link_rows[has_many].tolist(), _link_targets(link_columns["links"].drop_nulls(), span_index), strict=True
    ):
        distinct_targets = tuple(dict.fromkeys(t for t in targets if t not in (NONE, row)))
        if len(distinct_targets) == 1:
            parent[row] = distinct_targets[0]
            is_linked[row] = True
        elif distinct_targets:
            fans[row] = distinct_targets
    return fans


def _link_targets(links: pl.Series, span_index: SpanIndex) -> list[list[int]]:
    """For each list of links, JSON [[trace id, span id], …], the rows of their targets, in order."""
    pairs = links.str.json_decode(pl.List(pl.List(pl.String)))
    flat = pl.DataFrame({"pair": pairs, "of": np.arange(len(links), dtype=np.int32)}).explode("pair").drop_nulls("pair")
    ids = flat.select(trace=pl.col("pair").list.get(0), span=pl.col("pair").list.get(1), of="of").drop_nulls()
    target_rows = span_index.find(_keys(ids["trace"], trace_key), _keys(ids["span"], span_key))
    targets: list[list[int]] = [[] for _ in range(len(links))]
    for list_number, row in zip(ids["of"].to_list(), target_rows.tolist(), strict=True):
        targets[list_number].append(row)
    return targets


def _keys(ids: pl.Series, key_of: object) -> NDArray[np.int64]:
    assert callable(key_of)
    return np.array([key_of(text) for text in ids], dtype=np.int64)


def _start_order(spans: pl.DataFrame) -> cycles.SortKey:
    """The order in which spans of a cycle started: by start time, ties by trace and span id. (CH-3)"""
    start_us = spans["start_time"].to_physical().to_numpy()
    traces, ids = spans["trace_id"], spans["span_id"]
    keys = spans["trace_key"], spans["span_key"]

    def order(row: int) -> tuple[int, str, str, int, int]:
        return start_us[row], traces[row] or "", ids[row] or "", keys[0][row], keys[1][row]

    return order


def pointer_jump(pointer: Index) -> Index:
    """Follows pointers to their ends: the last target of every row. Rows that lead into a cycle stop somewhere on it.

    >>> pointer_jump(np.array([0, 0, 1, 2, 4], dtype=np.int32)).tolist()
    [0, 0, 0, 0, 4]
    """
    pointers = pointer
    for _ in range(max(len(pointer), 2).bit_length() + 1):
        next_pointers = pointers[pointers]
        if np.array_equal(next_pointers, pointers):
            return next_pointers
        pointers = next_pointers
    return pointers


def nearest_ancestor(parent: Index, flag: Flags) -> Index:
    """For every row, the nearest flagged row at or above it, or NONE. `parent` points a root at itself.

    >>> nearest_ancestor(np.array([0, 0, 1, 2], dtype=np.int32), np.array([False, True, False, False])).tolist()
    [-1, 1, 1, 1]
    """
    if not flag.any():
        return np.full(len(flag), NONE, dtype=np.int32)
    row_numbers = np.arange(len(flag), dtype=np.int32)
    end_rows = pointer_jump(np.where(flag, row_numbers, parent))
    return np.where(flag[end_rows], end_rows, np.int32(NONE))


def topmost_ancestor(parent: Index, flag: Flags, nearest: Index) -> Index:
    """For every row, the highest flagged row at or above it, or NONE; `nearest` as `nearest_ancestor` gives it.

    >>> parent, flag = np.array([0, 0, 1, 2], dtype=np.int32), np.array([False, True, False, True])
    >>> topmost_ancestor(parent, flag, nearest_ancestor(parent, flag)).tolist()
    [-1, 1, 1, 1]
    """
    flagged_rows = np.flatnonzero(flag).astype(np.int32)
    next_flagged = next_ancestor(parent, nearest, flagged_rows)
    pointer = np.arange(len(flag), dtype=np.int32)
    # Only flagged rows are updated, each points at the next flagged row above it.
    pointer[flagged_rows] = np.where(next_flagged == NONE, flagged_rows, next_flagged)
    while True:
        next_pointer = pointer[pointer[flagged_rows]]
        if np.array_equal(next_pointer, pointer[flagged_rows]):
            return np.where(nearest == NONE, np.int32(NONE), pointer[nearest])
        pointer[flagged_rows] = next_pointer


def next_ancestor(parent: Index, nearest: Index, rows: Index) -> Index:
    """For each of `rows`, the nearest flagged row strictly above it, or NONE; `nearest` as `nearest_ancestor` gives it."""
    parents = parent[rows]
    return np.where(parents == rows, np.int32(NONE), nearest[parents])
