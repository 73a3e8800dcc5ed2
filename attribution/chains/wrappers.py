"""Wrapper spans: drops usage that repeats the calls below them, and keeps the residual. (CA-2)

Spans of agents and workflows, and running counters, repeat the usage of the calls below them. Where all calls below report, a wrapper
adds nothing; where some do not, or none is instrumented, its usage beyond theirs is real, and that of the silent calls below it. "Below"
means by parent edges: a link is no containment.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.chains.calls import is_wrapper
from attribution.chains.counters import counter_increments
from attribution.chains.forest import NONE, Flags, Forest, Index, nearest_ancestor, next_ancestor
from attribution.chains.residuals import assign_residuals
from ledger.tables import TOKEN_METERS

Counts = NDArray[np.int64]
"""Token counts, shape (wrappers, meters)."""


def keep_residuals(calls: pl.DataFrame, forest: Forest) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The calls that bear cost: every leaf, and every wrapper whose residual no silent call below it takes; and what is set aside. (CA-2, CA-2a)

    `calls` has disjoint meters and `node`. Adds `standing`: aggregate_only where nothing below the wrapper reports, aggregate_residual
    where something does, with counter_by_process where its counter was read so; null for calls with usage of their own.

    Set aside are, by `set_aside`: an `echo`; the usage of a `wrapper` that calls below it report; and its `wrapper_excess`, which it reports
    beyond them though all of them report. (CA-2b)
    """
    echoes = calls.filter("is_echo").with_columns(set_aside=pl.lit("echo"))
    calls = calls.filter(~pl.col("is_echo")) if echoes.height else calls
    wrapper_mask = calls.select(is_wrapper()).to_series()
    calls = calls.with_columns(standing=pl.lit(None, dtype=pl.String))
    if not wrapper_mask.any():
        return calls, echoes
    leaves, wrappers = (
        calls.filter(~wrapper_mask),
        counter_increments(calls.filter(wrapper_mask & calls.select(_has_meters()).to_series())),
    )
    residual, reporting, excess = _residuals(wrappers, leaves, forest.container)
    repeats = _with_counts(wrappers, _counts(wrappers) - residual - excess, pl.lit("wrapper"))
    set_aside = pl.concat([echoes, repeats, _with_counts(wrappers, excess, pl.lit("wrapper_excess"))], how="diagonal")
    is_sole_report = pl.Series(~reporting)
    residual_calls = wrappers.with_columns(
        *(pl.when(pl.col(m).is_not_null()).then(pl.Series(residual[:, n])).alias(m) for n, m in enumerate(TOKEN_METERS)),
        pl.concat_str(
            pl.when(is_sole_report).then(pl.lit("aggregate_only")).otherwise(pl.lit("aggregate_residual")),
            pl.when("counter_by_process").then(pl.lit("counter_by_process")),
            separator=",",
            ignore_nulls=True,
        ).alias("standing"),
        *(pl.when(is_sole_report).then(c).alias(c) for c in ("other_usage", "reported_cost")),
        # The sum over several requests is not the prompt size of any one.
        pl.lit(None, dtype=calls.schema["prompt_tokens"]).alias("prompt_tokens"),
    ).drop("counter_by_process")
    residual_calls = residual_calls.filter(pl.Series(residual.any(axis=1)) | pl.col("other_usage").is_not_null())
    return assign_residuals(leaves, residual_calls, _is_silent(leaves), forest.container), set_aside


def _with_counts(wrappers: pl.DataFrame, counts: Counts, reason: pl.Expr) -> pl.DataFrame:
    """Wrappers with these counts, of those that have any; `set_aside` is the reason."""
    return wrappers.with_columns(
        *(pl.when(pl.col(m).is_not_null()).then(pl.Series(counts[:, n])).alias(m) for n, m in enumerate(TOKEN_METERS)),
        set_aside=reason,
    ).filter(pl.Series(counts.any(axis=1)))


def _has_meters() -> pl.Expr:
    """Whether a call with disjoint meters reports usage."""
    return pl.any_horizontal(pl.col(c).is_not_null() for c in (*TOKEN_METERS, "other_usage"))


def _is_silent(leaves: pl.DataFrame) -> Flags:
    """Which calls report no usage. A gateway cache hit does: it used nothing at the provider."""
    return leaves.select(~(_has_meters() | pl.col("cache_hit").fill_null(value=False))).to_series().to_numpy()


def _residuals(wrappers: pl.DataFrame, leaves: pl.DataFrame, container: Index) -> tuple[Counts, Flags, Counts]:
    """For each wrapper and meter, max(0, reported − leaves below − residuals of wrappers below); and whether anything below reports.

    Where all calls below report, that is no residual but an excess, the third result. Wrappers are processed innermost first, all of one depth at once.
    """
    nesting = _Nesting.of(wrappers["node"].to_numpy(), container)
    reported_counts, inclusive = _counts(wrappers), _inclusive_meters(wrappers)
    below = np.zeros_like(reported_counts)
    reporting, silent = np.zeros(len(reported_counts), dtype=bool), np.zeros(len(reported_counts), dtype=bool)
    wrapper_of_leaf = nesting.near[leaves["node"].to_numpy()]
    within_wrapper = np.flatnonzero(wrapper_of_leaf != NONE)
    wrapper_of_leaf, leaf_calls = wrapper_of_leaf[within_wrapper], leaves[within_wrapper]
    has_report = ~_is_silent(leaf_calls)
    np.add.at(below, wrapper_of_leaf, _counts(leaf_calls))
    reporting[wrapper_of_leaf[has_report]] = True
    silent[wrapper_of_leaf[~has_report]] = True
    for row, wrapper, common in nesting.elsewhere(leaves):
        counts, is_silent = _counts(leaves[[row]])[0], bool(_is_silent(leaves[[row]])[0])
        below[wrapper] += counts
        if common != NONE:
            below[common] -= counts  # what it gets from either side is one call
        reporting[wrapper] |= not is_silent
        silent[wrapper] |= is_silent
    residual, excess = np.zeros_like(reported_counts), np.zeros_like(reported_counts)
    for level in nesting.inner_first():
        fully_covered = reporting[level] & ~silent[level]
        residual_here = _residual(reported_counts[level], below[level], inclusive[level])
        residual_now = np.where(fully_covered[:, None], 0, residual_here)
        residual[level], excess[level] = residual_now, residual_here - residual_now
        has_outer = nesting.over[level] != NONE
        outer = nesting.over[level][has_outer]
        np.add.at(below, outer, (below[level] + residual_now)[has_outer])
        np.logical_or.at(reporting, outer, (reporting[level] | residual_now.any(axis=1))[has_outer])
        np.logical_or.at(silent, outer, silent[level][has_outer])
    return residual, reporting, excess


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
"""Meters that a sum may not report separately, and the meter that includes them then."""


