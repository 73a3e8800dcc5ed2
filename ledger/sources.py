"""Configured sources: add, change, pause, resume, remove, with an audit row for each change; and the result of every run."""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.addresses import masked
from ledger.audit import Audit, record, terms_digest
from ledger.books import Books
from ledger.db import ConfiguredSource, SourceRun, lock_row
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now
from ledger.source_secrets import addresses_to_read, forget_secrets, store_secrets

Status = Literal["done", "problems", "failed"]
"""Result of a run: everything was read; some rows were left out; an address could not be read, so that it is retried soon.

A run that is still ``running`` has no end yet; one whose process died is ``cut off``."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class UnknownSourceError(ObjectMissingError):
    """No source of that name is configured."""

    exit_code = 2


class SourceExistsError(UsageError):
    """A source of that name is configured already."""


class SourceBusyError(UsageError):
    """A source of this kind is being read: its checkpoints are shared, so it is read by one at a time."""


Check = Callable[[Session, ConfiguredSource], None]
"""Raises where a source is not what a change was made from."""


def accept_any(_session: Session, _source: ConfiguredSource) -> None:
    """For changes of whatever is there."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Where a source lies and when it is read. `pause` is the longest interval of `cron`; `lag` is the maximum age of the newest row of a healthy one."""

    uris: Sequence[str]
    scope: str | None
    cron: str
    pause: timedelta
    lag: timedelta


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a run. `money_in` is the exact billed total by currency."""

    status: Status
    files: int = 0
    rows: int = 0
    rows_changed: int = 0
    errors: int = 0
    warnings: int = 0
    money_in: Mapping[str, Decimal] = field(default_factory=dict)
    newest: datetime | None = None
    error: str | None = None


def process() -> str:
    """Identifier of this process: host and process id.

    >>> process().endswith(f":{os.getpid()}")
    True
    """
    return f"{socket.gethostname()}:{os.getpid()}"


def list_sources(books: Books) -> list[ConfiguredSource]:
    """All configured sources, by name."""
    with books.database.session() as session:
        return list(session.scalars(sa.select(ConfiguredSource).order_by(ConfiguredSource.name)))


def find(books: Books, name: str) -> ConfiguredSource:
    """The source of that name. Raises `UnknownSourceError` that suggests a similar name."""
    with books.database.session() as session:
        return _get(session, name)


def revision(source: ConfiguredSource) -> str:
    """Digest of the terms of a source: it changes exactly when they do."""
    return terms_digest(terms_of(source))


def earlier_terms(session: Session, name: str, revisions: Collection[str]) -> dict[str, Any] | None:
    """The newest terms that a source of that name ever had whose digest is one of these; None if there are none. The audit log has them."""
    entries = sa.select(Audit.after).where(Audit.subject == name, Audit.action.like("source.%"), Audit.after.is_not(None))
    all_terms = session.scalars(entries.order_by(Audit.sequence.desc()))
    return next((terms for terms in all_terms if terms and terms_digest(terms) in revisions), None)


def add(books: Books, name: str, terms: Terms, *, source: str, kind: str, actor: str) -> ConfiguredSource:
    """Configures a source. Raises `SourceExistsError` if the name is taken. Secrets in its addresses are stored aside (`ledger.source_secrets`)."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a source",
            where="name",
            remedy="use letters, digits, '-', '_' and '.', e.g. aws-prod",
        )
    at = now()
    new_source = ConfiguredSource(name=name, source=source, kind=kind, paused=False, created_at=at, changed_at=at, failures=0)
    _set_terms(new_source, terms)
    try:
        with books.database.session() as session:
            session.add(new_source)
            session.flush()
            store_secrets(books.home, name, terms.uris)  # now that the name is known to be free
            record(session, actor, "source.add", name, after=terms_of(new_source))
    except sa.exc.IntegrityError as error:
        raise SourceExistsError(
            f"a source {name!r} is configured already",
            where="name",
            remedy=f"choose another name, change it, or: rootcost sources remove {name}",
        ) from error
    return new_source


def change(books: Books, name: str, terms: Terms, *, actor: str, check: Check = accept_any) -> ConfiguredSource:
    """Gives a source other terms. It is due by its new schedule, its failures are forgotten, and it has time to become fresh.

    An address that is given as it is shown, with its secret replaced, keeps the secret that it has.
    """
    with books.database.session() as session:
        source = _locked(session, name, check)
        before, earlier = terms_of(source), revision(source)
        _set_terms(source, terms)
        has_new_secrets = store_secrets(books.home, name, terms.uris)
        if revision(source) != earlier or has_new_secrets:
            _start_anew(source)
            record(session, actor, "source.change", name, before=before, after=terms_of(source))
        return source


