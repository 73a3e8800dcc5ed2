"""Durations as they are written at the command line."""

from __future__ import annotations

from datetime import datetime, timedelta

from ledger.errors import UsageError
from ledger.periods import now


def end_of(duration: str) -> datetime:
    """The time at which a duration from now on ends: 90m, 4h, 2d."""
    units = {"m": "minutes", "h": "hours", "d": "days"}
    number, unit = duration[:-1], duration[-1:]
    if not number.isdecimal() or not number.isascii() or unit not in units or not 0 < int(number) <= 10_000:
        raise UsageError(f"{duration!r} is no duration", where="--for", remedy="write 90m, 4h or 2d")
    return now() + timedelta(**{units[unit]: int(number)})
