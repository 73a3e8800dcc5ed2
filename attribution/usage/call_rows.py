"""Rows of the table `calls`."""

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
    "trace_key", "span_key", "gateway_call_id", "provider_request_id", "channels", "start_time", "status",
    *TOKEN_METERS, "list_cost", "reported_cost",
)  # fmt: skip
"""Columns of a merged call that its row keeps."""


def first_paths(calls: pl.DataFrame, paths: Paths) -> Index:
    """The row of each call's first path: the one whose owners are displayed."""
    if not paths.has_forks:
        return paths.call
    first_path = np.empty(calls.height, dtype=np.int32)
    firsts = np.flatnonzero(paths.place == 0).astype(np.int32)
    first_path[paths.call[firsts]] = firsts
    return first_path


def build_call_rows(
    calls: pl.DataFrame,
    paths: Paths,
    owners: Owners,
    cells: Cells,
    first_path: Index,
    chain_rows: pl.DataFrame,
    chain_of_call: Index,
) -> pl.DataFrame:
    """The calls with the owners and dimensions of their cells, without rollup and month. A gateway cache hit has no usage key. (CA-4)"""
    cell = cells.code[first_path]
    dimensions = cells.dimensions.select("hour", *WHO, *WHAT, "context_above", *CONTEXT, "reason")
    is_cache_hit = calls.select(pl.col("cache_hit").fill_null(value=False)).to_series()
    key = pl.Series("usage_key", cells.keys[cell])
    key = key.set(is_cache_hit, None) if is_cache_hit.any() else key
    frame = pl.concat([calls.select(_SIGNAL_COLUMNS), dimensions[cell], key.to_frame()], how="horizontal")
    if calls["unpriced"].any():
        reason = pl.concat_str("reason", pl.when(calls["unpriced"]).then(pl.lit("unpriced")), separator=",", ignore_nulls=True)
        frame = frame.with_columns(reason=reason.replace("", None))
    chain_id = chain_rows["chain_id"].gather(chain_of_call)
    return frame.with_columns(_other_usage(calls), _shares(paths, owners, cells, calls.height), chain_id)


def _other_usage(calls: pl.DataFrame) -> pl.Series | pl.Expr:
    """The usage of each call other than tokens, as JSON {meter: quantity}."""
    if not non_null_columns(calls, ["__other"]):
        return pl.lit(None, dtype=pl.String).alias("other_usage")
    no_usage = pl.repeat(None, calls.height, dtype=pl.String, eager=True).alias("other_usage")
    quantities = calls.select("__other", row=pl.int_range(pl.len(), dtype=pl.UInt32)).drop_nulls("__other").explode("__other")
    quantity = pl.col("quantity").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    pairs = quantities.unnest("__other").select("row", pair=pl.format('"{}":{}', "meter", quantity))
    texts = pairs.group_by("row").agg(pl.col("pair").sort().str.join(","))
    return no_usage.scatter(texts["row"], texts.select(pl.lit("{") + pl.col("pair") + pl.lit("}")).to_series())


def _shares(paths: Paths, owners: Owners, cells: Cells, calls: int) -> pl.Series | pl.Expr:
    """The owners and weights of calls with several paths. (CH-1)"""
    shared_paths = np.flatnonzero(paths.numerator != paths.denominator)
    if not len(shared_paths):
        return pl.lit(None, dtype=SHARES).alias("shares")
    owner_columns = ("initiator_agent", "initiator_team", "executor_agent", "executor_team")
    shares = (
        owners.table.select(pl.col(owner_columns).gather(owners.code[shared_paths]))
        .with_columns(
            call=pl.Series(paths.call[shared_paths]),
            usage_key=pl.Series(cells.keys[cells.code[shared_paths]]),
            numerator=pl.Series(paths.numerator[shared_paths]),
            denominator=pl.Series(paths.denominator[shared_paths]),
        )
        .group_by("call", maintain_order=True)
        .agg(shares=pl.struct("usage_key", *owner_columns, "numerator", "denominator"))
    )
    all_calls = pl.DataFrame({"call": np.arange(calls, dtype=np.int32)}).join(
        shares, on="call", how="left", maintain_order="left"
    )
    return all_calls["shares"].cast(SHARES)
