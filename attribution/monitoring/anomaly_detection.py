"""Days of a daily series that are unlike the days before, each shift of the level once, and where a series falls silent or begins.

What a day is expected to cost is the median of the same weekday over the last weeks, or of all days where they are too few. A day is too dear where it
lies 6 robust standard deviations above that, by a floor of money, and by more than has happened three times in the last weeks: what a bursty series
often does is no news. Three such days in a row are a shift of the level: one anomaly, and the days after it are compared with the new level. A slow
shift, or one downwards, is found where both sides have a week. Days are gone through in order, and each is judged by what was before it: what has
been said of the past does not change when another day is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from statistics import median_low
from typing import Final

import numpy as np

from attribution.monitoring.detector import level_shift

WINDOW_DAYS: Final = 28
MIN_DAYS: Final = 7
MIN_SCORE: Final = 6.0
MIN_EXCESS: Final = Decimal(1)
"""Money below which nothing is an anomaly, in the currency of the series."""
SHIFT_DAYS: Final = 3
"""Dear days in a row that are a shift."""
ORDINARY_COUNT: Final = 3
"""A size that was reached so often in the last weeks is ordinary."""
SILENCE: Final = 3e-3
"""A series is silent where so many days without cost would come about by chance more rarely than that."""
CLIMB_DAYS: Final = 14
"""A level that shifts again within these days, to the same side, is still shifting."""
NEW_HISTORY_DAYS: Final = 14
"""Days of the ledger before the first of a series, for the series to be new and not the ledger."""
SLOW_SHIFT_STRENGTH: Final = 8.0
MIN_SHIFT: Final = Decimal("0.15")
"""Share of the level that a slow shift has to be."""
_NORMAL: Final = 1.4826
_DAY: Final = timedelta(days=1)
_ZERO: Final = Decimal(0)
_LEAST_UNIT: Final = Decimal("0.01")
"""The least noise that a series is taken to have, in its currency."""


@dataclass(frozen=True, slots=True)
class AnomalousDays:
    """An anomaly: its days, what they cost, and what was expected. `reference_days` are those that say so. `is_over`: it ended."""

    kind: str
    start: date
    end: date
    """The last day that is counted in."""
    actual: Decimal
    expected: Decimal
    score_approx: float
    reference_days: tuple[date, ...] = ()
    is_over: bool = False
    told_from: date | None = None
    """First day of what it was called by at first, where that is not its own first day."""

    @property
    def impact(self) -> Decimal:
        """The difference."""
        return self.actual - self.expected


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days that are looked at: from the ledger's first to the last; those of which it has data; whether the last one is over."""

    first: date
    last: date
    has_data: frozenset[date]
    is_last_whole: bool = True


def find(costs: Mapping[date, Decimal], calendar: Calendar) -> list[AnomalousDays]:
    """Anomalies of a series, oldest first. Days without a cost cost nothing where the ledger has data of them.

    A last day that is not whole may be too dear already, and is never too cheap.

    >>> first = date(2026, 10, 1)
    >>> days = {first + n * _DAY: Decimal(10 + n % 3) for n in range(20)} | {date(2026, 10, 21): Decimal(90)}
    >>> [(a.kind, str(a.start), a.actual, a.expected) for a in find(days, Calendar(first, date(2026, 10, 21), frozenset(days)))]
    [('spike', '2026-10-21', Decimal('90'), Decimal('11'))]
    """
    return _Search(costs, calendar).anomalies() if costs else []


