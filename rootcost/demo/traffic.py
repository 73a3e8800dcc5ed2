"""Schedules the month's chains: the number of chains of each scene, their times and their order.

Arrivals follow the hours and weekdays of real traffic (`rootcost.demo.shapes`). Each day and scene has its own seed, so a day
is the same whatever is generated around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rootcost.demo import backoffice, scenes
from rootcost.demo.recorder import SECOND, Recorder
from rootcost.demo.shapes import Dice, shares

RUNAWAY_DAY = 22
"""On this day of the month the coding agent runs in an endless loop."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A kind of chain: its share of all calls, and its times of day."""

    name: str
    play: Callable[[Recorder, int], None]
    share: float
    hours: str = "traffic"
    from_day: int = 1


def programme(gpu_nodes: int) -> tuple[Scene, ...]:
    """All scenes. Shares sum to 1."""
    return (
        Scene("support", scenes.support_chat, 0.36),
        Scene("coding", scenes.coding_task, 0.21),
        Scene("writing", scenes.writing, 0.12),
        Scene("invoices", backoffice.invoice, 0.10),
        Scene("contracts", backoffice.contract, 0.06, "office"),
        Scene("routes", partial(backoffice.routes, nodes=gpu_nodes), 0.04, "rented"),
        Scene("indexing", backoffice.indexing, 0.06, "night"),
        Scene("notebook", scenes.notebook, 0.02, "office"),
        Scene("legacy", scenes.legacy, 0.01),
        Scene("hackday", backoffice.hackday, 0.02, "traffic", 20),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many chains of each scene start on each day: `counts[scene, day - 1]`."""

    scenes: tuple[Scene, ...]
    counts: NDArray[np.int64]
    first: datetime
    seed: int
    runaways: int

    @property
    def days(self) -> int:
        """Days of the month."""
        return int(self.counts.shape[1])


def plan(calls: int, *, first: datetime, end: datetime, seed: int, gpu_nodes: int) -> Plan:
    """Distributes about `calls` provider calls over the scenes and days of a month."""
    cast = programme(gpu_nodes)
    days = (end - first).days
    rng = np.random.default_rng([seed, 1])
    weekday = shares("day_of_week_share")
    # The recording's third and fourth day are its quiet ones: the weekend.
    quiet_first = np.roll(weekday, 3)
    by_day = np.array([quiet_first[(first + timedelta(days=d)).weekday()] for d in range(days)])
    runaways = max(1, calls // 4000)
    ordinary_calls = max(0, calls - runaways * 60)
    counts = np.zeros((len(cast), days), dtype=np.int64)
    for row, scene in enumerate(cast):
        weights = by_day * rng.uniform(0.85, 1.15, days)
        if scene.hours == "rented":
            weights = np.array([w if (first + timedelta(days=d)).weekday() < 5 else 0.0 for d, w in enumerate(weights)])
        weights[: scene.from_day - 1] = 0.0
        chains = max(1, round(ordinary_calls * scene.share / _calls_each(scene)))
        counts[row] = rng.multinomial(chains, weights / weights.sum())
    return Plan(scenes=cast, counts=counts, first=first, seed=seed, runaways=runaways)


def _calls_each(scene: Scene) -> float:
    """Mean number of calls of a scene's chains, measured by generating some."""
    recorder = Recorder(Dice(0, 2), day=15)
    for _ in range(300):
        scene.play(recorder, 1_700_000_000 * SECOND)
    return max(recorder.calls / 300, 0.1)


def chains_of(schedule: Plan, day: int) -> Iterator[tuple[Callable[[Recorder, int], None], Dice, int]]:
    """The chains that start on a day (from 1): scene, random generator and start (ns), in order of their start."""
    midnight = int((schedule.first + timedelta(days=day - 1)).timestamp()) * SECOND
    starts: list[tuple[int, int]] = []
    dice = [Dice(schedule.seed, 3, day, row) for row in range(len(schedule.scenes) + 1)]
    for row, scene in enumerate(schedule.scenes):
        seconds = _seconds(scene.hours, int(schedule.counts[row, day - 1]), dice[row].generator)
        starts += [(midnight + int(second * 1e6) * 1000, row) for second in seconds]
    if day == RUNAWAY_DAY:
        row = len(schedule.scenes)
        start_seconds = 3600 * (9 + 8 * dice[row].generator.random(schedule.runaways))
        starts += [(midnight + int(second * 1e6) * 1000, row) for second in start_seconds]
    looping = partial(scenes.coding_task, steps=60)
    for start, row in sorted(starts):
        yield (schedule.scenes[row].play if row < len(schedule.scenes) else looping), dice[row], start


def _seconds(hours: str, count: int, rng: np.random.Generator) -> Sequence[float]:
    """Seconds of the day at which `count` chains start. None starts so late that it would run far into the next day."""
    if hours == "night":
        return [float(s) for s in 7200 + 4800 * rng.random(count)]
    weights = shares("hour_of_day_share").copy()
    if hours == "office":
        weights[:7] = weights[19:] = 0.0
    elif hours == "rented":
        weights[:13] = weights[17:] = 0.0
    hour = rng.choice(24, size=count, p=weights / weights.sum())
    return [float(s) for s in np.minimum(hour * 3600 + rng.random(count) * 3600, 84_600)]
