"""Which budgets somebody must know of before they are used up: money is spent too fast, or the forecast is above the limit for sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl

from ledger.books import Books
from ledger.budgets.status import Measurement, Standing, measure
from ledger.money import readable_amounts
from ledger.periods import now

_HOUR = timedelta(hours=1)
MAX_AGE = timedelta(days=2)
"""How old the newest cost may be for anybody to be told that money is spent now."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A budget in danger: what it is judged by, in money, and the day that it is told of.

    `cause` is the same for all evaluations of one day, so that an alarm that goes on is one.
    """

    kind: Literal["burn_rate", "forecast"]
    standing: Standing
    day: str
    text: str
    window_hours: int | None = None
    actual: Decimal | None = None

    @property
    def cause(self) -> str:
        """What identifies it: the budget, its period, the kind, and of a burn rate the day."""
        start = f"{self.standing.window.start:%Y-%m-%dT%H}"
        return "|".join([self.kind, self.standing.budget_id, start, *([self.day] if self.kind == "burn_rate" else [])])


def alarms(books: Books, at: datetime | None = None) -> list[Alarm]:
    """The alarms of every budget in force, by name; nothing for a budget that is used up already, which is told as such."""
    measurement = measure(books, at)
    instant = at or now()
    newest = None if measurement.spend is None else measurement.spend.newest
    if newest is None or instant - newest > MAX_AGE:
        return []
    day = f"{newest.astimezone(_zone(books)):%Y-%m-%d}"
    alarm_list = []
    for status in measurement.standings:
        if status.state in ("exceeded", "no data") or status.terms.period in ("hour", "chain"):
            continue
        if (alarm := _burning(books, measurement, status, instant, day)) is not None:
            alarm_list.append(alarm)
        low = status.outlook.low
        if low is not None and low > status.amount:
            alarm_list.append(Alarm("forecast", status, day, _forecast_text(status, low)))
    return alarm_list


def _zone(books: Books) -> ZoneInfo:
    return ZoneInfo(books.settings.report.timezone)


def _forecast_text(status: Standing, low: Decimal) -> str:
    low_text, limit = readable_amounts(low, status.amount)
    terms = status.terms
    return f"Budget {terms.name} will be exceeded: {terms.described} will cost at least {terms.currency} {low_text} of {limit} in the period."


def _burning(books: Books, measurement: Measurement, status: Standing, instant: datetime, day: str) -> Alarm | None:
    import numpy as np  # takes a tenth of a second

    from ledger.budgets.burn_rate import MAX_HISTORY, burning, missing_hours

    newest = None if measurement.spend is None else measurement.spend.newest
    if measurement.spend is None or newest is None:
        return None
    last = newest.replace(minute=0, second=0, microsecond=0)
    hours = [last - n * _HOUR for n in range(MAX_HISTORY, -1, -1)]
    clock = np.array([_hour_of_week(hour, _zone(books)) for hour in hours])
    everybody = np.array(_by_hour(measurement.spend.frame.select("at", cost="effective_cost"), hours), dtype=np.float64)
    own = _by_hour(measurement.rows[status.budget_id], hours)
    costs = np.array(own, dtype=np.float64)
    first = next((number for number, cost in enumerate(own) if cost), len(own))
    costs = np.where(missing_hours(everybody, clock), np.nan, costs)
    elapsed_share = min(max((instant - last) / _HOUR, 0.05), 1.0)
    burn = burning(costs[first:], clock[first:], elapsed_share, np.float64(status.amount).item())
    if burn is None:
        return None
    actual = sum(own[-burn.window_hours :], Decimal(0))
    usual_cost = Decimal(str(burn.expected_approx)).quantize(Decimal("0.01"))
    spent, usual, limit = readable_amounts(actual, usual_cost, status.amount)
    terms = status.terms
    hours_text = "hour" if burn.window_hours == 1 else f"{burn.window_hours} hours"
    text = (
        f"Budget {terms.name} is spent fast: {terms.described} caused {terms.currency} {spent} within the last {hours_text}, where "
        f"{usual} is usual, of {limit} for the period."
    )
    return Alarm("burn_rate", status, day, text, burn.window_hours, actual)


def _hour_of_week(hour: datetime, zone: ZoneInfo) -> int:
    local = hour.astimezone(zone)
    return local.weekday() * 24 + local.hour


def _by_hour(rows: pl.DataFrame, hours: Sequence[datetime]) -> list[Decimal]:
    """Cost of each hour."""
    sums = rows.filter(pl.col("at") >= hours[0]).group_by(pl.col("at").dt.truncate("1h")).agg(pl.col("cost").sum())
    by_hour = {at: cost for at, cost in sums.iter_rows() if cost is not None}
    return [by_hour.get(hour, Decimal(0)) for hour in hours]