@dataclass(slots=True)
class _Search:
    """What is known while the days are gone through."""

    costs: Mapping[date, Decimal]
    calendar: Calendar
    base: date = field(init=False)
    """First day of the level in force."""
    set_aside: set[date] = field(default_factory=set)
    """Days that are no part of what is expected, since they were anomalous."""
    streak: list[AnomalousDays] = field(default_factory=list)
    quiet_days: list[AnomalousDays] = field(default_factory=list)
    """Days without cost at the end."""
    chance: float = 1.0
    """How likely these are."""
    is_silent: bool = False
    found: list[AnomalousDays] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = min(self.costs)

    def anomalies(self) -> list[AnomalousDays]:
        """All of them."""
        calendar, first = self.calendar, self.base
        if (first - calendar.first).days >= NEW_HISTORY_DAYS:
            self._begin(first)
        day = first
        while day <= calendar.last:
            if day in calendar.has_data:
                self._judge(day, is_whole=calendar.is_last_whole or day < calendar.last)
            day += _DAY
        self._close_streak(is_over=False)
        return sorted(self.found, key=lambda anomaly: (anomaly.start, anomaly.kind))

    def _begin(self, first: date) -> None:
        """A series that the ledger did not know before."""
        end = min(first + (MIN_DAYS - 1) * _DAY, self.calendar.last)
        actual = sum((cost for day, cost in self.costs.items() if first <= day <= end), _ZERO)
        if actual >= MIN_EXCESS:
            self.found.append(AnomalousDays("new", first, end, actual, _ZERO, 0.0, is_over=end < self.calendar.last))

    def _judge(self, day: date, *, is_whole: bool) -> None:
        cost = self.costs.get(day, _ZERO)
        if cost > 0 and self.quiet_days:
            self._end_silence()
        past, ordinary_excess = self._past(day)
        if len(past) < MIN_DAYS:
            self._close_streak()
            return
        expected_by_weekday = _by_weekday(past)
        expected_cost = expected_by_weekday[day.weekday()]
        score = score_of(cost, expected_cost, past, expected_by_weekday)
        if score is not None and cost - expected_cost > ordinary_excess:
            self._lengthen(AnomalousDays("spike", day, day, cost, expected_cost, score, tuple(sorted(past))))
            return
        if self._is_high(cost, expected_cost):
            self._lengthen(AnomalousDays("spike", day, day, cost, expected_cost, 0.0, tuple(sorted(past))))
            return
        self._close_streak()
        if cost <= 0 and is_whole and not self.is_silent:
            self._hear(day, expected_cost, past)
        elif is_whole and not self.quiet_days:
            self._find_slow_shift(day, expected_by_weekday)

    def _past(self, day: date) -> tuple[dict[date, Decimal], Decimal]:
        """The days that say what is expected, and an excess that is ordinary, set-aside days included."""
        days = [before for n in range(1, WINDOW_DAYS + 1) if (before := day - n * _DAY) >= self.base]
        costs = {before: self.costs.get(before, _ZERO) for before in days if before in self.calendar.has_data}
        past = {before: cost for before, cost in costs.items() if before not in self.set_aside}
        if len(past) < MIN_DAYS:
            return past, _ZERO
        level = median_low(past.values())
        largest_costs = sorted((cost - level for cost in costs.values()), reverse=True)
        return past, largest_costs[ORDINARY_COUNT - 1]

    def _lengthen(self, anomalous_day: AnomalousDays) -> None:
        self.set_aside.add(anomalous_day.start)
        self.streak.append(anomalous_day)
        if sum(day.score_approx > 0 for day in self.streak) >= SHIFT_DAYS:
            self._shift(self.streak)
            self.streak = []

    def _is_high(self, cost: Decimal, expected_cost: Decimal) -> bool:
        """Whether a day that is not too dear by itself lies as high as the dear days before it: one or two such days do not end a streak."""
        if not self.streak or len(self.streak) - sum(day.score_approx > 0 for day in self.streak) >= 2:
            return False
        dear_days = _joined("spike", self.streak)
        return (cost - expected_cost) * dear_days.expected * 2 > dear_days.impact * expected_cost > 0

    def _close_streak(self, *, is_over: bool = True) -> None:
        """Days that did not become a shift: one anomaly."""
        while self.streak and not self.streak[-1].score_approx:
            self.set_aside.discard(self.streak.pop().start)
        if self.streak:
            self.found.append(replace(_joined("spike", self.streak), is_over=is_over))
        self.streak = []

    def _shift(self, days: Sequence[AnomalousDays]) -> None:
        """A shift of the level. It takes in the spikes that it began with; one that goes on where another ended is the same shift."""
        shift = _joined("level_shift", days)
        before = [a for a in self.found if a.kind in ("level_shift", "spike") and (a.impact > 0) == (shift.impact > 0)]
        for earlier in reversed(before):
            reach = CLIMB_DAYS if earlier.kind == "level_shift" else MIN_DAYS
            if earlier.start > shift.start or (shift.start - earlier.end).days <= reach:
                self.found.remove(earlier)
                first = self._extended(min(shift, earlier, key=lambda a: a.start), max(shift.end, earlier.end))
                shift = replace(first, told_from=earlier.told_from or earlier.start)
        self.found.append(shift)
        self.base = days[0].start
        self.set_aside.clear()

    def _extended(self, anomaly: AnomalousDays, end: date) -> AnomalousDays:
        """The anomaly up to `end`, compared with the days that were before it."""
        expected_by_weekday = _by_weekday({day: self.costs.get(day, _ZERO) for day in anomaly.reference_days})
        days = [anomaly.start + n * _DAY for n in range((end - anomaly.start).days + 1)]
        days = [day for day in days if day in self.calendar.has_data]
        expected_cost = sum((expected_by_weekday[day.weekday()] for day in days), _ZERO)
        actual = sum((self.costs.get(day, _ZERO) for day in days), _ZERO)
        return replace(anomaly, kind="level_shift", end=end, actual=actual, expected=expected_cost, is_over=False)

    def _hear(self, day: date, expected_cost: Decimal, past: Mapping[date, Decimal]) -> None:
        """A day without cost: silence where so many of them are not by chance. Working days and weekends have records of their own."""
        alike = [cost for before, cost in past.items() if (before.weekday() > 4) == (day.weekday() > 4)]
        self.chance *= 1 - sum(cost > 0 for cost in alike) / (len(alike) + 1)
        self.quiet_days.append(AnomalousDays("silent", day, day, _ZERO, expected_cost, 0.0, tuple(sorted(past))))
        self.set_aside.add(day)
        if self.chance < SILENCE and sum((quiet.expected for quiet in self.quiet_days), _ZERO) >= MIN_EXCESS:
            self.found.append(_joined("silent", self.quiet_days))
            self.is_silent = True

    def _end_silence(self) -> None:
        """Cost again: what was expected before the silence is expected again."""
        if self.is_silent:
            last_silence = max(n for n, anomaly in enumerate(self.found) if anomaly.kind == "silent")
            self.found[last_silence] = replace(self.found[last_silence], is_over=True)
        else:  # days without cost are ordinary for this series
            self.set_aside -= {quiet.start for quiet in self.quiet_days}
        self.quiet_days, self.chance, self.is_silent = [], 1.0, False

    def _find_slow_shift(self, last: date, weekdays: Sequence[Decimal]) -> None:
        """A shift too small for any single day, or downwards, where both sides have a week."""
        length = min((last - self.base).days + 1, 3 * WINDOW_DAYS)
        if length < 2 * MIN_DAYS:
            return
        week, usual_week = sum((self.costs.get(last - n * _DAY, _ZERO) for n in range(7)), _ZERO), sum(weekdays, _ZERO)
        if abs(week - usual_week) < max(MIN_EXCESS * 7, MIN_SHIFT * usual_week / 2):
            return  # the usual case: the last week is like those before
        days = [last - n * _DAY for n in reversed(range(length))]
        amounts = self._gapless(days)
        place = level_shift(np.array(amounts, dtype=np.float64), threshold=SLOW_SHIFT_STRENGTH)
        if place is None:
            return
        reference_days = days[max(0, place - WINDOW_DAYS) : place]
        expected_by_weekday = _by_weekday(dict(zip(reference_days, amounts[max(0, place - WINDOW_DAYS) : place], strict=True)))
        span = days[place : place + MIN_DAYS]
        expected_cost = sum((expected_by_weekday[day.weekday()] for day in span), _ZERO)
        actual = sum((self.costs.get(day, _ZERO) for day in span), _ZERO)
        if abs(actual - expected_cost) < max(MIN_EXCESS * len(span), MIN_SHIFT * expected_cost):
            return
        self._shift([AnomalousDays("level_shift", span[0], span[-1], actual, expected_cost, 0.0, tuple(reference_days))])

    def _gapless(self, days: Sequence[date]) -> list[Decimal]:
        """Costs of these days; a day that is set aside, or of which nothing is known, is taken as the one a week before it, or the median."""
        is_known = [day in self.calendar.has_data and day not in self.set_aside for day in days]
        amounts = [self.costs.get(day, _ZERO) for day in days]
        known_amounts = [amount for amount, is_day_known in zip(amounts, is_known, strict=True) if is_day_known]
        level = median_low(known_amounts) if known_amounts else _ZERO
        for number, is_day_known in enumerate(is_known):
            if not is_day_known:
                amounts[number] = amounts[number - 7] if number >= 7 else level
        return amounts


