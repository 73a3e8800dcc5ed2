"""Fan-in: work that several chains asked for belongs to all of them, in equal parts. (CH-1)

A span that several known links lead to is the root of a tree of its own. Each link is a way on into another chain, which may be a
fan-in itself: weights multiply. What an owner is found from on the way up is kept, not the way, and ways that show the same are
one with the sum of their weights; so a hundred layers of pairs are not 2^100 ways.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from attribution.chains import Flags, Forest, Index

NONE = -1
PART_LIMIT = 2**40
"""Most parts a whole is cut into: a fan-in behind fan-ins of unlike sizes would need ever more."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen from every row looking up its own tree: rows, or NONE.

    The topmost and the nearest row that names an agent, the nearest that bears a trusted claim; whether an untrusted one was met, and
    whether a cycle was cut on the way.
    """

    top: Index
    near: Index
    claim: Index
    doubted: Flags
    cut: Flags


@dataclass(frozen=True, slots=True)
class Way:
    """What is seen from a fan-in along one way up, beyond its own tree, to the root `end` where it stops."""

    top: int
    near: int
    claim: int
    doubted: bool
    cut: bool
    end: int


Alike = Callable[[Way], Hashable]
"""Ways of which this is the same lead to the same owner."""


def ways(forest: Forest, sight: Sight, alike: Alike) -> pl.DataFrame:
    """Every way on from every fan-in: root, place (order of its links), top, near, claim, doubted, cut, end, numerator, denominator.

    The weights of one root sum to 1 exactly, over one denominator.
    """
    found: dict[int, list[tuple[Way, Fraction]]] = {}
    for root in outer_first(forest):
        merged: dict[Hashable, tuple[Way, Fraction]] = {}
        share = Fraction(1, len(forest.fans[root]))
        for target in forest.fans[root]:
            for way, weight in _onward(forest, sight, found, target):
                key = alike(way)
                first, so_far = merged.get(key, (way, Fraction(0)))
                merged[key] = first, so_far + weight * share
        found[root] = list(_parts(list(merged.values())))
    rows = [
        (root, place, w.top, w.near, w.claim, w.doubted, w.cut, w.end, part.numerator * (whole // part.denominator), whole)
        for root, some in found.items()
        for whole in (lcm(*(part.denominator for _, part in some)),)
        for place, (w, part) in enumerate(some)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA = {
    "root": pl.Int32, "place": pl.Int32, "top": pl.Int32, "near": pl.Int32, "claim": pl.Int32, "doubted": pl.Boolean, "cut": pl.Boolean, "end": pl.Int32,
    "numerator": pl.Int64, "denominator": pl.Int64,
}  # fmt: skip


def _onward(
    forest: Forest, sight: Sight, found: dict[int, list[tuple[Way, Fraction]]], at: int
) -> Iterator[tuple[Way, Fraction]]:
    """The ways up from any row, with their weights: one, or those of the fan-in its tree stands on."""
    root = int(forest.root[at])
    own = Way(int(sight.top[at]), int(sight.near[at]), int(sight.claim[at]), bool(sight.doubted[at]), bool(sight.cut[at]), root)
    for way, weight in found.get(root, [(own, Fraction(1))]):
        yield beyond(own, way), weight


def beyond(own: Way, way: Way) -> Way:
    """A tree and what lies beyond its root as one way: the topmost agent comes from beyond, the nearest from the tree."""
    return replace(
        own,
        top=own.top if way.top == NONE else way.top,
        near=way.near if own.near == NONE else own.near,
        claim=way.claim if own.claim == NONE else own.claim,
        doubted=own.doubted or way.doubted,
        cut=own.cut or way.cut,
        end=way.end,
    )


def _parts(some: list[tuple[Way, Fraction]]) -> Iterator[tuple[Way, Fraction]]:
    """The weights as parts of one whole that fits 64 bits; beyond that they are rounded, and still sum to 1."""
    if lcm(*(weight.denominator for _, weight in some)) <= PART_LIMIT:
        yield from some
        return
    upto, taken = Fraction(0), 0
    for way, weight in some:
        upto += weight
        parts = round(upto * PART_LIMIT) - taken
        taken += parts
        if parts:
            yield way, Fraction(parts, PART_LIMIT)


def outer_first(forest: Forest) -> Iterator[int]:
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
