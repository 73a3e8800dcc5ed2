"""Cuts cycles of spans that are each other's ancestors, by mistake or by bad ids. (CH-3)

In each strongly connected component the span that started last loses its edges to the others, until no span is its own ancestor.
Real chains have no cycles, so this is plain Python over the few rows concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int32]
SortKey = Callable[[int], Any]
"""The sort key of a row; the row with the largest key of a cycle is cut."""
Parents = dict[int, list[int]]
"""Rows, each with its parent rows."""


def cut_tree_cycles(parent: Index, cycle_rows: Index, sort_key: SortKey) -> Index:
    """Cuts each cycle of a forest at one row; `cycle_rows` has a row of each cycle. Returns the rows that became roots."""
    parents: Parents = {}
    for start in np.unique(cycle_rows).tolist():
        at = start
        while at not in parents:
            above = int(parent[at])
            parents[at] = [above]
            at = above
    cut_rows = _cut_cycles(parents, sort_key)
    rows = np.array(sorted(cut_rows), dtype=np.int32)
    parent[rows] = rows
    return rows


def cut_fan_in_cycles(parent: Index, root: Index, fans: dict[int, tuple[int, ...]], sort_key: SortKey) -> Index:
    """Cuts cycles that pass through the links of fan-ins. Returns the rows that lost an edge.

    `fans` is changed in place: a fan-in with one remaining link becomes an ordinary child, one with none becomes a root.
    """
    trees: Parents = {row: [t for target in targets if (t := int(root[target])) in fans] for row, targets in fans.items()}
    component_of = {tree: n for n, component in enumerate(_cyclic_components(trees)) for tree in component}
    if not component_of:
        return np.zeros(0, dtype=np.int32)
    parents: Parents = {}
    for tree in component_of:
        parents[tree] = []
        for target in fans[tree]:
            if component_of.get(int(root[target])) != component_of[tree]:
                continue
            parents[tree].append(target)
            row_above = target
            while row_above not in parents and row_above != int(root[target]):
                parents[row_above] = [int(parent[row_above])]
                row_above = int(parent[row_above])
    parents_before = {tree: set(parents[tree]) for tree in component_of}
    cut_rows = _cut_cycles(parents, sort_key)
    for row in cut_rows:
        if row not in component_of:
            parent[row] = row
            continue
        links = tuple(t for t in fans[row] if t not in parents_before[row] or t in parents[row])
        del fans[row]
        if len(links) > 1:
            fans[row] = links
        elif links:
            parent[row] = links[0]
    return np.array(sorted(cut_rows), dtype=np.int32)


def _cut_cycles(parents: Parents, sort_key: SortKey) -> set[int]:
    """Removes edges from `parents` until no row is its own ancestor; returns the rows that lost one."""
    cut_rows: set[int] = set()
    pending: list[Iterable[int]] = [list(parents)]
    while pending:
        subset = set(pending.pop())
        for component in _cyclic_components({row: [up for up in parents[row] if up in subset] for row in subset}):
            last_started = max(component, key=sort_key)
            parents[last_started] = [up for up in parents[last_started] if up not in component]
            cut_rows.add(last_started)
            if len(component) > 1:
                pending.append(component)
    return cut_rows


def _cyclic_components(parents: Parents) -> Iterator[set[int]]:
    """The strongly connected components with at least one edge, by Tarjan's algorithm without recursion.

    >>> sorted(map(sorted, _cyclic_components({1: [2], 2: [3], 3: [2], 4: [4], 5: [1]})))
    [[2, 3], [4]]
    """
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for start in parents:
        if start in number:
            continue
        number[start] = lowest[start] = len(number)
        stack.append(start)
        on_stack.add(start)
        path: list[tuple[int, Iterator[int]]] = [(start, iter(parents[start]))]
        while path:
            row, remaining_parents = path[-1]
            parent = next(remaining_parents, None)
            if parent is not None:
                if parent not in number:
                    number[parent] = lowest[parent] = len(number)
                    stack.append(parent)
                    on_stack.add(parent)
                    path.append((parent, iter(parents.get(parent, _NOTHING))))
                elif parent in on_stack:
                    lowest[row] = min(lowest[row], number[parent])
                continue
            path.pop()
            if path:
                lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[row])
            if lowest[row] == number[row]:
                component: set[int] = set()
                while row not in component:
                    member = stack.pop()
                    on_stack.discard(member)
                    component.add(member)
                if len(component) > 1 or row in parents.get(row, _NOTHING):
                    yield component


_NOTHING: Sequence[int] = ()
