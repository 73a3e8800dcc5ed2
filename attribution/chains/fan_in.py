"""Fan-in: the cost of work that several chains asked for is split over them in equal parts. (CH-1)

A span with several known links is the root of its own tree. Each link leads to another chain, which may be a fan-in itself: weights
multiply. Paths with the same agents, claim and root are merged and their weights added, so a hundred layers of pairs are not 2^100
paths.
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
"""The largest denominator of weights: nested fan-ins of different sizes would need ever larger ones."""
MAX_PATHS = 512
"""The most paths that are followed from one fan-in into others. Beyond it, only the heaviest paths of each link are kept; no link is left
out. It bounds the work on deeply nested fan-ins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestry:
    """For every row, ancestors within its own tree: rows, or NONE.

    The topmost and the nearest row that names an agent, the nearest with a trusted claim; `has_untrusted_claim`: the path has an untrusted claim;
    `has_cycle`: a cycle was cut on it.
    """

    top: Index
    near: Index
    claim: Index
    has_untrusted_claim: Flags
    has_cycle: Flags


class Path(NamedTuple):
    """The ancestry of a fan-in root along one path beyond its own tree, up to the root `end`."""

    top: int
    near: int
    claim: int
    has_untrusted_claim: bool
    has_cycle: bool
    end: int


class WeightedPaths(NamedTuple):
    """Paths with integer weights over one denominator, `whole`."""

    parts: Sequence[tuple[Path, int]]
    whole: int


def fan_in_paths(forest: Forest, ancestry: Ancestry, end: Index) -> pl.DataFrame:
    """Every path beyond every fan-in: root, place (order of its links), the fields of `Path`, numerator, denominator.

    `ancestry` and `end` refer to one representative row for all rows with the same agent, claim or kind of root, so that paths to the same
    owner are equal. The weights of one root sum to exactly 1, over one denominator.
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
    "root": pl.Int32, "place": pl.Int32, "top": pl.Int32, "near": pl.Int32, "claim": pl.Int32,
    "has_untrusted_claim": pl.Boolean, "has_cycle": pl.Boolean, "end": pl.Int32, "numerator": pl.Int64, "denominator": pl.Int64,
}  # fmt: skip


def _paths_from(
    forest: Forest, ancestry: Ancestry, end: Index, paths_by_root: dict[int, WeightedPaths], row: int
) -> WeightedPaths:
    """The paths up from a row: one, or those beyond the fan-in at the root of its tree."""
    root = int(forest.root[row])
    tree_path = Path(
        int(ancestry.top[row]),
        int(ancestry.near[row]),
        int(ancestry.claim[row]),
        bool(ancestry.has_untrusted_claim[row]),
        bool(ancestry.has_cycle[row]),
        int(end[root]),
    )
    paths_beyond = paths_by_root.get(root)
    return (
        WeightedPaths([(tree_path, 1)], 1)
        if paths_beyond is None
        else WeightedPaths([(_extend(tree_path, path), part) for path, part in paths_beyond.parts], paths_beyond.whole)
    )


def _extend(tree_path: Path, path_beyond: Path) -> Path:
    """Joins the path within a tree and one beyond its root: the topmost agent comes from beyond, the nearest from the tree."""
    return Path(
        tree_path.top if path_beyond.top == NONE else path_beyond.top,
        path_beyond.near if tree_path.near == NONE else tree_path.near,
        path_beyond.claim if tree_path.claim == NONE else tree_path.claim,
        tree_path.has_untrusted_claim or path_beyond.has_untrusted_claim,
        tree_path.has_cycle or path_beyond.has_cycle,
        path_beyond.end,
    )


def _heaviest(paths: WeightedPaths, quota: int) -> WeightedPaths:
    if len(paths.parts) <= quota:
        return paths
    heaviest = sorted(paths.parts, key=lambda item: -item[1])[:quota]
    return WeightedPaths(heaviest, sum(part for _, part in heaviest))


def _merge_links(links: Sequence[WeightedPaths]) -> WeightedPaths:
    """The paths of all links, each link with the same weight; equal paths are merged.

    >>> a, b = (Path(n, n, NONE, False, False, n) for n in (1, 2))
    >>> both = _merge_links([WeightedPaths([(a, 1)], 1), WeightedPaths([(a, 1), (b, 1)], 2)])
    >>> [(path.top, part) for path, part in both.parts], both.whole
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
    """The same weights over another denominator, rounded so that they still sum to 1; paths that round to 0 are left out."""
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
    """Fan-in roots in topological order: those further up come first."""
    finished_roots: set[int] = set()
    for start in forest.fans:
        path = [start]
        while path:
            root = path[-1]
            roots_above = (int(forest.root[target]) for target in forest.fans[root])
            next_root = next(
                (root_above for root_above in roots_above if root_above in forest.fans and root_above not in finished_roots), None
            )
            if next_root is not None:
                path.append(next_root)
                continue
            path.pop()
            if root not in finished_roots:
                finished_roots.add(root)
                yield root
