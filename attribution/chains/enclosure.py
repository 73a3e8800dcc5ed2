"""Enclosure: which spans lie inside another one that is like them, whatever lies between. (RA-3)

The spans in question are numbered in preorder, so that those inside a span are an interval: ``[number, number + spans inside]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attribution.chains.forest import NONE, Flags, Index, nearest_ancestor, next_ancestor


def enclosed_by_equal(container: Index, rows: Index, codes: Index) -> Flags:
    """Whether each of `rows` has one of the same code (0, 1, …) above it; `container` points at parents, and a root at itself.

    A runtime (1) calls a GPU node (2), whose span calls the runtime again: the third span runs inside the first.

    >>> container, rows = np.array([0, 0, 1, 2], dtype=np.int32), np.array([0, 2, 3], dtype=np.int32)
    >>> enclosed_by_equal(container, rows, np.array([1, 2, 1], dtype=np.int32)).tolist()
    [False, False, True]
    """
    above = _above(container, rows)
    if not (above != NONE).any():
        return np.zeros(len(rows), dtype=bool)
    first, inner_count = _preorder(above)
    order = np.lexsort((first, codes))
    # Intervals are nested or disjoint: one that begins before the end of an earlier one of its code lies inside that.
    # Each code has a range of numbers of its own, so that one running maximum serves all.
    offset = codes[order].astype(np.int64) * (len(rows) + 1)
    latest_end = np.maximum.accumulate(offset + (first + inner_count)[order])
    is_enclosed = np.zeros(len(rows), dtype=bool)
    is_enclosed[order[1:]] = (offset + first[order])[1:] <= latest_end[:-1]
    return is_enclosed


def _above(container: Index, rows: Index) -> Index:
    """For each of `rows`, the place in `rows` of the nearest one above it, or NONE."""
    flag = np.zeros(len(container), dtype=bool)
    flag[rows] = True
    above = next_ancestor(container, nearest_ancestor(container, flag), rows)
    place = np.full(len(container) + 1, NONE, dtype=np.int32)  # one more: what NONE points at
    place[rows] = np.arange(len(rows), dtype=np.int32)
    return place[above]


def _preorder(above: Index) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each row in a walk from the top, and how many rows are inside it. Level by level, from the lowest and back.

    >>> [array.tolist() for array in _preorder(np.array([-1, 0, 1, 0], dtype=np.int32))]
    [[0, 1, 2, 3], [3, 1, 0, 0]]
    """
    levels = _levels(above)
    inner_count = np.zeros(len(above), dtype=np.int64)
    for level in reversed(levels[1:]):
        np.add.at(inner_count, above[level], inner_count[level] + 1)
    first = np.zeros(len(above), dtype=np.int64)
    for level in levels:
        siblings = level[np.argsort(above[level], kind="stable")]
        parent = above[siblings]
        size = inner_count[siblings] + 1
        before = np.cumsum(size) - size
        is_eldest = np.concatenate(([True], parent[1:] != parent[:-1]))
        before -= np.maximum.accumulate(np.where(is_eldest, before, 0))
        first[siblings] = before + np.where(parent == NONE, 0, first[parent] + 1)
    return first, inner_count


def _levels(above: Index) -> list[Index]:
    """Rows by how many rows are above them."""
    depth = np.where(above == NONE, 0, 1)
    pointer = above.copy()
    while (pointer != NONE).any():
        depth = depth + np.where(pointer == NONE, 0, depth[pointer])
        pointer = np.where(pointer == NONE, np.int32(NONE), pointer[pointer])
    order = np.argsort(depth, kind="stable").astype(np.int32)
    return np.split(order, np.flatnonzero(np.diff(depth[order])) + 1)
