"""Configured sources: kinds, set-up, tests, schedule, and runs by hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING

from api import queries
from api.models import (
    NewSource,
    RunRequest,
    ScheduleChange,
    ScheduleEntry,
    SourceDraft,
    SourceKind,
    SourceRunRow,
    SourceStatus,
    SourceTerms,
    SourceTest,
)
from api.preconditions import NOTHING_EXPECTED, Precondition, RevisionError
from api.queries.gate import WholeBooks
from ledger import sources as configured_sources
from ledger.addresses import is_under, masked
from ledger.db import ConfiguredSource
from ledger.errors import UsageError
from ledger.periods import now, parse_instant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.source import Source, Window

log = logging.getLogger("rootcost.sources")


def kinds() -> list[SourceKind]:
    """Every kind of source, by name."""
    from ingest.sources import by_name, discover

    return [_kind(by_name(name)) for name in discover()]


def add(books: WholeBooks, source: NewSource) -> SourceStatus:
    """Configures a source. Raises `SourceExistsError` if the name is taken, `UsageError` that names the field for terms that cannot be."""
    from ingest.sources import by_name

    kind = by_name(source.source)
    terms = _terms(books, kind, source)
    row = configured_sources.add(books.whole, source.name, terms, source=kind.name, kind=kind.kind, actor=books.principal.id)
    return queries.source(books, row.name)


def change(books: WholeBooks, name: str, terms: SourceTerms, precondition: Precondition = NOTHING_EXPECTED) -> SourceStatus:
    """Gives a source other terms; its kind and what it brought stay. Raises `RevisionError` if it has not the expected ones."""
    from ingest.sources import by_name

    kind = by_name(configured_sources.find(books.whole, name).source)
    new_terms, check = _terms(books, kind, terms), _check(precondition)
    configured_sources.change(books.whole, name, new_terms, actor=books.principal.id, check=check)
    return queries.source(books, name)


def reschedule(
    books: WholeBooks, name: str, change: ScheduleChange, precondition: Precondition = NOTHING_EXPECTED
) -> ScheduleEntry:
    """Changes when a source is read, pauses it or goes on. Raises `RevisionError` if it has not the expected terms."""
    source, check = configured_sources.find(books.whole, name), _check(precondition)
    if change.cron is not None:
        if not source.uris:
            raise _only_watched(name)
        terms = configured_sources.Terms(
            source.uris, source.scope, change.cron, _longest_pause(change.cron), timedelta(seconds=source.lag_seconds)
        )
        configured_sources.change(books.whole, name, terms, actor=books.principal.id, check=check)
        check = configured_sources.accept_any  # what follows is of the same request
    if change.paused is not None:
        configured_sources.pause(books.whole, name, paused=change.paused, actor=books.principal.id, check=check)
    return queries.schedule_entry(configured_sources.find(books.whole, name))


def remove(books: WholeBooks, name: str, precondition: Precondition = NOTHING_EXPECTED) -> None:
    """Takes a source off the schedule. What it brought, and the history of its runs, stay. Raises `RevisionError` as the others do."""
    configured_sources.remove(books.whole, name, actor=books.principal.id, check=_check(precondition))


def _check(precondition: Precondition) -> configured_sources.Check:
    """Raises `RevisionError`, with both versions, unless a source has the expected terms."""

    def check(session: Session, source: ConfiguredSource) -> None:
        if precondition.holds(configured_sources.revision(source)):
            return
        raise RevisionError(
            source.name,
            expected_version=configured_sources.earlier_terms(session, source.name, precondition.versions),
            current_version=configured_sources.terms_of(source),
        )

    return check


def test(books: WholeBooks, draft: SourceDraft) -> list[SourceTest]:
    """Tries the addresses of a source out: credentials, reach and a first page. Nothing is stored."""
    from ingest.sources import by_name

    kind = by_name(draft.source)
    _terms(books, kind, draft)
    return _tests(books, kind, draft.addresses)


def test_configured(books: WholeBooks, name: str) -> list[SourceTest]:
    """The same for a configured source; of one that is only watched there is nothing to try."""
    from ingest.sources import by_name

    source = configured_sources.find(books.whole, name)
    return _tests(books, by_name(source.source), configured_sources.addresses(books.whole, source))


def window_of(request: RunRequest) -> Window | None:
    """The days that are read again; None: the run goes on where the last one ended. Raises `UsageError` for days that cannot be."""
    from ingest.source import Window

    if request.since is None:
        if request.until is not None:
            raise UsageError("has no beginning", where="until", remedy="say since when, too")
        return None
    since = parse_instant(request.since, field="since").date()
    until = parse_instant(request.until, field="until").date() if request.until else None
    if since > now().date():
        raise UsageError(f"{request.since} has not come yet", where="since", remedy="name a day or month that has")
    if until is not None and until <= since:
        raise UsageError("the range is empty", where="until", remedy="it is the first day or month not read")
    return Window(since, until)


def asked_for(books: WholeBooks, name: str, window: Window | None) -> ConfiguredSource:
    """The source that somebody has read now; that is noted in the audit log. Raises `UsageError` if it has no address."""
    source = configured_sources.find(books.whole, name)
    if not source.uris:
        raise _only_watched(name)
    since, until = (window.since, window.until) if window else (None, None)
    configured_sources.note_run(books.whole, name, since=since, until=until, actor=books.principal.id)
    return source


def start_run(books: WholeBooks, name: str, request: RunRequest) -> SourceRunRow:
    """Begins to read a source in a thread, and returns the run as it begins.

    Raises `SourceBusyError` while a source of its kind is read, by whatever process.
    """
    from rootcost.operations.source_runs import BACKFILL, BY_HAND, read_source

    window = window_of(request)
    source = asked_for(books, name, window)
    beginning: SimpleQueue[int | Exception] = SimpleQueue()

    def refuse() -> None:
        raise configured_sources.SourceBusyError(
            f"a source of the kind {source.source} is being read", where=name, remedy="try again when that run has ended"
        )

    def read() -> None:
        cause = BACKFILL if window else BY_HAND
        try:
            read_source(books.whole, source, cause=cause, window=window, waiting=refuse, on_begin=beginning.put)
        except Exception as error:
            if not isinstance(error, configured_sources.SourceBusyError):
                log.exception("the run of %s ended", name)
            beginning.put(error)

    threading.Thread(target=read, name=f"run-{name}", daemon=True).start()
    run = beginning.get()
    if isinstance(run, Exception):
        raise run
    return queries.source_run(books, run)


def _only_watched(name: str) -> UsageError:
    return UsageError(
        "is only watched: it has no address to read", where=name, remedy="its rows come over HTTP; see docs/schedule.md"
    )


def _kind(kind: Source) -> SourceKind:
    access = kind.access
    return SourceKind(
        source=kind.name, kind=kind.kind, title=kind.title, addresses=list(access.addresses), cron=access.cron,
        lag_seconds=int(access.lag.total_seconds()), needs=access.needs, policy=access.policy,
    )  # fmt: skip


def _terms(books: WholeBooks, kind: Source, terms: SourceTerms) -> configured_sources.Terms:
    """The terms as they are stored. Raises `UsageError` that names the field."""
    if not terms.addresses and kind.kind == "bill":
        raise UsageError("a bill needs an address", where="addresses", remedy=f"e.g. {', '.join(kind.access.addresses)}")
    if terms.scope and kind.kind == "log":
        raise UsageError("only bills have datasets", where="scope", remedy="leave it out")
    _require_allowed(books, terms.addresses)
    cron = (terms.cron or kind.access.cron) if terms.addresses else ""
    lag = kind.access.lag if terms.expected_lag_seconds is None else timedelta(seconds=terms.expected_lag_seconds)
    return configured_sources.Terms(terms.addresses, terms.scope, cron, _longest_pause(cron), lag)


def _require_allowed(books: WholeBooks, uris: Iterable[str]) -> None:
    """Raises `UsageError` for addresses that only who has a shell at the home folder may name."""
    if books.principal.kind == "operator":
        return
    allowed_places = books.settings.serve.source_addresses
    for uri in uris:
        if "${" in uri:
            raise UsageError(
                "an address that is set over the API names no variable of this machine's environment",
                where="addresses",
                remedy="send the secret itself, which is stored aside, or set the source up at the command line",
            )
        if not is_under(uri, allowed_places):
            raise UsageError(
                f"{masked(uri)} is not where sources may lie: {', '.join(allowed_places) or 'nowhere'}",
                where="addresses",
                remedy="an administrator adds its folder or host to serve.source_addresses, or sets the source up at the command line",
            )


def _longest_pause(cron: str) -> timedelta:
    from rootcost.operations.cron import longest_pause

    return longest_pause(cron, after=now()) if cron else timedelta(0)


def _tests(books: WholeBooks, kind: Source, uris: Iterable[str]) -> list[SourceTest]:
    from ingest.probe import probe

    results = []
    for uri in uris:
        result = probe(books.whole, kind, uri)
        results.append(
            SourceTest(
                address=masked(uri), ok=result.ok, message=masked(result.message), rows=result.rows, newest=result.newest,
                problem_rows=result.problem_rows, needs=kind.access.needs, policy=kind.access.policy,
            )
        )  # fmt: skip
    return results
