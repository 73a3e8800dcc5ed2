"""Paths from calls to the roots of their chains: agents, claims and flags on each path. (CH-1, CH-4, CH-5, CH-7)

A call has one path; below a fan-in it has several, with weights that sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution import factorize
from attribution.as_of import AsOfIndex
from attribution.chains import fan_in
from attribution.chains.fan_in import Ancestry
from attribution.chains.forest import NONE, Flags, Forest, Index, nearest_ancestor, topmost_ancestor
from attribution.factorize import Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Paths of calls, as parallel arrays. `call` is the row of the call; top, near, claim and end are rows of the forest, or NONE.

    `top` and `near` are the topmost and nearest span that names an agent, `claim` the nearest span with a trusted claim, `end` the root.
    `has_cycle`: a cycle was cut on the path; `has_fan_in`: it passes a fan-in. `place` orders the paths of one call; numerator /
    denominator is the weight of a path.
    """

    call: Index
    top: Index
    near: Index
    claim: Index
    has_untrusted_claim: Flags
    has_cycle: Flags
    has_fan_in: Flags
    end: Index
    place: Index
    numerator: NDArray[np.int64]
    denominator: NDArray[np.int64]

    @property
    def has_forks(self) -> bool:
        """Whether any call has several paths."""
        return bool(self.place.any())

    def by_path(self, part: Codes) -> Codes:
        """Codes of calls, repeated for each path of a call."""
        return Codes(part.code[self.call], part.size) if self.has_forks and part.size > 1 else part


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanContext:
    """Agents and claims of all spans, and the ancestry of each.

    `agent` is a code by span of `names`, `claim` one of the rows of `claims` (claimed_agent, claimed_team); NONE where a span has none.
    `fan_in_paths` has the paths beyond each fan-in root.
    """

    nodes: pl.DataFrame
    forest: Forest
    agent: Index
    names: pl.Series
    claim: Index
    claims: pl.DataFrame
    ancestry: Ancestry
    services: Codes
    fan_in_paths: pl.DataFrame

    def agent_at(self, rows: Index) -> Index:
        """The agent code of each row; NONE for NONE."""
        return np.where(rows == NONE, np.int32(NONE), self.agent[rows])

    def claim_at(self, rows: Index) -> Index:
        """The claim code of each row; NONE for NONE."""
        if not self.claims.height:
            return np.full(len(rows), NONE, dtype=np.int32)
        return np.where(rows == NONE, np.int32(NONE), self.claim[rows])

    def paths(self, start_rows: Index) -> Paths:
        """All paths from these spans: one for each span, or one for each fan-in path where the span is below a fan-in."""
        ancestry, root = self.ancestry, self.forest.root[start_rows]
        unit_weight = np.ones(len(start_rows), dtype=np.int64)
        single_paths = Paths(
            call=np.arange(len(start_rows), dtype=np.int32),
            top=ancestry.top[start_rows],
            near=ancestry.near[start_rows],
            claim=ancestry.claim[start_rows],
            has_untrusted_claim=ancestry.has_untrusted_claim[start_rows],
            has_cycle=ancestry.has_cycle[start_rows],
            has_fan_in=np.zeros(len(start_rows), dtype=bool),
            end=root,
            place=np.zeros(len(start_rows), dtype=np.int32),
            numerator=unit_weight,
            denominator=unit_weight,
        )
        if not self.fan_in_paths.height:
            return single_paths
        return self._with_fan_in_paths(single_paths)

    def _with_fan_in_paths(self, single_paths: Paths) -> Paths:
        tree_paths = pl.DataFrame(
            {name: getattr(single_paths, name) for name in ("call", "top", "near", "claim", "has_untrusted_claim", "has_cycle")}
            | {"root": single_paths.end}
        )
        joined_paths = tree_paths.join(self.fan_in_paths, on="root", how="left", suffix="_on").sort("call", "place")
        has_fork = pl.col("place").is_not_null()
        flag_beyond = {c: pl.col(f"{c}_on").fill_null(value=False) for c in ("has_untrusted_claim", "has_cycle")}
        # The topmost agent comes from beyond the tree, the nearest agent and claim from within it; as in `fan_in`.
        joined_paths = joined_paths.select(
            "call",
            top=pl.when(has_fork & (pl.col("top_on") != NONE)).then("top_on").otherwise("top"),
            near=pl.when(has_fork & (pl.col("near") == NONE)).then("near_on").otherwise("near"),
            claim=pl.when(has_fork & (pl.col("claim") == NONE)).then("claim_on").otherwise("claim"),
            has_untrusted_claim=pl.col("has_untrusted_claim") | flag_beyond["has_untrusted_claim"],
            has_cycle=pl.col("has_cycle") | flag_beyond["has_cycle"],
            has_fan_in=has_fork,
            end=pl.coalesce("end", "root"),
            place=pl.col("place").fill_null(0),
            numerator=pl.col("numerator").fill_null(1),
            denominator=pl.col("denominator").fill_null(1),
        )
        return Paths(**{c: joined_paths[c].to_numpy() for c in joined_paths.columns})


