"""Drawing a month: its spans, slice by slice, become calls, chains and hourly usage, and each slice is drawn once.

A slice that stands (same files, same members, same registry, prices, rules and code) is taken as it is; the others are drawn side by side,
here or on a cluster. What they draw becomes visible in one commit a table, after the last of them: a pass that dies leaves nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Protocol

import polars as pl
import sqlalchemy as sa

from attribution.pricing import PriceBook
from attribution.usage import partitions, rollup
from attribution.usage.partitions import Partition
from attribution.usage.reader import Usage, UsageFile
from ledger import periods, staging
from ledger.books import Books
from ledger.db import Drawing, Rollup
from ledger.hashing import fingerprint
from ledger.published import rollups_in_force
from ledger.settings import Settings
from ledger.staging import Part
from ledger.store import Store
from ledger.tables import CALLS, CHAINS, TABLES, USAGE_HOURLY

Progress = Callable[[str, int, int], None]
ROLLUP_TABLES = (USAGE_HOURLY, CALLS, CHAINS)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What all slices of a run are drawn on: where the spans are, who owned what when, prices, and the settings."""

    store: Store
    timeline: pl.DataFrame
    book: PriceBook
    settings: Settings


@dataclass(frozen=True, slots=True)
class Task:
    """A slice to draw, and the name of what is drawn."""

    slice: Partition
    rollup_id: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of an order: the parts it staged, by table, not visible yet."""

    rollup_id: str
    parts: Mapping[str, Sequence[Part]]
    spans_read: int


class Executor(Protocol):
    """Whoever draws slices: threads of this process, or a cluster."""

    def deliver(self, ground: BuildContext, orders: Sequence[Task]) -> Iterator[TaskResult]:
        """Carries out the orders, in whatever order they get done."""


def run_task(ground: BuildContext, order: Task) -> TaskResult:
    """The kernel over one slice: reads its spans, draws, stages the rows. The same bytes wherever it runs."""
    store = ground.store
    rows = order.slice.rows(store)
    drawn = rollup.build_rollup(rows, order.slice.month, ground.timeline, ground.book, ground.settings, rollup_id=order.rollup_id)
    staged = {
        USAGE_HOURLY.name: staging.stage(store, USAGE_HOURLY, drawn.usage),
        CALLS.name: staging.stage(store, CALLS, drawn.calls.sort("trace_key", "start_time", "span_key")),
        CHAINS.name: staging.stage(store, CHAINS, drawn.chains.sort("start_time", "chain_id")),
    }
    return TaskResult(order.rollup_id, staged, drawn.spans_read)


class ThreadExecutor:
    """Slices side by side in this process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def deliver(self, ground: BuildContext, orders: Sequence[Task]) -> Iterator[TaskResult]:
        """Draws `workers` slices at a time; the first fault ends it."""
        if len(orders) == 1:
            yield run_task(ground, orders[0])
            return
        with ThreadPoolExecutor(self.workers, thread_name_prefix="slice") as pool:
            due = [pool.submit(run_task, ground, order) for order in orders]
            try:
                for done in as_completed(due):
                    yield done.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


class UsageBuilder:
    """The months a run needs, drawn or found standing."""

    def __init__(
        self,
        books: Books,
        timeline: pl.DataFrame,
        book: PriceBook,
        standing: Iterable[str],
        *,
        hands: Executor,
        progress: Progress,
    ) -> None:
        self.books, self.store = books, books.store
        self.ground = BuildContext(books.store, timeline, book, books.settings)
        self.standing = tuple(standing)
        self.hands, self.progress = hands, progress
        self.spans_read = self.reused = 0
        self.anew: frozenset[str] = frozenset()
        """Months that are drawn again although they stand."""
        self._known: dict[str, list[str]] = {}
        self._redrawn: list[tuple[str, list[str]]] = []

    def rollups(self, month: str, spans: str) -> list[str]:
        """The rollups that are the month, drawn where they do not stand. `spans` is the fingerprint of the days in reach of it."""
        if month not in self._known:
            inputs = fingerprint(spans, *self.standing)
            with self.books.database.session() as session:
                held = session.get(Drawing, (month, inputs))
                self._known[month] = list(held.rollup_ids) if held else []
            if held is not None and month not in self.anew:
                self.reused += 1
            else:
                if held is not None:
                    self._redrawn.append((month, list(held.rollup_ids)))
                self._known[month] = self._draw(month, inputs)
        return self._known[month]

    def uses(self, months: Mapping[str, str]) -> Usage:
        """Hourly usage of the months (month → fingerprint of its spans)."""
        ids = [rollup_id for month, spans in months.items() for rollup_id in self.rollups(month, spans)]
        return stored_usage(self.store, list(months), ids)

    def forget(self, month: str, rollup_ids: Sequence[str]) -> None:
        """Lets go of rollups that no published month shows."""
        for rollup_id in rollup_ids:
            for table in ROLLUP_TABLES:
                self.store.replace(table, table.empty(), {"month": month, "rollup_id": rollup_id})
        gone = set(rollup_ids)
        with self.books.database.session() as session:
            session.execute(sa.delete(Rollup).where(Rollup.rollup_id.in_(gone)))
            for drawing in session.scalars(sa.select(Drawing).where(Drawing.month == month)).all():
                if gone & set(drawing.rollup_ids):
                    session.delete(drawing)

    def forget_redrawn(self) -> None:
        """Lets go of the rollups that were drawn again from the same, where neither a published month nor another drawing has them."""
        kept = rollups_in_force(self.books.database)
        with self.books.database.session() as session:
            kept |= {rollup_id for drawing in session.scalars(sa.select(Drawing)) for rollup_id in drawing.rollup_ids}
        for month, rollup_ids in self._redrawn:
            self.forget(month, sorted(set(rollup_ids) - kept))

    def _draw(self, month: str, inputs: str) -> list[str]:
        orders, ids = [], []
        for part in partitions.plan(self.store, month, self.books.settings):
            wanted = fingerprint(part.fingerprint, *self.standing)
            with self.books.database.session() as session:
                held = session.scalars(sa.select(Rollup).where(Rollup.month == month, Rollup.fingerprint == wanted)).first()
            if held is not None and month not in self.anew:
                ids.append(held.rollup_id)
                continue
            rollup_id = f"{month}-{uuid.uuid4().hex[:10]}"
            orders.append((Task(part, rollup_id), wanted))
            ids.append(rollup_id)
        staged: dict[str, list[Part]] = {table.name: [] for table in ROLLUP_TABLES}
        self.progress(month, 0, len(orders))
        for done, delivery in enumerate(self.hands.deliver(self.ground, [order for order, _ in orders]), 1):
            self.spans_read += delivery.spans_read
            for name, found in delivery.parts.items():
                staged[name] += found
            self.progress(month, done, len(orders))
        for name, found in staged.items():
            staging.commit(self.store, TABLES[name], found, note=f"drawn for {month}")
        at = periods.now()
        with self.books.database.session() as session:
            session.add_all(Rollup(rollup_id=o.rollup_id, month=month, fingerprint=f, made_at=at) for o, f in orders)
            session.merge(Drawing(month=month, fingerprint=inputs, rollup_ids=ids, made_at=at))
        return ids


def stored_usage(store: Store, months: Sequence[str], rollup_ids: Sequence[str]) -> Usage:
    """The hourly usage of these rollups."""
    files = store.files(USAGE_HOURLY, {"month": months, "rollup_id": rollup_ids})
    found = [UsageFile(f.address, f.first.get("hour"), f.last.get("hour")) for f in files]
    return Usage.stored(found, sum(f.rows for f in files), storage_options=store.storage_options or None)
