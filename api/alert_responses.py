"""Answers to alerts, tests of receivers, and mutes: each in one transaction with its entry in the audit log."""

from __future__ import annotations

from datetime import UTC, datetime

from api.models import AlertDetail, AlertResponse, AlertRow, MuteRow, NewMute
from api.queries import alert_rows as queries
from api.queries.gate import ScopedBooks, WholeBooks
from ledger.alert_tables import Alert, AlertMute
from ledger.alerting import outbox, responses
from ledger.alerts import add_new, alert_id
from ledger.audit import record
from ledger.errors import DeniedError, ObjectMissingError, UsageError
from ledger.periods import now


def respond(books: ScopedBooks, alert: str, response: AlertResponse) -> AlertDetail:
    """Answers an alert of the principal's; returns it as it is then."""
    actor, name = books.principal.id, books.principal.name
    with books.whole.database.session() as session:
        row = queries.visible_alert(books, session, alert)
        if response.action == "acknowledge":
            responses.acknowledge(session, row, actor, name=name, text=response.text)
        elif response.action == "snooze":
            if response.until is None:
                raise UsageError("a snooze needs an end", where="until", remedy="say until when nothing is to be sent")
            responses.snooze(session, row, actor, aware(response.until), name=name, text=response.text)
        elif response.action == "comment":
            if not response.text.strip():
                raise UsageError("a comment needs a text", where="text", remedy="say what others should know")
            responses.comment(session, row, actor, response.text, name=name)
        elif response.action == "resolve":
            responses.resolve(session, row, actor, name=name, text=response.text)
        else:
            record(session, actor, "alert.retry", row.alert_id)
            outbox.retry(session, row.alert_id, now())
    return queries.alert(books, alert)


def try_channel(books: WholeBooks, channel: str) -> AlertRow:
    """Raises an alert for one receiver only; `rootcost serve` delivers it."""
    names = [receiver.name for receiver in books.settings.alerts.receivers()]
    if channel not in names:
        raise ObjectMissingError("there is no such channel", where=channel, remedy=f"there are: {', '.join(names) or 'none'}")
    at = now()
    test = Alert(
        alert_id=alert_id(f"test|{channel}|{at.isoformat()}"),
        kind="test",
        severity="info",
        subject=f"Test of {channel}",
        text=f"This is a test of the channel {channel}, asked for by {books.principal.name}. Nothing is wrong.",
        payload={},
        figure="1 of 1 channels",
        limit_text="none",
        next_step="None: if you read this, the channel works.",
        created_at=at,
        attempts=0,
        state="resolved",
        channels=[channel],
    )
    with books.whole.database.session() as session:
        record(session, books.principal.id, "alert.test", channel)
        add_new(session, [test])
    return AlertRow(**{name: getattr(test, name) for name in AlertRow.model_fields})


def add_mute(books: ScopedBooks, terms: NewMute) -> MuteRow:
    """Mutes alerts. Who has a team's budgets only may mute that team's alerts only."""
    if not books.owns(terms.team or None):
        raise DeniedError(
            f"{books.principal.name} may mute alerts of {', '.join(sorted(books.teams or ()))} only",
            where="team",
            remedy="name one of these teams, or ask an administrator",
        )
    with books.whole.database.session() as session:
        row = responses.mute(
            session, books.principal.id, kind=terms.kind, team=terms.team, subject=terms.subject, reason=terms.reason,
            until=aware(terms.until),
        )  # fmt: skip
        return MuteRow(**{name: getattr(row, name) for name in MuteRow.model_fields})


def end_mute(books: ScopedBooks, number: int) -> None:
    """Ends a mute now. Raises `ObjectMissingError` if it is not in force, or not the principal's."""
    with books.whole.database.session() as session:
        row = session.get(AlertMute, number)
        if row is None or row.expires_at <= now() or not books.owns(row.team or None):
            raise ObjectMissingError("no such mute is in force", where=str(number), remedy="GET /v1/alert-mutes lists them")
        responses.unmute(session, books.principal.id, row)


def aware(instant: datetime) -> datetime:
    """The instant; UTC where it names no timezone."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
