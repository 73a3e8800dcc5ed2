"""Forecasts of a month's cost: how far off, how often the interval holds, and how fast, beside the run rate in the same run.

    python -m bench.forecast

Two real daily series (tests/data/prophet_daily: views of a page, pedestrians), each month known until its 3rd, 10th, 15th and 20th day, and
10,000 random series of half a year for speed, in processor time. Prints one JSON line a series and one for speed.
"""

from __future__ import annotations

import json
import time

import numpy as np

from ledger.forecast import forecast
from tests.ledger.test_forecast import month_totals, series

SERIES = {"page views": ("example_wp_log_R.csv", True), "pedestrians": ("example_pedestrians_covid.csv", False)}


def main() -> None:
    """Prints the figures."""
    for name, (file, logarithms) in SERIES.items():
        first, values = series(file, logarithms=logarithms)
        for day in (3, 10, 15, 20):
            errors, naive_errors, hits = month_totals(first, values, day, 36)
            figures = {"error": np.mean(errors), "run_rate_error": np.mean(naive_errors), "interval_holds": np.mean(hits)}
            print(
                json.dumps(
                    {"series": name, "known_days": day, "months": len(errors)}
                    | {k: round(float(v), 3) for k, v in figures.items()}
                )
            )
    history = np.random.default_rng(1).gamma(2.0, 5.0, (10_000, 182))
    started_at = time.process_time()
    forecast(history, 30)
    print(json.dumps({"series": 10_000, "days": 182, "horizon": 30, "cpu_seconds": round(time.process_time() - started_at, 2)}))


if __name__ == "__main__":
    main()