def _joined(kind: str, days: Sequence[AnomalousDays]) -> AnomalousDays:
    actual, expected_cost = (sum((getattr(day, name) for day in days), _ZERO) for name in ("actual", "expected"))
    score = max((day.score_approx for day in days), key=abs)
    return replace(days[0], kind=kind, end=days[-1].end, actual=actual, expected=expected_cost, score_approx=score)


def score_of(
    cost: Decimal, expected_cost: Decimal, past: Mapping[date, Decimal], expected_by_weekday: Sequence[Decimal]
) -> float | None:
    """Robust standard deviations of a day above what is expected, or None if it is like the days before.

    >>> week = {date(2026, 10, n): Decimal(cost) for n, cost in enumerate((10, 11, 9, 10, 12, 10, 11), 1)}
    >>> score_of(Decimal(90), Decimal(10), week, [Decimal(10)] * 7), score_of(Decimal(12), Decimal(10), week, [Decimal(10)] * 7)
    (34.34, None)
    """
    if cost - expected_cost < max(MIN_EXCESS, expected_cost / 4):
        return None
    distances = [
        (abs(amount - usual), usual) for day, amount in past.items() if (usual := expected_by_weekday[day.weekday()]) >= 0
    ]
    spread = median_low(distance for distance, _ in distances)
    # Quiet weekdays say little of loud ones, so the spread relative to the level counts as well.
    relative = median_low(distance / usual if usual else _ZERO for distance, usual in distances)
    # A series without any spread still has noise, taken as a twentieth of its level.
    unit = max(spread, expected_cost * relative, expected_cost / 20, _LEAST_UNIT)
    distance_in_units = (cost - expected_cost) / unit
    score = round(float(distance_in_units) / (_NORMAL * (1 + 4 / len(past))), 2)
    return score if score >= MIN_SCORE else None


def _by_weekday(past: Mapping[date, Decimal]) -> list[Decimal]:
    """What each weekday is expected to cost: from three of its kind on their median, else that of all days."""
    of_all = median_low(past.values())
    groups: list[list[Decimal]] = [[] for _ in range(7)]
    for day, amount in past.items():
        groups[day.weekday()].append(amount)
    return [median_low(group) if len(group) >= 3 else of_all for group in groups]
