"""Alerts for stale sources: one for each time a source becomes stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.alerts import OPEN_STATES, add_new, alert_id, close
from ledger.db import Alert, ConfiguredSource
from ledger.periods import now

if TYPE_CHECKING:
    from api.models import SourceStatus
    from ledger.books import Books


def raise_alerts(books: Books) -> list[Alert]:
    """Raises an alert for each source that became stale since the last check, and resets those that are fresh again."""
    from api.queries import of_operator, sources

    changed_sources = [source for source in sources(of_operator(books)) if source.stale != (source.stale_since is not None)]
    rung = []
    for source in changed_sources:
        with books.database.session() as session:
            stored_source = session.get(ConfiguredSource, source.name)
            if stored_source is None:
                continue
            if not source.stale:
                stored_source.stale_since = None
                _resolve(session, source.name)
                continue
            stored_source.stale_since = now()
            alert = _alert(source)
            rung += add_new(session, [alert])
    return rung


def _resolve(session: Session, name: str) -> None:
    is_of_source = (Alert.kind == "stale_source") & (Alert.subject == name) & Alert.state.in_(OPEN_STATES)
    for alert in session.scalars(sa.select(Alert).where(is_of_source)).all():
        close(session, alert, "resolved", text=f"Source {name} is fresh again.")


def _alert(source: SourceStatus) -> Alert:
    at = now()
    newest = f"its newest row is of {source.newest:%Y-%m-%d %H:%M} UTC" if source.newest else "it has not brought a single row"
    last = source.last_run
    because = f" The last run failed: {last.error}" if last is not None and last.status == "failed" and last.error else ""
    return Alert(
        alert_id=alert_id(f"stale|{source.name}|{at.isoformat()}"),
        kind="stale_source",
        severity="warning",
        subject=source.name,
        text=f"Source {source.name} ({source.source}) is stale: {newest}, and one of the last "
        f"{duration_text(source.stale_after_seconds)} was expected.{because}",
        address=f"/v1/sources/{source.name}/runs",
        payload={
            "source": source.name,
            "kind": source.source,
            "newest": source.newest.isoformat() if source.newest else None,
            "stale_after_seconds": source.stale_after_seconds,
            "failures": source.failures,
            "due_at": source.due_at.isoformat() if source.due_at else None,
        },
        figure=f"newest row {source.newest:%Y-%m-%d %H:%M} UTC" if source.newest else "no row",
        limit_text=f"one of the last {duration_text(source.stale_after_seconds)}",
        next_step=f"rootcost sources test {source.name}: it says what is wrong",
        created_at=at,
        attempts=0,
    )


def duration_text(seconds: int) -> str:
    """A duration in words.

    >>> duration_text(90), duration_text(7200), duration_text(151200), duration_text(3 * 86400)
    ('2 minutes', '2 hours', '42 hours', '3 days')
    """
    if seconds < 7200:
        return f"{max(1, (seconds + 30) // 60)} minutes" if seconds >= 90 else "minute"
    return f"{round(seconds / 3600)} hours" if seconds < 2 * 86400 else f"{round(seconds / 86400)} days"
