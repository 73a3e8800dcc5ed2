"""The recipe of ingestion: plan, fetch, read, check, write, and tell what was wrong.

Bills: every month found is replaced in one commit, or left as it was. Logs: rows are merged, so that delivering twice changes
nothing. A file that cannot be read is a problem of its own; the others go on.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path

import polars as pl

from ingest import checkpoints
from ingest.bills import month as bill_months
from ingest.fetch import WorldFetcher
from ingest.problem_counter import MAX_SINGLE_PROBLEMS
from ingest.source import Batch, Fetcher, RawObject, Reading, Source, Window
from ingest.sources import by_name
from ledger import problems
from ledger.books import Books
from ledger.errors import ObjectMissingError, RootCostError, SourceError, StoreUnreachable
from ledger.money import ZERO
from ledger.problems import Problem
from ledger.tables import COST_COLUMNS, SPANS

Progress = Callable[[str, int, int], None]
"""Told of each file: its address, its number from 1, and how many are known so far."""

WriteLock = Callable[[], AbstractContextManager[None]]
"""Asked for around every write, so that others may write while this run waits for a provider."""

_MERGE_ROWS = 250_000
_MAX_KINDS = 200


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
    """Currency to cost column to the files' own total, at full precision."""
    rounding: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list, repr=False)
    not_kept: list[Problem] = field(default_factory=list, repr=False)
    """Those of `problems` that are a slip of the command (a path that is not there), and so are told once and not kept."""
    unreached: list[Problem] = field(default_factory=list, repr=False)
    """Those of `problems` for which an address could not be read at all, or not to its end: worth another try soon."""
    newest: datetime | None = None
    """Start of the newest call, or end of the newest charge period that has ended, among what was read."""

    @property
    def problem_rows(self) -> int:
        """Input rows or files that are told in `problems`."""
        return self.errors + self.warnings


