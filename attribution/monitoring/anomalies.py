"""Anomalies: days that cost far more than the days before.

The baseline is the median of up to 28 earlier days and the spread their median absolute deviation, so one expensive day does not hide
the next. A day counts when it lies 6 robust standard deviations above, and the excess is worth at least one unit of money.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from statistics import median_low

import polars as pl

from attribution.monitoring import anomaly_rows
from attribution.monitoring.daily_spend import SCOPES, daily_spend
from ledger.books import Books
from ledger.periods import month_of, previous_month
from ledger.published import runs_in_force

WINDOW_DAYS = 28
MIN_DAYS = 7
MIN_SCORE = 6.0
MIN_EXCESS = Decimal(1)
_NORMAL = 1.4826
"""Ratio of standard deviation to median absolute deviation, for normal noise."""


def detect(books: Books, months: Sequence[str] | None = None) -> int:
    """Builds `anomalies` of the published months by initiating team and agent; returns how many there are."""
    runs = runs_in_force(books.database)
    anomaly_count = 0
    for month in months if months is not None else list(runs):
        if month not in runs:
            continue
        spend = daily_spend(books, [previous_month(month), month])
        rows = [row | {"month": month, "run_id": runs[month]} for scope in SCOPES for row in _anomalous_days(spend, scope, month)]
        rows = [row | {"kind": "spike", "anomaly_id": _id(row)} for row in rows]
        anomaly_rows.replace(books, month, ("spike",), rows)
        anomaly_count += len(rows)
    return anomaly_count


def _id(row: dict[str, object]) -> str:
    return anomaly_rows.anomaly_id(str(row["scope"]), str(row["scope_name"]), str(row["currency"]), str(row["day"]))


def _anomalous_days(spend: pl.DataFrame, scope: str, month: str) -> list[dict[str, object]]:
    column = f"initiator_{scope}"
    series = spend.filter(pl.col(column).is_not_null()).group_by(column, "currency", "day").agg(pl.col("cost").sum()).sort("day")
    out: list[dict[str, object]] = []
    for (name, currency), days in series.group_by([column, "currency"], maintain_order=True):
        costs: dict[date, Decimal] = dict(days.select("day", "cost").iter_rows())
        first = min(costs)
        for day, cost in costs.items():
            if month_of(day) != month:
                continue
            past = [
                costs.get(day - timedelta(days=n), Decimal(0))
                for n in range(1, WINDOW_DAYS + 1)
                if day - timedelta(days=n) >= first
            ]
            judgement = score_day(cost, past)
            if judgement is not None:
                baseline, score = judgement
                out.append(
                    {
                        "scope": scope,
                        "scope_name": name,
                        "day": day,
                        "currency": currency,
                        "actual": cost,
                        "expected": baseline,
                        "excess": cost - baseline,
                        "score_approx": score,
                    }
                )
    return out


def score_day(cost: Decimal, past: Sequence[Decimal]) -> tuple[Decimal, float] | None:
    """The expected cost and the score of a day, or None if it is like the days before.

    >>> score_day(Decimal(90), [Decimal(n) for n in (10, 11, 9, 10, 12, 10, 11)])
    (Decimal('10'), 53.96)
    >>> score_day(Decimal(12), [Decimal(n) for n in (10, 11, 9, 10, 12, 10, 11)]) is None
    True
    """
    if len(past) < MIN_DAYS:
        return None
    baseline = median_low(past)
    spread = median_low([abs(p - baseline) for p in past])
    excess = cost - baseline
    if excess < MIN_EXCESS:
        return None
    # A series without any spread still has noise, taken as a twentieth of its level.
    unit_approx = max(float(spread), float(baseline) / 20, 0.01) * _NORMAL
    score = round(float(excess) / unit_approx, 2)
    return (baseline, score) if score >= MIN_SCORE else None
