"""Windows of the Numenta Anomaly Benchmark that the detector finds at so many false incidents, and how soon.

    python -m bench.nab PATH

PATH is a copy of NAB's `data` with `labels/` (github.com/numenta/NAB, MIT), or a part of it. The first 15 % of each series are probation. A point
whose score is at or above the threshold is an alarm; alarms less than 6 hours apart are one incident, which is false if no point of it lies in a
labelled window. One threshold holds for all series; for each number of false incidents the one is taken that finds most. Prints one JSON line.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from attribution.monitoring.detector import Array, scores

LIMITS = (5, 10, 20, 40, 80, 160)
PROBATION = 0.15
GAP = timedelta(hours=6)


@dataclass
class Series:
    """A labelled series with its scores."""

    name: str
    times: list[datetime]
    values: Array
    windows: list[tuple[datetime, datetime]]
    points_per_day: int


def read(folder: Path) -> list[Series]:
    """Every series of the folder that has labels."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    rows = []
    for name, windows in sorted(labels.items()):
        file = folder / name
        if not file.exists():
            continue
        with file.open() as lines:
            points = [(datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in csv.DictReader(lines)]
        times = [at for at, _ in points]
        interval = float(np.median([(b - a).total_seconds() for a, b in itertools.pairwise(times)]))
        bounds = [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in windows]
        rows.append(Series(name, times, np.array([value for _, value in points]), bounds, max(1, round(86400 / interval))))
    return rows


def judge(all_series: list[Series], all_scores: list[Array], threshold: float) -> tuple[int, int, list[float]]:
    """Windows found, false incidents, and delays in hours, at one threshold."""
    found_count, false_count, delays = 0, 0, []
    for series, score in zip(all_series, all_scores, strict=True):
        begin = int(len(series.values) * PROBATION)
        alarms = [series.times[i] for i in np.flatnonzero(score >= threshold) if i >= begin]
        groups: list[list[datetime]] = []
        for at in alarms:
            if groups and at - groups[-1][-1] < GAP:
                groups[-1].append(at)
            else:
                groups.append([at])
        for start, end in series.windows:
            inside_alarms = [at for at in alarms if start <= at <= end]
            found_count += bool(inside_alarms)
            if inside_alarms:
                delays.append((inside_alarms[0] - start).total_seconds() / 3600)
        false_count += sum(not any(start <= at <= end for at in group for start, end in series.windows) for group in groups)
    return found_count, false_count, delays


def best(all_series: list[Series], all_scores: list[Array]) -> dict[int, tuple[int, int, float]]:
    """For each limit: windows found, false incidents, and the median delay in hours from the window's begin."""
    all_points = np.concatenate([score[int(len(score) * PROBATION) :] for score in all_scores])
    thresholds = np.unique(np.quantile(all_points, 1 - np.geomspace(2e-5, 2e-2, 120)))
    results = [judge(all_series, all_scores, float(threshold)) for threshold in thresholds]
    out = {}
    for limit in LIMITS:
        fitting = [result for result in results if result[1] <= limit]
        found_count, false_count, delays = max(fitting, key=lambda r: (r[0], -r[1]), default=(0, 0, []))
        out[limit] = (found_count, false_count, round(float(np.median(delays)), 1) if delays else 0.0)
    return out


def main() -> None:
    """Prints the figures."""
    all_series = read(Path(sys.argv[1]))
    started_at = time.process_time()
    all_scores = [scores(series.values, series.points_per_day) for series in all_series]
    seconds = time.process_time() - started_at
    figures = best(all_series, all_scores)
    print(
        json.dumps(
            {
                "series": len(all_series),
                "points": sum(len(series.values) for series in all_series),
                "windows": sum(len(series.windows) for series in all_series),
                "found_at_most_false": {limit: count for limit, (count, _, _) in figures.items()},
                "false": {limit: count for limit, (_, count, _) in figures.items()},
                "median_delay_hours": {limit: delay for limit, (_, _, delay) in figures.items()},
                "cpu_seconds": round(seconds, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
