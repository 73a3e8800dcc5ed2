"""Fan-in: work that several chains asked for belongs to all of them, in equal parts. (CH-1)

A span that several known links lead to is the root of a tree of its own. Each link is a way on into another chain, which may be a
fan-in itself: weights multiply. What an owner is found from on the way up is kept, not the way, and ways that show the same are
one with the sum of their weights; so a hundred layers of pairs are not 2^100 ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from attribution.chains.forest import Flags, Forest, Index

NONE = -1
MAX_DENOMINATOR = 2**40
"""Most parts a whole is cut into: a fan-in behind fan-ins of unlike sizes would need ever more."""
MAX_PATHS = 512
"""Most ways that are followed on from one fan-in into others; where there are more, the lightest of each link give way to its heavier
ones. Links themselves are never left out. It bounds the work on chains that are tangled without end."""


@dataclass(frozen=True, slots=True)
class Ancestry:
    """What is seen from every row looking up its own tree: rows, or NONE.

    The topmost and the nearest row that names an agent, the nearest that bears a trusted claim; whether an untrusted one was met, and
    whether a cycle was cut on the way.
    """

    top: Index
    near: Index
    claim: Index
    doubted: Flags
    cut: Flags


class Path(NamedTuple):
    """What is seen from a fan-in along one way up, beyond its own tree, to the root `end` where it stops."""

    top: int
    near: int
    claim: int
    doubted: bool
    cut: bool
    end: int


class WeightedPaths(NamedTuple):
    """All ways on from somewhere, each with its parts of the whole."""

    parts: Sequence[tuple[Path, int]]
    whole: int


def fan_in_paths(forest: Forest, ancestry: Ancestry, end: Index) -> pl.DataFrame:
    """Every way on from every fan-in: root, place (order of its links), top, near, claim, doubted, cut, end, numerator, denominator.

    `ancestry` and `end` give, for rows that say the same (the same agent, the same claim, a root of the same kind), the same row: then
    ways that lead to the same owner are equal. The weights of one root sum to 1 exactly, over one denominator.
    """
    paths_by_root: dict[int, WeightedPaths] = {}
    for root in topological_order(forest):
        targets = forest.fans[root]
        quota = max(1, MAX_PATHS // len(targets))
        link_paths = [_paths_from(forest, ancestry, end, paths_by_root, target) for target in targets]
        paths_by_root[root] = _merge_links([_heaviest(root_paths, quota) for root_paths in link_paths])
    rows = [
        (root, place, *path, part, root_paths.whole)
        for root, root_paths in paths_by_root.items()
        for place, (path, part) in enumerate(root_paths.parts)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA = {
    "root": pl.Int32, "place": pl.Int32, "top": pl.Int32, "near": pl.Int32, "claim": pl.Int32, "doubted": pl.Boolean, "cut": pl.Boolean, "end": pl.Int32,
    "numerator": pl.Int64, "denominator": pl.Int64,
}  # fmt: skip


def _paths_from(
    forest: Forest, ancestry: Ancestry, end: Index, paths_by_root: dict[int, WeightedPaths], row: int
) -> WeightedPaths:
    """The ways up from any row: one, or those of the fan-in its tree stands on."""
    root = int(forest.root[row])
    tree_path = Path(
        int(ancestry.top[row]),
        int(ancestry.near[row]),
        int(ancestry.claim[row]),
        bool(ancestry.doubted[row]),
        bool(ancestry.cut[row]),
        int(end[root]),
    )
    paths_beyond = paths_by_root.get(root)
    return (
        WeightedPaths([(tree_path, 1)], 1)
        if paths_beyond is None
        else WeightedPaths([(_extend(tree_path, path), part) for path, part in paths_beyond.parts], paths_beyond.whole)
    )


def _extend(tree_path: Path, path_beyond: Path) -> Path:
    """A tree and what lies beyond its root as one way: the topmost agent comes from beyond, the nearest from the tree."""
    return Path(
        tree_path.top if path_beyond.top == NONE else path_beyond.top,
        path_beyond.near if tree_path.near == NONE else tree_path.near,
        path_beyond.claim if tree_path.claim == NONE else tree_path.claim,
        tree_path.doubted or path_beyond.doubted,
        tree_path.cut or path_beyond.cut,
        path_beyond.end,
    )


def _heaviest(paths: WeightedPaths, quota: int) -> WeightedPaths:
    if len(paths.parts) <= quota:
        return paths
    heaviest = sorted(paths.parts, key=lambda item: -item[1])[:quota]
    return WeightedPaths(heaviest, sum(part for _, part in heaviest))


def _merge_links(links: Sequence[WeightedPaths]) -> WeightedPaths:
    """The ways of all links, each link with the same weight; equal ways are one.

    >>> a, b = (Path(n, n, NONE, False, False, n) for n in (1, 2))
    >>> both = _merge_links([WeightedPaths([(a, 1)], 1), WeightedPaths([(a, 1), (b, 1)], 2)])
    >>> [(way.top, part) for way, part in both.parts], both.whole
    ([(1, 3), (2, 1)], 4)
    """
    denominator = 1
    for paths in links:
        denominator = lcm(denominator, paths.whole)
        if denominator > MAX_DENOMINATOR:
            links, denominator = [_rescale(link, MAX_DENOMINATOR) for link in links], MAX_DENOMINATOR
            break
    weight_of: dict[Path, int] = {}
    for paths in links:
        factor = denominator // paths.whole
        for path, part in paths.parts:
            weight_of[path] = weight_of.get(path, 0) + part * factor
    divisor = gcd(denominator * len(links), *weight_of.values())
    union = WeightedPaths([(path, part // divisor) for path, part in weight_of.items()], denominator * len(links) // divisor)
    return union if union.whole <= MAX_DENOMINATOR else _rescale(union, MAX_DENOMINATOR)


def _rescale(paths: WeightedPaths, whole: int) -> WeightedPaths:
    """The same weights over another whole, rounded, that still sum to 1; what comes to no part is left out."""
    parts: list[tuple[Path, int]] = []
    cumulative_weight = weight_given = 0
    for path, part in paths.parts:
        cumulative_weight += part
        new_weight = (2 * cumulative_weight * whole + paths.whole) // (2 * paths.whole) - weight_given
        weight_given += new_weight
        if new_weight:
            parts.append((path, new_weight))
    return WeightedPaths(parts, whole)


def topological_order(forest: Forest) -> Iterator[int]:
    """Fan-ins in an order in which those further up come first."""
    emitted: set[int] = set()
    for start in forest.fans:
        path = [start]
        while path:
            root = path[-1]
            roots_above = (int(forest.root[target]) for target in forest.fans[root])
            next_root = next(
                (root_above for root_above in roots_above if root_above in forest.fans and root_above not in emitted), None
            )
            if next_root is not None:
                path.append(next_root)
                continue
            path.pop()
            if root not in emitted:
                emitted.add(root)
                yield root
