"""Cycles: spans that are each other's ancestors, by mistake or by bad ids, and where they are cut. (CH-3)

Of the spans that are each other's ancestors, the one that started last loses the edges that tie it to the others; then again, until
none is its own ancestor. Real chains have none, so this may be plain Python over the few rows concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int32]
SortKey = Callable[[int], Any]
"""Sorts rows; the largest of a cycle is cut."""
Parents = dict[int, list[int]]
"""Rows, each with the rows above it."""


def cut_tree_cycles(parent: Index, on: Index, order: SortKey) -> Index:
    """Cuts every loop of the forest, each at one row; `on` holds a row of each. Returns the rows that became roots."""
    ups: Parents = {}
    for start in np.unique(on).tolist():
        at = start
        while at not in ups:
            above = int(parent[at])
            ups[at] = [above]
            at = above
    cut = _cut_cycles(ups, order)
    rows = np.array(sorted(cut), dtype=np.int32)
    parent[rows] = rows
    return rows


def cut_fan_in_cycles(parent: Index, root: Index, fans: dict[int, tuple[int, ...]], order: SortKey) -> Index:
    """Cuts cycles that go through the links of fan-ins. Returns the rows that lost an edge.

    `fans` is changed in place: a fan-in left with one link hangs on it like any other span, with none it is a root.
    """
    trees: Parents = {row: [t for target in targets if (t := int(root[target])) in fans] for row, targets in fans.items()}
    tangled = {tree: n for n, ring in enumerate(_cyclic_components(trees)) for tree in ring}
    if not tangled:
        return np.zeros(0, dtype=np.int32)
    ups: Parents = {}
    for tree in tangled:
        ups[tree] = []
        for target in fans[tree]:
            if tangled.get(int(root[target])) != tangled[tree]:
                continue
            ups[tree].append(target)
            at = target
            while at not in ups and at != int(root[target]):
                ups[at] = [int(parent[at])]
                at = int(parent[at])
    before = {tree: set(ups[tree]) for tree in tangled}
    cut = _cut_cycles(ups, order)
    for row in cut:
        if row not in tangled:
            parent[row] = row
            continue
        left = tuple(t for t in fans[row] if t not in before[row] or t in ups[row])
        del fans[row]
        if len(left) > 1:
            fans[row] = left
        elif left:
            parent[row] = left[0]
    return np.array(sorted(cut), dtype=np.int32)


def _cut_cycles(ups: Parents, order: SortKey) -> set[int]:
    """Takes edges out of `ups` until nothing is above itself; returns the rows that lost one."""
    cut: set[int] = set()
    waiting: list[Iterable[int]] = [list(ups)]
    while waiting:
        some = set(waiting.pop())
        for ring in _cyclic_components({row: [up for up in ups[row] if up in some] for row in some}):
            last = max(ring, key=order)
            ups[last] = [up for up in ups[last] if up not in ring]
            cut.add(last)
            if len(ring) > 1:
                waiting.append(ring)
    return cut


def _cyclic_components(ups: Parents) -> Iterator[set[int]]:
    """The sets of rows that are each other's ancestors (strongly connected components with an edge inside).

    >>> sorted(map(sorted, _rings({1: [2], 2: [3], 3: [2], 4: [4], 5: [1]})))
    [[2, 3], [4]]
    """
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_rows: list[int] = []
    is_open: set[int] = set()
    for start in ups:
        if start in number:
            continue
        number[start] = lowest[start] = len(number)
        open_rows.append(start)
        is_open.add(start)
        path: list[tuple[int, Iterator[int]]] = [(start, iter(ups[start]))]
        while path:
            row, rest = path[-1]
            up = next(rest, None)
            if up is not None:
                if up not in number:
                    number[up] = lowest[up] = len(number)
                    open_rows.append(up)
                    is_open.add(up)
                    path.append((up, iter(ups.get(up, _NOTHING))))
                elif up in is_open:
                    lowest[row] = min(lowest[row], number[up])
                continue
            path.pop()
            if path:
                lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[row])
            if lowest[row] == number[row]:
                ring: set[int] = set()
                while row not in ring:
                    member = open_rows.pop()
                    is_open.discard(member)
                    ring.add(member)
                if len(ring) > 1 or row in ups.get(row, _NOTHING):
                    yield ring


_NOTHING: Sequence[int] = ()
