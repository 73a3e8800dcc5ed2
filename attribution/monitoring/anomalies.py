"""Anomalies: where spend is unlike its own past, why, and who is told.

Series by agent, workflow, tool, team, model and provider of published costs, by day of use (`anomaly_series`), go through the detector
(`anomaly_detection`). Each anomaly is explained by drivers that sum to its impact (`cost_drivers`), and by its dearest chains. Of anomalies with one
cause one is told (`anomaly_causes`), by an alert (`ledger.alerting.anomalies`).

The anomalies of a month are found in the days from twelve weeks before it to the end of the month after it, whichever months are asked for: the same
ledger gives the same rows. So a run also renews those of the months whose windows hold the days that it computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

from attribution.monitoring import anomaly_rows
from attribution.monitoring.anomaly_causes import Anomaly, causes
from attribution.monitoring.anomaly_detection import MIN_DAYS, MIN_EXCESS, SHIFT_DAYS, AnomalousDays, Calendar, find
from attribution.monitoring.anomaly_series import SCOPES, SpendSeries
from ledger.alerting.anomalies import KIND, alert_of, last_day
from ledger.alerting.anomaly_answers import false_heights, is_answered_false, newest_answers
from ledger.alerts import settle
from ledger.books import Books
from ledger.cost_drivers import OTHER, PeriodUsage, decompose
from ledger.db import Alert
from ledger.money import text
from ledger.periods import month_end, month_of, month_start, next_month, now, previous_month
from ledger.published import runs_in_force
from ledger.tables import ANOMALIES

KINDS: Final = ("spike", "level_shift", "new", "silent")
HISTORY_DAYS: Final = 84
"""Days before a month that its anomalies are judged by."""
_MONTHS_AFTER: Final = 3
"""Months after one whose windows reach back to it."""
_TOLD_DAYS: Final = 7
"""Days after its last one that an anomaly is still news."""
_LONGEST_DAYS: Final = {"spike": SHIFT_DAYS + 2, "level_shift": MIN_DAYS, "new": MIN_DAYS}
_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DAY: Final = timedelta(days=1)


def detect(books: Books, months: Sequence[str] | None = None, *, today: date | None = None) -> int:
    """Builds `anomalies` of the published months, by default all, and decides about their alerts; returns how many there are."""
    runs = runs_in_force(books.database)
    wanted_months = _reached([month for month in (runs if months is None else months) if month in runs], runs)
    if not wanted_months:
        return 0
    series = SpendSeries(books, *_window(wanted_months[0], wanted_months[-1]))
    today = today or now().astimezone(series.zone).date()
    anomaly_count = 0
    for month in wanted_months:
        rows = _rows(books, series, find_all(series, month, today), month, runs[month])
        anomaly_rows.replace(books, month, KINDS, rows)
        _decide(books, month, runs[month], rows, today)
        anomaly_count += len(rows)
    return anomaly_count


def _decide(books: Books, month: str, run_id: str, rows: Sequence[Mapping[str, Any]], today: date) -> list[Alert]:
    """Raises alerts of the new anomalies of a month; those whose anomaly is gone with the run are withdrawn."""
    told_rows = [row for row in rows if row["part_of"] is None]
    recent_day = today - _TOLD_DAYS * _DAY
    with books.database.session() as session:
        heights, answers = false_heights(session), newest_answers(session)
        open_rows = [row for row in told_rows if row["anomaly_id"] not in answers and not is_answered_false(row, heights)]
        alerts = [alert_of(row) for row in open_rows if last_day(row) >= recent_day]
        return settle(session, KIND, month, alerts, holding=[row["anomaly_id"] for row in told_rows], run_id=run_id)


def _reached(months: Sequence[str], runs: dict[str, str]) -> list[str]:
    """The published months whose windows hold a day of these."""
    reached_months = set()
    for month in months:
        near_month = previous_month(month)
        for _ in range(_MONTHS_AFTER + 2):
            reached_months.add(near_month)
            near_month = next_month(near_month)
    return sorted(reached_months & runs.keys())


def _window(first: str, last: str) -> tuple[date, date]:
    return month_start(first).date() - HISTORY_DAYS * _DAY, month_end(next_month(last)).date()


def find_all(series: SpendSeries, month: str, today: date) -> list[Anomaly]:
    """Anomalies of all series that began in a month, largest first."""
    start, end = _window(month, month)
    has_data = frozenset(day for day in series.days_with_data if start <= day < end)
    if not has_data:
        return []
    calendar = Calendar(min(has_data), max(has_data), has_data, is_last_whole=max(has_data) < today)
    anomalies: dict[str, Anomaly] = {}
    for scope in SCOPES:
        for (name, currency), all_costs in series.series(scope).items():
            costs = {day: cost for day, cost in all_costs.items() if day in has_data}
            if not costs or max(costs.values()) < MIN_EXCESS:
                continue
            for days in find(costs, calendar):
                anomaly = Anomaly(scope, name, currency, days)
                is_told_of_scope = days.kind not in ("new", "silent") or scope in ("agent", "workflow")
                if is_told_of_scope and month_of(days.start) == month:
                    anomalies.setdefault(anomaly.anomaly_id, anomaly)
    return sorted(anomalies.values(), key=lambda anomaly: (-abs(anomaly.impact), anomaly.anomaly_id))


def _rows(books: Books, series: SpendSeries, anomalies: Sequence[Anomaly], month: str, run_id: str) -> list[dict[str, Any]]:
    stored_rows = {
        row["anomaly_id"]: row for row in books.store.scan(ANOMALIES, {"month": [month]}).collect().iter_rows(named=True)
    }
    parts = causes(series, anomalies)
    rows = []
    for anomaly in anomalies:
        days = anomaly.days
        row: dict[str, Any] = {
            "month": month,
            "run_id": run_id,
            "scope": anomaly.scope,
            "scope_name": anomaly.name,
            "day": days.start,
            "currency": anomaly.currency,
            "actual": days.actual,
            "expected": days.expected,
            "excess": days.impact,
            "score_approx": days.score_approx,
            "kind": days.kind,
            "grain": "day",
            "start_time": series.instant(days.start),
            "end_time": series.instant(days.end + _DAY),
            "is_open": not days.is_over,
            "expected_end": _expected_end(series, days),
            "team": series.owner(anomaly.scope, anomaly.name),
            "anomaly_id": anomaly.anomaly_id,
            "part_of": parts.get(anomaly.anomaly_id),
        }
        known_row = stored_rows.get(anomaly.anomaly_id)
        is_known = known_row is not None and all(
            known_row[name] == row[name] for name in ("kind", "actual", "expected", "start_time", "end_time")
        )
        rows.append(
            row | ({name: known_row[name] for name in _EXPLANATION} if known_row and is_known else explanation(series, anomaly))
        )
    return rows


_EXPLANATION: Final = ("drivers", "chains", "chain_note")


def _expected_end(series: SpendSeries, days: AnomalousDays) -> datetime | None:
    """When it is over at the latest. Of a silence nobody knows."""
    if days.is_over:
        return series.instant(days.end + _DAY)
    if (length := _LONGEST_DAYS.get(days.kind)) is None:
        return None
    return series.instant(max(days.start + length * _DAY, days.end + _DAY))


def explanation(series: SpendSeries, anomaly: Anomaly) -> dict[str, str | None]:
    """Drivers and chains of an anomaly. The days before are taken at the volume that makes them cost what was expected."""
    days = anomaly.days
    span = [days.start + n * _DAY for n in range((days.end - days.start).days + 1)]
    after = series.usage(anomaly.scope, anomaly.name, anomaly.currency, span)
    before = PeriodUsage()
    if days.reference_days and days.expected > 0:
        before = series.usage(anomaly.scope, anomaly.name, anomaly.currency, days.reference_days).as_of(days.expected)
    drivers = drivers_of(before, after, days.impact)
    chains = series.chains(anomaly.scope, anomaly.name, [*days.reference_days, *span])
    is_anomalous = pl.col("day").is_in(span)
    dearest = chains.filter(is_anomalous)["chain_id"].head(3).to_list()
    return {
        "drivers": json.dumps({name: text(amount) for name, amount in drivers.items()}),
        "chains": json.dumps(dearest),
        "chain_note": chain_note(chains.filter(~is_anomalous)["calls"].to_list(), chains.filter(is_anomalous)["calls"].to_list()),
    }


def drivers_of(before: PeriodUsage, after: PeriodUsage, impact: Decimal) -> dict[str, Decimal]:
    """The drivers, which sum to the impact: what two readings of the costs differ in, if anything, is in `other charges`."""
    drivers = decompose(before, after)
    difference = impact - sum(drivers.values(), Decimal(0))
    return drivers | {OTHER: drivers.get(OTHER, Decimal(0)) + difference} if difference else drivers


def chain_note(calls_before: Sequence[int], calls_after: Sequence[int]) -> str | None:
    """How chains of an anomaly differ from those before, in words; None where they do not.

    >>> chain_note([10, 12, 14, 15, 18, 20] * 3, [12, 60, 66, 72])
    'three chains of 60 to 72 calls instead of 10 to 20'
    """
    if len(calls_before) < 5 or not calls_after:
        return None
    ordered_calls = sorted(calls_before)
    low, high = ordered_calls[len(ordered_calls) // 20], ordered_calls[-1 - len(ordered_calls) // 20]
    longer_chains = sorted(calls for calls in calls_after if calls > 2 * high)
    if not longer_chains:
        return None
    count = len(longer_chains)
    number = _NUMBERS[count] if count < len(_NUMBERS) else f"{count:,}"
    return f"{number} {'chain' if count == 1 else 'chains'} of {_span(longer_chains[0], longer_chains[-1])} calls instead of {_span(low, high)}"


def _span(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
