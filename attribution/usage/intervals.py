"""Intervals of a month that its spans are cut at, and the files that hold the spans of a range of time.

An interval is the month, a half of it, a half of that, and so on, until it has few spans enough. Towards the newest spans intervals become small: a
run that follows new spans builds only the last one anew. They become one with what stands before them as time goes on, so that a span is
built again a few times, once for each doubling, and not with every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from ledger import file_sets, periods
from ledger.store import Store
from ledger.tables import SPANS

_LONGEST, _SHORTEST = timedelta(days=32), timedelta(days=32) / 2**15
"""Lengths of intervals: from more than a month, in halves, to a minute and a half."""
NEWEST_SHARE = 64
"""The interval of the newest spans has at most this part of the spans of another one."""
_ROUNDING_US = 1000
"""By how much bounds of files in the table's log may be rounded inwards."""
_ENDLESS = 1 << 62
_EPOCH, _TICK = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def boundaries_of(month: str, traces: pl.DataFrame, slice_spans: int) -> list[datetime]:
    """Boundaries of intervals of the month with at most `slice_spans` spans; the one of the newest spans has at most a 64th of that.

    >>> days = pl.datetime_range(datetime(2026, 2, 1), datetime(2026, 2, 11), "1d", eager=True).to_physical()
    >>> traces = pl.DataFrame({"first_us": days, "spans": [100] * 11})
    >>> [f"{at:%m-%d}" for at in boundaries_of("2026-02", traces, 10_000)]
    ['02-01', '02-09', '02-11', '02-13', '02-17', '03-01']
    """
    month_end = periods.month_end(month)
    starts = traces.select("first_us", "spans").sort("first_us")
    starts_us, cumulated_spans = starts["first_us"].to_numpy(), np.concatenate([[0], starts["spans"].cum_sum().to_numpy()])
    position_of_end = int(np.searchsorted(starts_us, (month_end - _EPOCH) // _TICK))
    newest_us = int(starts_us[position_of_end - 1]) if position_of_end else 0

    def interval_starts(start: datetime, length: timedelta) -> list[datetime]:
        if start >= month_end:
            return []
        bounds_us = [(at - _EPOCH) // _TICK for at in (start, start + length)]
        first, last = np.searchsorted(starts_us, bounds_us)
        has_newest = bounds_us[0] <= newest_us < bounds_us[1]
        max_spans = max(1, slice_spans // NEWEST_SHARE) if has_newest else slice_spans
        if cumulated_spans[last] - cumulated_spans[first] <= max_spans or length <= _SHORTEST:
            return [start]
        return [*interval_starts(start, length / 2), *interval_starts(start + length / 2, length / 2)]

    return [*interval_starts(periods.month_start(month), _LONGEST), month_end]


@dataclass(frozen=True, slots=True)
class FileRanges:
    """The files of each day, with the first and last start of their spans."""

    by_day: Mapping[str, Sequence[tuple[int, int, str]]]

    @classmethod
    def of(cls, store: Store, days: Iterable[str]) -> FileRanges:
        """Of these days, from the table's log; no data is read."""
        by_day: dict[str, list[tuple[int, int, str]]] = {day: [] for day in days}
        for file in store.files(SPANS, {"date": list(by_day)}):
            *_, folder, name = file.address.split("/")
            first, last = (bounds.get("start_time") for bounds in (file.first, file.last))
            first_us = -_ENDLESS if first is None else (first - _EPOCH) // _TICK - _ROUNDING_US
            last_us = _ENDLESS if last is None else (last - _EPOCH) // _TICK + _ROUNDING_US
            by_day[folder.removeprefix("date=")].append((first_us, last_us, name))
        return cls(by_day)

    def fingerprint(self, day: str, first_us: int, last_us: int) -> str:
        """Changes when files change that may hold spans of the day which start in this range."""
        return file_sets.fingerprint(name for first, last, name in self.by_day[day] if first <= last_us and last >= first_us)
