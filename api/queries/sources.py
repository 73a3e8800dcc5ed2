"""Queries of configured sources: their state, and the results of their runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, cast

import polars as pl
import sqlalchemy as sa

from api.models import ScheduleEntry, SourceRunRow, SourceStatus
from api.queries.gate import WholeBooks
from api.queries.listing import Listing, Order, SqlListing
from ledger import sources as configured_sources
from ledger.books import Books
from ledger.db import ConfiguredSource, SourceRun
from ledger.periods import now
from ledger.tables import SPANS

_SAME = ("name", "source", "cause", "runner", "status", "started_at", "finished_at", "since", "until", "files", "rows",
         "rows_changed", "errors", "warnings", "error")  # fmt: skip


def sources(books: WholeBooks) -> list[SourceStatus]:
    """Every configured source, by name."""
    return source_statuses(books.whole)


def source(books: WholeBooks, name: str) -> SourceStatus:
    """One configured source. Raises `UnknownSourceError` that suggests a similar name."""
    (status,) = _statuses(books.whole, [configured_sources.find(books.whole, name)])
    return status


def schedule(books: WholeBooks) -> list[ScheduleEntry]:
    """When each configured source is read, by name."""
    return [schedule_entry(source) for source in configured_sources.list_sources(books.whole)]


def schedule_entry(source: ConfiguredSource) -> ScheduleEntry:
    """When a source is read."""
    return ScheduleEntry(
        name=source.name,
        source=source.source,
        cron=source.cron if source.uris else "",
        paused=source.paused,
        longest_pause_seconds=source.every_seconds,
        due_at=None if source.paused else source.due_at,
        failures=source.failures,
        revision=configured_sources.revision(source),
    )


def source_statuses(books: Books) -> list[SourceStatus]:
    """The same as `sources`, for the freshness that everybody sees: it tells no amounts."""
    return _statuses(books, configured_sources.list_sources(books))


def _statuses(books: Books, configured_list: list[ConfiguredSource]) -> list[SourceStatus]:
    at = now()
    newest = sa.select(sa.func.max(SourceRun.id)).group_by(SourceRun.name)
    with books.database.session() as session:
        last = {run.name: _run(run) for run in session.scalars(sa.select(SourceRun).where(SourceRun.id.in_(newest)))}
    receiver_only = [source for source in configured_list if not source.uris]
    newest_calls = _newest_calls(books, receiver_only, at) if receiver_only else {}
    return [
        _status(source, last.get(source.name), source.newest_at or newest_calls.get(source.source), at)
        for source in configured_list
    ]


def source_runs(books: WholeBooks, name: str | None = None) -> Listing[SourceRunRow]:
    """Runs of one configured source, or of all, newest first.

    A source that was removed keeps its history; `UnknownSourceError` is raised for a name without any run.
    """
    conditions = [SourceRun.name == name] if name is not None else []
    newest = {Order("run", descending=True): SourceRun.id}
    listing = SqlListing(books.whole.database, SourceRunRow, sa.select(SourceRun).where(*conditions), newest, _run)
    if name is not None and not listing.totals().rows:
        configured_sources.find(books.whole, name)
    return listing


def source_run(books: WholeBooks, run: int) -> SourceRunRow:
    """One run of a source."""
    with books.whole.database.session() as session:
        return _run(session.get_one(SourceRun, run))


def _run(run: SourceRun) -> SourceRunRow:
    finished_at = run.finished_at
    return SourceRunRow(
        run=run.id,
        **{name: getattr(run, name) for name in _SAME},
        seconds=round((finished_at - run.started_at).total_seconds(), 3) if finished_at else None,
        money_in={currency: Decimal(amount) for currency, amount in run.money_in.items()},
        newest=run.newest_at,
        lag_seconds=int((finished_at - run.newest_at).total_seconds()) if finished_at and run.newest_at else None,
    )


def _status(source: ConfiguredSource, last: SourceRunRow | None, newest: datetime | None, at: datetime) -> SourceStatus:
    limit = source.lag_seconds + source.every_seconds
    # The limit also counts from when it was configured or resumed: it may have to catch up first.
    stale = not source.paused and at - max(newest or source.changed_at, source.changed_at) > timedelta(seconds=limit)
    return SourceStatus(
        name=source.name,
        source=source.source,
        kind=cast(Literal["bill", "log"], source.kind),
        addresses=source.uris,
        scope=source.scope,
        revision=configured_sources.revision(source),
        cron=source.cron if source.uris else "",
        paused=source.paused,
        created_at=source.created_at,
        state=_state(source, last, newest, stale=stale),
        newest=newest,
        age_seconds=int((at - newest).total_seconds()) if newest else None,
        expected_lag_seconds=source.lag_seconds,
        stale_after_seconds=limit,
        stale=stale,
        stale_since=source.stale_since,
        failures=source.failures,
        due_at=None if source.paused else source.due_at,
        succeeded_at=source.succeeded_at,
        last_run=last,
    )


def _state(source: ConfiguredSource, last: SourceRunRow | None, newest: datetime | None, *, stale: bool) -> Any:
    if source.paused:
        return "paused"
    if source.failures:
        return "failing"
    if stale:
        return "stale"
    if last is not None and last.status == "problems":
        return "problems"
    return "ok" if newest or source.succeeded_at else "waiting"


def _newest_calls(books: Books, receiver_only: list[ConfiguredSource], at: datetime) -> dict[str, datetime]:
    """The newest call of each watched ingestor. Only days that could still make one of them fresh are opened, and the newest day."""
    delta = books.store.delta(SPANS)
    if delta is None:
        return {}
    oldest = at - timedelta(seconds=max(source.lag_seconds + source.every_seconds for source in receiver_only))
    days = sorted({str(partition["date"]) for partition in delta.partitions()}, reverse=True)
    recent_days = [day for day in days if oldest.date().isoformat() <= day] or days[:1]
    rows = (
        books.store.scan(SPANS, {"date": recent_days})
        .filter(pl.col("source").is_in([source.source for source in receiver_only]) & (pl.col("start_time") <= at))
        .group_by("source")
        .agg(pl.col("start_time").max())
        .collect()
    )
    return dict(rows.iter_rows())
