"""What people answer to alerts: acknowledge, snooze, comment, resolve, mute. Each is an event of the incident and an entry of the audit log."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.alert_tables import Alert, AlertDelivery, AlertMute
from ledger.alerts import OPEN_STATES, close, note
from ledger.audit import record
from ledger.errors import UsageError
from ledger.periods import now


def acknowledge(session: Session, alert: Alert, actor: str, *, name: str = "", text: str = "") -> None:
    """Somebody has taken it up: it is not escalated any more. Who was told is told that, too."""
    _require_open(alert)
    if alert.state == "acknowledged":
        return
    record(session, actor, "alert.acknowledge", alert.alert_id, before={"state": alert.state}, after={"text": text})
    alert.state = "acknowledged"
    note(session, alert, "acknowledged", actor=name or actor, text=text)


def snooze(session: Session, alert: Alert, actor: str, until: datetime, *, name: str = "", text: str = "") -> None:
    """Nothing is sent about it before `until`, nor is it escalated."""
    _require_open(alert)
    _require_later(until)
    record(session, actor, "alert.snooze", alert.alert_id, after={"until": until.isoformat(), "text": text})
    alert.snoozed_until = until
    session.execute(
        sa.update(AlertDelivery)
        .where(
            AlertDelivery.alert_id == alert.alert_id,
            AlertDelivery.state == "pending",
            AlertDelivery.due_at < until,
            AlertDelivery.batch_id.is_(None),  # what was attempted, maybe with others, is not held back
        )
        .values(due_at=until)
        .execution_options(synchronize_session=False)
    )
    note(session, alert, "snoozed", actor=name or actor, text=text or f"Until {until:%Y-%m-%d %H:%M} UTC.")


def comment(session: Session, alert: Alert, actor: str, text: str, *, name: str = "") -> None:
    """A remark for others. Nobody is told of it."""
    record(session, actor, "alert.comment", alert.alert_id, after={"text": text})
    note(session, alert, "commented", actor=name or actor, text=text)


def resolve(session: Session, alert: Alert, actor: str, *, name: str = "", text: str = "") -> None:
    """It is over. Who was told of it is told that."""
    _require_open(alert)
    record(session, actor, "alert.resolve", alert.alert_id, before={"state": alert.state}, after={"text": text})
    close(session, alert, "resolved", actor=name or actor, text=text)


def mute(
    session: Session, actor: str, *, kind: str = "", team: str = "", subject: str = "", reason: str, until: datetime
) -> AlertMute:
    """Alerts of this kind, team and subject are not told until then. They are raised, and shown on the dashboard."""
    if not (kind or team or subject):
        raise UsageError("would mute everything", where="mute", remedy="name a kind, a team or a subject")
    if not reason.strip():
        raise UsageError("a mute needs a reason", where="reason", remedy="say why nobody is to be told")
    _require_later(until)
    row = AlertMute(kind=kind, team=team, subject=subject, reason=reason, created_at=now(), created_by=actor, expires_at=until)
    session.add(row)
    session.flush()
    terms = {"kind": kind, "team": team, "subject": subject, "reason": reason, "until": until.isoformat()}
    record(session, actor, "alert.mute", str(row.id), after=terms)
    return row


def unmute(session: Session, actor: str, row: AlertMute) -> None:
    """Ends a mute now."""
    record(session, actor, "alert.unmute", str(row.id), before={"until": row.expires_at.isoformat()})
    row.expires_at = now()


def _require_open(alert: Alert) -> None:
    if alert.state not in OPEN_STATES:
        raise UsageError(f"the alert is {alert.state}", where=alert.alert_id, remedy="only what is open can be answered")


def _require_later(until: datetime) -> None:
    if until <= now():
        raise UsageError(f"{until:%Y-%m-%d %H:%M} is past", where="until", remedy="name a time to come")