def _inclusive_meters(wrappers: pl.DataFrame) -> Flags:
    """Flags by wrapper and meter: whether the wrapper's counts include the meter where it is not reported separately."""
    includes_cache, includes_reasoning = (
        wrappers[c].fill_null(value=True).to_numpy() for c in ("input_includes_cache", "output_includes_reasoning")
    )
    always = np.ones(wrappers.height, dtype=bool)
    return np.stack(
        [
            includes_cache if m.startswith("cache_") else includes_reasoning if m == "reasoning_tokens" else always
            for m in TOKEN_METERS
        ],
        axis=1,
    )


def _residual(reported_counts: Counts, below: Counts, inclusive: Flags) -> Counts:
    """The usage that wrappers report beyond the calls below them, never negative.

    Where the calls below report more of a part (cached, reasoning, …) than their wrapper, the excess is part of the wrapper's whole. An
    agent reports 1000 input tokens over two calls; the one call that reports had 900, 800 of them cached: the residual is 100.

    >>> reported_counts, below = np.zeros((2, 1, len(TOKEN_METERS)), dtype=np.int64)
    >>> reported_counts[0, 0], below[0, 0], below[0, 1] = 1000, 100, 800
    >>> _residual(reported_counts, below, np.ones((1, len(TOKEN_METERS)), dtype=bool))[0, :2].tolist()
    [100, 0]
    """
    accounted_for = below.copy()
    for part, whole in _PART_OF.items():
        n = TOKEN_METERS.index(part)
        excess = np.maximum(0, below[:, n] - reported_counts[:, n])
        accounted_for[:, TOKEN_METERS.index(whole)] += np.where(inclusive[:, n], excess, 0)
    residual: Counts = np.maximum(0, reported_counts - accounted_for)
    return residual


def _counts(calls: pl.DataFrame) -> Counts:
    counts: Counts = calls.select(pl.col(m).fill_null(0).cast(pl.Int64) for m in TOKEN_METERS).to_numpy()
    return counts.copy()


@dataclass(frozen=True, slots=True)
class _Nesting:
    """Nested wrappers: `over` is the next wrapper above each, `depth` how many are above it, `near` the wrapper at or above each row."""

    near: Index
    over: Index
    depth: Index

    @classmethod
    def of(cls, node: Index, container: Index) -> _Nesting:
        flag = np.zeros(len(container), dtype=bool)
        flag[node] = True
        number = np.full(len(container) + 1, NONE, dtype=np.int32)  # one more: what NONE points at
        number[node] = np.arange(len(node), dtype=np.int32)
        nearest = nearest_ancestor(container, flag)
        over = number[next_ancestor(container, nearest, node)]
        return cls(number[nearest], over, _depth(over))

    def elsewhere(self, leaves: pl.DataFrame) -> Iterator[tuple[int, int, int]]:
        """Of each call with spans below wrappers that are not above its own node: its row, such a wrapper, and the nearest wrapper above that
        one which the call lies below anyhow.
        """
        rows = leaves.select("node", "other_nodes", row=pl.int_range(pl.len())).drop_nulls("other_nodes").explode("other_nodes")
        own, other = (self.near[rows[c].to_numpy()] for c in ("node", "other_nodes"))
        is_elsewhere = (other != NONE) & (other != own)
        wrappers_above: dict[int, set[int]] = {}
        for row, nearest, wrapper in zip(
            rows["row"].to_numpy()[is_elsewhere], own[is_elsewhere], other[is_elsewhere], strict=True
        ):
            above = wrappers_above.setdefault(int(row), set(self._upwards(int(nearest), set())))
            path = list(self._upwards(int(wrapper), above))
            if path:
                above.update(path)
                yield int(row), int(wrapper), int(self.over[path[-1]])

    def _upwards(self, wrapper: int, until: AbstractSet[int]) -> Iterator[int]:
        """A wrapper and those above it, up to one of `until`."""
        while wrapper != NONE and wrapper not in until:
            yield wrapper
            wrapper = int(self.over[wrapper])

    def inner_first(self) -> list[Index]:
        """Wrappers of one depth at a time, the deepest first."""
        order = np.argsort(-self.depth, kind="stable").astype(np.int32)
        return np.split(order, np.flatnonzero(np.diff(self.depth[order])) + 1) if len(order) else []


def _depth(over: Index) -> Index:
    """How many wrappers are above each, by pointer jumping.

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
