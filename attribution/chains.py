"""Chains: which span started the work, over parents and links, across services and traces. (CH-1 … CH-6)

Spans become rows of integer arrays; ancestry is found by pointer jumping: every span points at its parent, and in each round
at what its target points at, so a chain of depth d is resolved in log2(d) gathers, whatever its shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Index = NDArray[np.int32]
Flags = NDArray[np.bool_]
NONE = -1


@dataclass(frozen=True, slots=True)
class Forest:
    """Spans as a forest. Arrays are parallel to the rows of the frame they were drawn from.

    `parent` is the row of the causal parent (the row itself for a root), `root` the row of its root; the flags say why an edge
    is missing or doubtful.
    """

    parent: Index
    root: Index
    missing_parent: Flags
    cycle: Flags
    multi_link: Flags


def link(spans: pl.DataFrame) -> Forest:
    """Draws the forest of spans.

    `spans` holds trace_key, span_key, parent_key, link_trace_key, link_span_key, links, start_time, and one row a (trace_key, span_key).
    Time is used for nothing but to choose which edge of a cycle to cut: the one of the span that started last. (CH-3, CH-6)
    """
    count = spans.height
    keys = spans.select(
        "trace_key",
        "span_key",
        "parent_key",
        "link_trace_key",
        "link_span_key",
        pl.int_range(pl.len(), dtype=pl.Int32).alias("row"),
    )
    target = keys.select("trace_key", "span_key", pl.col("row").alias("up"))
    up = _lookup(keys, target, ["trace_key", "parent_key"])
    has_parent = spans["parent_key"].is_not_null().to_numpy()
    linked = _lookup(keys, target, ["link_trace_key", "link_span_key"])
    causal = np.where(has_parent, up, linked).astype(np.int32)
    multi = (spans["links"].is_not_null() & spans["parent_key"].is_null()).to_numpy()
    _later_links(spans, target, causal, multi)

    missing = has_parent & (up == NONE)
    own = np.arange(count, dtype=np.int32)
    parent = np.where(causal == NONE, own, causal).astype(np.int32)
    cycle = has_parent & (up == own)
    root = jump(parent)
    in_loop = parent[root] != root
    if in_loop.any():
        cut = _cut(parent, np.unique(root[in_loop]), spans)
        parent[cut] = cut
        cycle[cut] = True
        root = jump(parent)
    return Forest(parent, root, missing, cycle, multi)


def _lookup(keys: pl.DataFrame, target: pl.DataFrame, on: list[str]) -> Index:
    found = (
        keys.lazy()
        .select("row", *on)
        .drop_nulls()
        .join(target.lazy(), left_on=on, right_on=["trace_key", "span_key"])
        .select("row", "up")
        .collect()
    )
    out = np.full(keys.height, NONE, dtype=np.int32)
    out[found["row"].to_numpy()] = found["up"].to_numpy()
    return out


def _later_links(spans: pl.DataFrame, target: pl.DataFrame, causal: Index, multi: Flags) -> None:
    """Where the first link leads nowhere, the next one that leads somewhere counts."""
    open_rows = np.flatnonzero(multi & (causal == NONE))
    if not len(open_rows):
        return
    from ledger.ids import span_key, trace_key

    candidates = [
        (int(row), place, trace_key(trace), span_key(span))
        for row in open_rows
        for place, (trace, span) in enumerate(_pairs(spans["links"][int(row)]))
    ]
    frame = pl.DataFrame(
        candidates, schema={"row": pl.Int32, "place": pl.Int32, "trace_key": pl.Int64, "span_key": pl.Int64}, orient="row"
    )
    first = frame.join(target, on=["trace_key", "span_key"]).sort("row", "place").unique("row", keep="first")
    causal[first["row"].to_numpy()] = first["up"].to_numpy()


def _pairs(links: str) -> list[tuple[str, str]]:
    import json

    return [(str(trace), str(span)) for trace, span in json.loads(links)]


def jump(pointer: Index) -> Index:
    """Follows pointers to their ends: every row's last target. Rows that end in a loop stop somewhere on it.

    >>> jump(np.array([0, 0, 1, 2, 4], dtype=np.int32)).tolist()
    [0, 0, 0, 0, 4]
    """
    reached = pointer.copy()
    for _ in range(max(len(pointer), 2).bit_length() + 1):
        further = reached[reached]
        if np.array_equal(further, reached):
            return reached
        reached = further
    return reached


def _cut(parent: Index, starts: Index, spans: pl.DataFrame) -> Index:
    """One row of every loop: the span that started last, ties to the larger id. (CH-3)"""
    times = spans["start_time"].to_physical().to_numpy()
    traces, ids = spans["trace_key"].to_numpy(), spans["span_key"].to_numpy()
    seen: set[int] = set()
    cuts: list[int] = []
    for start in starts.tolist():
        if start in seen:
            continue
        loop = [start]
        at = int(parent[start])
        while at != start and at not in seen:
            loop.append(at)
            at = int(parent[at])
        if at == start:
            cuts.append(max(loop, key=lambda row: (times[row], ids[row], traces[row])))
        seen.update(loop)
    return np.array(cuts, dtype=np.int32)


def nearest(forest: Forest, flag: Flags) -> Index:
    """For every row, the nearest flagged row at or above it, or NONE.

    >>> forest = Forest(*(np.array(a) for a in ([0, 0, 1, 2], [0, 0, 0, 0])), *(np.zeros(4, dtype=bool),) * 3)
    >>> nearest(forest, np.array([False, True, False, False])).tolist()
    [-1, 1, 1, 1]
    """
    own = np.arange(len(flag), dtype=np.int32)
    reached = jump(np.where(flag, own, forest.parent).astype(np.int32))
    return np.where(flag[reached], reached, NONE).astype(np.int32)


def topmost(forest: Forest, flag: Flags) -> Index:
    """For every row, the highest flagged row at or above it, or NONE.

    >>> forest = Forest(*(np.array(a) for a in ([0, 0, 1, 2], [0, 0, 0, 0])), *(np.zeros(4, dtype=bool),) * 3)
    >>> topmost(forest, np.array([False, True, False, True])).tolist()
    [-1, 1, 1, 1]
    """
    near = nearest(forest, flag)
    own = np.arange(len(flag), dtype=np.int32)
    above = np.where(forest.parent == own, NONE, near[forest.parent]).astype(np.int32)
    climb = jump(np.where(flag & (above != NONE), above, own).astype(np.int32))
    return np.where(near == NONE, NONE, climb[near]).astype(np.int32)


def above(forest: Forest, flag: Flags) -> Index:
    """For every row, the nearest flagged row strictly above it, or NONE."""
    near = nearest(forest, flag)
    own = np.arange(len(flag), dtype=np.int32)
    return np.where(forest.parent == own, NONE, near[forest.parent]).astype(np.int32)