def pause(books: Books, name: str, *, paused: bool, actor: str, check: Check = accept_any) -> ConfiguredSource:
    """Pauses or resumes a source. Resuming resets its failures."""
    with books.database.session() as session:
        source = _locked(session, name, check)
        if source.paused != paused:
            before = terms_of(source)
            source.paused = paused
            _start_anew(source)
            record(session, actor, "source.pause" if paused else "source.resume", name, before=before, after=terms_of(source))
        return source


def remove(books: Books, name: str, *, actor: str, check: Check = accept_any) -> None:
    """Removes a source from the schedule. Its rows and the history of its runs stay."""
    with books.database.session() as session:
        source = _locked(session, name, check)
        record(session, actor, "source.remove", name, before=terms_of(source))
        session.delete(source)
    forget_secrets(books.home, name)


def addresses(books: Books, source: ConfiguredSource) -> list[str]:
    """The addresses of a source with their secrets, to read it. Raises `UsageError` for a secret that is not on this machine."""
    return addresses_to_read(books.home, source.name, source.uris)


def note_run(books: Books, name: str, *, since: date | None, until: date | None, actor: str) -> None:
    """Records who has a source read now, or days of it again."""
    days = {"since": since.isoformat() if since else None, "until": until.isoformat() if until else None}
    with books.database.session() as session:
        _get(session, name)
        record(session, actor, "source.run", name, after=days)


def begin(books: Books, source: ConfiguredSource, *, cause: str, since: date | None = None, until: date | None = None) -> int:
    """Records the start of a run; returns its id."""
    run = SourceRun(
        name=source.name, source=source.source, cause=cause, runner=process(), started_at=now(), status="running", money_in={},
        since=since.isoformat() if since else None, until=until.isoformat() if until else None,
        files=0, rows=0, rows_changed=0, errors=0, warnings=0,
    )  # fmt: skip
    with books.database.session() as session:
        session.add(run)
        session.flush()
        return run.id


def finish(books: Books, run_id: int, outcome: Outcome) -> SourceRun:
    """Records the result of a run and updates the state of its source."""
    with books.database.session() as session:
        run = session.get_one(SourceRun, run_id)
        run.finished_at, run.status, run.error = now(), outcome.status, outcome.error
        for name in ("files", "rows", "rows_changed", "errors", "warnings"):
            setattr(run, name, getattr(outcome, name))
        run.money_in = {currency: format(amount, "f") for currency, amount in sorted(outcome.money_in.items())}
        run.newest_at = outcome.newest
        source = session.get(ConfiguredSource, run.name)
        if source is not None:
            source.failures = source.failures + 1 if outcome.status == "failed" else 0
            source.newest_at = max((t for t in (source.newest_at, outcome.newest) if t is not None), default=None)
            if outcome.status != "failed":
                source.succeeded_at = run.finished_at
        return run


def cut_off(books: Books, run_id: int) -> bool:
    """Records that the process of a run ended before the run; returns False if the run had ended."""
    with books.database.session() as session:
        run = session.get_one(SourceRun, run_id)
        if run.finished_at is not None:
            return False
        run.finished_at, run.status, run.error = now(), "cut off", f"{run.runner} ended before the run did"
        return True


def unfinished(books: Books) -> list[SourceRun]:
    """Runs without a recorded end."""
    with books.database.session() as session:
        return list(session.scalars(sa.select(SourceRun).where(SourceRun.finished_at.is_(None)).order_by(SourceRun.id)))


def _get(session: Session, name: str) -> ConfiguredSource:
    source = session.get(ConfiguredSource, name)
    if source is None:
        names = list(session.scalars(sa.select(ConfiguredSource.name).order_by(ConfiguredSource.name)))
        matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        choices = f"configured are {', '.join(names)}" if names else "none is configured yet: rootcost sources add"
        raise UnknownSourceError(
            f"no source is named {name!r}", where="name", remedy=f"did you mean {matches[0]!r}? {choices}" if matches else choices
        )
    return source


def _locked(session: Session, name: str, check: Check) -> ConfiguredSource:
    """The source of that name, which nobody else changes until the transaction ends."""
    lock_row(session, ConfiguredSource, name)
    source = _get(session, name)
    check(session, source)
    return source


def _set_terms(source: ConfiguredSource, terms: Terms) -> None:
    source.uris, source.scope, source.cron = [masked(uri) for uri in terms.uris], terms.scope, terms.cron
    source.every_seconds, source.lag_seconds = int(terms.pause.total_seconds()), int(terms.lag.total_seconds())


def _start_anew(source: ConfiguredSource) -> None:
    source.changed_at = now()
    source.failures, source.due_at, source.stale_since = 0, None, None


def terms_of(source: ConfiguredSource) -> dict[str, Any]:
    """The terms of a source, as the audit log has them."""
    return {name: getattr(source, name) for name in ("source", "uris", "scope", "cron", "lag_seconds", "paused")}
