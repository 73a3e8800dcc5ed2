"""What answers stand on, as texts that change with it: published runs, tables of the store, rows of the database.

Nothing of the answer is computed. The database is asked for newest ids and times, once for every revision of it; the store for the number of a
table's last commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.alert_tables import AlertEvent, AlertMute
from ledger.audit import Audit, AuditPersonal
from ledger.base import Base
from ledger.books import Books
from ledger.budgets.reservations import COMMITTED, OPEN, RELEASED, UNCERTAIN
from ledger.db import (
    Alert,
    Budget,
    BudgetRequest,
    BudgetRevision,
    FactRemoval,
    Owner,
    ReservationLevel,
    Run,
    SourceRun,
    StoredRule,
)
from ledger.periods import now
from ledger.published import published_months
from ledger.tables import Table

_Expressions = Sequence[sa.ColumnElement[Any]]


def _next(edge: sa.orm.InstrumentedAttribute[Any], at: datetime) -> sa.ColumnElement[Any]:
    """The first edge of an interval that is still to come."""
    return sa.func.min(sa.case((edge > at, edge)))


_NEWEST: Final[Mapping[type[Base], Callable[[datetime], _Expressions]]] = {
    Alert: lambda _: (
        sa.func.count(),
        sa.func.max(Alert.created_at),
        sa.func.count(Alert.delivered_at),
        sa.func.max(Alert.changed_at),
        sa.func.sum(Alert.attempts),
    ),
    AlertEvent: lambda _: (sa.func.max(AlertEvent.id), sa.func.count()),
    AlertMute: lambda at: (
        sa.func.max(AlertMute.id),
        sa.func.count(sa.case((AlertMute.expires_at > at, 1))),
        _next(AlertMute.expires_at, at),
    ),
    Audit: lambda _: (sa.func.max(Audit.sequence),),
    AuditPersonal: lambda _: (sa.func.count(AuditPersonal.sequence),),
    Budget: lambda _: (sa.func.count(), sa.func.count(Budget.ended_at)),
    BudgetRequest: lambda at: (
        sa.func.count(),
        sa.func.count(BudgetRequest.decided_at),
        _next(BudgetRequest.expires_at, at),
    ),
    # A raise ends, terms begin to hold, and a period begins without any change; periods begin at quarters of an hour at the most.
    BudgetRevision: lambda at: (
        sa.func.max(BudgetRevision.id),
        _next(BudgetRevision.valid_from, at),
        _next(BudgetRevision.raised_until, at),
        sa.literal(f"{at:%Y-%m-%dT%H}:{at.minute // 15}"),
    ),
    FactRemoval: lambda _: (sa.func.max(FactRemoval.id), sa.func.count(FactRemoval.finished_at)),
    # An owner's interval also begins and ends without any change.
    Owner: lambda at: (sa.func.max(Owner.id), _next(Owner.valid_from, at), _next(Owner.valid_to, at)),
    # What a hold counts for changes with its state only, and no state comes back.
    ReservationLevel: lambda _: (
        sa.func.max(ReservationLevel.id),
        *(sa.func.count(sa.case((ReservationLevel.state == state, 1))) for state in (OPEN, UNCERTAIN, COMMITTED, RELEASED)),
    ),
    Run: lambda _: (sa.func.count(), sa.func.max(Run.started_at), sa.func.count(Run.finished_at), sa.func.max(Run.finished_at)),
    StoredRule: lambda _: (sa.func.max(StoredRule.id),),
    SourceRun: lambda _: (sa.func.max(SourceRun.id), sa.func.count(SourceRun.finished_at), sa.func.max(SourceRun.finished_at)),
}
"""What changes whenever a row of the table is added, changed or removed, at an instant. Times to come are when it changes by itself."""


@dataclass(frozen=True, slots=True)
class _Newest:
    """What is newest in a table of the database, when it was asked, and when it changes by itself."""

    text: str
    at: datetime
    until: datetime

    def still_holds(self) -> bool:
        """Whether nothing has begun or ended since."""
        return self.at <= now() < self.until


def _newest(model: type[Base], session: Session) -> _Newest:
    at = now()
    columns = tuple(session.execute(sa.select(*_NEWEST[model](at)).select_from(model)).one())
    edges = [value for value in columns if isinstance(value, datetime) and value > at]
    quarter_start = at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
    return _Newest(str(columns), at, min([*edges, quarter_start + timedelta(minutes=15)]))


def state_of(books: Books, tables: Sequence[Table], rows: Sequence[type[Base]]) -> Iterator[str]:
    """Texts that change whenever a publication, a commit to one of the tables or a change of these rows does."""
    for month in published_months(books.database):
        yield f"{month.month} {month.run_id} {month.published_at} {','.join(month.rollup_ids)}"
    for table in tables:
        yield f"{table.name} {books.store.version(table)}"
    for model in rows:
        name = f"newest {model.__tablename__}"
        yield f"{name} {books.database.unless_changed(name, partial(_newest, model), still_holds=_Newest.still_holds).text}"
