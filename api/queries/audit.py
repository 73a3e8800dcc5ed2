"""The audit log, by time, actor, action and object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import object_session

from api.models import AuditEntry
from api.queries.gate import WholeBooks
from api.queries.listing import Listing, Order, SqlListing
from ledger.audit import Audit, AuditPersonal
from ledger.errors import UsageError
from ledger.periods import parse_instant


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Entries of ``[start, end)`` by one actor, of one action, about one object."""

    start: datetime | None = None
    end: datetime | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None

    @classmethod
    def parse(cls, *, start: str | None, end: str | None, timezone: str, **conditions: Any) -> AuditQuery:
        """With times as text. Raises `UsageError` for a time that is none, and for an empty range."""
        first = parse_instant(start, timezone=timezone, field="start") if start else None
        last = parse_instant(end, timezone=timezone, field="end") if end else None
        if first is not None and last is not None and last <= first:
            raise UsageError(
                "the range is empty", where="end", remedy="ranges are [start, end): end is the first instant left out"
            )
        return cls(start=first, end=last, **conditions)


def audit_entries(books: WholeBooks, query: AuditQuery) -> Listing[AuditEntry]:
    """The entries that a query selects, newest first."""
    wanted_values = {Audit.actor: query.actor, Audit.action: query.action, Audit.subject: query.subject}
    conditions = [column == value for column, value in wanted_values.items() if value is not None]
    if query.start is not None:
        conditions.append(Audit.at >= query.start)
    if query.end is not None:
        conditions.append(Audit.at < query.end)
    newest = {Order("sequence", descending=True): Audit.sequence}
    return SqlListing(books.whole.database, AuditEntry, sa.select(Audit).where(*conditions), newest, _entry)


def _entry(entry: Audit) -> AuditEntry:
    fields = ("sequence", "at", "actor", "actor_kind", "action", "before", "after", "previous_hash", "hash")
    clear_values: dict[str, str] = {}
    session = object_session(entry)
    if entry.personal and session is not None:
        of_entry = sa.select(AuditPersonal).where(AuditPersonal.sequence == entry.sequence)
        clear_values = {row.field: row.value for row in session.scalars(of_entry)}
    personal = {name: clear_values.get(name) for name in entry.personal or {}}
    return AuditEntry(**{name: getattr(entry, name) for name in fields}, object=entry.subject, personal=personal)
