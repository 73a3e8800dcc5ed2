"""Bill files that were read, as rows of `raw_files`, so that a figure can be traced to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from ingest.source import Batch, RawObject
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import RAW_FILES


def record_files(store: Store, files: Sequence[dict[str, object]]) -> None:
    """Adds what was read to `raw_files`; a file known at this address, under this dataset, is not added again, unless the clock was wrong."""
    if not files:
        return
    keys = ["source", "raw_id", "uri", "scope"]
    rows = RAW_FILES.conform(pl.DataFrame(files, schema=RAW_FILES.schema)).unique(keys, keep="first", maintain_order=True)
    files_of_sources = store.scan(RAW_FILES, {"source": rows["source"].unique().to_list()})
    stored_files = files_of_sources.filter(read_by_a_right_clock()).select(keys).collect()
    store.append(RAW_FILES, rows.join(stored_files, on=keys, how="anti", maintain_order="left"))


def raw_file_row(
    source: str,
    item: RawObject,
    batch: Batch,
    rows: int,
    rows_refused: int,
    month: str | None,
    now: datetime,
    broken_off: str | None = None,
    newest_start: datetime | None = None,
) -> dict[str, object]:
    """A file that was read, as a row of `raw_files`. `newest_start` is the start of the newest usage that a bill's file holds."""
    return {
        "raw_id": item.raw_id,
        "source": source,
        "uri": item.uri,
        "scope": batch.scope,
        "billing_month": month,
        "bytes": item.size,
        "rows_read": rows,
        "rows_refused": rows_refused,
        "fetched_at": now,
        "as_of": as_of(item.modified, now, newest_start),
        "version": batch.version or item.version or None,
        "broken_off": broken_off,
    }


def read_by_a_right_clock() -> pl.Expr:
    """Whether a row of `raw_files` was read after the usage that it holds had begun. (ES-1a)"""
    return (pl.col("as_of") <= pl.col("fetched_at")).fill_null(value=True)


def as_of(write_time: datetime | None, now: datetime, newest_start: datetime | None) -> datetime:
    """The moment up to which a file can hold charges: the earliest that its own charges do not contradict. (ES-1a)

    That is when its store last wrote it, since nothing was added afterwards, else when it was read. No bill holds usage that begins after
    it was made: a time before that is wrong, and if both are, usage that had begun is all that is certain.

    >>> from datetime import UTC
    >>> noon, day_20, epoch = (datetime(*day, 12, tzinfo=UTC) for day in ((2026, 11, 30), (2026, 11, 20), (1980, 1, 1)))
    >>> [f"{as_of(time, noon, datetime(2026, 11, 19, tzinfo=UTC)):%d %H}" for time in (day_20, epoch, None)]
    ['20 12', '30 12', '30 12']
    >>> f"{as_of(day_20, noon, datetime(2026, 12, 4, tzinfo=UTC)):%m-%d}"
    '12-04'
    """
    times = [time for time in (write_time, now) if time is not None and time <= now]
    return min((time for time in times if newest_start is None or time >= newest_start), default=newest_start or now)


def clock_problems(source: str, uri: str, now: datetime, newest_start: datetime | None) -> list[Problem]:
    """The problem of a bill with usage that begins more than a day after the clock that read it, if it is one."""
    if newest_start is None or newest_start <= now + timedelta(days=1):
        return []
    reason = f"usage begins on {newest_start:%Y-%m-%d}, after the file was read ({now:%Y-%m-%d}): it counts as read when that usage began"
    remedy = "set the clock of this machine, ingest the file again, then run `rootcost attribute --rebuild`"
    return [Problem(source, uri, "file", "charge_period_start", reason, remedy, severity="warning")]
