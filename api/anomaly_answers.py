"""Answers to anomalies, and mutes of what they are about: each in one transaction with its entry in the audit log."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.alert_responses import add_mute, aware
from api.models import AnomalyAnswer, AnomalyMute, AnomalyRow, MuteRow, NewMute
from api.queries import anomaly_rows as queries
from api.queries.gate import ScopedBooks
from ledger.alert_tables import AlertMute
from ledger.alerting.anomalies import KIND, subject_of
from ledger.alerting.anomaly_answers import add_answer
from ledger.alerting.responses import unmute
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now


def answer_anomaly(books: ScopedBooks, anomaly_id: str, answer: AnomalyAnswer) -> AnomalyRow:
    """Answers an anomaly of the principal's; returns it as it is then."""
    row = _cause(books, anomaly_id)
    until = None if answer.until is None else aware(answer.until)
    with books.whole.database.session() as session:
        add_answer(session, row, books.principal.id, answer.answer, name=books.principal.name, reason=answer.reason, until=until)
    return queries.anomaly(books, anomaly_id)


def mute_anomaly(books: ScopedBooks, anomaly_id: str, terms: AnomalyMute) -> MuteRow:
    """Nobody is told of anomalies of its scope until then. Who has a team's budgets mutes what is that team's."""
    row = _cause(books, anomaly_id)
    team = "" if books.sees_all else row["team"] or ""
    return add_mute(books, NewMute(kind=KIND, team=team, subject=subject_of(row), reason=terms.reason, until=terms.until))


def unmute_anomaly(books: ScopedBooks, anomaly_id: str) -> None:
    """Ends the mutes of its scope that are in force and the principal's. Raises `ObjectMissingError` where there is none."""
    row = _cause(books, anomaly_id)
    with books.whole.database.session() as session:
        is_of_it = (AlertMute.kind == KIND, AlertMute.subject == subject_of(row), AlertMute.expires_at > now())
        mutes = [mute for mute in session.scalars(sa.select(AlertMute).where(*is_of_it)) if books.owns(mute.team or None)]
        if not mutes:
            raise ObjectMissingError("it is not muted", where=anomaly_id, remedy="GET /v1/alert-mutes lists what is")
        for mute in mutes:
            unmute(session, books.principal.id, mute)


def _cause(books: ScopedBooks, anomaly_id: str) -> dict[str, Any]:
    """The row of the table of an anomaly that has an incident of its own."""
    row = queries.ledger_row(books, anomaly_id)
    if row["part_of"] is not None:
        raise UsageError("it is part of another", where=anomaly_id, remedy=f"answer {row['part_of']}, which has the same cause")
    return row
