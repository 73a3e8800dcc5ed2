"""Cron expressions, in UTC, as triggers of the scheduler.

Five fields (minute, hour, day of the month, month, day of the week), or six, and then the first is the second. Sunday is 0 and 7, as in
crontab, and where both days are given either one will do; the scheduler's own reading differs in both. ``@hourly``, ``@daily``,
``@weekly`` and ``@monthly`` are understood.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ledger.errors import UsageError
from ledger.plurals import counted

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(\*|\w+(?:-\w+)?)(?:/(\d+))?")
_REMEDY = 'write five fields, e.g. "15 */6 * * *" (minute hour day month weekday, UTC), or @hourly, @daily, @weekly, @monthly'
_TICKS = 400
"""Ticks examined to find the longest pause; most of a month of hourly ones."""


def trigger(cron: str) -> BaseTrigger:
    """The scheduler's trigger for a cron expression. Raises `UsageError` that says how to write one.

    >>> at = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)  # a Monday
    >>> [trigger(c).get_next_fire_time(None, at).isoformat()[:16] for c in ("15 */6 * * *", "0 9 * * 0", "0 9 * * 1-5", "@monthly")]
    ['2026-10-05T18:15', '2026-10-11T09:00', '2026-10-06T09:00', '2026-11-01T00:00']
    """
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    fields = _NAMED.get(cron.strip().lower(), cron).lower().split()
    if len(fields) not in (5, 6):
        raise UsageError(f"{cron!r} has {counted(len(fields), 'field')}", where="cron", remedy=_REMEDY)
    second, minute, hour, day, month, weekday = fields if len(fields) == 6 else ["0", *fields]
    common: dict[str, Any] = {"second": second, "minute": minute, "hour": hour, "month": month, "timezone": UTC}
    try:
        by_weekday = CronTrigger(**common, day_of_week=_weekdays(weekday))
        if day == "*":
            cron_trigger: BaseTrigger = by_weekday
        elif weekday == "*":
            cron_trigger = CronTrigger(**common, day=day)
        else:
            cron_trigger = OrTrigger([CronTrigger(**common, day=day), by_weekday])
    except (ValueError, TypeError) as error:
        raise UsageError(f"{cron!r}: {error}", where="cron", remedy=_REMEDY) from error
    if cron_trigger.get_next_fire_time(None, datetime.now(UTC)) is None:
        raise UsageError(f"{cron!r} never comes", where="cron", remedy=_REMEDY)
    return cron_trigger


def longest_pause(cron: str, *, after: datetime) -> timedelta:
    """The longest time between two ticks in the near future.

    >>> longest_pause("0 9 * * 1-5", after=datetime(2026, 10, 5, tzinfo=UTC))
    datetime.timedelta(days=3)
    """
    cron_trigger = trigger(cron)
    longest, previous, at = timedelta(0), None, after
    for _ in range(_TICKS):
        tick = cron_trigger.get_next_fire_time(previous, at)
        if tick is None or tick - after > timedelta(days=400):
            break
        longest = max(longest, tick - previous if previous is not None else timedelta(0))
        previous, at = tick, tick + timedelta(microseconds=1)
    return longest


def _weekdays(field: str) -> str:
    """The field in names, since the scheduler counts from Monday and crontab from Sunday.

    >>> _weekdays("1-5"), _weekdays("0,7"), _weekdays("sat-mon"), _weekdays("*/2"), _weekdays("*")
    ('mon,tue,wed,thu,fri', 'sun', 'sun,mon,sat', 'sun,tue,thu,sat', '*')
    """
    if field in ("*", "?"):
        return "*"
    days: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no day of the week")
        day_range, step = match.group(1), int(match.group(2) or 1)
        if step < 1:
            raise ValueError(f"{part!r}: the step must be at least 1")
        first, _, last = ("0", "", "6") if day_range == "*" else day_range.partition("-")
        start = _day(first)
        end = _day(last) if last else 6 if match.group(2) else start
        if end < start:
            end += 7
        days.update(day % 7 for day in range(start, end + 1, step))
    return ",".join(_DAYS[day] for day in sorted(days))


def _day(text: str) -> int:
    if text.isdigit() and int(text) <= 7:
        return int(text)
    if text[:3] in _DAYS:
        return _DAYS.index(text[:3])
    raise ValueError(f"{text!r} is no day of the week")
