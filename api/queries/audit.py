"""The audit log, by time, actor, action and object."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from api.models import AuditEntry, AuditPage
from api.queries.gate import WholeBooks
from ledger.audit import Audit, AuditPersonal
from ledger.errors import UsageError
from ledger.periods import parse_instant


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Entries of ``[start, end)`` by one actor, of one action, about one object; those before `cursor`, newest first."""

    start: datetime | None = None
    end: datetime | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    cursor: int | None = None
    limit: int = 100

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


def audit_entries(books: WholeBooks, query: AuditQuery) -> AuditPage:
    """One page of the entries that a query selects."""
    wanted_values = {Audit.actor: query.actor, Audit.action: query.action, Audit.subject: query.subject}
    conditions = [column == value for column, value in wanted_values.items() if value is not None]
    if query.start is not None:
        conditions.append(Audit.at >= query.start)
    if query.end is not None:
        conditions.append(Audit.at < query.end)
    newest = sa.select(Audit).where(*conditions).order_by(Audit.sequence.desc()).limit(query.limit + 1)
    if query.cursor is not None:
        newest = newest.where(Audit.sequence < query.cursor)
    with books.whole.database.session() as session:
        total = session.scalar(sa.select(sa.func.count()).select_from(Audit).where(*conditions)) or 0
        entries = session.scalars(newest).all()
        page = entries[: query.limit]
        clear_values: dict[int, dict[str, str]] = defaultdict(dict)
        of_page = AuditPersonal.sequence.in_([entry.sequence for entry in page if entry.personal])
        for row in session.scalars(sa.select(AuditPersonal).where(of_page)):
            clear_values[row.sequence][row.field] = row.value
        rows = [_entry(entry, clear_values[entry.sequence]) for entry in page]
    has_more = len(entries) > query.limit
    return AuditPage(rows=rows, total=total, limit=query.limit, next=rows[-1].sequence if has_more else None)


def _entry(entry: Audit, clear_values: dict[str, str]) -> AuditEntry:
    fields = ("sequence", "at", "actor", "actor_kind", "action", "before", "after", "previous_hash", "hash")
    personal = {name: clear_values.get(name) for name in entry.personal or {}}
    return AuditEntry(**{name: getattr(entry, name) for name in fields}, object=entry.subject, personal=personal)
