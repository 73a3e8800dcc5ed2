"""Months, days and instants: UTC, half-open, ``[start, end)``. (TI-1)"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ledger.errors import UsageError


def now() -> datetime:
    """This instant, in UTC."""
    return datetime.now(UTC)


def month_of(instant: datetime | date) -> str:
    """The month an instant lies in.

    >>> month_of(date(2026, 10, 31))
    '2026-10'
    """
    return f"{instant.year:04d}-{instant.month:02d}"


def month_start(month: str) -> datetime:
    """First instant of a month.

    >>> month_start("2026-10").isoformat()
    '2026-10-01T00:00:00+00:00'
    """
    try:
        return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise UsageError(f"{month!r} is no month", where="month", remedy="write 2026-10") from error


def month_end(month: str) -> datetime:
    """First instant after a month.

    >>> month_end("2026-12").isoformat()
    '2027-01-01T00:00:00+00:00'
    """
    start = month_start(month)
    return (start + timedelta(days=32)).replace(day=1)


def next_month(month: str) -> str:
    """The month after a month.

    >>> next_month("2026-12")
    '2027-01'
    """
    return month_of(month_end(month))


def previous_month(month: str) -> str:
    """The month before a month.

    >>> previous_month("2027-01")
    '2026-12'
    """
    return month_of(month_start(month) - timedelta(days=1))


def adjacent_months(month: str) -> list[str]:
    """The months before and after.

    >>> adjacent_months("2026-12")
    ['2026-11', '2027-01']
    """
    return [previous_month(month), next_month(month)]


def months_between(start: datetime, end: datetime) -> list[str]:
    """Every month that ``[start, end)`` touches.

    >>> months_between(month_start("2026-11"), month_end("2027-01"))
    ['2026-11', '2026-12', '2027-01']
    """
    return list(_months(start, end))


def _months(start: datetime, end: datetime) -> Iterator[str]:
    at = start.replace(day=1)
    while at < end:
        yield month_of(at)
        at = month_end(month_of(at))


def parse_instant(text: str, *, field: str = "date", timezone: str = "UTC") -> datetime:
    """A day, month or instant as people write it; days and months begin in `timezone`.

    >>> parse_instant("2026-10").isoformat(), parse_instant("2026-10-05T06:00:00Z").isoformat()
    ('2026-10-01T00:00:00+00:00', '2026-10-05T06:00:00+00:00')
    """
    value = text.strip()
    try:
        if len(value) == 7:
            value += "-01"
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=ZoneInfo(timezone))
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is no date", where=field, remedy="write 2026-10, 2026-10-05 or 2026-10-05T06:00:00Z"
        ) from error


def parse_bound(text: str, *, field: str = "date", timezone: str = "UTC") -> datetime:
    """A bound of a range as people write it; the first and the last year of the calendar are refused, since months lie around a range.

    >>> parse_bound("2026-10").isoformat()
    '2026-10-01T00:00:00+00:00'
    >>> parse_bound("9999-12")
    Traceback (most recent call last):
    ledger.errors.UsageError: date: '9999-12' is too far away — write a time of the years 2 to 9998
    """
    instant = parse_instant(text, field=field, timezone=timezone)
    if not MINYEAR < instant.year < MAXYEAR:
        raise UsageError(f"{text!r} is too far away", where=field, remedy="write a time of the years 2 to 9998")
    return instant
