"""Builds calls, chains and hourly usage of a month, partition by partition, each once.

A partition whose inputs are unchanged (files, members, registry, prices, settings, code) keeps its stored rollup; the others are built in
parallel, in threads or on a cluster. Their rows become visible in one commit per table after the last task, so a run that dies
publishes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
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
from ledger.published import published_months, rollups_in_force
from ledger.settings import Settings
from ledger.staging import Part
from ledger.store import Store
from ledger.tables import CALLS, CHAINS, COUNT_EVIDENCE, COUNT_READINGS, TABLES, USAGE_HOURLY

Progress = Callable[[str, int, int], None]
ROLLUP_TABLES = (USAGE_HOURLY, CALLS, CHAINS, COUNT_EVIDENCE, COUNT_READINGS)


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The inputs that all partitions of a run share: the store of spans, the registry timeline, the price book and the settings."""

    store: Store
    timeline: pl.DataFrame
    book: PriceBook
    settings: Settings


@dataclass(frozen=True, slots=True)
class Task:
    """A partition to build, and the id its rollup gets."""

    partition: Partition
    rollup_id: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The staged parts of a task by table name, not visible yet, and how many spans it read."""

    rollup_id: str
    parts: Mapping[str, Sequence[Part]]
    spans_read: int


class Executor(Protocol):
    """Runs tasks: in threads of this process, or on a cluster."""

    def run(self, context: BuildContext, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        """Yields the results of the tasks in the order of completion."""


def run_task(context: BuildContext, task: Task) -> TaskResult:
    """Reads the spans of one partition, builds its rollup and stages the rows. The result does not depend on the machine."""
    store = context.store
    spans = task.partition.scan(store)
    rollup_rows = rollup.build_rollup(
        spans, task.partition.month, context.timeline, context.book, context.settings, rollup_id=task.rollup_id
    )
    parts = {
        USAGE_HOURLY.name: staging.stage(store, USAGE_HOURLY, rollup_rows.usage),
        CALLS.name: staging.stage(store, CALLS, rollup_rows.calls),
        CHAINS.name: staging.stage(store, CHAINS, rollup_rows.chains),
        COUNT_EVIDENCE.name: staging.stage(store, COUNT_EVIDENCE, rollup_rows.evidence),
        COUNT_READINGS.name: staging.stage(store, COUNT_READINGS, rollup_rows.readings),
    }
    return TaskResult(task.rollup_id, parts, rollup_rows.spans_read)


class ThreadExecutor:
    """Runs tasks in threads of this process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, context: BuildContext, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        """Runs up to `workers` tasks at a time. The first error cancels the rest and is raised."""
        if len(tasks) == 1:
            yield run_task(context, tasks[0])
            return
        with ThreadPoolExecutor(self.workers, thread_name_prefix="partition") as pool:
            futures = [pool.submit(run_task, context, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


class UsageBuilder:
    """The rollups of the months a run needs: stored ones where their inputs are unchanged, new ones elsewhere."""

    def __init__(
        self,
        books: Books,
        timeline: pl.DataFrame,
        book: PriceBook,
        input_fingerprints: Iterable[str],
        *,
        settled_months: Container[str] = (),
        executor: Executor,
        progress: Progress,
    ) -> None:
        self.books, self.store = books, books.store
        self.context = BuildContext(books.store, timeline, book, books.settings)
        self.input_fingerprints = tuple(input_fingerprints)
        self.executor, self.progress = executor, progress
        self.spans_read = self.rollups_reused = 0
        self.rebuild_months: frozenset[str] = frozenset()
        """Months that are built again although their inputs are unchanged."""
        # Usage of settled months stays as it was published: spans of theirs are gone.
        self._rollup_ids = {m.month: list(m.rollup_ids) for m in published_months(books.database) if m.month in settled_months}
        self._replaced_rollups: list[tuple[str, list[str]]] = []

    def rollups(self, month: str, spans: str) -> list[str]:
        """The ids of the month's rollups, built where needed. `spans` is the fingerprint of the days within the lookback of the month."""
        if month not in self._rollup_ids:
            inputs = fingerprint(spans, *self.input_fingerprints)
            with self.books.database.session() as session:
                drawing = session.get(Drawing, (month, inputs))
                self._rollup_ids[month] = list(drawing.rollup_ids) if drawing else []
            if drawing is not None and month not in self.rebuild_months:
                self.rollups_reused += 1
            else:
                if drawing is not None:
                    self._replaced_rollups.append((month, list(drawing.rollup_ids)))
                self._rollup_ids[month] = self._build(month, inputs)
        return self._rollup_ids[month]

    def usage(self, months: Mapping[str, str]) -> Usage:
        """Hourly usage of months, a mapping from month to the fingerprint of its spans."""
        ids = [rollup_id for month, spans in months.items() for rollup_id in self.rollups(month, spans)]
        return stored_usage(self.store, list(months), ids)

    def forget(self, month: str, rollup_ids: Sequence[str]) -> None:
        """Deletes rollups that no published month shows."""
        for rollup_id in rollup_ids:
            for table in ROLLUP_TABLES:
                self.store.replace(table, table.empty(), {"month": month, "rollup_id": rollup_id})
        removed_ids = set(rollup_ids)
        with self.books.database.session() as session:
            session.execute(sa.delete(Rollup).where(Rollup.rollup_id.in_(removed_ids)))
            for drawing in session.scalars(sa.select(Drawing).where(Drawing.month == month)).all():
                if removed_ids & set(drawing.rollup_ids):
                    session.delete(drawing)

    def forget_replaced(self) -> None:
        """Deletes rollups that were built again, unless a published month or another drawing still refers to them."""
        referenced_ids = rollups_in_force(self.books.database)
        with self.books.database.session() as session:
            referenced_ids |= {rollup_id for drawing in session.scalars(sa.select(Drawing)) for rollup_id in drawing.rollup_ids}
        for month, rollup_ids in self._replaced_rollups:
            self.forget(month, sorted(set(rollup_ids) - referenced_ids))

    def _build(self, month: str, inputs: str) -> list[str]:
        tasks, ids = [], []
        for partition in partitions.plan(self.store, month, self.books.settings):
            rollup_inputs = fingerprint(partition.fingerprint, *self.input_fingerprints)
            with self.books.database.session() as session:
                stored_rollup = session.scalars(
                    sa.select(Rollup).where(Rollup.month == month, Rollup.fingerprint == rollup_inputs)
                ).first()
            if stored_rollup is not None and month not in self.rebuild_months:
                ids.append(stored_rollup.rollup_id)
                continue
            rollup_id = f"{month}-{uuid.uuid4().hex[:10]}"
            tasks.append((Task(partition, rollup_id), rollup_inputs))
            ids.append(rollup_id)
        parts_by_table: dict[str, list[Part]] = {table.name: [] for table in ROLLUP_TABLES}
        self.progress(month, 0, len(tasks))
        for done_count, result in enumerate(self.executor.run(self.context, [task for task, _ in tasks]), 1):
            self.spans_read += result.spans_read
            for name, parts in result.parts.items():
                parts_by_table[name] += parts
            self.progress(month, done_count, len(tasks))
        for name, parts in parts_by_table.items():
            staging.commit(self.store, TABLES[name], parts, note=f"built for {month}")
        made_at = periods.now()
        with self.books.database.session() as session:
            session.add_all(
                Rollup(rollup_id=task.rollup_id, month=month, fingerprint=inputs_of_task, made_at=made_at)
                for task, inputs_of_task in tasks
            )
            session.merge(Drawing(month=month, fingerprint=inputs, rollup_ids=ids, made_at=made_at))
        return ids


def stored_usage(store: Store, months: Sequence[str], rollup_ids: Sequence[str]) -> Usage:
    """The hourly usage of these rollups, read from the store."""
    files = store.files(USAGE_HOURLY, {"month": months, "rollup_id": rollup_ids})
    usage_files = [UsageFile(f.address, f.first.get("hour"), f.last.get("hour")) for f in files]
    return Usage.from_files(usage_files, sum(f.rows for f in files), storage_options=store.storage_options or None)
