"""Ingestion: plan, fetch, read, check, write, and record problems.

Bills: every month found is replaced in one commit, or left as it was. Logs: rows are merged, so that delivering twice changes
nothing. A file that cannot be read is a problem of its own; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path

import polars as pl

from ingest import checkpoints
from ingest.bills import datasets, handover, raw_files
from ingest.bills import month as bill_months
from ingest.bills.datasets import Decisions
from ingest.fetch import WorldFetcher
from ingest.problem_log import ProblemLog, concerns_one_file, error_problem
from ingest.source import Batch, Fetcher, RawObject, Reading, Source, Window
from ingest.sources import by_name, check_trusted_sources
from ingest.time_bounds import TimeBounds
from ledger import problems
from ledger.addresses import masked
from ledger.books import Books
from ledger.errors import ObjectMissingError, SourceError, StoreUnreachable
from ledger.money import ZERO
from ledger.problems import Problem
from ledger.scratch import scratch_folder
from ledger.tables import SPANS

Progress = Callable[[str, int, int], None]
"""Called for each file with its address, its number from 1, and how many files are planned so far."""

WriteLock = Callable[[], AbstractContextManager[None]]
"""Makes the context around every write, so that others may write while this run waits for a provider."""

_MERGE_ROWS = 250_000


@dataclass
class IngestReport:
    """What one ingestion did."""

    source: str
    kind: str
    files: int = 0
    already_known: int = 0
    rows: int = 0
    rows_changed: int = 0
    errors: int = 0
    warnings: int = 0
    months: list[str] = field(default_factory=list)
    totals: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    """Currency to cost column to the files' own total, at full precision; a column that no charge has is absent. (MO-1b)"""
    rounding: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list, repr=False)
    not_kept: list[Problem] = field(default_factory=list, repr=False)
    """Those of `problems` that are an error of the command (a path that does not exist): reported once and not stored."""
    unreached: list[Problem] = field(default_factory=list, repr=False)
    """Those of `problems` because of which an address could not be read at all, or not to its end: a retry may help."""
    newest: datetime | None = None
    """Start of the newest call, or end of the newest charge period that has ended, among what was read."""

    @property
    def problem_rows(self) -> int:
        """Input rows or files with an entry in `problems`."""
        return self.errors + self.warnings


def ingest(
    books: Books,
    source_name: str,
    uris: Sequence[str],
    *,
    scope: str | None = None,
    decisions: Decisions | None = None,
    window: Window | None = None,
    progress: Progress | None = None,
    fetcher: Fetcher | None = None,
    now: datetime | None = None,
    write_lock: WriteLock = nullcontext,
) -> IngestReport:
    """Reads what `uris` name with one source and books it. `scope` overrides the dataset's name, for bills; `decisions` say which
    datasets a bill replaces or stands beside; `window` asks a live source for these days again, whatever was read before;
    `write_lock` makes the lock around each write, unless the caller holds it.

    Raises `UsageError` for an unknown source, or a decision on a dataset that does not exist; `SettingsError` where
    `ingest.trusted_sources` names no log source. Errors of the input are in the report and in the table `problems`.
    """
    source = by_name(source_name)
    check_trusted_sources(books.settings.ingest)
    datasets.check_decisions(books.store, decisions or Decisions())
    keep = source.kind == "bill" and books.settings.ingest.keep_raw == "bills"
    report, problem_log = IngestReport(source.name, source.kind), ProblemLog(source.name)
    read_so_far = checkpoints.load(books, source.name)
    with WorldFetcher(books.settings, source=source.name, keep=keep, window=window, checkpoints=read_so_far) as world_fetcher:
        used_fetcher = fetcher or world_fetcher
        run = _Run(
            books=books,
            source=source,
            fetcher=used_fetcher,
            downloads=world_fetcher,
            report=report,
            problem_log=problem_log,
            progress=progress,
            now=now or datetime.now(UTC),
            write_lock=write_lock,
            decisions=replace(decisions or Decisions(), parts=bool(scope)),
        )
        batches = run.plan(uris)
        if source.kind == "bill":
            run.ingest_bills([replace(s, scope=scope, location="") if scope else s for s in batches])
        else:
            run.ingest_logs(batches)
    report.problems = problem_log.problems()
    report.errors = sum(p.rows for p in report.problems if p.severity == "error")
    report.warnings = sum(p.rows for p in report.problems if p.severity != "error")
    stored_problems = [problem for problem in report.problems if problem not in report.not_kept]
    with write_lock():
        problems.renew(
            books.store,
            source.name,
            {masked(uri) for uri in problem_log.read_uris},
            stored_problems,
            folders=problem_log.read_below,
        )
    return report


