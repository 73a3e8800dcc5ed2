"""The months that a run reads from a bill's API: the current ones, and those that the provider may still restate."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from ingest.source import Fetcher
from ledger import periods

_FIRST_MONTHS = 3
"""How many months a first run reads, the current one included. Older ones need a back-fill."""
_LOOK_BACK_MONTHS = 24
_RESTATEMENT_PERIOD = timedelta(days=35)
"""How long after its end a month is read again: OpenAI restates days later, Anthropic up to 30 days later."""


def months_to_read(fetcher: Fetcher, address: str) -> list[tuple[str, str]]:
    """The months to read, newest first, each with the checkpoint to save.

    Of a window all months it touches. Else every month since the first one read (at first: three months) that the provider may
    still restate, or that was last read when it could.
    """
    now = periods.now()
    today = now.date()
    window = fetcher.window
    if window.since or window.until:
        last = min(window.until - timedelta(days=1) if window.until else today, today)
        first = window.since or last.replace(day=1)
        candidates = _months(first, last) if first <= last else []
    else:
        candidates = _months(_earlier(today, _LOOK_BACK_MONTHS), today)
        read_positions = [i for i, month in enumerate(candidates) if fetcher.checkpoint(f"{address}|{month}")]
        candidates = candidates[min([*read_positions, len(candidates) - _FIRST_MONTHS]) :]
        candidates = [month for month in candidates if not _was_settled(month, fetcher.checkpoint(f"{address}|{month}"))]
    return [(month, now.isoformat()) for month in reversed(candidates)]


def _was_settled(month: str, read_at: str | None) -> bool:
    return read_at is not None and is_settled(month, datetime.fromisoformat(read_at))


def is_settled(month: str, instant: datetime) -> bool:
    """Whether the provider no longer restates the month at this instant."""
    return instant >= periods.month_end(month) + _RESTATEMENT_PERIOD


def readable_until(month: str) -> datetime:
    """The end of what can be read of a month now: its end, or the end of today."""
    today = periods.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return min(periods.month_end(month), today + timedelta(days=1))


def _months(first: date, last: date) -> list[str]:
    names = [first.strftime("%Y-%m")]
    while names[-1] < last.strftime("%Y-%m"):
        names.append(periods.month_end(names[-1]).strftime("%Y-%m"))
    return names


def _earlier(day: date, months: int) -> date:
    for _ in range(months):
        day = (day.replace(day=1) - timedelta(days=1)).replace(day=1)
    return day
