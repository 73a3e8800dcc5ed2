"""The rows that one partition adds to the tables `calls`, `chains`, `usage_hourly`, `count_evidence` and `count_readings`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ledger.tables import CALLS, CHAINS, COUNT_EVIDENCE, COUNT_READINGS, USAGE_HOURLY


@dataclass(frozen=True, slots=True)
class RollupRows:
    """Rows of five tables under one rollup id, and how many spans they were built from."""

    calls: pl.DataFrame
    chains: pl.DataFrame
    usage: pl.DataFrame
    evidence: pl.DataFrame
    readings: pl.DataFrame
    spans_read: int


def finish_rows(
    call_rows: pl.DataFrame,
    chain_rows: pl.DataFrame,
    token_usage: pl.DataFrame,
    resource_usage: pl.DataFrame,
    evidence: pl.DataFrame,
    readings: pl.DataFrame,
    nodes: pl.DataFrame,
    period: tuple[datetime, datetime] | None,
    rollup_id: str,
) -> RollupRows:
    """Keeps the rows that start within `period`, adds their month and `rollup_id`, and conforms them to their tables."""
    usage = pl.concat([token_usage, resource_usage], how="diagonal_relaxed") if resource_usage.height else token_usage
    calls, chains, hours, counts, count_readings = (
        _with_month(frame, column, period).with_columns(rollup_id=pl.lit(rollup_id))
        for frame, column in (
            (call_rows, "start_time"),
            (chain_rows, "start_time"),
            (usage, "hour"),
            (evidence, "start_time"),
            (readings, "hour"),
        )
    )
    return RollupRows(
        CALLS.conform(calls),
        CHAINS.conform(chains),
        USAGE_HOURLY.conform(hours),
        COUNT_EVIDENCE.conform(counts.drop("start_time")),
        COUNT_READINGS.conform(count_readings.drop("hour")),
        nodes.height,
    )


def _with_month(frame: pl.DataFrame, column: str, period: tuple[datetime, datetime] | None) -> pl.DataFrame:
    """The rows within the period, a UTC month; without a period all rows, each with its own UTC month."""
    if period is None:
        return frame.with_columns(month=_utc_months(frame[column]))
    in_period = frame[column].is_between(*period, closed="left")
    return (frame if in_period.all() else frame.filter(in_period)).with_columns(month=pl.lit(f"{period[0]:%Y-%m}"))


def _utc_months(instants: pl.Series) -> pl.Series:
    """The UTC month of each instant; formatted once a month, not once a row.

    >>> _utc_months(pl.Series([datetime(2026, 1, 31), datetime(2025, 12, 1)])).to_list()
    ['2026-01', '2025-12']
    """
    number = instants.dt.year().cast(pl.Int32) * 12 + instants.dt.month() - 1
    first, last = number.min(), number.max()
    if not isinstance(first, int) or not isinstance(last, int):
        return pl.Series([], dtype=pl.String)
    names = pl.Series([f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(first, last + 1)])
    return names.gather(number - first)
