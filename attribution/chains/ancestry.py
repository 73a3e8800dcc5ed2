"""Paths: from a call up to where its work began, and what is seen on the way. (CH-1, CH-4, CH-5, CH-7)

A call has one path; below a fan-in it has several, with weights that sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution import factorize
from attribution.chains import fan_in
from attribution.chains.fan_in import Ancestry
from attribution.chains.forest import NONE, Flags, Forest, Index, nearest_ancestor, topmost_ancestor
from attribution.factorize import Codes


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of calls, a row each. `call` numbers the calls they were asked for; top, near, claim and end are rows of the forest, or NONE.

    `end` is the root where the path ends; `fanned` says that a fan-in is on the way, `cut` that a cycle was cut on it. `place` orders the
    paths of one call, numerator / denominator is its weight.
    """

    call: Index
    top: Index
    near: Index
    claim: Index
    doubted: Flags
    cut: Flags
    fanned: Flags
    end: Index
    place: Index
    numerator: NDArray[np.int64]
    denominator: NDArray[np.int64]

    @property
    def forked(self) -> bool:
        """Whether any call has several."""
        return bool(self.place.any())

    def gathered(self, part: Codes) -> Codes:
        """A code of calls as a code of paths."""
        return Codes(part.code[self.call], part.size) if self.forked and part.size > 1 else part


@dataclass(frozen=True, slots=True)
class SpanContext:
    """What spans say of themselves, and what is seen from each, looking up.

    `agent` and `claimed` are codes by span (NONE: it names none) of `names` and of the rows of `claims` (claimed_agent, claimed_team).
    """

    nodes: pl.DataFrame
    forest: Forest
    agent: Index
    names: pl.Series
    claimed: Index
    claims: pl.DataFrame
    sight: Ancestry
    services: Codes
    onward: pl.DataFrame

    def agent_at(self, rows: Index) -> Index:
        """The agent named at each row; NONE at NONE."""
        return np.where(rows == NONE, np.int32(NONE), self.agent[rows])

    def claim_at(self, rows: Index) -> Index:
        """The claim made at each row; NONE at NONE."""
        if not self.claims.height:
            return np.full(len(rows), NONE, dtype=np.int32)
        return np.where(rows == NONE, np.int32(NONE), self.claimed[rows])

    def paths(self, at: Index) -> Paths:
        """All paths from these spans: one each, and of those below a fan-in one for each way on."""
        sight, root = self.sight, self.forest.root[at]
        one = np.ones(len(at), dtype=np.int64)
        plain = Paths(
            np.arange(len(at), dtype=np.int32),
            sight.top[at],
            sight.near[at],
            sight.claim[at],
            sight.doubted[at],
            sight.cut[at],
            np.zeros(len(at), dtype=bool),
            root,
            np.zeros(len(at), dtype=np.int32),
            one,
            one,
        )
        if not self.onward.height:
            return plain
        return self._forked(plain)

    def _forked(self, plain: Paths) -> Paths:
        own = pl.DataFrame(
            {name: getattr(plain, name) for name in ("call", "top", "near", "claim", "doubted", "cut")} | {"root": plain.end}
        )
        both = own.join(self.onward, on="root", how="left", suffix="_on").sort("call", "place")
        forks = pl.col("place").is_not_null()
        either = {c: pl.col(f"{c}_on").fill_null(value=False) for c in ("doubted", "cut")}
        # The topmost agent comes from beyond the tree, the nearest agent and claim from within it; as in `fan_in`.
        both = both.select(
            "call",
            top=pl.when(forks & (pl.col("top_on") != NONE)).then("top_on").otherwise("top"),
            near=pl.when(forks & (pl.col("near") == NONE)).then("near_on").otherwise("near"),
            claim=pl.when(forks & (pl.col("claim") == NONE)).then("claim_on").otherwise("claim"),
            doubted=pl.col("doubted") | either["doubted"],
            cut=pl.col("cut") | either["cut"],
            fanned=forks,
            end=pl.coalesce("end", "root"),
            place=pl.col("place").fill_null(0),
            numerator=pl.col("numerator").fill_null(1),
            denominator=pl.col("denominator").fill_null(1),
        )
        return Paths(*(both[c].to_numpy() for c in both.columns))


