"""Erasure of a person, or of the facts of a period: what would be erased, and doing it, for the command line and the API alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.models import Erasure, ErasureRequest
from api.queries.gate import WholeBooks
from ledger.backup import addresses_in_use
from ledger.erasure import ErasureReport, erase_person, plan_erasure
from ledger.errors import UsageError
from ledger.identifiers import Identifiers
from ledger.locks import attribution_lock, backup_lock, write_lock
from ledger.periods import parse_bound

if TYPE_CHECKING:
    from attribution.removal import Period, RemovalReport
    from ledger.books import Books
    from ledger.store import Store


Drain = Callable[["Store"], object]
"""Books what waits in the spool."""


@contextmanager
def undisturbed(books: Books, drain: Drain, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """The locks of an erasure: nobody backs up, attributes or writes, and what waited in the spool is booked."""
    with backup_lock(books, on_wait=on_wait), attribution_lock(books, on_wait=on_wait), write_lock(books, on_wait=on_wait):
        drain(books.store)
        yield


def named_person(identifiers: Sequence[str], reason: str) -> Identifiers:
    """A person by its identifiers. Raises `UsageError` for a reason that names it: the reason stays in the audit log."""
    person = Identifiers.of(identifiers)
    if person.is_in(reason):
        raise UsageError("names the person", where="reason", remedy="leave the person out: the reason stays in the audit log")
    return person


def period_of(start: str, end: str, sources: Sequence[str]) -> Period:
    """A period as people write it. Raises `UsageError` for an empty one, and for a source that there is not."""
    from attribution.removal import Period
    from ingest.sources import by_name

    first, last = parse_bound(start, field="from"), parse_bound(end, field="to")
    if last <= first:
        raise UsageError("the period is empty", where="to", remedy="it is the first day or month that stays")
    for source in sources:
        by_name(source)
    return Period(first, last, tuple(dict.fromkeys(sources)))


class Erasures:
    """Erasures for the API: an `api.operations.ErasureOperations`. `drain` books what waits in the spool of the service."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def preview(self, books: WholeBooks, request: ErasureRequest) -> Erasure:
        """What an erasure would do; nothing is changed."""
        if request.person is not None:
            return _person(plan_erasure(books.whole, named_person(request.person, request.reason)))
        from attribution import removal

        with attribution_lock(books.whole):
            return _period(books.whole, removal.plan_erasure(books.whole, _period_named(request)))

    def erase(self, books: WholeBooks, request: ErasureRequest) -> Erasure:
        """Erases; audited with the principal of the books."""
        actor = books.principal.id
        if request.person is not None:
            person = named_person(request.person, request.reason)
            with undisturbed(books.whole, self._drain):
                return _person(erase_person(books.whole, person, actor=actor, reason=request.reason))
        from attribution import removal

        period = _period_named(request)
        with undisturbed(books.whole, self._drain):
            report = removal.erase_period(books.whole, period, actor=actor, reason=request.reason)
            return _period(books.whole, report)


def _period_named(request: ErasureRequest) -> Period:
    assert request.period is not None
    return period_of(request.period.start, request.period.end, request.period.sources)


def _person(report: ErasureReport) -> Erasure:
    return Erasure(
        rows=report.rows,
        spans_with_content=report.spans_with_content,
        audit_entries=report.audit_entries,
        files=[*report.files.removed, *report.files.blotted],
        remaining=[*report.partitions, *report.files.remaining],
        backups=report.backups,
        purged=report.is_purged,
    )


def _period(books: Books, report: RemovalReport) -> Erasure:
    return Erasure(
        rows=report.rows,
        settled_months=report.settled,
        kept=report.kept,
        files=report.files,
        backups=addresses_in_use(books),
        purged=report.is_purged,
    )
