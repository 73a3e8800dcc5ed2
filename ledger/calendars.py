"""Two calendars of costs: the invoice month, which a bill has, and the time of use in the reporting timezone. (TI-1a)

A figure follows one of them. Month views, the balance and statements follow the invoice month, and only there do costs tie out with the
bill. Hours, days, budgets and anomalies follow the time of use.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

_HOUR = timedelta(hours=1)
_MARGIN = timedelta(days=2)
"""More than the farthest timezone shifts a day."""


def time_of_use(timezone: str) -> pl.Expr:
    """The instant a row of `costs` is reported at, in the reporting timezone. (TI-1a)

    Metered cost has the hour of its usage, whatever period its charge has; so has usage that an hourly bill tells and no log. What has no usage (seats,
    fees, tax, idle capacity) has the provider's own calendar date, which is the same date in every timezone.

    A call of 14:00 UTC on a daily charge, and a seat fee of 1 October, in New York:

    >>> from datetime import UTC
    >>> first = datetime(2026, 10, 1, tzinfo=UTC)
    >>> rows = pl.DataFrame({"usage_hour": [first.replace(hour=14), None], "period_start": [first, first],
    ...     "period_end": [first + timedelta(days=1), first + timedelta(days=31)], "cost_class": ["metered", "owner"],
    ...     "charge_category": ["Usage", "Purchase"]})
    >>> [str(at) for at in rows.select(time_of_use("America/New_York").alias("at"))["at"]]
    ['2026-10-01 10:00:00-04:00', '2026-10-01 00:00:00-04:00']
    """
    is_hourly = pl.col("period_end") - pl.col("period_start") <= _HOUR
    bears_usage = (pl.col("charge_category") == "Usage") & (pl.col("cost_class") != "idle")
    hour = pl.coalesce("usage_hour", pl.when((is_hourly & bears_usage).fill_null(value=False)).then("period_start"))
    date = pl.col("period_start").dt.replace_time_zone(None)
    local_date = pl.coalesce(
        # Where clocks go forward at midnight, the day begins an hour later.
        date.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null"),
        (date + _HOUR).dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null"),
    )
    return pl.coalesce(hour.dt.convert_time_zone(timezone), local_date)


def used_near(start: datetime | None, end: datetime | None) -> pl.Expr:
    """Whether a row of `costs` may have been used in ``[start, end)``: a condition that lets files be skipped by their statistics."""
    after_start = pl.lit(value=True) if start is None else pl.col("period_end") >= start.astimezone(UTC) - _MARGIN
    before_end = pl.lit(value=True) if end is None else pl.col("period_start") <= end.astimezone(UTC) + _MARGIN
    return after_start & before_end


def used_within(start: datetime | None, end: datetime | None, timezone: str) -> pl.Expr:
    """Whether a row of `costs` was used in ``[start, end)``, by its `time_of_use`."""
    at = time_of_use(timezone).dt.convert_time_zone("UTC")
    after_start = pl.lit(value=True) if start is None else at >= start.astimezone(UTC)
    before_end = pl.lit(value=True) if end is None else at < end.astimezone(UTC)
    return used_near(start, end) & after_start & before_end


def in_zone(instant: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which clocks of a timezone show what the UTC clock shows at `instant`.

    >>> from datetime import UTC
    >>> in_zone(datetime(2026, 11, 1, tzinfo=UTC), ZoneInfo("America/New_York")).astimezone(UTC).isoformat()
    '2026-11-01T04:00:00+00:00'
    """
    return instant.replace(tzinfo=zone)
