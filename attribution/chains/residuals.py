"""Residuals of wrappers: the silent calls below a wrapper take what it reports beyond the other calls. (CA-2a)"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.chains.forest import NONE, Flags, Index, nearest_ancestor
from ledger.tables import TOKEN_METERS

_MODEL = ("request_model", "response_model")
_SOLD_AS = (
    "provider", *_MODEL, "service_tier", "account_id", "region", "provider_account", "provider_region", "resource_id",
)  # fmt: skip
"""What a silent call that names no model takes from its wrapper."""
_OF_COUNTS = ("usage_flag", "count_contradiction", "__lifetime_unknown")
"""What is to be said of the counts, whoever bears them."""
_OF_COST = ("reported_cost", "__cache_inside", "__reasoning_inside")
"""The cost reported for all of a residual, and what it may decide; it is that of a single call only."""


def assign_residuals(leaves: pl.DataFrame, residual_calls: pl.DataFrame, is_silent: Flags, container: Index) -> pl.DataFrame:
    """Leaves and wrappers that bear cost: each residual goes in equal parts to the silent calls below its wrapper.

    A silent call takes from the nearest wrapper above it that has a residual, under its own model, or the wrapper's where it names none.
    A wrapper without such a call keeps its residual, and one above several silent calls the usage that is not counted in tokens.
    """
    silent_rows = np.flatnonzero(is_silent)
    if not len(silent_rows) or not residual_calls.height:
        return pl.concat([leaves, residual_calls])
    wrapper_nodes = residual_calls["node"].to_numpy()
    is_bearing = np.zeros(len(container), dtype=bool)
    is_bearing[wrapper_nodes] = True
    wrapper_at = np.full(len(container) + 1, NONE, dtype=np.int32)  # one more: what NONE points at
    wrapper_at[wrapper_nodes] = np.arange(len(wrapper_nodes), dtype=np.int32)
    silent_nodes = leaves["node"].to_numpy()[silent_rows]
    wrapper_of = wrapper_at[nearest_ancestor(container, is_bearing)[silent_nodes]]
    has_wrapper = wrapper_of != NONE
    if not has_wrapper.any():
        return pl.concat([leaves, residual_calls])
    rows = pl.DataFrame({"leaf": silent_rows[has_wrapper], "wrapper": wrapper_of[has_wrapper]})
    silent_calls = _take(leaves[rows["leaf"]], residual_calls[rows["wrapper"]], rows["wrapper"])
    takers = np.bincount(rows["wrapper"].to_numpy(), minlength=residual_calls.height)
    has_takers, has_several = pl.Series(takers > 0), pl.Series(takers > 1)
    wrappers = residual_calls.with_columns(
        pl.when(~has_takers).then(c).alias(c) for c in (*TOKEN_METERS, *_OF_COST) if c in residual_calls.columns
    ).filter(~has_takers | (has_several & pl.col("other_usage").is_not_null()))
    is_taker = np.zeros(leaves.height, dtype=bool)
    is_taker[rows["leaf"].to_numpy()] = True
    return pl.concat([leaves.filter(~pl.Series(is_taker)), silent_calls, wrappers])


def _take(silent_calls: pl.DataFrame, wrappers: pl.DataFrame, wrapper: pl.Series) -> pl.DataFrame:
    """Silent calls with their part of the usage of their wrappers, which are parallel to them; `wrapper` numbers these."""
    calls = silent_calls.with_columns(__wrapper=wrapper, __row=pl.int_range(pl.len(), dtype=pl.Int64))
    calls = calls.with_columns(
        __place=pl.struct("start_time", "trace_id", "span_id", "trace_key", "span_key", "__row").rank("ordinal").over("__wrapper")
        - 1,
        __parts=pl.len().over("__wrapper"),
    )
    place, parts = calls["__place"].cast(pl.Int64).to_numpy(), calls["__parts"].cast(pl.Int64).to_numpy()
    is_single = pl.Series(parts == 1)
    has_model = pl.any_horizontal(pl.col(c).is_not_null() for c in _MODEL)
    return silent_calls.with_columns(
        *(_equal_parts(wrappers[m], place, parts).alias(m) for m in TOKEN_METERS),
        *(pl.when(has_model).then(c).otherwise(pl.coalesce(c, wrappers[c])).alias(c) for c in _SOLD_AS),
        *(wrappers[c].alias(c) for c in _OF_COUNTS if c in wrappers.columns),
        *(pl.when(is_single).then(wrappers[c]).alias(c) for c in ("other_usage", *_OF_COST) if c in wrappers.columns),
        wrappers["standing"],
    )


def _equal_parts(tokens: pl.Series, place: NDArray[np.int64], parts: NDArray[np.int64]) -> pl.Series:
    """The part of each place in a count that is cut in equal integers; the parts sum to the count.

    >>> three = np.array([3, 3, 3])
    >>> _equal_parts(pl.Series([100, 100, 100]), np.arange(3), three).to_list()
    [33, 33, 34]
    """
    counts = tokens.fill_null(0).to_numpy()
    whole, remainder = counts // parts, counts % parts
    share = whole + (place + 1) * remainder // parts - place * remainder // parts
    return (
        pl.DataFrame({"share": share, "tokens": tokens})
        .select(pl.when(pl.col("tokens").is_not_null()).then("share").cast(tokens.dtype))
        .to_series()
    )
