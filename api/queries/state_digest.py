"""What answers stand on, as texts that change with it: published runs, tables of the store, rows of the database.

Nothing of the answer is computed. The database is asked for counts, newest ids and times, the store for the number of a table's last commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from api.queries.gate import ScopedBooks
from ledger.audit import Audit, AuditPersonal
from ledger.base import Base
from ledger.db import Alert, BudgetRequest, BudgetRevision, Owner, Run, SourceRun, StoredRule
from ledger.periods import now
from ledger.published import published_months
from ledger.tables import Table

_Expressions = Sequence[sa.ColumnElement[Any]]


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


_NEWEST: Final[Mapping[type[Base], Callable[[datetime], _Expressions]]] = {
    Alert: lambda _: (
        sa.func.count(),
        sa.func.max(Alert.created_at),
        sa.func.count(Alert.delivered_at),
        sa.func.max(Alert.changed_at),
        sa.func.sum(Alert.attempts),
    ),
    Audit: lambda _: (sa.func.max(Audit.sequence),),
    AuditPersonal: lambda _: (sa.func.count(AuditPersonal.sequence),),
    BudgetRequest: lambda at: (
        sa.func.count(),
        sa.func.count(BudgetRequest.decided_at),
        _count(BudgetRequest.expires_at <= at),
    ),
    # A raise ends, terms begin to hold, and a period begins without any change; periods begin at quarters of an hour at the most.
    BudgetRevision: lambda at: (
        sa.func.max(BudgetRevision.id),
        _count(BudgetRevision.valid_from <= at),
        _count(BudgetRevision.raised_until <= at),
        sa.literal(f"{at:%Y-%m-%dT%H}:{at.minute // 15}"),
    ),
    # An owner's interval also begins and ends without any change.
    Owner: lambda at: (sa.func.max(Owner.id), _count(Owner.valid_from <= at), _count(Owner.valid_to <= at)),
    Run: lambda _: (sa.func.count(), sa.func.max(Run.started_at), sa.func.count(Run.finished_at), sa.func.max(Run.finished_at)),
    StoredRule: lambda _: (sa.func.max(StoredRule.id),),
    SourceRun: lambda _: (sa.func.max(SourceRun.id), sa.func.count(SourceRun.finished_at), sa.func.max(SourceRun.finished_at)),
}
"""What changes whenever a row of the table is added, changed or removed, at an instant."""


def state_of(books: ScopedBooks, tables: Sequence[Table], rows: Sequence[type[Base]]) -> Iterator[str]:
    """Texts that change whenever a publication, a commit to one of the tables or a change of these rows does."""
    for month in published_months(books.whole.database):
        yield f"{month.month} {month.run_id} {month.published_at} {','.join(month.rollup_ids)}"
    for table in tables:
        yield f"{table.name} {books.whole.store.version(table)}"
    at = now()
    with books.whole.database.session() as session:
        for model in rows:
            newest = session.execute(sa.select(*_NEWEST[model](at)).select_from(model)).one()
            yield f"{model.__tablename__} {tuple(newest)}"
