"""Retention: what is older than the settings say is removed, once a day by `rootcost serve` and with each `rootcost maintenance`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger.books import Books


@dataclass(slots=True)
class RetentionCounts:
    """What was removed, or would be: rows and files by name, and the months whose costs stay and are settled."""

    counts: dict[str, int] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)


def remove_outdated(books: Books, *, dry_run: bool = False) -> RetentionCounts:
    """Removes it. The caller holds the locks for attributing and for writing. While a backup copies files, it is done the next time."""
    settings = books.settings.maintenance
    days = (settings.spans_days, settings.calls_days, settings.content_days, settings.problems_days, settings.raw_days)
    if not any((*days, settings.personal_days)) and not _has_unfinished(books):
        return RetentionCounts()
    from attribution import removal
    from ledger import retention
    from ledger.locks import BACKUP, lock_of

    lock = lock_of(books, BACKUP)
    if not lock.acquire():
        return RetentionCounts()
    try:
        facts = removal.remove_outdated(books, dry_run=dry_run)
        other_counts = asdict(retention.remove_outdated(books, dry_run=dry_run))
    finally:
        lock.release()
    return RetentionCounts({name: count for name, count in (facts.rows | other_counts).items() if count}, facts.settled)


def _has_unfinished(books: Books) -> bool:
    """Whether an erasure was broken off."""
    import sqlalchemy as sa

    from ledger.db import FactRemoval

    with books.database.session() as session:
        return session.scalar(sa.select(FactRemoval.id).where(FactRemoval.finished_at.is_(None)).limit(1)) is not None
