"""Windows of budget periods, in the reporting timezone: a day has 23, 24 or 25 hours, an hour always 60 minutes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ledger.budgets.terms import Terms


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """``[start, end)``, in UTC."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Whether the instant lies in it."""
        return self.start <= at < self.end


def window_at(terms: Terms, at: datetime, timezone: str) -> Window:
    """The window of the budget's period that an instant lies in; of a range the range itself; of a chain budget the day.

    The day on which Berlin's clocks go forward has 23 hours:

    >>> terms = Terms(name="x", scopes={"team": "Care"}, amount=1, period="day")
    >>> window = window_at(terms, datetime(2026, 3, 29, 12, tzinfo=UTC), "Europe/Berlin")
    >>> window.end - window.start
    datetime.timedelta(seconds=82800)
    """
    if terms.period == "range" and terms.range_start is not None and terms.range_end is not None:
        return Window(terms.range_start, terms.range_end)
    if terms.period == "hour":
        return _hour(at, ZoneInfo(timezone))
    zone = ZoneInfo(timezone)
    day = at.astimezone(zone).date()
    first, following = _days(terms.period, day)
    return Window(midnight(first, zone), midnight(following, zone))


def _hour(at: datetime, zone: ZoneInfo) -> Window:
    """The hour on the clock of the timezone, counted in UTC, so that the hour that clocks repeat is two."""
    local = at.astimezone(zone)
    start = at.astimezone(UTC) - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return Window(start, start + timedelta(hours=1))


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """First instant of a day; where clocks go forward at midnight, the first that there is."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _days(period: str, day: date) -> tuple[date, date]:
    """First day of the period, and first day after it.

    >>> _days("quarter", date(2026, 12, 31)), _days("week", date(2026, 12, 1))
    ((datetime.date(2026, 10, 1), datetime.date(2027, 1, 1)), (datetime.date(2026, 11, 30), datetime.date(2026, 12, 7)))
    """
    if period in ("day", "chain"):
        return day, day + timedelta(days=1)
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    months = {"month": 1, "quarter": 3, "year": 12}[period]
    first_month = (day.month - 1) // months * months
    first = date(day.year, first_month + 1, 1)
    following = first_month + months
    return first, date(day.year + following // 12, following % 12 + 1, 1)
