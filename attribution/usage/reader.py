"""Reads hourly usage by time, from stored files or from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from ledger import staging
from ledger.money import MONEY
from ledger.tables import USAGE_HOURLY

FAMILY = ("provider", "model", "meter")
"""The columns on which charges and matching usage always agree."""
COUNTED_COLUMNS = ("usage_key", "meter", "quantity", "calls", "list_cost")


@dataclass(frozen=True, slots=True)
class UsageFile:
    """A file of `usage_hourly` with its first and last hour; None where unknown."""

    path: str
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Hourly usage that a bill may pay for, read batch by batch.

    `rows` is their number; `read` gives those of ``[start, end)``, `whole` all of them, lazily. Where `overlapping`, several rollups may
    have rows with the same usage key: they have to be merged (`merge_duplicate_keys`).
    """

    rows: int
    whole: pl.LazyFrame
    read: Callable[[datetime, datetime], pl.LazyFrame]
    overlapping: bool = False

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Usage:
        """Usage in memory; text encoded as Enum becomes text."""
        frame = frame.with_columns(pl.selectors.enum().cast(pl.String))
        at = pl.col("hour")
        return cls(frame.height, frame.lazy(), lambda start, end: frame.lazy().filter((at >= start) & (at < end)))

    @classmethod
    def from_files(cls, files: Sequence[UsageFile], rows: int, *, storage_options: dict[str, str] | None) -> Usage:
        """Usage in files; `read` opens only those that overlap the requested hours."""
        at = pl.col("hour")

        def scan(files_to_read: Sequence[UsageFile]) -> pl.LazyFrame:
            columns = [name for name in USAGE_HOURLY.schema if name != "rollup_id"]
            if not files_to_read:
                return USAGE_HOURLY.empty().select(columns).lazy()
            rows_of_files = staging.scan(USAGE_HOURLY, [f.path for f in files_to_read], storage_options=storage_options)
            return rows_of_files.with_columns(month=at.dt.strftime("%Y-%m")).select(columns)

        def read(start: datetime, end: datetime) -> pl.LazyFrame:
            overlapping_files = [f for f in files if (f.last is None or f.last >= start) and (f.first is None or f.first < end)]
            return scan(overlapping_files).filter((at >= start) & (at < end))

        return cls(rows, scan(files), read, overlapping=len(files) > 1)

    def families(self) -> pl.DataFrame:
        """The distinct provider, model and meter of all rows, as logged."""
        return self.whole.select(FAMILY).unique().collect(engine="streaming")


def merge_duplicate_keys(usage: pl.DataFrame) -> pl.DataFrame:
    """Merges the rows of several rollups with the same usage key and meter by summing them."""
    if not usage.height:
        return usage
    order = {meter: place for place, meter in enumerate(usage["meter"].unique().sort())}
    place = pl.col("meter").replace_strict(order, return_dtype=pl.Int64)
    # One number for both columns: two pairs that collide by chance are only grouped needlessly.
    is_duplicate = usage.select((pl.col("usage_key") ^ (place * 0x9E3779B97F4A7C1)).is_duplicated()).to_series()
    if not is_duplicate.any():
        return usage
    duplicates = usage.filter(is_duplicate)
    summed_columns = ("quantity", "calls", "list_cost")
    merged_rows = duplicates.group_by("usage_key", "meter").agg(
        *(pl.col(c).first() for c in usage.columns if c not in (*summed_columns, "usage_key", "meter")),
        pl.col("quantity").sum(),
        pl.col("calls").sum(),
        pl.when(pl.col("list_cost").is_not_null().all()).then(pl.col("list_cost").sum().cast(MONEY)).alias("list_cost"),
    )
    return pl.concat([usage.filter(~is_duplicate), merged_rows.select(usage.columns)])
