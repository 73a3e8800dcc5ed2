"""Gaps: which calls of a gateway each channel reported or missed.

A call may be reported by LiteLLM's callback, by its objects in a bucket, by its spend log and by OpenTelemetry; attribution merges these
signals into one call with a list of channels. A gap of a channel is a call that only other channels reported. Counters of OpenTelemetry metrics
are compared with the calls, too: they find calls that no channel reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl

from api.models import ChannelSummary, CounterGap, GapRow, Gaps
from api.queries import metric_check
from api.queries.gate import WHOLE, WholeBooks, published, scan_rollups
from api.queries.publication import one_publication
from api.queries.removals import removed_facts
from ledger.errors import UsageError
from ledger.metric_points import METRIC_POINTS
from ledger.tables import CALLS, TOKEN_METERS

_MONTH = timedelta(days=31)
_EXAMPLES = 3
_TRUNCATE: Mapping[str, str] = {"hour": "1h", "day": "1d"}


@dataclass(frozen=True, slots=True)
class GapQuery:
    """Time range and granularity. Without a range, all published months."""

    start: datetime | None = None
    end: datetime | None = None
    granularity: Literal["hour", "day"] = "hour"


@one_publication
def gaps(books: WholeBooks, query: GapQuery) -> Gaps:
    """Calls that each channel missed. Failed calls are excluded: they cost nothing, and not every channel reports them.

    Calls are those of published months; a call that was logged a moment ago counts from the next attribution on.
    """
    if query.start is not None and query.end is not None and query.end <= query.start:
        raise UsageError("the range is empty", where="end", remedy="the range is [start, end): end must be later than start")
    if query.granularity not in _TRUNCATE:
        raise UsageError(f"{query.granularity!r} is not known", where="granularity", remedy="one of: hour, day")
    # The first and the newest call of a channel may be in the months around the range.
    months = published(books, query.start and query.start - _MONTH, query.end and query.end + _MONTH)
    is_failed = (pl.col("status") == "error") & pl.all_horizontal(pl.col(meter).fill_null(0) == 0 for meter in TOKEN_METERS)
    calls = scan_rollups(books, CALLS, months, WHOLE).filter(
        pl.col("gateway_call_id").is_not_null() & ~is_failed.fill_null(value=False)
    )
    reaches = _channel_ranges(calls)
    range_calls = calls if query.start is None else calls.filter(pl.col("start_time") >= query.start)
    range_calls = range_calls if query.end is None else range_calls.filter(pl.col("start_time") < query.end)
    zone = books.settings.report.timezone
    period = pl.col("start_time").dt.convert_time_zone(zone).dt.truncate(_TRUNCATE[query.granularity]).alias("period_start")
    per_period = range_calls.group_by(period).agg(*(_channel_counts(channel, *reach) for channel, reach in reaches.items()))
    whole = range_calls.select(*(_channel_counts(channel, *reach) for channel, reach in reaches.items()))
    counters = _counters(books, query)
    page = Gaps(channels=[], rows=[], total=0, counters=counters, counters_total=len(counters))
    range_months = [m.month for m in published(books, query.start, query.end)]
    page.facts_removed = removed_facts(books, METRIC_POINTS, range_months) | removed_facts(books, CALLS, range_months)
    if not reaches:
        return page
    cut, totals = pl.collect_all([per_period.sort("period_start"), whole])
    rows = [
        {"period_start": row["period_start"], "channel": channel, **row[channel]}
        for row in cut.iter_rows(named=True)
        for channel in reaches
        if row[channel]["known"] < row[channel]["calls"]
    ]
    page.channels = [
        ChannelSummary(channel=channel, first=first, newest=newest, **totals[channel][0])
        for channel, (first, newest) in reaches.items()
    ]
    page.rows = [GapRow.model_validate(row) for row in rows]
    page.total = len(rows)
    return page


def _counters(books: WholeBooks, query: GapQuery) -> list[CounterGap]:
    """Quantities that an emitter's metrics and its calls disagree on, days of the range."""
    comparison = metric_check.compare(books.whole.store, query.start, query.end).filter(pl.col("difference") != 0)
    return [CounterGap.model_validate(row) for row in comparison.rename({"date": "day"}).iter_rows(named=True)]


def _channel_ranges(calls: pl.LazyFrame) -> dict[str, tuple[datetime, datetime]]:
    """Start of the first and of the newest call that each channel reported, by channel name."""
    spans_by_channels = calls.group_by("channels").agg(first=pl.col("start_time").min(), newest=pl.col("start_time").max())
    by_channel = (
        spans_by_channels.with_columns(channel=pl.col("channels").str.split("+"))
        .explode("channel", empty_as_null=True)
        .group_by("channel")
    )
    reaches = by_channel.agg(pl.col("first").min(), pl.col("newest").max()).sort("channel").collect()
    return {channel: (first, newest) for channel, first, newest in reaches.iter_rows()}


def _channel_counts(channel: str, first: datetime, newest: datetime) -> pl.Expr:
    """Counts of a channel over a group of calls, as a struct named after the channel."""
    is_known = pl.col("channels").str.split("+").list.contains(channel)
    is_only = pl.col("channels") == channel
    before, after = pl.col("start_time") < first, pl.col("start_time") > newest
    is_lost = ~is_known & ~before & ~after
    tokens = pl.sum_horizontal(pl.col(meter) for meter in TOKEN_METERS)
    ids = pl.col("gateway_call_id").sort_by("start_time", "gateway_call_id")

    def summed(column: str, mask: pl.Expr) -> Any:
        return pl.col(column).filter(mask).sum()

    return pl.struct(
        calls=pl.len(),
        known=is_known.sum(),
        lost=is_lost.sum(),
        lost_tokens=tokens.filter(is_lost).sum(),
        lost_list_cost=summed("list_cost", is_lost),
        lost_reported_cost=summed("reported_cost", is_lost),
        before=(~is_known & before).sum(),
        after=(~is_known & after).sum(),
        only=is_only.sum(),
        only_tokens=tokens.filter(is_only).sum(),
        only_list_cost=summed("list_cost", is_only),
        only_reported_cost=summed("reported_cost", is_only),
        examples=ids.filter(is_lost.sort_by("start_time", "gateway_call_id")).head(_EXAMPLES).implode(),
    ).alias(channel)