@dataclass(kw_only=True)
class _Run:
    books: Books
    source: Source
    fetcher: Fetcher
    downloads: WorldFetcher
    report: IngestReport
    problem_log: ProblemLog
    progress: Progress | None
    now: datetime
    write_lock: WriteLock = nullcontext
    decisions: Decisions = field(default_factory=Decisions)
    broken_off: dict[str, str] = field(default_factory=dict)
    """Files that end before their end: address to the reason."""
    placed: set[tuple[str, str]] = field(default_factory=set)
    """Datasets and months booked so far."""
    _known_raw_ids: set[str] = field(default_factory=set)
    _files_seen: int = 0
    _files_expected: int = 0

    def plan(self, uris: Sequence[str]) -> Iterator[Batch]:
        """The batches of the addresses. An address that cannot be reached is a problem; the others are read."""
        for uri in uris:
            self.problem_log.read_uris.add(uri)
            is_complete = True
            try:
                for entry in self.source.plan(self.fetcher, uri):
                    if isinstance(entry, Problem):
                        self.problem_log.add(entry)
                        self.problem_log.read_uris.add(entry.uri)
                        continue
                    batch = entry.without_secrets()
                    self.problem_log.add_all(batch.problems)
                    self.problem_log.read_uris.update(item.uri for item in batch.objects)
                    self._files_expected += len(batch.objects)
                    is_complete &= not batch.checkpoints  # read from a checkpoint on: problems before it still hold
                    yield batch
            except BaseException as error:
                if not concerns_one_file(error):
                    raise
                is_complete = isinstance(error, SourceError) and not isinstance(error, StoreUnreachable)
                problem = error_problem(self.source.name, getattr(error, "where", "") or uri, error)
                self.problem_log.add(problem)
                self.report.unreached.append(problem)
                if isinstance(error, ObjectMissingError) and problem.uri == masked(uri):
                    self.report.not_kept.append(problem)
            self.problem_log.add_all(self.downloads.link_problems(self.source.name))
            if is_complete:
                self.problem_log.read_below.add(uri if uri.startswith("s3://") else Path(uri).expanduser().absolute().as_posix())

    def ingest_bills(self, batches: Iterator[Batch] | Sequence[Batch]) -> None:
        """Groups the batches by dataset, reads them, and replaces the months."""
        groups: dict[tuple[str, str], list[Batch]] = {}
        for batch in batches:
            groups.setdefault((batch.scope, batch.location), []).append(batch)
        with scratch_folder("ingest") as folder:
            for (scope, _), group in groups.items():
                all_have_months = all(batch.billing_month for batch in group)
                months = sorted({batch.billing_month for batch in group if batch.billing_month}) if all_have_months else [None]
                for month in months:
                    self._dataset(scope, [f for f in group if month is None or f.billing_month == month], folder)

    def _dataset(self, scope: str, group: Sequence[Batch], folder: Path) -> None:
        """Reads the files of one dataset, or of one month of it, and books them."""
        buffers, failed_uris, files = self._read_group(scope, group, folder)
        repeats = datasets.repeated_files(self.source.name, group, buffers, self.decisions)
        if repeats.copies:
            for batch in group:
                for item in batch.objects:
                    self.problem_log.by_uri.pop(item.uri, None)
            group = [replace(b, objects=tuple(o for o in b.objects if o.raw_id not in repeats.copies)) for b in group]
            buffers, failed_uris, files = self._read_group(scope, group, folder)
        self.problem_log.add_all(repeats.problems)
        bookable = {month: buffer for month, buffer in buffers.items() if month not in repeats.refused_months}
        with self.write_lock():
            is_complete = self._book_months(bookable, failed_uris, group, files)
            if not failed_uris and is_complete and not repeats.refused_months:
                checkpoints.save(self.books, self.source.name, group)

    def _read_group(
        self, scope: str, group: Sequence[Batch], folder: Path
    ) -> tuple[dict[str, bill_months.MonthBuffer], set[str], list[dict[str, object]]]:
        """The months of all files of a group; the files that cannot be read; and the rows of `raw_files`."""
        buffers: dict[str, bill_months.MonthBuffer] = {}
        failed_uris: set[str] = set()
        files: list[dict[str, object]] = []
        raw_ids: set[str] = set()
        for batch in group:
            new_objects = {item.raw_id: item for item in reversed(batch.objects) if item.raw_id not in raw_ids}
            raw_ids |= new_objects.keys()
            batch_buffers = self._bill_slice(replace(batch, objects=tuple(reversed(new_objects.values()))), folder, files)
            if batch_buffers is None:
                failed_uris.update(item.uri for item in batch.objects)
                continue
            for month, buffer in batch_buffers.items():
                buffers.setdefault(month, bill_months.MonthBuffer(month, folder)).absorb(buffer)
            if batch.billing_month and batch.billing_month not in batch_buffers:
                self._empty_month(scope, batch)
        return buffers, failed_uris, files

    def _book_months(
        self,
        buffers: dict[str, bill_months.MonthBuffer],
        failed_uris: set[str],
        group: Sequence[Batch],
        files: Sequence[dict[str, object]],
    ) -> bool:
        """Books each month under its dataset, or leaves it as it was; returns whether none was refused."""
        store, batch, is_complete, scopes = self.books.store, group[0], True, set[str]()
        uris = {item.uri for one in group for item in one.objects}
        is_whole = not failed_uris and not uris & self.broken_off.keys()
        lost_months = datasets.lost_months(store, batch, uris, buffers) if is_whole else []
        for month, buffer in sorted(buffers.items()):
            placement = datasets.place(store, self.source.name, batch, buffer, self.decisions, self.placed, scopes)
            may_replace = placement.booked and self._may_replace(placement.scope, month, buffer, failed_uris, group)
            if may_replace or not placement.booked:
                self.problem_log.add_all(placement.problems)
            if may_replace:
                for other in placement.withdrawn:
                    datasets.withdraw(store, other, month)
                self._book(placement.scope, month, buffer)
                self.placed.add((placement.scope, month))
                scopes.add(placement.scope)
            is_complete = is_complete and (may_replace or not (placement.booked or placement.refused))
        for scope, month in lost_months:
            datasets.withdraw(store, scope, month)
            self.problem_log.add(datasets.withdrawn_problem(self.source.name, batch.objects[0].uri, scope, month))
            self.report.months = sorted({*self.report.months, month})
        if batch.location and buffers:
            files = [{**file, "scope": scope} for scope in sorted(scopes) for file in files]
        raw_files.record_files(store, files)
        return is_complete

    def _bill_slice(
        self, batch: Batch, folder: Path, files: list[dict[str, object]]
    ) -> dict[str, bill_months.MonthBuffer] | None:
        """The months of a batch, or None if one of its files cannot be read."""
        buffers: dict[str, bill_months.MonthBuffer] = {}
        file_rows = []
        for item in batch.objects:
            rows, rows_refused, starts = 0, 0, list[datetime]()
            try:
                for reading in self._readings(item):
                    rows_refused += sum(p.rows for p in reading.problems if p.severity == "error")
                    starts += filter(None, [bill_months.newest_usage_start(reading)])
                    if reading.broken_off:
                        self.broken_off[item.uri] = reading.broken_off
                    handover.check_reading(reading, source=self.source.name)
                    frame, stray_problems = handover.of_stated_month(reading.frame, batch, item.uri, source=self.source.name)
                    self.problem_log.add_all(stray_problems)
                    rows += frame.height
                    self._note_newest(bill_months.newest_charge(reading, self.now))
                    for month, part in bill_months.by_month(replace(reading, frame=frame)):
                        charge_batch = bill_months.conform(
                            part, month=month, source=self.source.name, scope=batch.scope, raw_id=item.raw_id, now=self.now
                        )
                        buffers[month] = buffers.get(month) or bill_months.open_buffer(self.books.store, batch, month, folder)
                        buffers[month].add(charge_batch, part.rows)
            except BaseException as error:
                if not concerns_one_file(error):
                    raise
                self.problem_log.add(error_problem(self.source.name, item.uri, error))
                return None
            months, newest_start = sorted(buffers), max(starts, default=None)
            file_month = batch.billing_month or (months[0] if len(months) == 1 else None)
            broken_off = self.broken_off.get(item.uri)
            self.problem_log.add_all(raw_files.clock_problems(self.source.name, item.uri, self.now, newest_start))
            file_rows.append(
                raw_files.raw_file_row(
                    self.source.name, item, batch, rows, rows_refused, file_month, self.now, broken_off, newest_start
                )
            )
        files += file_rows
        return buffers

    def _empty_month(self, scope: str, batch: Batch) -> None:
        month = str(batch.billing_month)
        if bill_months.uris_of(self.books.store, scope, month):
            self.problem_log.add(
                Problem(
                    self.source.name,
                    batch.objects[0].uri if batch.objects else scope,
                    "file",
                    "",
                    f"no row of {month} could be read; the month was left as it was",
                    "fetch the export again",
                )
            )

    def _may_replace(
        self, scope: str, month: str, buffer: bill_months.MonthBuffer, failed_uris: set[str], group: Sequence[Batch]
    ) -> bool:
        uris = {item.raw_id: item.uri for batch in group for item in batch.objects}
        other_datasets = bill_months.files_in_other_datasets(self.books.store, scope, month, buffer.raw_ids)
        for raw_id, other in sorted(other_datasets.items()):
            self.problem_log.add(bill_months.duplicate_file_problem(self.source.name, uris[raw_id], scope, other, month))
        lost_uris = sorted(failed_uris & bill_months.uris_of(self.books.store, scope, month)) if failed_uris else []
        for uri in lost_uris:
            self.problem_log.add(
                Problem(
                    self.source.name,
                    uri,
                    "file",
                    "",
                    f"{month} of {scope!r} was made from this file too, which cannot be read now; the month was left as it was",
                    "mend or restore the file, and ingest again",
                )
            )
        duplicate_bills = (
            []
            if other_datasets
            else bill_months.duplicate_bill_problems(
                self.books.store, self.source.name, group, month, buffer, {*self.decisions.beside, *self.decisions.replaces}
            )
        )
        breaks = datasets.breaks(
            self.books.store, scope, buffer, {u: r for u, r in self.broken_off.items() if u in uris.values()}
        )
        broken_off = [datasets.broken_off_problem(self.source.name, uri, scope, month, breaks[uri]) for uri in sorted(breaks)]
        self.problem_log.add_all([*duplicate_bills, *broken_off])
        return not (other_datasets or lost_uris or duplicate_bills or broken_off)

    def _book(self, scope: str, month: str, buffer: bill_months.MonthBuffer) -> None:
        result = bill_months.replace_month(self.books.store, scope, buffer)
        report = self.report
        report.rows += result.rows
        report.rows_changed += result.rows_changed
        report.months = sorted({*report.months, month})
        for (currency, _, column), column_sum in buffer.sums.items():
            for totals, amount in (
                (report.totals, (column_sum.booked, column_sum.rounding)),
                (report.rounding, (column_sum.rounding,)),
            ):
                columns = totals.setdefault(currency, {})
                if column_sum.rows:
                    columns[column] = _sum(columns.get(column, ZERO), *amount)

    def ingest_logs(self, batches: Iterator[Batch]) -> None:
        """Merges rows as they come."""
        waiting, files = list[pl.DataFrame](), list[dict[str, object]]()
        days, finished_batches = set[str](), list[Batch]()
        for batch in batches:
            is_complete = True
            for item in batch.objects:
                rows, rows_refused = 0, 0
                try:
                    for reading in self._readings(item):
                        frame, far_problems = TimeBounds.at(self.now, self.books.settings.ingest).split(
                            reading.frame, self.source.name, item.uri
                        )
                        self.problem_log.add_all(far_problems)
                        rows_refused += sum(p.rows for p in (*reading.problems, *far_problems) if p.severity == "error")
                        if frame.height:
                            provenance = {"source": self.source.name, "raw_id": item.raw_id}
                            missing_columns = {k: pl.lit(v) for k, v in provenance.items() if k not in frame.columns}
                            waiting.append(SPANS.conform(frame.with_columns(**missing_columns)))
                            rows += frame.height
                except BaseException as error:
                    if not concerns_one_file(error):
                        raise
                    rows_refused += 1
                    is_complete = False
                    self.problem_log.add(error_problem(self.source.name, item.uri, error))
                files.append(raw_files.raw_file_row(self.source.name, item, batch, rows, rows_refused, None, self.now))
                self.report.rows += rows
                if sum(f.height for f in waiting) >= _MERGE_ROWS:
                    self._merge(waiting, days)
            if is_complete and batch.checkpoints:
                finished_batches.append(batch)
                if not waiting:
                    checkpoints.save(self.books, self.source.name, finished_batches)
                    finished_batches.clear()
        self._merge(waiting, days)
        checkpoints.save(self.books, self.source.name, finished_batches)
        self.report.months = sorted(days)
        with self.write_lock():
            raw_files.record_files(self.books.store, files)

    def _merge(self, waiting: list[pl.DataFrame], months: set[str]) -> None:
        if waiting:
            rows = pl.concat(waiting)
            waiting.clear()
            months.update(rows["date"].dt.strftime("%Y-%m").unique())
            self._note_newest(rows.select(pl.col("start_time").filter(pl.col("start_time") <= self.now).max()).item())
            with self.write_lock():
                self.report.rows_changed += self.books.store.merge(SPANS, rows, prefer="rank")

    def _note_newest(self, newest: datetime | None) -> None:
        self.report.newest = max((t for t in (self.report.newest, newest) if t is not None), default=None)

    def _readings(self, item: RawObject) -> Iterator[Reading]:
        self._files_seen += 1
        self.report.files += 1
        if self._is_known(item):
            self.report.already_known += 1
        if self.progress:
            self.progress(item.uri, self._files_seen, max(self._files_seen, self._files_expected))
        for reading in self.source.read(item, self.books.settings.ingest):
            self.problem_log.add_all(reading.problems)
            yield reading
        self.downloads.release(item)

    def _is_known(self, item: RawObject) -> bool:
        from ledger.tables import RAW_FILES

        if self._files_seen == 1:
            self._known_raw_ids = set(
                self.books.store.scan(RAW_FILES, {"source": [self.source.name]}).select("raw_id").unique().collect()["raw_id"]
            )
        return item.raw_id in self._known_raw_ids


def _sum(*amounts: Decimal) -> Decimal:
    with localcontext() as context:
        context.prec = 400
        return sum(amounts, ZERO)
