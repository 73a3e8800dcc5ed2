"""Settled months: months whose published costs stay as they are, since facts that they were computed from were removed.

Facts are removed by retention or by the erasure of a period (`ledger.db.FactRemoval`). A settled month is not attributed any more, whatever
changes. What comes for it later is told with its money, and is in no cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from ledger.db import Database, FactRemoval

RETENTION: Final = "retention"
ERASURE: Final = "erasure"


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed of a month: of which tables, when, and by what."""

    tables: frozenset[str]
    at: datetime
    cause: str

    def __str__(self) -> str:
        """As it is told on pages and by commands.

        >>> str(Removal(frozenset({"spans"}), datetime(2026, 12, 1), "retention"))
        'facts removed on 2026-12-01 by retention'
        """
        return f"facts removed on {self.at:%Y-%m-%d} by {self.cause}"


@dataclass(frozen=True, slots=True)
class SettledMonth:
    """A settled month. `spans` is the fingerprint of the spans that it was computed from; `charges`, `charge_sums` and `span_rows` are
    what was left when the last removal ended: what there is beyond that came later.
    """

    month: str
    removals: tuple[Removal, ...]
    spans: str
    charges: str
    charge_sums: Mapping[str, str]
    span_rows: int

    def removal_of(self, table: str) -> Removal | None:
        """The last removal of rows of a table, if there was one."""
        return next((removal for removal in reversed(self.removals) if table in removal.tables), None)

    def __str__(self) -> str:
        """As it is told on pages and by commands."""
        return str(self.removals[-1])


def settled_months(database: Database) -> dict[str, SettledMonth]:
    """Every settled month, oldest first."""
    with database.session() as session:
        rows = session.scalars(sa.select(FactRemoval).order_by(FactRemoval.id)).all()
    by_month: dict[str, list[FactRemoval]] = {}
    for row in rows:
        for month in row.months:
            by_month.setdefault(month, []).append(row)
    return {month: _settled(month, removals) for month, removals in sorted(by_month.items())}


def _settled(month: str, rows: list[FactRemoval]) -> SettledMonth:
    first, last = rows[0].months[month], rows[-1].months[month]
    left_state: dict[str, Any] = last.get("left") or {}
    return SettledMonth(
        month=month,
        removals=tuple(Removal(frozenset(row.tables), row.begun_at, row.cause) for row in rows),
        spans=first["spans"],
        charges=left_state.get("charges", ""),
        charge_sums=left_state.get("charge_sums", {}),
        span_rows=int(left_state.get("span_rows", 0)),
    )
