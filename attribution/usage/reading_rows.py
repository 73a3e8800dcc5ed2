"""Rows of `count_readings`: usage whose reading the record does not prove, by what decided it. (CA-5)"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import polars as pl

from attribution.chains.ancestry import Paths
from attribution.classification import names
from attribution.usage.hourly import Cells, split_by_path
from ledger.money import MONEY
from ledger.tables import COUNT_READINGS

_READINGS: Mapping[str, str] = {"input_reading": "input_tokens", "output_reading": "output_tokens"}
"""The reading of each side, and the meter whose quantity depends on it. Cached and reasoning tokens are stated by the record itself."""


def drop_native_readings(calls: pl.DataFrame) -> pl.DataFrame:
    """The calls without readings of sources whose records are the provider's own usage (`native_usage.csv`): they prove themselves."""
    native_sources = [row["source"] for row in names.table("native_usage")]
    is_native = pl.col("emitter").is_null() & pl.col("source").is_in(native_sources).fill_null(value=False)
    return calls.with_columns(pl.when(~is_native).then(c).alias(c) for c in _READINGS)


def read_quantities(calls: pl.DataFrame, paths: Paths, cells: Cells, period: tuple[datetime, datetime] | None) -> pl.DataFrame:
    """Rows of `count_readings` without rollup and month: quantities of usage rows that the record does not prove, by what decided. (CA-5)

    Input tokens of a call with cached ones, output tokens of one with reasoning. A gateway cache hit used nothing.
    """
    is_counted = ~pl.col("cache_hit").fill_null(value=False)
    if period is not None:
        is_counted &= pl.col("start_time").is_between(*period, closed="left")
    numbered_calls = calls.lazy().with_columns(call=pl.int_range(pl.len(), dtype=pl.Int32)).filter(is_counted)
    columns = ("call", pl.coalesce("emitter", "source").alias("emitter"), "emitter_version")
    rows = pl.concat(
        [
            numbered_calls.filter(pl.col(reading).is_not_null(), pl.col(meter) > 0).select(
                *columns,
                pl.lit(meter).alias("meter"),
                pl.col(reading).alias("reading"),
                pl.col(meter).cast(MONEY).alias("quantity"),
            )
            for reading, meter in _READINGS.items()
        ]
    ).collect()
    if not rows.height:
        return COUNT_READINGS.empty().drop("rollup_id", "month").with_columns(hour=cells.dimensions["hour"].head(0))
    is_read = np.zeros(calls.height, dtype=bool)
    is_read[rows["call"].to_numpy()] = True
    at = np.flatnonzero(is_read[paths.call])
    weights = pl.DataFrame(
        {
            "call": paths.call[at],
            "cell": cells.code[at],
            "key": cells.keys[cells.code[at]],
            "numerator": paths.numerator[at],
            "is_shared": paths.numerator[at] != paths.denominator[at],
        }
    )
    parts = rows.join(weights, on="call")
    if weights["is_shared"].any():
        whole_parts, shared_parts = parts.filter(~pl.col("is_shared")), parts.filter("is_shared")
        shared_parts = shared_parts.with_columns(list_cost=pl.lit(None, dtype=MONEY))
        shared_parts = split_by_path(shared_parts, pool=["call", "meter"]).drop("list_cost")
        parts = pl.concat([whole_parts, shared_parts.select(parts.columns)])
    sums = parts.group_by("cell", "meter", "reading", "emitter", "emitter_version").agg(
        pl.col("quantity").sum(), calls=pl.col("call").n_unique().cast(pl.Int64)
    )
    cell = sums["cell"].to_numpy()
    return sums.drop("cell").with_columns(usage_key=pl.Series(cells.keys[cell]), hour=cells.dimensions["hour"][cell])
