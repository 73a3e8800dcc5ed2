"""Queries of alerts, anomalies, problems, runs, the registry and freshness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl
import sqlalchemy as sa

from api import models
from api.models import (
    AgentRow,
    Agents,
    Freshness,
    ProblemRow,
    RunRow,
    SourceFreshness,
    SourceStatus,
    UnregisteredAgent,
)
from api.queries.gate import ScopedBooks, WholeBooks, published, scan_runs
from api.queries.listing import FrameListing, Listing, Order, SqlListing
from api.queries.publication import one_publication
from api.queries.sources import source_statuses
from ledger import db, disk, registry
from ledger.periods import now
from ledger.problems import Problem, to_frame
from ledger.settled_months import settled_months
from ledger.spool import Spool
from ledger.tables import CHARGES, COSTS, PROBLEMS, SPANS, Table

_RECENT_PARTITIONS = 7
"""Number of newest partitions (days of spans, months of bills) that are searched for the newest row."""


_PROBLEM_NAMES = {"uri": "file", "place": "line"}


def problems(books: WholeBooks, *, source: str | None = None, severity: str | None = None) -> Listing[ProblemRow]:
    """Problems with the input, newest first; each once, however often its file was read."""
    frame = books.whole.store.scan(PROBLEMS)
    if source is not None:
        frame = frame.filter(pl.col("source") == source)
    if severity is not None:
        frame = frame.filter(pl.col("severity") == severity)
    frame = frame.sort("seen_at").unique("problem_id", keep="last", maintain_order=True)
    # Places are sorted as text and by length, so that line 9 comes before line 10.
    frame = frame.rename(_PROBLEM_NAMES).with_columns(line_length=pl.col("line").str.len_chars())
    order = [Order("seen_at", descending=True), *map(Order, ("source", "file", "line_length", "line", "field", "problem_id"))]
    return FrameListing(ProblemRow, frame, order, sums=("cost",))


def problem_rows(frame: pl.DataFrame) -> list[ProblemRow]:
    """Rows of `problems` as API models: file, line, field, reason, remedy."""
    return [ProblemRow.model_validate(row) for row in frame.rename(_PROBLEM_NAMES).iter_rows(named=True)]


def unstored_problem_rows(problems: list[Problem]) -> list[ProblemRow]:
    """Problems that are not stored, as API models."""
    return problem_rows(to_frame(problems))


@one_publication
def runs(books: WholeBooks) -> Listing[RunRow]:
    """Attribution runs, newest first, with the months each one is in force for."""
    in_force: dict[str, list[str]] = defaultdict(list)
    for month in published(books):
        in_force[month.run_id].append(month.month)
    names = [name for name in RunRow.model_fields if name != "published_months"]
    return SqlListing(
        books.whole.database,
        RunRow,
        sa.select(db.Run),
        {Order("started_at", descending=True): db.Run.started_at, Order("run_id"): db.Run.run_id},
        lambda run: RunRow(**{name: getattr(run, name) for name in names}, published_months=in_force.get(run.run_id, [])),
    )


_SIDES: Mapping[str, Literal["initiator", "executor"]] = {"caused": "initiator", "burned": "executor"}


@one_publication
def agents(books: ScopedBooks) -> Agents:
    """The registry over time, and agents with costs that are missing from it. (ID-1, ID-2)"""
    timeline = registry.timeline(registry.rows(books.whole))
    registered_names = timeline.filter(pl.col("kind").is_in(["agent", "alias"]))["name"].unique().implode()
    if not books.sees_all:
        timeline = timeline.filter(books.is_own("team"))
    in_force = published(books)
    sides = [
        scan_runs(books, COSTS, in_force, side)
        .filter(pl.col(column).is_not_null() & ~pl.col(column).is_in(["", "unknown"]) & ~pl.col(column).is_in(registered_names))
        .group_by(pl.col(column).alias("agent"), "currency")
        .agg(
            pl.lit(role).first().alias("role"),
            pl.col("effective_cost").sum(),
            pl.col("period_start").min().alias("first_seen"),
            pl.col("period_start").max().alias("last_seen"),
        )
        for role, side in _SIDES.items()
        for column in (f"{side}_agent",)
    ]
    agent_costs = pl.concat(sides).collect()
    missing: list[UnregisteredAgent] = []
    for (agent,), group in agent_costs.group_by(["agent"], maintain_order=True):
        by_role: dict[str, dict[str, Decimal]] = {"caused": {}, "burned": {}}
        for row in group.iter_rows(named=True):
            by_role[row["role"]][row["currency"]] = row["effective_cost"]
        first, last = group.select(pl.col("first_seen").min(), pl.col("last_seen").max()).row(0)
        missing.append(UnregisteredAgent(agent=str(agent), first_seen=first, last_seen=last, **by_role))
    missing.sort(key=lambda a: (-max([*a.caused.values(), *a.burned.values()], default=Decimal(0)), a.agent))
    return Agents(registered=[AgentRow.model_validate(row) for row in timeline.iter_rows(named=True)], unregistered=missing)


@one_publication
def freshness(books: ScopedBooks, spool: Spool | None = None) -> Freshness:
    """Freshness of the facts of each source. Only the newest partitions are read."""
    at = now()
    receiver_spool = spool or Spool(Path(books.whole.home) / "spool")
    pending = receiver_spool.pending()
    months = published(books)
    # The end of a monthly fee says nothing about how far usage charges have been delivered.
    latest_end = pl.col("charge_period_end").filter(pl.col("charge_period_end") <= at).max()
    latest_start = pl.col("charge_period_start").filter(pl.col("charge_period_start") <= at).max()
    sources = [
        *_newest(books, CHARGES, "billing_month", pl.max_horizontal(latest_end, latest_start), "charges", at),
        *_newest(books, SPANS, "date", pl.col("start_time").max(), "calls", at),
    ]
    return models.Freshness(
        now=at,
        sources=sources,
        published_at=max((m.published_at for m in months), default=None),
        published_months=[m.month for m in months],
        settled_months={month: str(settled_month) for month, settled_month in settled_months(books.whole.database).items()},
        spool_files=len(pending),
        spool_bytes=receiver_spool.size_bytes(),
        warnings=[warning] if (warning := disk.shortage(books.whole.folders)) else [],
    )


def _newest(books: ScopedBooks, table: Table, partition: str, newest: pl.Expr, kind: Any, at: datetime) -> list[SourceFreshness]:
    delta = books.whole.store.delta(table)
    if delta is None:
        return []
    partitions = sorted({str(p[partition]) for p in delta.partitions()}, reverse=True)[:_RECENT_PARTITIONS]
    frame = (
        books.whole.store.scan(table, {partition: partitions})
        .group_by("source")
        .agg(newest.alias("newest"))
        .drop_nulls("newest")
        .sort("source")
        .collect()
    )
    configured_by_ingestor: dict[str, list[SourceStatus]] = defaultdict(list)
    for source in source_statuses(books.whole) if frame.height else ():
        if not source.paused:
            configured_by_ingestor[source.source].append(source)
    return [
        SourceFreshness(
            kind=kind,
            source=row["source"],
            newest=row["newest"],
            age_seconds=int((at - row["newest"]).total_seconds()),
            stale_after_seconds=max((s.stale_after_seconds for s in configured_by_ingestor[row["source"]]), default=None),
            stale=any(s.stale for s in configured_by_ingestor[row["source"]]),
        )
        for row in frame.iter_rows(named=True)
    ]
