"""Burn rates: whether money is spent so fast that somebody must know now, not at the end of the period.

Whoever means to use his budget has a burn rate of 1 all the time, so a rate alone says nothing. Somebody is told where, in one of several windows,

* spend is above what these hours of the week usually cost (the profile) by a floor in money, 1 % of the budget;
* and above the most that any such window had cost before (the record), by a margin that grows with how uneven spend is;

or where the lower bound of the period's forecast is above the budget (`ledger.budgets.outlook`). An hour without data is no hour without cost: it is
left out on both sides. Statistics, not money: floating point, and nothing of it is booked. Figures on simulated spend: bench/burn_rates.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Hours = NDArray[np.int64]

DAY: Final = 24
WEEK: Final = 7 * DAY
MIN_HISTORY: Final = 2 * WEEK
"""Hours of the past that a profile and a record need."""
MAX_HISTORY: Final = 8 * WEEK
WINDOWS: Final = (1, 2, 3, 6, 12, 24)
"""Lengths of the windows, in hours; the running hour is part of each."""
FLOOR_SHARE: Final = 0.01
"""Share of the budget that must have been spent beyond the profile."""
MARGIN: Final = 0.10
"""By how much of itself the record must be passed, if spend were even."""
UNEVEN_MARGIN: Final = 0.25
"""And by how much more for each unit of the variation of the busiest windows."""


@dataclass(frozen=True, slots=True)
class Burn:
    """A window in which spend was out of the ordinary: its length, what was spent, what is usual, and the record of such windows."""

    window_hours: int
    actual_approx: float
    expected_approx: float
    record_approx: float

    @property
    def excess_approx(self) -> float:
        """Spend beyond what is usual."""
        return self.actual_approx - self.expected_approx


def burning(hours: Array, hour_of_week: Hours, elapsed_share: float, amount: float) -> Burn | None:
    """The window that is most out of the ordinary, or None.

    `hours` is the cost of consecutive hours (NaN: no data), the last one running, of which the share `elapsed` is over; `hour_of_week` (0: Monday's
    first, 167: Sunday's last) is what the clock of the reporting timezone showed when each began; `amount` is the budget's.

    Three weeks at 1 an hour, and then two hours at 20, of a budget of 720 (its floor is 7.2):

    >>> even, clock = [1.0] * (3 * WEEK), np.arange(3 * WEEK + 2) % WEEK
    >>> burning(np.array(even), clock[:-2], 1.0, 720.0) is None
    True
    >>> found = burning(np.array([*even, 20.0, 20.0]), clock, 1.0, 720.0)
    >>> found.window_hours, found.actual_approx, found.expected_approx
    (2, 40.0, 2.0)
    """
    if len(hours) < MIN_HISTORY + WINDOWS[-1]:
        return None
    baseline = Baseline.learn(hours[: -WINDOWS[-1]], hour_of_week[: -WINDOWS[-1]])
    return baseline.judge(hours[-WINDOWS[-1] :], hour_of_week[-WINDOWS[-1] :], elapsed_share, amount)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is usual: cost by day type and hour, and the record of each window with its margin."""

    profile: Array
    records: tuple[float, ...]

    @classmethod
    def learn(cls, hours: Array, hour_of_week: Hours) -> Baseline:
        """Of the past, without what is judged by it."""
        past = hours[-MAX_HISTORY:]
        known_costs = np.nan_to_num(past)
        records = tuple(_record(known_costs, length) for length in WINDOWS)
        return cls(_profile(past, _slots(hour_of_week[-MAX_HISTORY:])), records)

    def judge(self, hours: Array, hour_of_week: Hours, elapsed_share: float, amount: float) -> Burn | None:
        """The window of these last hours that is most out of the ordinary."""
        known_hours = ~np.isnan(hours)
        actual = np.where(known_hours, hours, 0.0)
        expected_costs = np.where(known_hours, self.profile[_slots(hour_of_week)], 0.0)
        expected_costs[-1] *= elapsed_share
        spent, usual = (np.cumsum(costs[::-1]) for costs in (actual, expected_costs))
        burns = [
            Burn(length, float(spent[length - 1]), float(usual[length - 1]), record)
            for length, record in zip(WINDOWS, self.records, strict=True)
            if spent[length - 1] - usual[length - 1] >= FLOOR_SHARE * amount and spent[length - 1] > record
        ]
        return max(burns, key=lambda burn: burn.excess_approx, default=None)


def missing_hours(all_costs: Array, hour_of_week: Hours) -> NDArray[np.bool_]:
    """Hours in which nobody at all has any cost although at this hour of the week somebody usually has: no data, rather than no cost.

    Three weeks in which only the hours from noon are busy, and in the last of them one is missing:

    >>> week = [0.0] * 12 + [1.0] * (WEEK - 12)
    >>> costs = np.array([*week, *week, *week]); costs[2 * WEEK + 40] = 0
    >>> np.flatnonzero(missing_hours(costs, np.arange(3 * WEEK) % WEEK)).tolist()
    [376]
    """
    is_busy = all_costs != 0
    counts = np.bincount(hour_of_week, minlength=WEEK)
    busy_share = np.bincount(hour_of_week, weights=is_busy, minlength=WEEK) / np.maximum(counts, 1)
    missing: NDArray[np.bool_] = ~is_busy & (busy_share[hour_of_week] > 0.5)
    return missing


def _slots(hour_of_week: Hours) -> Hours:
    """Day type and hour of each hour: 0 to 23 on workdays, 24 to 47 on Saturdays, 48 to 71 on Sundays."""
    slot: Hours = np.maximum(hour_of_week // DAY - 4, 0) * DAY + hour_of_week % DAY
    return slot


def _profile(past: Array, slot: Hours) -> Array:
    """Mean cost of each hour of each day type; a type of day that was not seen has that of workdays."""
    known_hours = ~np.isnan(past)
    sums = np.bincount(slot[known_hours], weights=past[known_hours], minlength=3 * DAY)
    counts = np.bincount(slot[known_hours], minlength=3 * DAY)
    mean = np.divide(sums, counts, out=np.full(3 * DAY, np.nan), where=counts > 0)
    fallback = np.nan_to_num(mean[:DAY], nan=0.0)
    filled_profile: Array = np.where(np.isnan(mean), np.tile(fallback, 3), mean)
    return filled_profile


def _record(past: Array, length: int) -> float:
    """The most that a window of this length had cost, and a margin: more where the days' dearest windows differ much."""
    running = np.concatenate([[0.0], np.cumsum(past)])
    sums = running[length:] - running[:-length]
    days = len(sums) // DAY
    dearest = sums[len(sums) - days * DAY :].reshape(days, DAY).max(axis=1)
    busy = dearest[dearest > 0]
    if not len(busy):
        return 0.0
    variation = float(busy.std() / busy.mean())
    return float(dearest.max()) * (1 + MARGIN + UNEVEN_MARGIN * variation)