class _ProblemLog:
    """The problems of a run, and the addresses it read, whose earlier problems go."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: dict[str, list[Problem]] = {}
        self.read: set[str] = set()
        self.below: set[str] = set()

    def add(self, problem: Problem) -> None:
        self.found.setdefault(problem.uri, []).append(problem)

    def told(self) -> list[Problem]:
        """All problems; of a file with very many, the first ones singly and the rest by reason."""
        return [problem for found in self.found.values() for problem in _limited(found)]


def ingest(
    books: Books,
    source_name: str,
    uris: Sequence[str],
    *,
    scope: str | None = None,
    window: Window | None = None,
    progress: Progress | None = None,
    fetcher: Fetcher | None = None,
    now: datetime | None = None,
    turn: WriteLock = nullcontext,
) -> IngestReport:
    """Reads what `uris` name with one source and books it. `scope` overrides the dataset's name, for bills; `window` asks a live
    source for these days again, whatever was read before; `turn` is the turn to write, unless the caller has it.

    Raises `UsageError` for an unknown source. What is wrong with the input is in the report and in `problems`.
    """
    source = by_name(source_name)
    keep = source.kind == "bill" and books.settings.ingest.keep_raw == "bills"
    report, ledger = IngestReport(source.name, source.kind), _ProblemLog(source.name)
    read_so_far = checkpoints.load(books, source.name)
    with WorldFetcher(books.settings, source=source.name, keep=keep, window=window, marks=read_so_far) as own:
        door = fetcher or own
        run = _Run(books, source, door, own, report, ledger, progress, now or datetime.now(UTC), turn)
        slices = run.planned(uris)
        if source.kind == "bill":
            run.bills([replace(s, scope=scope) if scope else s for s in slices])
        else:
            run.logs(slices)
    report.problems = ledger.told()
    report.errors = sum(p.rows for p in report.problems if p.severity == "error")
    report.warnings = sum(p.rows for p in report.problems if p.severity != "error")
    kept = [problem for problem in report.problems if problem not in report.not_kept]
    with turn():
        problems.renew(books.store, source.name, ledger.read, kept, folders=ledger.below)
    return report


@dataclass
class _Run:
    books: Books
    source: Source
    fetcher: Fetcher
    downloads: WorldFetcher
    report: IngestReport
    ledger: _ProblemLog
    progress: Progress | None
    now: datetime
    turn: WriteLock = nullcontext
    _known: set[str] = field(default_factory=set)
    _seen: int = 0
    _expected: int = 0

    def planned(self, uris: Sequence[str]) -> Iterator[Batch]:
        """What the addresses hold. What cannot be reached is a problem; the other addresses go on."""
        for uri in uris:
            self.ledger.read.add(uri)
            whole = True
            try:
                for found in self.source.plan(self.fetcher, uri):
                    if isinstance(found, Problem):
                        self.ledger.add(found)
                        self.ledger.read.add(found.uri)
                        continue
                    for problem in found.problems:
                        self.ledger.add(problem)
                    self.ledger.read.update(item.uri for item in found.objects)
                    self._expected += len(found.objects)
                    if found.marks:
                        whole = False  # read from where it was left: what was wrong before that still is
                    yield found
            except SourceError as fault:
                whole = not isinstance(fault, StoreUnreachable)
                problem = _error_problem(self.source.name, fault.where or uri, fault)
                self.ledger.add(problem)
                self.report.unreached.append(problem)
                if isinstance(fault, ObjectMissingError) and problem.uri == uri:
                    self.report.not_kept.append(problem)
            if whole:
                self.ledger.below.add(uri if uri.startswith("s3://") else Path(uri).expanduser().absolute().as_posix())

    def bills(self, slices: Iterator[Batch] | Sequence[Batch]) -> None:
        """Groups what belongs to one dataset, reads it, and replaces its months."""
        groups: dict[str, list[Batch]] = {}
        for found in slices:
            groups.setdefault(found.scope, []).append(found)
        folder = Path(tempfile.mkdtemp(prefix="rootcost-ingest-"))
        try:
            for scope, group in groups.items():
                dated = all(found.billing_month for found in group)
                months = sorted({found.billing_month for found in group if found.billing_month}) if dated else [None]
                for month in months:
                    self._dataset(scope, [f for f in group if month is None or f.billing_month == month], folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _dataset(self, scope: str, group: Sequence[Batch], folder: Path) -> None:
        piles: dict[str, bill_months.MonthBuffer] = {}
        failed: set[str] = set()
        refused = False
        files: list[dict[str, object]] = []
        taken: set[str] = set()
        for found in group:
            fresh = [item for item in found.objects if item.raw_id not in taken]
            taken.update(item.raw_id for item in fresh)
            read = self._bill_slice(replace(found, objects=tuple(fresh)), folder, files)
            if read is None:
                failed.update(item.uri for item in found.objects)
                continue
            for month, pile in read.items():
                piles.setdefault(month, bill_months.MonthBuffer(month, folder)).absorb(pile)
            if found.billing_month and found.billing_month not in read:
                self._empty_month(scope, found)
        with self.turn():
            for month, pile in sorted(piles.items()):
                if self._may_replace(scope, month, pile, failed, group):
                    self._book(scope, month, pile)
                else:
                    refused = True
            bill_months.record_files(self.books.store, files)
            if not failed and not refused:
                checkpoints.save(self.books, self.source.name, group)

    def _bill_slice(
        self, found: Batch, folder: Path, files: list[dict[str, object]]
    ) -> dict[str, bill_months.MonthBuffer] | None:
        """The months of a slice, or None if one of its files cannot be read."""
        piles: dict[str, bill_months.MonthBuffer] = {}
        noted = []
        for item in found.objects:
            rows, refused = 0, 0
            try:
                for reading in self._readings(item):
                    refused += sum(p.rows for p in reading.problems if p.severity == "error")
                    frame = self._of_month(reading.frame, found, item)
                    rows += frame.height
                    self._seen_until(bill_months.newest_charge(reading, self.now))
                    for month, part in bill_months.by_month(replace(reading, frame=frame)):
                        conformed = bill_months.conform(
                            part, month=month, source=self.source.name, scope=found.scope, raw_id=item.raw_id, now=self.now
                        )
                        piles[month] = piles.get(month) or bill_months.open_buffer(self.books.store, found, month, folder)
                        piles[month].add(conformed, part.rows)
            except Exception as fault:
                if not _is_input_error(fault):
                    raise
                self.ledger.add(_error_problem(self.source.name, item.uri, fault))
                return None
            months = sorted(piles)
            noted.append(
                _raw_file_row(
                    self.source,
                    item,
                    found,
                    rows,
                    refused,
                    found.billing_month or (months[0] if len(months) == 1 else None),
                    self.now,
                )
            )
        files += noted
        return piles

    def _of_month(self, frame: pl.DataFrame, found: Batch, item: RawObject) -> pl.DataFrame:
        """Rows of the month the slice states; others would be lost when that month's own files come."""
        if found.billing_month is None or not frame.height:
            return frame
        stray = frame.filter(pl.col("billing_month") != found.billing_month)
        if stray.height:
            self.ledger.add(
                Problem(
                    self.source.name,
                    item.uri,
                    f"{stray.height} rows",
                    "billing_month",
                    f"rows of {', '.join(stray['billing_month'].unique().sort())} in the files of {found.billing_month} left out",
                    "wait for the exporter to deliver again; that month's own files should hold them",
                    stray.height,
                )
            )
            frame = frame.filter(pl.col("billing_month") == found.billing_month)
        return frame

    def _empty_month(self, scope: str, found: Batch) -> None:
        month = str(found.billing_month)
        if bill_months.uris_of(self.books.store, scope, month):
            self.ledger.add(
                Problem(
                    self.source.name,
                    found.objects[0].uri if found.objects else scope,
                    "file",
                    "",
                    f"no row of {month} could be read; the month was left as it was",
                    "fetch the export again",
                )
            )

    def _may_replace(
        self, scope: str, month: str, pile: bill_months.MonthBuffer, failed: set[str], group: Sequence[Batch]
    ) -> bool:
        uris = {item.raw_id: item.uri for found in group for item in found.objects}
        elsewhere = bill_months.files_in_other_datasets(self.books.store, scope, month, pile.raw_ids)
        for raw_id, other in sorted(elsewhere.items()):
            self.ledger.add(bill_months.duplicate_file_problem(self.source.name, uris[raw_id], scope, other, month))
        lost = sorted(failed & bill_months.uris_of(self.books.store, scope, month)) if failed else []
        for uri in lost:
            self.ledger.add(
                Problem(
                    self.source.name,
                    uri,
                    "file",
                    "",
                    f"{month} of {scope!r} was made from this file too, which cannot be read now; the month was left as it was",
                    "mend or restore the file, and ingest again",
                )
            )
        doubled = [] if elsewhere else bill_months.duplicate_bill_problems(self.books.store, self.source.name, group, month, pile)
        for problem in doubled:
            self.ledger.add(problem)
        return not (elsewhere or lost or doubled)

    def _book(self, scope: str, month: str, pile: bill_months.MonthBuffer) -> None:
        written = bill_months.replace_month(self.books.store, scope, pile)
        report = self.report
        report.rows += written.rows
        report.rows_changed += written.rows_changed
        report.months = sorted({*report.months, month})
        for (currency, _, column), one in pile.sums.items():
            for totals, amount in ((report.totals, (one.kept, one.lost)), (report.rounding, (one.lost,))):
                columns = totals.setdefault(currency, dict.fromkeys(COST_COLUMNS, ZERO))
                columns[column] = _sum(columns[column], *amount)

    def logs(self, slices: Iterator[Batch]) -> None:
        """Merges rows as they come."""
        waiting: list[pl.DataFrame] = []
        files: list[dict[str, object]] = []
        days: set[str] = set()
        read: list[Batch] = []
        for found in slices:
            whole = True
            for item in found.objects:
                rows, refused = 0, 0
                try:
                    for reading in self._readings(item):
                        refused += sum(p.rows for p in reading.problems if p.severity == "error")
                        if reading.frame.height:
                            filled = {"source": self.source.name, "raw_id": item.raw_id}
                            lacking = {k: pl.lit(v) for k, v in filled.items() if k not in reading.frame.columns}
                            waiting.append(SPANS.conform(reading.frame.with_columns(**lacking)))
                            rows += reading.frame.height
                except Exception as fault:
                    if not _is_input_error(fault):
                        raise
                    refused += 1
                    whole = False
                    self.ledger.add(_error_problem(self.source.name, item.uri, fault))
                files.append(_raw_file_row(self.source, item, found, rows, refused, None, self.now))
                self.report.rows += rows
                if sum(f.height for f in waiting) >= _MERGE_ROWS:
                    self._merge(waiting, days)
            if whole and found.marks:
                read.append(found)
                if not waiting:
                    checkpoints.save(self.books, self.source.name, read)
                    read.clear()
        self._merge(waiting, days)
        checkpoints.save(self.books, self.source.name, read)
        self.report.months = sorted(days)
        with self.turn():
            bill_months.record_files(self.books.store, files)

    def _merge(self, waiting: list[pl.DataFrame], months: set[str]) -> None:
        if waiting:
            rows = pl.concat(waiting)
            waiting.clear()
            months.update(rows["date"].dt.strftime("%Y-%m").unique())
            self._seen_until(rows.select(pl.col("start_time").filter(pl.col("start_time") <= self.now).max()).item())
            with self.turn():
                self.report.rows_changed += self.books.store.merge(SPANS, rows, prefer="rank")

    def _seen_until(self, newest: datetime | None) -> None:
        self.report.newest = max((t for t in (self.report.newest, newest) if t is not None), default=None)

    def _readings(self, item: RawObject) -> Iterator[Reading]:
        self._seen += 1
        self.report.files += 1
        if self._is_known(item):
            self.report.already_known += 1
        if self.progress:
            self.progress(item.uri, self._seen, max(self._seen, self._expected))
        for reading in self.source.read(item, self.books.settings.ingest):
            for problem in reading.problems:
                self.ledger.add(problem)
            yield reading
        self.downloads.release(item)

    def _is_known(self, item: RawObject) -> bool:
        from ledger.tables import RAW_FILES

        if self._seen == 1:
            self._known = set(
                self.books.store.scan(RAW_FILES, {"source": [self.source.name]}).select("raw_id").unique().collect()["raw_id"]
            )
        return item.raw_id in self._known


