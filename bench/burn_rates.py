"""Burn-rate alerts on simulated spend: false alarms a month of whoever just uses his budget, and how soon a multiple of it is found.

    python -m bench.burn_rates [--scopes 200] [--seed 7]

Each scope spends its month's budget in office hours. `busy` makes many calls, `few runs` six large ones a working day. Both are looked at every five
minutes, as an hour fills, after eight weeks of the same. An alarm that goes on is one; a day without it ends it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ledger.budgets.burn_rate import DAY, WEEK, Baseline

Array = NDArray[np.float64]
STEPS = 12
"""Looks in an hour."""
HISTORY_HOURS = 8 * WEEK
MONTH_HOURS = 30 * DAY
MULTIPLES = (2, 3, 10)
Scope = Callable[[np.random.Generator, int], Array]


def office_hours(hours: int) -> Array:
    """How much of a week's work falls into each hour: from 8 to 18 on workdays, a little around, next to nothing at weekends."""
    at = np.arange(hours)
    hour, weekday = at % DAY, at // DAY % 7
    weight = np.where((hour >= 8) & (hour < 18), 1.0, np.where((hour >= 6) & (hour < 22), 0.25, 0.03))
    return np.where(weekday < 5, weight, weight * 0.08)


def busy(random: np.random.Generator, hours: int) -> Array:
    """Cost by twelfths of an hour: many calls, days that differ by a tenth, and calls of very different size."""
    shape = np.repeat(office_hours(hours), STEPS)
    days = np.repeat(random.lognormal(0, 0.1, hours // DAY + 1), DAY * STEPS)[: len(shape)]
    calls = random.poisson(shape * days * 60)
    return np.asarray(random.gamma(np.maximum(calls, 1e-9) * 0.5, 2.0) * (calls > 0))


def few_runs(random: np.random.Generator, hours: int) -> Array:
    """The same with six runs a working day, of very different cost."""
    shape = np.repeat(office_hours(hours), STEPS)
    runs = random.random(len(shape)) < shape * 6 / (12 * STEPS)
    return np.where(runs, random.lognormal(0, 0.6, len(shape)), 0.0)


@dataclass(frozen=True, slots=True)
class Looks:
    """What was found in one scope: distinct alarms of a month as usual, and hours until each multiple was found (NaN: never)."""

    alarms: int
    delays: tuple[float, ...]


def alarms(steps: Array, first: int, last: int, amount: float, *, multiple: float = 1.0) -> Iterator[int]:
    """Steps from `first` to `last` after which an alarm is on, where spend is a multiple of `steps` from `first` on."""
    hours = steps.reshape(-1, STEPS).sum(axis=1)
    clock = np.arange(len(hours)) % WEEK
    faster = steps.copy()
    faster[first:] *= multiple
    for hour in range(first // STEPS, last // STEPS):
        day = slice(hour + 1 - DAY, hour + 1)
        sums = faster.reshape(-1, STEPS)[day].sum(axis=1)
        # What is learned is what came before: here as it was, since a multiple is looked at for a few days only.
        baseline = Baseline.learn(hours[: hour + 1 - DAY], clock[: hour + 1 - DAY])
        for step in range(1, STEPS + 1):
            sums[-1] = faster[hour * STEPS : hour * STEPS + step].sum()
            if baseline.judge(sums, clock[day], step / STEPS, amount) is not None:
                yield hour * STEPS + step


def look(scope: Scope, random: np.random.Generator) -> Looks:
    """One scope: eight weeks to learn from and a month as usual, then the same with a multiple of the spend."""
    steps = scope(random, HISTORY_HOURS + MONTH_HOURS)
    first, last = HISTORY_HOURS * STEPS, len(steps)
    amount = float(steps[first:].sum())
    on = np.array([first - 2 * DAY * STEPS, *alarms(steps, first, last, amount)])
    start_hour = HISTORY_HOURS + int(random.integers(0, 21)) * DAY
    while office_hours(start_hour + 12)[start_hour + 11] < 1:
        start_hour += DAY
    start = (start_hour + int(random.integers(9, 15))) * STEPS
    delays = []
    for multiple in MULTIPLES:
        first_step = next(alarms(steps, start, min(start + 3 * DAY * STEPS, last), amount, multiple=multiple), None)
        delays.append(np.nan if first_step is None else (first_step - start) / STEPS)
    return Looks(int((np.diff(on) > DAY * STEPS).sum()), tuple(delays))


def simulate(scope: Scope, scopes: int, seed: int) -> tuple[float, tuple[float, ...]]:
    """False alarms a scope-month, and the mean hours until each multiple is found."""
    looks = [look(scope, np.random.default_rng([seed, number])) for number in range(scopes)]
    delays = np.array([one.delays for one in looks])
    return float(np.mean([one.alarms for one in looks])), tuple(float(np.nanmean(delays[:, n])) for n in range(len(MULTIPLES)))


def main() -> None:
    """Prints a line for each kind of scope."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scopes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print(f"{'':10} false alarms a month" + "".join(f"   ×{multiple} found after" for multiple in MULTIPLES))
    for name, scope in (("busy", busy), ("few runs", few_runs)):
        alarms, delays = simulate(scope, options.scopes, options.seed)
        print(f"{name:10} {alarms:20.3f}" + "".join(f"{delay:14.1f} h" for delay in delays))


if __name__ == "__main__":
    main()
