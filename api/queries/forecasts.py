"""Forecasts of a month's cost by any dimension, from the published daily costs of the half year before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import polars as pl

from api.models import ForecastRow, ForecastTable
from api.queries.costs import COST_AMOUNTS, CostQuery, costs, matching_costs, parse_month
from api.queries.gate import ScopedBooks
from api.queries.publication import one_publication
from ledger.calendars import time_of_use
from ledger.money import MONEY, proportion
from ledger.periods import month_of, next_month, now

HISTORY_DAYS = 182
"""Days before the forecast that it may learn from."""
MIN_KNOWN_DAYS = 3
"""Days of the month that must be known before a series without enough history is forecast at all."""
MAX_DAYS_AHEAD = 62
"""Days up to the end of the month that may be unknown."""
COVERAGE = 0.8
"""Share of the intervals that hold the sum that then comes."""
_PLACES = Decimal("0.000001")
FORECAST_COLUMNS = (
    "currency", "period_start", "period_end", "known_until", "actual", "billed", "estimated", "forecast", "low", "high", "method", "history_days",
)  # fmt: skip
_AMOUNTS = ("actual", "billed", "estimated", "forecast", "low", "high")


@dataclass(frozen=True, slots=True)
class ForecastQuery:
    """What is forecast: the month of use, in the reporting timezone, and how its cost is grouped (as in `CostQuery`).

    `month` None is the current one. `as_of` says what is known: whole days before it; None is now.
    """

    costs: CostQuery
    month: str | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Period:
    """A month as days: `start` <= day < `end`; costs are known of days before `known_until`."""

    start: date
    end: date
    known_until: date

    @property
    def days_ahead(self) -> int:
        """Days to forecast, up to the end of the month."""
        return (self.end - self.known_until).days

    @property
    def days_between(self) -> int:
        """Days to forecast that lie before the month."""
        return max(0, (self.start - self.known_until).days)

    @property
    def known_days(self) -> int:
        """Days of the month that are known."""
        return max(0, (self.known_until - self.start).days)

    def known_by(self, newest_day: date | None) -> _Period:
        """The same, where no cost is known of days after `newest_day`: they are yet to come in, not free of charge."""
        return self if newest_day is None else replace(self, known_until=min(self.known_until, newest_day + timedelta(days=1)))


@one_publication
def forecasts(books: ScopedBooks, query: ForecastQuery) -> pl.DataFrame:
    """The month's cost as it will be, one row for each value of the query's dimensions and currency, highest first.

    Columns: the dimensions, then `FORECAST_COLUMNS`. `actual` is the cost of the days that are known, and `forecast` that of the whole month, with
    the interval `low` to `high`; these are rounded to 6 places, since they are no sums. `method` is

    * ``pool``: learned from the series' own past (`ledger.forecast`);
    * ``run rate``: the mean of the known days goes on, where there is less than three weeks of past; without interval;
    * ``actual``: the month is over and wholly known;
    * ``unknown``: too little is known; `forecast` is null.

    Sums of rows are no bounds of their sum: ask for fewer dimensions instead, such as ``by=currency``.
    """
    zone = ZoneInfo(books.settings.report.timezone)
    shape = query.costs
    period = _period(query, zone)
    first = period.start - timedelta(days=HISTORY_DAYS)
    since, until = (datetime.combine(day, time(), zone) for day in (first, period.end))
    of_days = {"view": shape.view, "start": since, "end": until, "granularity": "day", "basis": shape.basis, "calendar": "usage"}
    period = period.known_by(_newest_day(books, CostQuery(**of_days), zone))  # type: ignore[arg-type]
    frame = costs(books, CostQuery(by=shape.dimensions, filters=shape.filters, **of_days))  # type: ignore[arg-type]
    frame = frame.with_columns(
        pl.col("period_start").str.slice(0, 10).str.to_date().alias("day"), pl.col(COST_AMOUNTS).fill_null(0)
    )
    frame = frame.filter(pl.col("day") < period.known_until)
    keys = [*shape.dimensions, *(["currency"] if "currency" not in shape.dimensions else [])]
    rows = list(_rows(frame, keys, period))
    types = dict.fromkeys((*keys, "method"), pl.String) | dict.fromkeys(_AMOUNTS, MONEY)
    dates = dict.fromkeys(("period_start", "period_end", "known_until"), pl.Date)
    schema = pl.Schema(types | dates | {"history_days": pl.Int64})
    columns = [*shape.dimensions, *(name for name in FORECAST_COLUMNS if name not in shape.dimensions)]
    result = pl.DataFrame(rows, schema=schema) if rows else pl.DataFrame(schema=schema)
    return result.select(columns).sort(
        pl.coalesce("forecast", "actual"), *keys, descending=[True, *(False for _ in keys)], nulls_last=True
    )


@one_publication
def forecast_table(books: ScopedBooks, query: ForecastQuery) -> ForecastTable:
    """Forecasts as a document."""
    query = replace(query, as_of=query.as_of or now())
    frame = forecasts(books, query)
    shape = query.costs
    return ForecastTable(
        by=list(shape.dimensions),
        view=shape.view,
        basis=shape.basis,
        timezone=books.settings.report.timezone,
        as_of=query.as_of,
        rows=[ForecastRow.model_validate(row) for row in frame.iter_rows(named=True)],
    )


def _period(query: ForecastQuery, zone: ZoneInfo) -> _Period:
    today = (query.as_of or now()).astimezone(zone).date()
    month = query.month or month_of(today)
    start, end = parse_month(month).date(), parse_month(next_month(month)).date()
    return _Period(start, end, min(today, end))


def _newest_day(books: ScopedBooks, query: CostQuery, zone: ZoneInfo) -> date | None:
    """The last day of the query's range that has a cost among the rows that are seen."""
    newest = matching_costs(books, query).select(time_of_use(zone.key).max()).collect().item()
    return None if newest is None else newest.date()