def _raw_file_row(
    source: Source, item: RawObject, found: Batch, rows: int, refused: int, month: str | None, now: datetime
) -> dict[str, object]:
    return {
        "raw_id": item.raw_id,
        "source": source.name,
        "uri": item.uri,
        "scope": found.scope,
        "billing_month": month,
        "bytes": item.size,
        "rows_read": rows,
        "rows_refused": refused,
        "fetched_at": now,
        "version": found.version or item.version or None,
    }


def _is_input_error(fault: Exception) -> bool:
    """Whether a reader stumbled over the bytes, rather than over a mistake of ours."""
    if isinstance(fault, RootCostError):
        return True
    if isinstance(fault, (UnicodeDecodeError, json.JSONDecodeError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, EOFError)):
        return True
    decoders = (("google.protobuf.message", "DecodeError"), ("pyarrow.lib", "ArrowInvalid"))
    return any(isinstance(fault, getattr(sys.modules[module], name)) for module, name in decoders if module in sys.modules)


def _error_problem(source: str, uri: str, fault: Exception) -> Problem:
    if isinstance(fault, RootCostError):
        return Problem(source, uri, "file", "", fault.what, fault.remedy or "mend the file, and ingest it again")
    return Problem(source, uri, "file", "", f"the file cannot be decoded: {str(fault)[:200]}", "fetch or export it again")


def _limited(found: Sequence[Problem]) -> Iterator[Problem]:
    yield from found[:MAX_SINGLE_PROBLEMS]
    rest: dict[tuple[str, str, str, str], int] = {}
    for problem in found[MAX_SINGLE_PROBLEMS:]:
        key = (problem.field, problem.reason, problem.remedy, problem.severity)
        if key not in rest and len(rest) >= _MAX_KINDS:
            key = (
                "",
                "other faults, too many kinds to tell apart",
                "mend the faults listed, and read the file again",
                problem.severity,
            )
        rest[key] = rest.get(key, 0) + problem.rows
    for (name, reason, remedy, severity), rows in rest.items():
        yield Problem(found[0].source, found[0].uri, f"{rows} more rows", name, reason, remedy, rows, severity)


def _sum(*amounts: Decimal) -> Decimal:
    with localcontext() as context:
        context.prec = 400
        return sum(amounts, ZERO)
