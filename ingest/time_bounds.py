"""How far from now a span may be dated: a sender's wrong clock must not make months due that nobody will ever bill."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from ledger.plurals import counted
from ledger.problems import Problem
from ledger.settings import IngestSettings

FIELD = "start_time"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR, _TICK = timedelta(days=365.25), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """The start times that are accepted, both ends included, and the settings they follow from."""

    earliest: datetime
    latest: datetime
    past_years: int
    future_hours: int

    @classmethod
    def at(cls, now: datetime, settings: IngestSettings) -> TimeBounds:
        """The bounds around this instant."""
        years, hours = settings.max_past_years, settings.max_future_hours
        return cls(now - years * _YEAR, now + timedelta(hours=hours), years, hours)

    def range_ns(self) -> tuple[int, int]:
        """Nanoseconds since 1970 of the first and last start that is accepted: `violation` has nothing to say of what lies between.

        >>> bounds = TimeBounds.at(datetime(2026, 11, 30, tzinfo=UTC), IngestSettings())
        >>> [bounds.violation(start_ns) is None for start_ns in (*bounds.range_ns(), bounds.range_ns()[1] + 1000)]
        [True, True, False]
        """
        first, last = ((at - _EPOCH) // _TICK for at in (self.earliest, self.latest))
        return first * 1000, last * 1000 + 999

    def violation(self, start_ns: int) -> tuple[str, str, str] | None:
        """Why a span that starts then is left out, as (field, reason, remedy); None where it is not.

        >>> bounds = TimeBounds.at(datetime(2026, 11, 30, tzinfo=UTC), IngestSettings())
        >>> [bounds.violation(round((start - _EPOCH).total_seconds()) * 10**9) and "out" for start in (bounds.earliest, bounds.latest)]
        [None, None]
        >>> bounds.violation(4_100_000_000 * 10**9)[1]
        'more than 24 hours in the future'
        """
        start = _EPOCH + timedelta(microseconds=start_ns // 1000)
        return self._late() if start > self.latest else self._early() if start < self.earliest else None

    def split(self, frame: pl.DataFrame, source: str, uri: str) -> tuple[pl.DataFrame, list[Problem]]:
        """The rows of `spans` within the bounds, and the problems of the others."""
        start = pl.col("start_time")
        problems = list[Problem]()
        for is_out, violation in ((start > self.latest, self._late()), (start < self.earliest, self._early())):
            rows = frame.select(is_out.sum()).item()
            if rows:
                frame = frame.filter(~is_out.fill_null(value=False))
                problems.append(Problem(source, uri, counted(rows, "row"), *violation, rows=rows))
        return frame, problems

    def _late(self) -> tuple[str, str, str]:
        remedy = "set the sender's clock; if the times are right, raise ingest.max_future_hours, and send them again"
        return FIELD, f"more than {counted(self.future_hours, 'hour')} in the future", remedy

    def _early(self) -> tuple[str, str, str]:
        remedy = "set the sender's clock; if the times are right, raise ingest.max_past_years, and send them again"
        return FIELD, f"more than {counted(self.past_years, 'year')} ago", remedy
