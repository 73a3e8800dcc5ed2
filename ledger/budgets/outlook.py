"""What a budget's window will have cost at its end, with an interval, and when the money will be gone. (ledger.forecast)"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import polars as pl

from ledger.budgets.periods import Window, midnight
from ledger.money import proportion

HISTORY_DAYS = 182
"""Days before the forecast that it may learn from."""
MIN_KNOWN_DAYS = 3
"""Days of the window that must be known before a series without enough history is forecast at all."""
COVERAGE = 0.8
"""Share of the intervals that hold the sum that then comes."""
_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Outlook:
    """The window's cost at its end, None where too little is known; and the instant at which the limit is reached, if it is."""

    forecast: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    exhausted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is forecast: rows (`at`, `cost`) that count against a limit, its window, and the first day that is not wholly known."""

    rows: pl.DataFrame
    window: Window
    known_until: date
    limit: Decimal
    timezone: str

    @property
    def zone(self) -> ZoneInfo:
        """The reporting timezone."""
        return ZoneInfo(self.timezone)

    @property
    def days_ahead(self) -> int:
        """Days to forecast, up to the end of the window."""
        last_instant = self.window.end - timedelta(microseconds=1)
        return (last_instant.astimezone(self.zone).date() - self.known_until).days + 1

    @property
    def days_between(self) -> int:
        """Days to forecast that lie before the window."""
        return max(0, (self.window.start.astimezone(self.zone).date() - self.known_until).days)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a question: whole days before, cost of the window's whole days, and all its cost."""

    days: list[Decimal]
    whole_days: Decimal
    spent: Decimal
    window_days: int


def outlooks(questions: Sequence[Question]) -> list[Outlook]:
    """The outlook of each question; those that are alike are forecast together."""
    from ledger.forecast import MIN_WEEKS, WEEK  # numpy takes a tenth of a second to import

    facts_list = [_known(question) for question in questions]
    results: list[Outlook] = [Outlook()] * len(questions)
    alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, (question, facts) in enumerate(zip(questions, facts_list, strict=True)):
        weeks = len(facts.days) // WEEK
        if question.days_ahead <= 0:
            results[number] = _with_exhaustion(question, facts, [], facts.spent, facts.spent, facts.spent)
        elif weeks >= MIN_WEEKS and question.days_between < question.days_ahead:
            alike[weeks, question.days_ahead, question.days_between].append(number)
        elif facts.window_days >= MIN_KNOWN_DAYS:
            daily = proportion(facts.whole_days, Decimal(1), Decimal(facts.window_days))
            ahead = [daily] * question.days_ahead
            results[number] = _with_exhaustion(question, facts, ahead, facts.whole_days + sum(ahead, Decimal(0)), None, None)
        else:
            results[number] = _with_exhaustion(question, facts, [], None, None, None)
    for (weeks, days_ahead, days_between), numbers in alike.items():
        _learn(questions, facts_list, results, numbers, weeks * WEEK, days_ahead, days_between)
    return results


def _learn(
    questions: Sequence[Question],
    facts_list: Sequence[_Known],
    results: list[Outlook],
    numbers: Sequence[int],
    history_days: int,
    days_ahead: int,
    days_between: int,
) -> None:
    """Forecasts the questions of these numbers from as many days of their past."""
    import numpy as np

    from ledger.forecast import forecast

    history = np.array([facts_list[n].days[-history_days:] for n in numbers], dtype=np.float64)
    pooled_forecast = forecast(history, days_ahead, skip=days_between, coverage=COVERAGE)
    for row, number in enumerate(numbers):
        facts = facts_list[number]
        total, low, high = (
            None if np.isnan(column[row]) else facts.whole_days + Decimal(str(column[row])).quantize(_PLACES)
            for column in (pooled_forecast.total, pooled_forecast.low, pooled_forecast.high)
        )
        path = [Decimal(str(day)).quantize(_PLACES) for day in pooled_forecast.days[row][days_between:]]
        results[number] = _with_exhaustion(questions[number], facts, path, total, low, high)


def _known(question: Question) -> _Known:
    by_day = (
        question.rows.lazy()
        .group_by(pl.col("at").dt.convert_time_zone(question.timezone).dt.date().alias("day"))
        .agg(pl.col("cost").sum())
        .filter(pl.col("day") < question.known_until)
        .sort("day")
        .collect()
    )
    first_of_window = question.window.start.astimezone(question.zone).date()
    days: list[Decimal] = []
    if by_day.height:
        first: date = by_day["day"][0]
        days = [Decimal(0)] * min((question.known_until - first).days, HISTORY_DAYS)
        offset = (question.known_until - first).days - len(days)
        for day, cost in by_day.iter_rows():
            if (at := (day - first).days - offset) >= 0:
                days[at] = max(cost, Decimal(0))
    whole_days = by_day.filter(pl.col("day") >= first_of_window, pl.col("day") < question.known_until)["cost"].sum()
    window_rows = question.rows.filter(pl.col("at") >= question.window.start, pl.col("at") < question.window.end)
    return _Known(
        days,
        Decimal(str(whole_days or 0)),
        Decimal(str(window_rows["cost"].sum() or 0)),
        min(max(0, (question.known_until - first_of_window).days), len(days)),
    )


def _with_exhaustion(
    question: Question, facts: _Known, path: Sequence[Decimal], total: Decimal | None, low: Decimal | None, high: Decimal | None
) -> Outlook:
    """No forecast is below what was spent already; the limit is reached where the path crosses it."""
    total, low, high = (None if amount is None else max(amount, facts.spent) for amount in (total, low, high))
    return Outlook(total, low, high, _crossed(question, facts) or _will_cross(question, facts, path))


def _crossed(question: Question, facts: _Known) -> datetime | None:
    """When the limit was reached, if it was."""
    if facts.spent < question.limit:
        return None
    rows = question.rows.filter(pl.col("at") >= question.window.start, pl.col("at") < question.window.end)
    sums = rows.group_by("at").agg(pl.col("cost").sum()).sort("at").with_columns(pl.col("cost").cum_sum())
    at: datetime = sums.filter(pl.col("cost") >= question.limit)["at"][0]
    return at


def _will_cross(question: Question, facts: _Known, path: Sequence[Decimal]) -> datetime | None:
    """When the limit will be reached, if the days ahead cost what `path` says."""
    spent = facts.whole_days
    first = max(question.known_until, question.window.start.astimezone(question.zone).date())
    for number, cost in enumerate(path):
        if cost > 0 and spent + cost >= question.limit:
            begin, end = (midnight(first + timedelta(days=number + n), question.zone) for n in (0, 1))
            part = proportion(Decimal(1), max(question.limit - spent, Decimal(0)), cost)
            at = begin + timedelta(seconds=int((end - begin).total_seconds() * int(part * 1_000_000) // 1_000_000))
            return min(at, question.window.end)
        spent += cost
    return None
