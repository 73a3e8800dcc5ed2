"""Resource time: seconds and requests on resources that are not sold by the token. (RA-3)"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from attribution import factorize
from attribution.as_of import AsOfIndex
from attribution.chains import identity
from attribution.chains.ancestry import SpanContext
from attribution.chains.enclosure import enclosed_by_equal
from attribution.classification import names
from attribution.columns import CALLER, CONTEXT, VARIANT, WHAT, WHO
from attribution.usage import dimensions
from attribution.usage.hourly import split_by_path
from attribution.usage.origins import MAX_HELD
from attribution.usage.spans import with_provider_place
from ledger.money import MONEY
from ledger.settings import Settings
from ledger.tables import USAGE_HOURLY

_NODE_COLUMNS = (
    "channel", "service_name", "provider", "request_model", "account_id", "region", "resource_id", "conversation_id", "credential",
)  # fmt: skip


def resource_hours(
    context: SpanContext, as_of: AsOfIndex, settings: Settings, period: tuple[datetime, datetime] | None
) -> pl.DataFrame:
    """Seconds and requests on resources that are not sold by the token: nodes, runtimes, databases. (RA-3)

    Of spans that hold one resource and enclose each other, whatever lies between, only the outermost counts: the others run within its time.
    A link encloses nothing. Rows of `usage_hourly` without their rollup and month.
    """
    rows = _outermost(context, period)
    if not len(rows):
        return USAGE_HOURLY.empty().drop("rollup_id", "month")
    spans = context.nodes.select(pl.col("start_time", "end_time", *_NODE_COLUMNS, *CONTEXT).gather(rows)).with_columns(
        principal=pl.lit(None, dtype=pl.String), credential_team=pl.lit(None, dtype=pl.String)
    )
    paths, owners = identity.resolve_owners(spans, context.paths(rows), context, as_of)
    path_spans = spans[paths.call].with_columns(
        call=pl.Series(paths.call),
        place=pl.Series(paths.place),
        numerator=pl.Series(paths.numerator),
        **{c: owners.table[c].gather(owners.code) for c in WHO},
        identity_reason=owners.table["identity_reason"].gather(owners.code),
        has_fan_in=pl.Series(paths.has_fan_in),
    )
    fan_in = pl.when("has_fan_in").then(pl.lit("fan_in"))
    path_spans = path_spans.with_columns(
        reason=pl.concat_str("identity_reason", fan_in, separator=",", ignore_nulls=True).replace("", None)
    )
    frame = with_provider_place(_split_over_hours(path_spans, period))
    frame = dimensions.with_caller_place(
        frame.with_columns(
            provider=names.map_distinct(frame["provider"], names.provider),
            account="provider_account",
            region="provider_region",
            caller_account="account_id",
            caller_region="region",
            **dict.fromkeys(VARIANT, pl.lit(None, dtype=pl.String)),
            service=pl.lit(None, dtype=pl.String),
            model=pl.lit(None, dtype=pl.String),
            service_tier=pl.lit("standard"),
            resource=pl.col("resource_id"),
        )
    )
    frame = dimensions.fill_defaults(frame, settings.attribution.defaults)
    return _sum_by_key(_with_usage_keys(frame))


def _outermost(context: SpanContext, period: tuple[datetime, datetime] | None) -> factorize.Index:
    """Rows of spans with a resource that no span enclosing them has."""
    if not factorize.non_null_columns(context.nodes, ["resource_id"]):
        return np.zeros(0, dtype=np.int32)
    resources = context.nodes["resource_id"]
    rows: factorize.Index = resources.is_not_null().arg_true().cast(pl.Int32).to_numpy()
    codes = resources.gather(rows).rank("dense").cast(pl.Int32).to_numpy() - 1
    rows = np.compress(~enclosed_by_equal(context.forest.container, rows, codes), rows)
    if period is None:
        return rows
    times = context.nodes.select(pl.col("start_time", "end_time").gather(rows))
    overlaps = times.select((pl.col("start_time") < period[1]) & (pl.coalesce("end_time", "start_time") >= period[0])).to_series()
    return np.compress(overlaps.to_numpy(), rows)


def _with_usage_keys(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds the usage keys of the rows."""
    hour = frame["hour"].to_physical().cast(pl.UInt64).to_numpy()
    zero = np.zeros(len(hour), dtype=np.uint64)
    hashes = (dimensions.content_hashes(frame.select(c)) for c in (WHO, (*WHAT, *CALLER, *CONTEXT), ("reason",)))
    key = dimensions.usage_keys(hour, *hashes, zero, zero, zero)
    return frame.with_columns(usage_key=pl.Series(key), context_above=pl.lit(0, dtype=pl.Int64))


def _sum_by_key(frame: pl.DataFrame) -> pl.DataFrame:
    """Seconds and requests by usage key; a span with several paths is split over them. (CH-1)"""
    weighted_rows = frame.select(
        "call", "hour", "place", "numerator", "usage_key", key="usage_key", list_cost=pl.lit(None, dtype=MONEY)
    )
    measures = {"seconds": frame["seconds"], "requests": frame["starts"].cast(pl.Int64).cast(MONEY)}
    meter_rows = pl.concat(
        weighted_rows.with_columns(meter=pl.lit(meter), quantity=quantity) for meter, quantity in measures.items()
    )
    shares = split_by_path(meter_rows, pool=["call", "hour", "meter"])
    sums = shares.group_by("usage_key", "meter").agg(
        pl.col("quantity").sum(), calls=(pl.col("place") == 0).sum().cast(pl.Int64), list_cost=pl.lit(None, dtype=MONEY)
    )
    key_dimensions = frame.select("usage_key", "hour", *WHO, *WHAT, *CALLER, *CONTEXT, "context_above", "reason").unique(
        "usage_key"
    )
    return key_dimensions.join(sums, on="usage_key", maintain_order="none")


def _split_over_hours(spans: pl.DataFrame, period: tuple[datetime, datetime] | None) -> pl.DataFrame:
    """One row for each span and hour of the period that it overlaps, with the overlap in `seconds`; `starts` is true in its first hour. (RA-3)

    Implausible clocks are bounded: a span that ends before it starts has no seconds, and none has more than 400 days.
    """
    first = pl.col("start_time").dt.truncate("1h")
    end_time = pl.min_horizontal(pl.coalesce("end_time", "start_time"), pl.col("start_time") + MAX_HELD)
    end_time = pl.max_horizontal(end_time, "start_time")
    begin, stop = first, pl.max_horizontal(end_time, first + timedelta(microseconds=1))
    if period is not None:
        # Cut to the period before hours become rows: a span of a year has no more of them than one of a month.
        begin, stop = pl.max_horizontal(first, pl.lit(period[0])), pl.min_horizontal(stop, pl.lit(period[1]))
    hours = pl.datetime_ranges(begin, stop, "1h", closed="left", time_zone="UTC")
    span_hours = spans.with_columns(__ends=end_time, hour=hours).explode("hour").drop_nulls("hour")
    duration = pl.min_horizontal("__ends", pl.col("hour") + timedelta(hours=1)) - pl.max_horizontal("start_time", "hour")
    micros = duration.dt.total_microseconds().clip(0).cast(pl.Decimal(38, 0))
    return span_hours.with_columns(
        seconds=micros * pl.lit("0.000001").str.to_decimal(scale=6).cast(MONEY), starts=pl.col("hour") == first
    ).drop("__ends")
