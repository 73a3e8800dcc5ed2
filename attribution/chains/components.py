"""Connected components: what belongs together because any of its members do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from attribution.chains.forest import pointer_jump

Keys = NDArray[np.int64]


def distinct_sorted(sorted_values: Keys) -> Keys:
    """The distinct values of a sorted array.

    >>> distinct_sorted(np.array([1, 1, 2, 7, 7])).tolist(), distinct_sorted(np.array([], dtype=np.int64)).tolist()
    ([1, 2, 7], [])
    """
    is_first = np.ones(len(sorted_values), dtype=np.bool_)
    is_first[1:] = sorted_values[1:] != sorted_values[:-1]
    return sorted_values[is_first]


def connected_components(sources: Iterable[int] | Keys, targets: Iterable[int] | Keys) -> tuple[Keys, NDArray[np.int32]]:
    """Connected components of the graph whose edges are the pairs: its nodes in order, and a label for each, the same within one.

    >>> nodes, label = connected_components(np.array([7, 9, 1]), np.array([8, 7, 2]))
    >>> nodes.tolist(), [bool(label[2] == label[n]) for n in (3, 4, 0)]
    ([1, 2, 7, 8, 9], [True, True, False])
    """
    a, b = np.asarray(sources, dtype=np.int64), np.asarray(targets, dtype=np.int64)
    nodes = distinct_sorted(np.sort(np.concatenate([a, b])))
    source_rows, target_rows = np.searchsorted(nodes, a).astype(np.int32), np.searchsorted(nodes, b).astype(np.int32)
    label = np.arange(len(nodes), dtype=np.int32)
    while True:
        # Each root takes the smallest root it has an edge to; then all labels follow to their new root.
        low, high = np.minimum(label[source_rows], label[target_rows]), np.maximum(label[source_rows], label[target_rows])
        if np.array_equal(low, high):
            return nodes, label
        np.minimum.at(label, high, low)
        label = pointer_jump(label)


def reachable(start: Keys, sources: Keys, targets: Keys) -> Keys:
    """The keys that edges lead to from some keys, which are among them, in order. `start` is in order and distinct.

    However long the way is, an edge is followed once:

    >>> reachable(np.array([1, 9]), np.array([2, 1, 5, 3]), np.array([3, 2, 6, 1])).tolist()
    [1, 2, 3, 9]
    """
    order = np.argsort(sources, kind="stable")
    sources, targets = sources[order], targets[order]
    keys = distinct_sorted(np.sort(np.concatenate([start, targets])))
    first, last = np.searchsorted(sources, keys, side="left"), np.searchsorted(sources, keys, side="right")
    target_places, frontier = np.searchsorted(keys, targets), np.searchsorted(keys, start)
    is_reached = np.zeros(len(keys), dtype=np.bool_)
    while len(frontier):
        is_reached[frontier] = True
        counts = last[frontier] - first[frontier]
        edges = np.repeat(first[frontier] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        next_places = target_places[edges]
        frontier = np.unique(next_places[~is_reached[next_places]])
    return keys[is_reached]