def find_paths(calls: pl.DataFrame, context: SpanContext) -> Paths:
    """All paths of calls from their rows, `node`, to the roots."""
    return context.paths(calls["node"].to_numpy())


def merge_by_owner(paths: Paths, owner: Index) -> tuple[Paths, Index]:
    """Merges the paths of one call that lead to the same owner and adds their weights; returns the paths and their owners."""
    if not paths.has_forks:
        return paths, owner
    frame = pl.DataFrame({f.name: getattr(paths, f.name) for f in fields(paths)} | {"owner": owner})
    first_columns = ("top", "near", "claim", "end", "place", "denominator")
    frame = (
        frame.group_by("call", "owner", maintain_order=True)
        .agg(
            *(pl.col(c).first() for c in first_columns),
            pl.col("numerator").sum(),
            *(pl.col(c).any() for c in ("has_untrusted_claim", "has_cycle", "has_fan_in")),
        )
        .with_columns(place=pl.int_range(pl.len(), dtype=pl.Int32).over("call"))
    )
    return Paths(**{f.name: frame[f.name].to_numpy() for f in fields(paths)}), frame["owner"].to_numpy()


def resolve_ancestry(
    nodes: pl.DataFrame, forest: Forest, agents: tuple[Index, pl.Series], as_of: AsOfIndex, trusted_sources: Sequence[str]
) -> SpanContext:
    """The topmost and nearest agent, the nearest trusted claim and the flags of every span's path to its root.

    `agents` are the codes and names of `identity.span_agents`; `trusted_sources` are the sources whose claims count. The service at the
    end of a path is kept only where the registry maps services at all.
    """
    agent, names = agents
    has_agent = agent != NONE
    nearest_agent = nearest_ancestor(forest.parent, has_agent)
    claim_code, claims, trusted_claim, untrusted_claim = _collect_claims(nodes, trusted_sources)
    ancestry = Ancestry(
        top=topmost_ancestor(forest.parent, has_agent, nearest_agent),
        near=nearest_agent,
        claim=nearest_ancestor(forest.parent, trusted_claim),
        has_untrusted_claim=nearest_ancestor(forest.parent, untrusted_claim) != NONE,
        has_cycle=nearest_ancestor(forest.parent, forest.cycle) != NONE,
    )
    services = factorize.encode(nodes["service_name"]) if "service" in as_of.kinds else Codes(np.zeros(0, dtype=np.int32), 1)
    context = SpanContext(
        nodes=nodes,
        forest=forest,
        agent=agent,
        names=names,
        claim=claim_code,
        claims=claims,
        ancestry=ancestry,
        services=services,
        fan_in_paths=pl.DataFrame(schema=fan_in.SCHEMA),
    )
    if not forest.fans:
        return context

    end_codes = factorize.combine(
        nodes.height, [factorize.encode_flags(forest.missing_parent), *([services] if services.size > 1 else [])]
    )
    same_agent, same_claim = _first_row_of_code(agent), _first_row_of_code(claim_code)
    shared_ancestry = replace(
        ancestry, top=same_agent[ancestry.top], near=same_agent[ancestry.near], claim=same_claim[ancestry.claim]
    )
    return replace(context, fan_in_paths=fan_in.fan_in_paths(forest, shared_ancestry, end_codes[1][end_codes[0]]))


def _first_row_of_code(code: Index) -> Index:
    """For every row the first row with the same code; NONE for NONE. One more entry, NONE, is appended: index -1 refers to it."""
    first_row = np.full(len(code) + 1, NONE, dtype=np.int32)
    coded_rows = np.flatnonzero(code != NONE)
    if len(coded_rows):
        first = np.full(int(code.max()) + 1, NONE, dtype=np.int32)
        first[code[coded_rows][::-1]] = coded_rows[::-1]
        first_row[coded_rows] = first[code[coded_rows]]
    return first_row


def _collect_claims(nodes: pl.DataFrame, trusted_sources: Sequence[str]) -> tuple[Index, pl.DataFrame, Flags, Flags]:
    """Root agents named by baggage, headers and tags: a code by span, the distinct claims, and flags for trusted and untrusted ones. (CH-7)"""
    no_flags = np.zeros(nodes.height, dtype=bool)
    code = np.full(nodes.height, NONE, dtype=np.int32)
    claim_rows = nodes.select(pl.col("claimed_agent").is_not_null().arg_true()).to_series()
    if not len(claim_rows):
        return code, pl.DataFrame(schema={"claimed_agent": pl.String, "claimed_team": pl.String}), no_flags, no_flags
    claims = nodes.select(pl.col("claimed_agent", "claimed_team", "claim_source").gather(claim_rows))
    code[claim_rows.to_numpy()], distinct = factorize.distinct_rows(claims.select("claimed_agent", "claimed_team"))
    is_trusted = claims["claim_source"].is_in(list(trusted_sources)).fill_null(value=False).to_numpy()
    trusted_claim, untrusted_claim = no_flags.copy(), no_flags.copy()
    trusted_claim[claim_rows.to_numpy()] = is_trusted
    untrusted_claim[claim_rows.to_numpy()] = ~is_trusted
    return code, distinct, trusted_claim, untrusted_claim
