"""Seeded series: what is found, on which day it is known, once each, and what is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pytest

from attribution.monitoring.anomaly_detection import AnomalousDays, Calendar, find

FIRST = date(2026, 8, 3)  # a Monday
DAYS = [FIRST + timedelta(days=n) for n in range(90)]
START = DAYS[60]
Change = Callable[[int, Decimal], Decimal]
"""Day from the start of the change on, and the usual cost of it, to its cost."""


def usual(seed: int, *, level: int = 40, office: bool = True) -> dict[date, Decimal]:
    """Ninety days of noise, less at weekends."""
    rng = random.Random(seed)
    return {
        day: round(Decimal(level) * Decimal(str(rng.gauss(1, 0.12))) * (Decimal("0.3") if office and day.weekday() > 4 else 1), 6)
        for day in DAYS
    }


def changed(seed: int, change: Change, *, length: int = 30) -> dict[date, Decimal]:
    days = usual(seed)
    return {
        day: change((day - START).days, cost) if START <= day < START + timedelta(days=length) else cost
        for day, cost in days.items()
    }


CHANGES: dict[str, tuple[str, Change, int, int]] = {
    "spike": ("spike", lambda _, cost: cost * 5 + 40, 1, 1),
    "loop": ("spike", lambda _, cost: cost + 400, 2, 1),
    "level shift": ("level_shift", lambda _, cost: cost * 3, 30, 5),
    "price change": ("level_shift", lambda _, cost: cost * Decimal("1.6"), 30, 14),
    "leak": ("level_shift", lambda n, cost: cost * (1 + Decimal(n) / 8), 30, 21),
    "silence": ("silent", lambda _, cost: cost * 0, 30, 4),
}
"""Kind, change, its days, and the days from its start within which it must be known."""


def known_by(costs: dict[date, Decimal], day: date) -> list[AnomalousDays]:
    past = {one: cost for one, cost in costs.items() if one <= day and cost}
    return find(past, Calendar(FIRST, day, frozenset(one for one in DAYS if one <= day)))


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found_in_time_and_once(name: str) -> None:
    kind, change, length, patience = CHANGES[name]
    found_count, extra_count = 0, 0
    for seed in range(8):
        costs = changed(seed, change, length=length)
        anomalies = known_by(costs, START + timedelta(days=patience - 1))
        found_count += any(a.kind == kind or (name == "leak" and a.kind == "spike") for a in anomalies)
        at_the_end = known_by(costs, DAYS[-1])
        extra_count += max(0, len(at_the_end) - (3 if name == "leak" else 1))
    assert found_count >= 7, f"found {found_count} of 8"
    assert extra_count <= 1, f"{extra_count} more than one each"


def test_ordinary_series_ring_nothing() -> None:
    assert sum(len(known_by(usual(seed, level=level), DAYS[-1])) for seed in range(8) for level in (2, 40, 900)) <= 3


def test_new_is_new_only_to_an_old_ledger() -> None:
    costs = {day: cost for day, cost in usual(1).items() if day >= START}
    assert [(a.kind, a.start, a.expected) for a in known_by(costs, DAYS[-1])][:1] == [("new", START, Decimal(0))]
    assert find(costs, Calendar(START, DAYS[-1], frozenset(DAYS))) == []


def test_a_day_of_which_nothing_is_known_is_no_silence() -> None:
    costs = {day: cost for day, cost in usual(2).items() if not START <= day < START + timedelta(days=5)}
    has_data = frozenset(costs)
    assert find(costs, Calendar(FIRST, DAYS[-1], has_data)) == []
    assert [a.kind for a in find(costs, Calendar(FIRST, DAYS[-1], frozenset(DAYS)))][:1] == ["silent"]


def test_a_day_that_is_not_over_may_be_too_dear_and_not_too_cheap() -> None:
    costs = usual(3)
    for amount, kinds in (("1", []), ("500", ["spike"])):
        costs[DAYS[-1]] = Decimal(amount)
        assert [a.kind for a in find(costs, Calendar(FIRST, DAYS[-1], frozenset(DAYS), is_last_whole=False))] == kinds
