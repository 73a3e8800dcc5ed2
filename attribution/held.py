"""Held time: seconds and requests on resources that are not sold by the token. (RA-3)"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from attribution import chains, identity, names
from attribution.dimensions import USAGE_KEYS, WORDS, fill_defaults, usage_key
from ledger import periods
from ledger.money import MONEY
from ledger.settings import Settings
from ledger.tables import USAGE_HOURLY


def resource_hours(
    nodes: pl.DataFrame,
    forest: chains.Forest,
    registry: pl.DataFrame,
    settings: Settings,
    rollup_id: str,
    month: str,
    trusted: list[str],
) -> pl.DataFrame:
    """Seconds and requests on resources that are not sold by the token: nodes, runtimes, databases. (RA-3)

    Only the outermost span of a path on one resource counts: what it calls on the same resource runs within its time.
    """
    named = nodes["resource_id"]
    above = named.gather(pl.Series(forest.parent))
    is_root = forest.parent == np.arange(len(forest.parent))
    outermost = named.is_not_null() & (pl.Series(is_root) | above.is_null() | (named != above).fill_null(value=True))
    start, end = periods.month_start(month), periods.month_end(month)
    until = pl.coalesce("end_time", "start_time")
    frame = nodes.filter(outermost & (pl.col("start_time") < end) & (until >= start))
    if not frame.height:
        return USAGE_HOURLY.empty()
    frame = frame.with_columns(pl.col(c).cast(pl.String) for c in WORDS).with_columns(
        node=pl.col("row"), principal=pl.lit(None, dtype=pl.String), credential_team=pl.lit(None, dtype=pl.String)
    )
    frame = identity.attribute(frame, nodes, forest, registry, trusted)
    frame = _over_hours(frame).filter(pl.col("hour").is_between(start, end, closed="left"))
    frame = frame.with_columns(
        rollup_id=pl.lit(rollup_id),
        month=pl.lit(month),
        provider=names.spelled(frame["provider"], names.provider),
        account=pl.col("account_id"),
        service=pl.lit(None, dtype=pl.String),
        model=pl.lit(None, dtype=pl.String),
        service_tier=pl.lit("standard"),
        context_above=pl.lit(0, dtype=pl.Int64),
        resource=pl.col("resource_id"),
        reason=pl.col("identity_reason"),
        unpriced=pl.lit(value=False),
    )
    frame = fill_defaults(frame, settings).with_columns(usage_key=usage_key())
    keys = [*USAGE_KEYS, "usage_key"]
    summed = frame.group_by(keys).agg(
        seconds=pl.col("seconds").sum(), requests=pl.col("starts").sum().cast(pl.Int64).cast(MONEY), calls=pl.len().cast(pl.Int64)
    )
    return pl.concat(
        [
            summed.select(
                *keys,
                pl.lit(m).alias("meter"),
                pl.col(m).cast(MONEY).alias("quantity"),
                "calls",
                pl.lit(None, dtype=MONEY).alias("list_cost"),
            )
            for m in ("seconds", "requests")
        ]
    )


_LONGEST = timedelta(days=31)


def _over_hours(spans: pl.DataFrame) -> pl.DataFrame:
    """Each span once for every hour it touches, with the `seconds` it held of it; `starts` is true in its first hour. (RA-3)

    A clock that ends a span before it starts, or weeks after, is not believed: it held nothing, or 31 days at most.
    """
    first = pl.col("start_time").dt.truncate("1h")
    ends = pl.min_horizontal(pl.coalesce("end_time", "start_time"), pl.col("start_time") + _LONGEST)
    ends = pl.max_horizontal(ends, "start_time")
    hours = pl.datetime_ranges(
        first, pl.max_horizontal(ends, first + timedelta(microseconds=1)), "1h", closed="left", time_zone="UTC"
    )
    out = spans.with_columns(__ends=ends, hour=hours).explode("hour")
    held = pl.min_horizontal("__ends", pl.col("hour") + timedelta(hours=1)) - pl.max_horizontal("start_time", "hour")
    micros = held.dt.total_microseconds().clip(0).cast(pl.Decimal(38, 0))
    return out.with_columns(
        seconds=micros * pl.lit("0.000001").str.to_decimal(scale=6).cast(MONEY), starts=pl.col("hour") == first
    ).drop("__ends")
