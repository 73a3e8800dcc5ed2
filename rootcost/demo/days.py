"""Generates the month day by day: each day is written to files and released, so that memory holds one day at most.

Days are independent of each other; a large month is played on all processors, with the same bytes as on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from rootcost.demo import traffic, wire
from rootcost.demo.company import METERS
from rootcost.demo.recorder import TRUTH_SCHEMA, Recorder
from rootcost.demo.shapes import Dice

SPANS_A_FILE = 60_000
LINES_A_FILE = 20_000
RESENT_DAYS, RETRIED_DAY = (6, 13), 8
"""Days on which the collector and the gateway deliver some records twice."""

_WHO = [name for name in TRUTH_SCHEMA if name not in METERS]


@dataclass(slots=True, kw_only=True)
class DayOutput:
    """Counts of what was written, and the expected costs.

    `usage` sums true tokens by hour, model, principal and people; `seconds` is resource to hour to seconds of work.
    """

    usage: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRUTH_SCHEMA))
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    calls: int = 0
    spans: int = 0
    payloads: int = 0

    def add(self, other: DayOutput) -> None:
        """Adds the counts of another day, or of another part of it."""
        self.usage = _summed(pl.concat([self.usage, other.usage]))
        self.calls, self.spans, self.payloads = self.calls + other.calls, self.spans + other.spans, self.payloads + other.payloads
        for resource, hours in other.seconds.items():
            seconds_by_hour = self.seconds.setdefault(resource, {})
            for hour, seconds in hours.items():
                seconds_by_hour[hour] = seconds_by_hour.get(hour, 0.0) + seconds


def play(schedule: traffic.Plan, out: Path, month: str, *, processes: int, tell: Callable[[str, int, int], None]) -> DayOutput:
    """Generates the whole month below `out`; `tell` is called after every day."""
    whole = DayOutput()
    for days_done, day in enumerate(_each(partial(play_day, schedule, out, month), range(1, schedule.days + 1), processes), 1):
        whole.add(day)
        tell("days", days_done, schedule.days)
    return whole


def _each(work: Callable[[int], DayOutput], days: Iterable[int], processes: int) -> Iterator[DayOutput]:
    if processes == 1:
        yield from map(work, days)
        return
    # Forking would copy locks of polars' threads in whatever state they are.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, days)


def play_day(schedule: traffic.Plan, out: Path, month: str, day: int) -> DayOutput:
    """Generates one day and writes its files."""
    recorder, whole, part = Recorder(Dice(schedule.seed, day), day), DayOutput(), 0
    for scene, dice, start in traffic.chains_of(schedule, day):
        recorder.dice = dice
        scene(recorder, start)
        if len(recorder.spans) >= SPANS_A_FILE or len(recorder.payloads) >= LINES_A_FILE:
            whole.add(_flush(recorder, out, f"{month}-{day:02d}", part))
            recorder, part = Recorder(Dice(schedule.seed, day), day), part + 1
    whole.add(_flush(recorder, out, f"{month}-{day:02d}", part))
    return whole


def _flush(recorder: Recorder, out: Path, day: str, part: int) -> DayOutput:
    """Writes the recorded data, and adds up the expected costs."""
    if recorder.spans or recorder.plain_spans:
        _write_spans(recorder, out / "otlp", f"{day}-{part:03d}")
    if recorder.payloads:
        _write_payloads(recorder, out / "litellm" / day, part)
    totals = DayOutput(
        calls=recorder.calls, spans=len(recorder.spans) + len(recorder.plain_spans), payloads=len(recorder.payloads)
    )
    totals.usage = _summed(recorder.truth_frame())
    for hour, resource, seconds in recorder.resource_seconds:
        seconds_by_hour = totals.seconds.setdefault(resource, {})
        seconds_by_hour[hour] = seconds_by_hour.get(hour, 0.0) + seconds
    return totals


def _write_spans(recorder: Recorder, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if recorder.spans:
        (folder / f"traces-{name}.pb").write_bytes(wire.request(recorder.spans))
        if recorder.day in RESENT_DAYS:
            # A collector that got no answer in time sends a batch again, and regroups it.
            (folder / f"traces-{name}-resent.pb").write_bytes(wire.request(reversed(recorder.spans[::3])))
    if recorder.plain_spans:
        batches = [recorder.plain_spans[n : n + 400] for n in range(0, len(recorder.plain_spans), 400)]
        lines = "".join(wire.json_line(batch) + "\n" for batch in batches)
        (folder / f"traces-jobs-{name}.jsonl").write_text(lines, encoding="utf-8")


def _write_payloads(recorder: Recorder, folder: Path, part: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"time-23-{part // 60:02d}-{part % 60:02d}"
    (folder / f"{stamp}-000000_batch.jsonl").write_text("\n".join(recorder.payloads) + "\n", encoding="utf-8")
    if recorder.day == RETRIED_DAY:
        redelivery = "\n".join(reversed(recorder.payloads[:200])) + "\n"
        (folder / f"{stamp}-500000_retried.jsonl").write_text(redelivery, encoding="utf-8")


def _summed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by(_WHO).agg(pl.col(m).sum() for m in METERS).select(list(TRUTH_SCHEMA))
