"""Burn rates: whoever just uses his budget rings nothing, twice the spend is found within hours, and an hour without data is no hour without cost."""

from __future__ import annotations

import numpy as np
import pytest

from bench.burn_rates import HISTORY_HOURS, MONTH_HOURS, STEPS, alarms, busy
from ledger.budgets.burn_rate import DAY, WEEK, burning, missing_hours


@pytest.mark.parametrize("seed", range(2))
def test_a_busy_team_rings_nothing_as_usual_and_twice_its_spend_is_found(seed: int) -> None:
    steps = busy(np.random.default_rng([7, seed]), HISTORY_HOURS + MONTH_HOURS)
    amount = float(steps[HISTORY_HOURS * STEPS :].sum())
    tuesday = (HISTORY_HOURS + DAY + 10) * STEPS
    assert next(alarms(steps, tuesday, tuesday + 12 * STEPS, amount), None) is None
    first_step = next(alarms(steps, tuesday, tuesday + 12 * STEPS, amount, multiple=2.0))
    assert first_step - tuesday <= 4 * STEPS


def test_a_missing_hour_is_left_out_and_a_late_one_counts_when_it_comes() -> None:
    week = np.array([0.0] * 12 + [1.0] * (WEEK - 12))
    hours, clock = np.tile(week, 4), np.arange(4 * WEEK) % WEEK
    hours[-3] = 0.0
    assert np.flatnonzero(missing_hours(hours, clock)).tolist() == [4 * WEEK - 3]
    known_hours = np.where(missing_hours(hours, clock), np.nan, hours)
    assert burning(known_hours, clock, 1.0, 600.0) is None
    known_hours[-3] = 9.0
    late = burning(known_hours, clock, 1.0, 600.0)
    assert late is not None
    assert (late.window_hours, late.actual_approx, late.excess_approx) == (3, 11.0, 8.0)


def test_without_a_past_nobody_is_told() -> None:
    assert burning(np.ones(WEEK), np.arange(WEEK), 1.0, 1.0) is None