def merge_by_owner(paths: Paths, owner: Index) -> tuple[Paths, Index]:
    """Paths of one call that lead to one owner, as one path with the sum of their weights; and the owners of what is left."""
    if not paths.forked:
        return paths, owner
    frame = pl.DataFrame({f.name: getattr(paths, f.name) for f in fields(paths)} | {"owner": owner})
    kept = ("top", "near", "claim", "end", "place", "denominator")
    frame = (
        frame.group_by("call", "owner", maintain_order=True)
        .agg(
            *(pl.col(c).first() for c in kept),
            pl.col("numerator").sum(),
            *(pl.col(c).any() for c in ("doubted", "cut", "fanned")),
        )
        .with_columns(place=pl.int_range(pl.len(), dtype=pl.Int32).over("call"))
    )
    return Paths(*(frame[f.name].to_numpy() for f in fields(paths))), frame["owner"].to_numpy()


def resolve_ancestry(
    nodes: pl.DataFrame, forest: Forest, agents: tuple[Index, pl.Series], trusted: Sequence[str], *, by_service: bool
) -> SpanContext:
    """Looks up from every span. `agents` are the codes and names of `identity.span_agents`; `trusted` are the sources whose claims count.

    `by_service` says whether the service at a path's end may ever matter.
    """
    agent, names = agents
    has_agent = agent != NONE
    near = nearest_ancestor(forest.parent, has_agent)
    claimed, claims, believed, doubted = _collect_claims(nodes, trusted)
    sight = Ancestry(
        topmost_ancestor(forest.parent, has_agent, near),
        near,
        nearest_ancestor(forest.parent, believed),
        nearest_ancestor(forest.parent, doubted) != NONE,
        nearest_ancestor(forest.parent, forest.cycle) != NONE,
    )
    services = factorize.encode(nodes["service_name"]) if by_service else Codes(np.zeros(0, dtype=np.int32), 1)
    onward = pl.DataFrame(schema=fan_in.SCHEMA)
    seen = SpanContext(nodes, forest, agent, names, claimed, claims, sight, services, onward)
    if not forest.fans:
        return seen

    ends = factorize.combine(
        nodes.height, [factorize.encode_flags(forest.missing_parent), *([services] if services.size > 1 else [])]
    )
    same_agent, same_claim = _first_row_of_code(agent), _first_row_of_code(claimed)
    shown = Ancestry(same_agent[sight.top], same_agent[sight.near], same_claim[sight.claim], sight.doubted, sight.cut)
    return SpanContext(
        nodes, forest, agent, names, claimed, claims, sight, services, fan_in.fan_in_paths(forest, shown, ends[1][ends[0]])
    )


def _first_row_of_code(code: Index) -> Index:
    """For every row the first one of the same code; NONE for NONE, also as the last row, where NONE points."""
    same = np.full(len(code) + 1, NONE, dtype=np.int32)
    told = np.flatnonzero(code != NONE)
    if len(told):
        first = np.full(int(code.max()) + 1, NONE, dtype=np.int32)
        first[code[told][::-1]] = told[::-1]
        same[told] = first[code[told]]
    return same


def _collect_claims(nodes: pl.DataFrame, trusted: Sequence[str]) -> tuple[Index, pl.DataFrame, Flags, Flags]:
    """Root agents named by baggage, headers and tags: a code by span, the distinct claims, and which are believed or doubted. (CH-7)"""
    empty = np.zeros(nodes.height, dtype=bool)
    code = np.full(nodes.height, NONE, dtype=np.int32)
    told = nodes.select(pl.col("claimed_agent").is_not_null().arg_true()).to_series()
    if not len(told):
        return code, pl.DataFrame(schema={"claimed_agent": pl.String, "claimed_team": pl.String}), empty, empty
    claims = nodes.select(pl.col("claimed_agent", "claimed_team", "claim_source").gather(told))
    code[told.to_numpy()], distinct = factorize.distinct_rows(claims.select("claimed_agent", "claimed_team"))
    trusts = claims["claim_source"].is_in(list(trusted)).fill_null(value=False).to_numpy()
    believed, doubted = empty.copy(), empty.copy()
    believed[told.to_numpy()] = trusts
    doubted[told.to_numpy()] = ~trusts
    return code, distinct, believed, doubted
