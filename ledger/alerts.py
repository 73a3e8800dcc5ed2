"""Alerts are decided here: rows in the transaction of what they tell.

    add_new(session, alerts)                       raises those whose cause is new
    settle(session, kind, month, alerts, holding)  the same for all alerts of a kind and month: what no longer holds is withdrawn
    close(session, alert, state, …)                resolved, or withdrawn
    note(session, alert, step, …)                  anything else that happens to an incident

An alert's id is the hash of its cause, so one cause is one incident, however often it is evaluated. `ledger.alerting` delivers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.alert_tables import Alert, AlertEvent
from ledger.periods import now

OPEN_STATES: Final = ("open", "acknowledged")
ROUTED_STEPS: Final = frozenset({"opened", "corrected", "escalated", "acknowledged", "resolved", "withdrawn", "beat"})
"""Events that receivers are told of; others are history only."""
SYSTEM: Final = "system"
_CORRECTION: Final = Decimal("0.95")
"""A figure that was told is corrected where the newest one is below this share of it: growth is no correction."""
_INCIDENT_COLUMNS: Final = (
    "alert_id", "kind", "severity", "subject", "text", "address", "payload", "team", "figure", "limit_text", "next_step", "chain_id",
)  # fmt: skip
_FIGURES: Final = ("severity", "text", "address", "payload", "team", "run_id", "figure", "limit_text", "next_step", "chain_id")


def alert_id(cause: str) -> str:
    """Id of the alert that `cause` raises: the same cause always has the same id, so it is delivered once.

    >>> alert_id("budget|search|1|2026-10|1") == alert_id("budget|search|1|2026-10|1"), len(alert_id("budget|search|1|2026-10|1"))
    (True, 32)
    """
    return blake2b(cause.encode(), digest_size=16).hexdigest()


def add_new(session: Session, alerts: Sequence[Alert]) -> list[Alert]:
    """Inserts the alerts whose id the table does not hold yet, each with its event, and returns them; the others were raised before."""
    if not alerts:
        return []
    distinct_alerts = {alert.alert_id: alert for alert in alerts}
    stored_ids = set(session.scalars(sa.select(Alert.alert_id).where(Alert.alert_id.in_(distinct_alerts))))
    new_alerts = [alert for key, alert in distinct_alerts.items() if key not in stored_ids]
    session.add_all(new_alerts)
    session.flush()
    for alert in new_alerts:
        note(session, alert, "opened")
    return new_alerts


def settle(
    session: Session, kind: str, month: str, alerts: Sequence[Alert], *, holding: Collection[str] = (), run_id: str = ""
) -> list[Alert]:
    """Raises the alerts of a kind and month that are new, and returns them; earlier ones follow the figures of the run.

    `alerts` are all whose cause holds now, as far as they would be raised; `holding` are ids of further ones that still stand, such as a lower
    threshold. An open alert that is in neither is withdrawn: it stood on a superseded run. One whose figure fell is corrected, and one
    that was withdrawn and holds again is opened anew.
    """
    new_alerts = add_new(session, alerts)
    new_ids = {alert.alert_id for alert in new_alerts}
    current_alerts = {alert.alert_id: alert for alert in alerts}
    stored_alerts = session.scalars(sa.select(Alert).where(Alert.kind == kind, Alert.month == month)).all()
    for stored_alert in stored_alerts:
        if stored_alert.alert_id in new_ids:
            continue
        current_alert = current_alerts.get(stored_alert.alert_id)
        if current_alert is not None:
            _follow(session, stored_alert, current_alert)
        elif stored_alert.alert_id not in holding and stored_alert.state in OPEN_STATES:
            reason = f"The figures of {month} were computed anew{f' (run {run_id})' if run_id else ''}, and this no longer holds."
            close(session, stored_alert, "withdrawn", text=reason)
    return new_alerts


def _follow(session: Session, alert: Alert, current_alert: Alert) -> None:
    last_figure = _actual(alert.payload)
    for name in _FIGURES:
        value = getattr(current_alert, name)
        if value is not None or name in ("team", "run_id", "chain_id"):  # the others' defaults are set when a row is stored
            setattr(alert, name, value)
    if alert.state == "withdrawn":
        alert.state = "open"
        note(session, alert, "opened", text="It holds again.")
        return
    told_figure, new_figure = _last_figure(session, alert, last_figure), _actual(alert.payload)
    if (
        alert.state in OPEN_STATES
        and told_figure is not None
        and new_figure is not None
        and new_figure < told_figure * _CORRECTION
    ):
        note(session, alert, "corrected", text="The figures were computed anew, and are lower than what was told.")


def _last_figure(session: Session, alert: Alert, default: Decimal | None) -> Decimal | None:
    """The figure that was told last."""
    incident = session.scalar(
        sa.select(AlertEvent.incident)
        .where(AlertEvent.alert_id == alert.alert_id, AlertEvent.step.in_(("opened", "corrected")))
        .order_by(AlertEvent.id.desc())
        .limit(1)
    )
    return _actual((incident or {}).get("payload") or {}) or default


def _actual(payload: dict[str, Any]) -> Decimal | None:
    actual = payload.get("actual")
    return None if actual is None else Decimal(str(actual))


def close(session: Session, alert: Alert, state: str, *, actor: str = SYSTEM, text: str = "") -> None:
    """Ends an incident: `state` is resolved (it is over) or withdrawn (it never was)."""
    if alert.state in OPEN_STATES:
        alert.state = state
        note(session, alert, state, actor=actor, text=text)


def note(
    session: Session, alert: Alert, step: str, *, actor: str = SYSTEM, text: str = "", number: int | None = None
) -> AlertEvent:
    """Adds an event to an incident, in this transaction. Without `number` it is the next of its step."""
    at = now()
    if number is None:
        newest = sa.select(sa.func.max(AlertEvent.number)).where(AlertEvent.alert_id == alert.alert_id, AlertEvent.step == step)
        number = (session.scalar(newest) or 0) + 1
    event = AlertEvent(
        alert_id=alert.alert_id,
        step=step,
        number=number,
        at=at,
        actor=actor,
        text=text,
        incident=incident_of(alert),
        routed_at=None if step in ROUTED_STEPS else at,
    )
    session.add(event)
    alert.changed_at = at
    session.flush()
    return event


def incident_of(alert: Alert) -> dict[str, Any]:
    """The incident as it stands, as JSON."""
    return {name: getattr(alert, name) for name in _INCIDENT_COLUMNS} | {"created_at": alert.created_at.isoformat()}
