"""Published months: for each month the run in force, and the rollups of usage that it was built from. (MO-2)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.db import Database, Published, Run


@dataclass(frozen=True, slots=True)
class PublishedMonth:
    """A month and the run in force for it."""

    month: str
    run_id: str
    rollup_ids: tuple[str, ...]
    published_at: datetime


def published_months(database: Database) -> list[PublishedMonth]:
    """Every month that has a published run, oldest first."""
    return list(database.unless_changed("published", _months))


def _months(session: Session) -> tuple[PublishedMonth, ...]:
    rows = session.scalars(sa.select(Published).order_by(Published.month))
    return tuple(PublishedMonth(r.month, r.run_id, tuple(r.rollup_ids), r.published_at) for r in rows)


def runs_in_force(database: Database) -> dict[str, str]:
    """Month → id of its published run, oldest month first."""
    return {p.month: p.run_id for p in published_months(database)}


def rollups_in_force(database: Database) -> set[str]:
    """Ids of the rollups that a published month shows."""
    return {rollup_id for p in published_months(database) for rollup_id in p.rollup_ids}


def inputs_in_force(database: Database) -> dict[str, dict[str, str]]:
    """Month → fingerprints of the inputs that its published run was computed from."""
    with database.session() as session:
        pairs = session.execute(sa.select(Published.month, Run).join(Run, Run.run_id == Published.run_id)).all()
        return {month: dict(run.inputs.get(month) or {}) for month, run in pairs}
