"""Rows of `calls`."""

from __future__ import annotations

import numpy as np
import polars as pl

from attribution.chains.ancestry import Paths
from attribution.chains.identity import Owners
from attribution.columns import CONTEXT, WHAT, WHO
from attribution.factorize import Index, non_null_columns
from attribution.usage.hourly import Cells
from ledger.tables import SHARES, TOKEN_METERS

_SIGNAL_COLUMNS = (
    "trace_key", "span_key", "trace_id", "span_id", "gateway_call_id", "provider_request_id", "channels", "start_time", "status",
    *TOKEN_METERS, "list_cost", "reported_cost",
)  # fmt: skip
"""What a call keeps of what was told of it."""


def first_paths(paths: Paths, calls: int) -> Index:
    """The path under which each call is shown: its first."""
    if not paths.forked:
        return paths.call
    shown = np.empty(calls, dtype=np.int32)
    firsts = np.flatnonzero(paths.place == 0).astype(np.int32)
    shown[paths.call[firsts]] = firsts
    return shown


def build_call_rows(calls: pl.DataFrame, paths: Paths, owners: Owners, cells: Cells, shown: Index) -> pl.DataFrame:
    """The calls under the names of their cells, without rollup, month and chain. A gateway cache hit is in no cell. (CA-4)"""
    at = cells.of[shown]
    words = cells.words.select("hour", *WHO, *WHAT, "context_above", *CONTEXT, "reason")
    hit = calls.select(pl.col("cache_hit").fill_null(value=False)).to_series()
    key = pl.Series("usage_key", cells.key[at])
    key = key.set(hit, None) if hit.any() else key
    frame = pl.concat([calls.select(_SIGNAL_COLUMNS), words[at], key.to_frame()], how="horizontal")
    if calls["unpriced"].any():
        told = pl.concat_str("reason", pl.when(calls["unpriced"]).then(pl.lit("unpriced")), separator=",", ignore_nulls=True)
        frame = frame.with_columns(reason=told.replace("", None))
    return frame.with_columns(_other_usage(calls), _shares(paths, owners, cells, calls.height))


def _other_usage(calls: pl.DataFrame) -> pl.Series | pl.Expr:
    """What a call used beside tokens, as JSON {meter: quantity}."""
    if not non_null_columns(calls, ["__other"]):
        return pl.lit(None, dtype=pl.String).alias("other_usage")
    empty = pl.repeat(None, calls.height, dtype=pl.String, eager=True).alias("other_usage")
    told = calls.select("__other", row=pl.int_range(pl.len(), dtype=pl.UInt32)).drop_nulls("__other").explode("__other")
    quantity = pl.col("quantity").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    pairs = told.unnest("__other").select("row", pair=pl.format('"{}":{}', "meter", quantity))
    joined = pairs.group_by("row").agg(pl.col("pair").sort().str.join(","))
    return empty.scatter(joined["row"], joined.select(pl.lit("{") + pl.col("pair") + pl.lit("}")).to_series())


def _shares(paths: Paths, owners: Owners, cells: Cells, calls: int) -> pl.Series | pl.Expr:
    """Owners of calls that several have. (CH-1)"""
    forked = np.flatnonzero(paths.numerator != paths.denominator)
    if not len(forked):
        return pl.lit(None, dtype=SHARES).alias("shares")
    who = ("initiator_agent", "initiator_team", "executor_agent", "executor_team")
    listed = (
        owners.table.select(pl.col(who).gather(owners.of[forked]))
        .with_columns(
            call=pl.Series(paths.call[forked]),
            usage_key=pl.Series(cells.key[cells.of[forked]]),
            numerator=pl.Series(paths.numerator[forked]),
            denominator=pl.Series(paths.denominator[forked]),
        )
        .group_by("call", maintain_order=True)
        .agg(shares=pl.struct("usage_key", *who, "numerator", "denominator"))
    )
    whole = pl.DataFrame({"call": np.arange(calls, dtype=np.int32)}).join(listed, on="call", how="left", maintain_order="left")
    return whole["shares"].cast(SHARES)
