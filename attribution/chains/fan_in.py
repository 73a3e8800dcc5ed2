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


def fan_in_paths(forest: Forest, sight: Ancestry, end: Index) -> pl.DataFrame:
    """Every way on from every fan-in: root, place (order of its links), top, near, claim, doubted, cut, end, numerator, denominator.

    `sight` and `end` give, for rows that say the same (the same agent, the same claim, a root of the same kind), the same row: then
    ways that lead to the same owner are equal. The weights of one root sum to 1 exactly, over one denominator.
    """
    found: dict[int, WeightedPaths] = {}
    for root in topological_order(forest):
        targets = forest.fans[root]
        quota = max(1, MAX_PATHS // len(targets))
        onward = [_paths_from(forest, sight, end, found, target) for target in targets]
        found[root] = _merge_links([_heaviest(some, quota) for some in onward])
    rows = [(root, place, *way, part, some.whole) for root, some in found.items() for place, (way, part) in enumerate(some.parts)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA = {
    "root": pl.Int32, "place": pl.Int32, "top": pl.Int32, "near": pl.Int32, "claim": pl.Int32, "doubted": pl.Boolean, "cut": pl.Boolean, "end": pl.Int32,
    "numerator": pl.Int64, "denominator": pl.Int64,
}  # fmt: skip


def _paths_from(forest: Forest, sight: Ancestry, end: Index, found: dict[int, WeightedPaths], at: int) -> WeightedPaths:
    """The ways up from any row: one, or those of the fan-in its tree stands on."""
    root = int(forest.root[at])
    own = Path(
        int(sight.top[at]),
        int(sight.near[at]),
        int(sight.claim[at]),
        bool(sight.doubted[at]),
        bool(sight.cut[at]),
        int(end[root]),
    )
    beyond = found.get(root)
    return (
        WeightedPaths([(own, 1)], 1)
        if beyond is None
        else WeightedPaths([(_extend(own, way), part) for way, part in beyond.parts], beyond.whole)
    )


def _extend(own: Path, way: Path) -> Path:
    """A tree and what lies beyond its root as one way: the topmost agent comes from beyond, the nearest from the tree."""
    return Path(
        own.top if way.top == NONE else way.top,
        way.near if own.near == NONE else own.near,
        way.claim if own.claim == NONE else own.claim,
        own.doubted or way.doubted,
        own.cut or way.cut,
        way.end,
    )


def _heaviest(some: WeightedPaths, quota: int) -> WeightedPaths:
    if len(some.parts) <= quota:
        return some
    kept = sorted(some.parts, key=lambda item: -item[1])[:quota]
    return WeightedPaths(kept, sum(part for _, part in kept))


def _merge_links(links: Sequence[WeightedPaths]) -> WeightedPaths:
    """The ways of all links, each link with the same weight; equal ways are one.

    >>> a, b = (Way(n, n, NONE, False, False, n) for n in (1, 2))
    >>> both = _together([Ways([(a, 1)], 1), Ways([(a, 1), (b, 1)], 2)])
    >>> [(way.top, part) for way, part in both.parts], both.whole
    ([(1, 3), (2, 1)], 4)
    """
    common = 1
    for some in links:
        common = lcm(common, some.whole)
        if common > MAX_DENOMINATOR:
            links, common = [_rescale(each, MAX_DENOMINATOR) for each in links], MAX_DENOMINATOR
            break
    merged: dict[Path, int] = {}
    for some in links:
        factor = common // some.whole
        for way, part in some.parts:
            merged[way] = merged.get(way, 0) + part * factor
    shared = gcd(common * len(links), *merged.values())
    out = WeightedPaths([(way, part // shared) for way, part in merged.items()], common * len(links) // shared)
    return out if out.whole <= MAX_DENOMINATOR else _rescale(out, MAX_DENOMINATOR)


def _rescale(some: WeightedPaths, whole: int) -> WeightedPaths:
    """The same weights over another whole, rounded, that still sum to 1; what comes to no part is left out."""
    parts: list[tuple[Path, int]] = []
    upto = taken = 0
    for way, part in some.parts:
        upto += part
        rounded = (2 * upto * whole + some.whole) // (2 * some.whole) - taken
        taken += rounded
        if rounded:
            parts.append((way, rounded))
    return WeightedPaths(parts, whole)


def topological_order(forest: Forest) -> Iterator[int]:
    """Fan-ins in an order in which those further up come first."""
    done: set[int] = set()
    for start in forest.fans:
        path = [start]
        while path:
            root = path[-1]
            further = (int(forest.root[target]) for target in forest.fans[root])
            unseen = next((above for above in further if above in forest.fans and above not in done), None)
            if unseen is not None:
                path.append(unseen)
                continue
            path.pop()
            if root not in done:
                done.add(root)
                yield root
