"""What repeats the calls below it, and what it stands for beyond them. (CA-2)

Agents, workflows and counters repeat the usage of the calls below them. Where those report, the wrapper says nothing new; where some
are silent, or none was instrumented, what it says beyond them is real usage that is known from nowhere else. And of two
instrumentations of one request, one inside the other, the outer repeats the inner. Below means by parent edges: a link is no
containment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.chains.calls import reports_usage
from attribution.chains.forest import NONE, Flags, Index, nearest_ancestor, next_ancestor
from ledger.tables import TOKEN_METERS

Counts = NDArray[np.int64]
"""A row a wrapper, a column a meter."""

WRAPPERS = ("aggregate", "cumulative")


def is_wrapper() -> pl.Expr:
    """Whether a call only repeats others, by its own account."""
    return pl.col("usage_scope").is_in(WRAPPERS).fill_null(value=False)


def drop_outer_duplicates(calls: pl.DataFrame, container: Index) -> pl.DataFrame:
    """Leaves out calls that the next call below them reports again: the outer of two nested instrumentations.

    An outer call with a provider request id of its own is a call of its own. `calls` has `node`, its row in `container`.
    """
    speaks = calls.select(reports_usage() & ~is_wrapper()).to_series().to_numpy()
    at = calls["node"].to_numpy()
    encloses = np.zeros(len(container), dtype=bool)
    encloses[container[container != np.arange(len(container), dtype=np.int32)]] = True
    outer = np.zeros(len(container), dtype=bool)
    outer[at[speaks]] = True
    outer &= encloses
    if not outer.any():
        return calls
    inner = np.flatnonzero(speaks)
    over = next_ancestor(container, nearest_ancestor(container, outer), at[inner])
    below = np.flatnonzero(over != NONE)
    ids = pl.coalesce("provider_request_id", "gateway_call_id")
    pairs = calls[inner[below]].select(inner_id=ids, over=pl.Series(over[below]))
    outers = calls.filter(pl.Series(outer[at])).select(over="node", outer_id=ids, scope="usage_scope")
    hidden = (
        pairs.join(outers, on="over")
        .filter(
            (pl.col("scope") != "leaf").fill_null(value=True)
            | pl.col("inner_id").is_null()
            | pl.col("outer_id").is_null()
            | (pl.col("inner_id") == pl.col("outer_id"))
        )
        .select(pl.col("over").unique())
    )
    return calls.filter(~pl.col("node").is_in(hidden["over"].implode()) | is_wrapper())


def keep_residuals(calls: pl.DataFrame, container: Index) -> pl.DataFrame:
    """The calls that bear cost: every leaf, and every wrapper that stands for something, with only that as its meters.

    `calls` has disjoint meters and `node`. Adds `standing`: aggregate_only where nothing below a wrapper reports, aggregate_residual
    where something does, null for leaves.
    """
    wraps = calls.select(is_wrapper()).to_series()
    calls = calls.with_columns(standing=pl.lit(None, dtype=pl.String))
    if not wraps.any():
        return calls
    leaves, wrappers = calls.filter(~wraps), counter_increments(calls.filter(wraps & calls.select(_has_meters()).to_series()))
    residual, reporting = _residuals(wrappers, leaves, container)
    alone = pl.Series(~reporting)
    rest = wrappers.with_columns(
        *(pl.when(pl.col(m).is_not_null()).then(pl.Series(residual[:, n])).alias(m) for n, m in enumerate(TOKEN_METERS)),
        pl.when(alone).then(pl.lit("aggregate_only")).otherwise(pl.lit("aggregate_residual")).alias("standing"),
        *(pl.when(alone).then(c).alias(c) for c in ("other_usage", "reported_cost")),
        # A sum over several requests says nothing of the size of one.
        pl.lit(None, dtype=calls.schema["prompt_tokens"]).alias("prompt_tokens"),
    )
    return pl.concat([leaves, rest.filter(pl.Series(residual.any(axis=1)) | pl.col("other_usage").is_not_null())])


def _has_meters() -> pl.Expr:
    """Whether a call with disjoint meters says how much was used."""
    return pl.any_horizontal(pl.col(c).is_not_null() for c in (*TOKEN_METERS, "other_usage"))


def counter_increments(wrappers: pl.DataFrame) -> pl.DataFrame:
    """Counters that run on from one invocation to the next, as what each invocation added; aggregates as they are.

    A counter belongs to one agent of one service in one conversation, or trace where there is none. One that falls was started anew.
    """
    counts = pl.col("usage_scope") == "cumulative"
    if not wrappers.select(counts.any()).item():
        return wrappers
    counter = [
        counts,
        pl.coalesce("agent_id", "agent_name"),
        pl.col("service_name"),
        pl.col("conversation_id"),
        pl.when(pl.col("conversation_id").is_null()).then(pl.col("trace_key")),
    ]
    before = {m: pl.col(m).shift(1).over(counter).fill_null(0) for m in TOKEN_METERS}
    fell = pl.any_horizontal(pl.col(m) < before[m] for m in TOKEN_METERS).fill_null(value=False)
    ordered = wrappers.sort("start_time", "trace_id", "span_id", "trace_key", "span_key")
    return ordered.with_columns(
        pl.when(counts & ~fell).then(pl.col(m) - before[m]).otherwise(pl.col(m)).alias(m) for m in TOKEN_METERS
    )


def _residuals(wrappers: pl.DataFrame, leaves: pl.DataFrame, container: Index) -> tuple[Counts, Flags]:
    """Of each wrapper: max(0, what it says − leaves below − residuals of wrappers below), by meter; and whether anything below reports.

    Wrappers go innermost first, all of one depth at once.
    """
    nested = _Nesting.of(wrappers["node"].to_numpy(), container)
    said, contains = _counts(wrappers), _inclusive_meters(wrappers)
    below = np.zeros_like(said)
    reporting, silent = np.zeros(len(said), dtype=bool), np.zeros(len(said), dtype=bool)
    under = nested.near[leaves["node"].to_numpy()]
    inside = np.flatnonzero(under != NONE)
    under, some = under[inside], leaves[inside]
    # A gateway's cache hit reports, too: it used nothing at the provider.
    speaks = some.select(_has_meters() | pl.col("cache_hit").fill_null(value=False)).to_series().to_numpy()
    np.add.at(below, under, _counts(some))
    reporting[under[speaks]] = True
    silent[under[~speaks]] = True
    residual = np.zeros_like(said)
    for now in nested.inner_first():
        ignored = reporting[now] & ~silent[now]
        rest = np.where(ignored[:, None], 0, _residual(said[now], below[now], contains[now]))
        residual[now] = rest
        within = nested.over[now] != NONE
        outer = nested.over[now][within]
        np.add.at(below, outer, (below[now] + rest)[within])
        np.logical_or.at(reporting, outer, (reporting[now] | rest.any(axis=1))[within])
        np.logical_or.at(silent, outer, silent[now][within])
    return residual, reporting


_PART_OF = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "input_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}
"""Meters that a sum may not tell apart, and where they are in it then."""


def _inclusive_meters(wrappers: pl.DataFrame) -> Flags:
    """Of which meters each wrapper counts what it does not tell apart: all, but those it says it leaves out."""
    cached, thought = (
        wrappers[c].fill_null(value=True).to_numpy() for c in ("input_includes_cache", "output_includes_reasoning")
    )
    always = np.ones(wrappers.height, dtype=bool)
    return np.stack(
        [cached if m.startswith("cache_") else thought if m == "reasoning_tokens" else always for m in TOKEN_METERS], axis=1
    )


def _residual(said: Counts, below: Counts, contains: Flags) -> Counts:
    """What wrappers say beyond what is below them, never negative.

    What calls tell of a part (cached, reasoning, …) beyond what their wrapper tells of it, is in the wrapper's whole. An agent that
    says 1000 in over two calls, of which the one that reports had 900 in, 800 of it from the cache, stands for 100:

    >>> said, below = np.zeros((2, 1, len(TOKEN_METERS)), dtype=np.int64)
    >>> said[0, 0], below[0, 0], below[0, 1] = 1000, 100, 800
    >>> _beyond(said, below, np.ones((1, len(TOKEN_METERS)), dtype=bool))[0, :2].tolist()
    [100, 0]
    """
    accounted = below.copy()
    for part, whole in _PART_OF.items():
        n = TOKEN_METERS.index(part)
        untold = np.maximum(0, below[:, n] - said[:, n])
        accounted[:, TOKEN_METERS.index(whole)] += np.where(contains[:, n], untold, 0)
    rest: Counts = np.maximum(0, said - accounted)
    return rest


def _counts(calls: pl.DataFrame) -> Counts:
    counts: Counts = calls.select(pl.col(m).fill_null(0).cast(pl.Int64) for m in TOKEN_METERS).to_numpy()
    return counts.copy()


@dataclass(frozen=True, slots=True)
class _Nesting:
    """Wrappers within wrappers: `over` is the next above each, `depth` the number above it, `near` the one at or above each row."""

    near: Index
    over: Index
    depth: Index

    @classmethod
    def of(cls, node: Index, container: Index) -> _Nesting:
        flag = np.zeros(len(container), dtype=bool)
        flag[node] = True
        number = np.full(len(container) + 1, NONE, dtype=np.int32)  # one more: what NONE points at
        number[node] = np.arange(len(node), dtype=np.int32)
        near = nearest_ancestor(container, flag)
        over = number[next_ancestor(container, near, node)]
        return cls(number[near], over, _depth(over))

    def inner_first(self) -> list[Index]:
        """Wrappers of one depth at a time, the deepest first."""
        order = np.argsort(-self.depth, kind="stable").astype(np.int32)
        return np.split(order, np.flatnonzero(np.diff(self.depth[order])) + 1) if len(order) else []


def _depth(over: Index) -> Index:
    """How many are above each, by jumps that double.

    >>> _depth(np.array([-1, 0, 1, -1], dtype=np.int32)).tolist()
    [0, 1, 2, 0]
    """
    pointer = np.where(over == NONE, np.arange(len(over), dtype=np.int32), over)
    depth: Index = (over != NONE).astype(np.int32)
    while True:
        further = depth[pointer]
        if not further.any():
            return depth
        depth += further
        pointer = pointer[pointer]