@dataclass(frozen=True, slots=True)
class _Series:
    """A group's costs by day."""

    key: tuple[str | None, ...]
    known: dict[str, Decimal]
    days: list[Decimal]


def _rows(frame: pl.DataFrame, keys: Sequence[str], period: _Period) -> Iterator[dict[str, object]]:
    """A row for each group."""
    from ledger.forecast import (  # here, since numpy, which no other query needs, takes a tenth of a second to import
        MIN_WEEKS,
        WEEK,
    )

    by_weeks: dict[int, list[_Series]] = defaultdict(list)
    for key, rows in frame.group_by(keys, maintain_order=True):
        of_month = rows.filter(pl.col("day") >= period.start)
        amounts = {
            name: Decimal(str(of_month[column].sum()))
            for name, column in (("actual", "cost"), ("billed", "cost_billed"), ("estimated", "cost_estimated"))
        }
        first: date = rows["day"].min()  # type: ignore[assignment]
        days = [Decimal(0)] * (period.known_until - first).days
        for day, cost in rows.select("day", "cost").iter_rows():
            days[(day - first).days] = max(cost, Decimal(0))
        weeks = len(days) // WEEK
        by_weeks[weeks if weeks >= MIN_WEEKS and 0 < period.days_ahead <= MAX_DAYS_AHEAD else 0].append(
            _Series(key, amounts, days)
        )
    for weeks, series in by_weeks.items():
        yield from _learned(series, weeks, keys, period) if weeks else (_simple(one, keys, period) for one in series)


def _learned(series: Sequence[_Series], weeks: int, keys: Sequence[str], period: _Period) -> Iterator[dict[str, object]]:
    """Rows of series that have a past of as many whole weeks."""
    import numpy as np

    from ledger.forecast import WEEK, forecast

    history = np.array([one.days[-weeks * WEEK :] for one in series], dtype=np.float64)
    result = forecast(history, period.days_ahead, skip=period.days_between, coverage=COVERAGE)
    for one, *amounts in zip(series, result.total, result.low, result.high, strict=True):
        total, low, high = (None if np.isnan(amount) else one.known["actual"] + _rounded(amount) for amount in amounts)
        yield _row(one, keys, period, total, low, high, "pool")


def _simple(one: _Series, keys: Sequence[str], period: _Period) -> dict[str, object]:
    """The row of a series without enough of a past, or of a month that is over."""
    actual = one.known["actual"]
    if not period.days_ahead:
        return _row(one, keys, period, actual, actual, actual, "actual")
    own_days = min(period.known_days, len(one.days))
    ahead = proportion(actual, Decimal(period.days_ahead), Decimal(own_days)) if own_days >= MIN_KNOWN_DAYS else None
    return _row(
        one,
        keys,
        period,
        None if ahead is None else actual + _rounded(ahead),
        None,
        None,
        "unknown" if ahead is None else "run rate",
    )


def _row(
    one: _Series,
    keys: Sequence[str],
    period: _Period,
    total: Decimal | None,
    low: Decimal | None,
    high: Decimal | None,
    method: str,
) -> dict[str, object]:
    days = {"period_start": period.start, "period_end": period.end, "known_until": period.known_until}
    amounts = one.known | {"forecast": total, "low": low, "high": high}
    return dict(zip(keys, one.key, strict=True)) | days | amounts | {"method": method, "history_days": len(one.days)}


def _rounded(amount: float | Decimal) -> Decimal:
    return Decimal(str(amount)).quantize(_PLACES)
