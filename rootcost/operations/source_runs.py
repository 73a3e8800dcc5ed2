"""Runs of one scheduled source, recorded: by schedule, by hand, or as a backfill."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ledger import disk, sources
from ledger.errors import RootCostError, UsageError
from ledger.locks import exclusive, lock_of, write_lock
from ledger.sources import Outcome

if TYPE_CHECKING:
    from ingest.run import IngestReport, Progress
    from ingest.source import Window
    from ledger.books import Books
    from ledger.db import ConfiguredSource, SourceRun
    from ledger.problems import Problem

log = logging.getLogger("rootcost.sources")

BY_CLOCK, BY_HAND, BACKFILL = "schedule", "hand", "backfill"
"""Causes of a run."""

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=1)


def longest_backoff(failures: int) -> timedelta:
    """Upper bound of the backoff after this many failures in a row: doubling, up to an hour.

    >>> [str(longest_backoff(n)) for n in (1, 2, 3, 7, 999)]
    ['0:01:00', '0:02:00', '0:04:00', '1:00:00', '1:00:00']
    """
    return min(FIRST_PAUSE * (1 << min(failures - 1, 20)), LONGEST_PAUSE)


def backoff(failures: int) -> timedelta:
    """Backoff with jitter: between half of the upper bound and all of it, so that retries are spread out."""
    share: float = random.uniform(0.5, 1)  # noqa: S311 - spreads callers, guards nothing
    return longest_backoff(failures) * share


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A recorded run and its report; no report if it failed."""

    run: SourceRun
    report: IngestReport | None = None
    error: Exception | None = None


def read_source(
    books: Books,
    source: ConfiguredSource,
    *,
    cause: str,
    window: Window | None = None,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
    on_begin: Callable[[int], None] | None = None,
) -> FinishedRun:
    """Reads a source and books what it holds. Whatever goes wrong is in the history, and in what is returned, not raised.

    `waiting` is called before it waits for another reader, `on_begin` with the number of the run.

    Among all processes on one ledger a kind of source is read by one at a time, since its marks are shared; the turn to write is taken
    for every write only, so that a slow provider keeps nobody waiting.
    """
    if not source.uris:
        raise UsageError(
            "is only watched: it has no address to read",
            where=source.name,
            remedy="its rows come over HTTP; see docs/schedule.md",
        )
    with exclusive(lock_of(books, f"source-{source.source}"), on_wait=waiting):
        since, until = (window.since, window.until) if window else (None, None)
        run_id = sources.begin(books, source, cause=cause, since=since, until=until)
        if on_begin is not None:
            on_begin(run_id)
        try:
            outcome, report, error = _read(books, source, window, progress)
        except BaseException:
            sources.cut_off(books, run_id)
            raise
        return FinishedRun(sources.finish(books, run_id, outcome), report, error)


def _unread_file(report: IngestReport) -> Problem | None:
    """The first file that cannot be read, where nothing else could be read either: then the source is asked again later and later."""
    from ingest.problem_log import UNREADABLE

    unread = (p for p in report.problems if p.place == "file" and p.field in ("", UNREADABLE) and p.severity == "error")
    return None if report.rows else next(unread, None)


def _read(
    books: Books, source: ConfiguredSource, window: Window | None, progress: Progress | None
) -> tuple[Outcome, IngestReport | None, Exception | None]:
    from ingest.problem_log import input_error
    from ingest.run import ingest

    try:
        report = ingest(
            books,
            source.source,
            sources.addresses(books, source),
            scope=source.scope,
            window=window,
            progress=progress,
            write_lock=lambda: write_lock(books),
        )
    except RootCostError as error:
        log.warning("%s: %s", source.name, error)
        return Outcome("failed", error=str(error)), None, error
    except BaseException as error:  # a panic of Polars is no Exception; the scheduler must go on, and the log has the frames
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        reason = disk.error_of(error, books.home) or input_error(error, source.name)
        log.warning("%s: %s", source.name, reason)
        return Outcome("failed", error=str(reason)), None, reason
    unreached = report.unreached[0] if report.unreached else _unread_file(report)
    outcome = Outcome(
        "failed" if unreached else "problems" if report.errors else "done",
        files=report.files,
        rows=report.rows,
        rows_changed=report.rows_changed,
        errors=report.errors,
        warnings=report.warnings,
        money_in={currency: columns["billed_cost"] for currency, columns in report.totals.items() if "billed_cost" in columns},
        newest=report.newest,
        error=f"{unreached.uri}: {unreached.reason} — {unreached.remedy}" if unreached else None,
    )
    return outcome, report, None
