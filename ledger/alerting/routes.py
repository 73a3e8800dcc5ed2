"""Routes: which receivers are told of an event, and when. Each event becomes a message a channel, once.

A receiver gets what its teams may see, as a principal does (`ledger.access.own_names`). What follows on an incident (corrected, resolved, …)
goes to whoever was told of it: a message that was not attempted yet is dropped or corrected instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access.own_names import OwnNames
from ledger.alert_settings import SEVERITIES, AlertSettings, Route
from ledger.alert_tables import Alert, AlertDelivery, AlertEvent, AlertMute
from ledger.alerts import alert_id, note
from ledger.books import Books

NOBODY: Final = "dashboard"
"""Address of an alert that no receiver gets: who looks at the dashboard sees it."""
_FIRST_STEPS: Final = ("opened", "escalated", "beat")
_ENDS: Final = ("resolved", "withdrawn")
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class _Router:
    """What events are routed by."""

    session: Session
    settings: AlertSettings
    zone: ZoneInfo
    own_names: dict[str, OwnNames]
    mutes: Sequence[AlertMute]
    at: datetime


def route_events(books: Books, at: datetime) -> int:
    """Makes the messages of all events that have none yet, and escalates what nobody acknowledged; returns how many messages."""
    settings = books.settings.alerts
    with books.database.session() as session:
        _escalate(session, settings, at)
    own_names = {
        channel.name: OwnNames.of_teams(books, frozenset(channel.teams) if channel.teams else None)
        for channel in settings.receivers()
    }
    message_count = 0
    while True:
        with books.database.session() as session:
            mutes = session.scalars(sa.select(AlertMute).where(AlertMute.expires_at > at)).all()
            router = _Router(session, settings, ZoneInfo(books.settings.report.timezone), own_names, mutes, at)
            events = session.execute(
                sa.select(AlertEvent, Alert)
                .join(Alert, Alert.alert_id == AlertEvent.alert_id)
                .where(AlertEvent.routed_at.is_(None))
                .order_by(AlertEvent.id)
                .limit(_BATCH)
            ).all()
            for event, alert in events:
                message_count += _route_event(router, event, alert)
                event.routed_at = at
        if len(events) < _BATCH:
            return message_count


def is_fitting(route: Route, alert: Alert) -> bool:
    """Whether a route is for an alert."""
    return (
        (not route.kinds or alert.kind in route.kinds)
        and (not route.teams or alert.team in route.teams)
        and SEVERITIES.index(route.severity) <= _rank(alert)
    )


def _rank(alert: Alert) -> int:
    return SEVERITIES.index(alert.severity) if alert.severity in SEVERITIES else 1


def _route_event(router: _Router, event: AlertEvent, alert: Alert) -> int:
    if event.step not in _FIRST_STEPS:
        return _follow_up(router, event, alert)
    mute = next((mute for mute in router.mutes if _mutes(mute, alert)), None)
    if mute is not None and event.step != "beat":
        note(router.session, alert, "muted", text=f"Not told, since it is muted: {mute.reason}")
        due_times: dict[str, datetime] = {}
    else:
        due_times = _due_times(router, event, alert)
    for channel, due_at in due_times.items():
        _add(router, event, alert, channel, due_at)
    if event.step == "opened" and not due_times and alert.delivered_at is None:
        alert.delivered_at = router.at
        alert.address = alert.address or NOBODY
    return len(due_times)


def _mutes(mute: AlertMute, alert: Alert) -> bool:
    pairs = ((mute.kind, alert.kind), (mute.team, alert.team), (mute.subject, alert.subject))
    return all(not condition or condition == value for condition, value in pairs)


def _due_times(router: _Router, event: AlertEvent, alert: Alert) -> dict[str, datetime]:
    """The receivers of an incident's first messages, each with the time from which on it is sent."""
    if alert.channels is not None:  # what it says was worded for them
        return {name: router.at for name in alert.channels if name in router.own_names}
    due_times: dict[str, datetime] = {}
    for number, route in enumerate(router.settings.routes, 1):
        if not is_fitting(route, alert) or (event.step == "escalated" and number != event.number):
            continue
        waits = route.quiet_hours() if alert.severity != "critical" else None
        due_at = router.at if waits is None else after_quiet_hours(router.at, waits, router.zone)
        for channel in route.escalate_to if event.step == "escalated" else route.channels:
            due_times[channel] = min(due_at, due_times.get(channel, due_at))
    for channel in alert.payload.get("recipients") or ():  # a budget names its own
        if channel in router.own_names and event.step != "escalated":
            due_times.setdefault(channel, router.at)
    if not router.settings.routes:
        due_times = {channel.name: router.at for channel in router.settings.receivers() if channel.kind != "heartbeat"}
    return {name: due_at for name, due_at in due_times.items() if _is_seen(router, name, alert)}


def _is_seen(router: _Router, channel: str, alert: Alert) -> bool:
    own_names = router.own_names.get(channel)
    return own_names is not None and own_names.holds_alert(alert.payload, alert.team)


def after_quiet_hours(at: datetime, hours: tuple[time, time], zone: ZoneInfo) -> datetime:
    """`at`, or the end of the quiet hours if it lies in them. Hours are those of the clock on the wall, also when it is changed.

    >>> from datetime import UTC
    >>> night = (time(22), time(7))
    >>> [after_quiet_hours(datetime(2026, 10, 5, hour, tzinfo=UTC), night, ZoneInfo("UTC")).hour for hour in (3, 7, 12, 23)]
    [7, 7, 12, 7]
    """
    begin, end = hours
    local = at.astimezone(zone)
    clock = local.time()
    if begin <= end:
        is_quiet, day = begin <= clock < end, local.date()
    else:
        is_quiet = clock >= begin or clock < end
        day = local.date() + timedelta(days=1) if clock >= begin else local.date()
    return datetime.combine(day, end, zone).astimezone(at.tzinfo) if is_quiet else at


def _follow_up(router: _Router, event: AlertEvent, alert: Alert) -> int:
    """Messages to those who were told, or may have been. Of others the message that waits is dropped, or gets the new figures."""
    earlier_messages = router.session.scalars(
        sa.select(AlertDelivery).where(AlertDelivery.alert_id == alert.alert_id, AlertDelivery.event_id < event.id)
    ).all()
    channels: dict[str, None] = {}
    for message in earlier_messages:
        if message.attempts and message.step in (*_FIRST_STEPS, "corrected"):
            channels[message.channel] = None
        elif message.state == "pending" and event.step in _ENDS:
            message.state, message.error = "dropped", f"it was {event.step} before it was sent"
        elif message.state == "pending" and event.step == "corrected":
            message.message = message_of(event, step=message.step, number=message.number)
    for message in earlier_messages:
        if message.channel in channels and message.state == "pending" and message.sent_at is not None:
            message.state = "sent"  # an Alertmanager is told again and again; from now on it is told the new state
    for channel in channels:
        _add(router, event, alert, channel, router.at)
    return len(channels)


def _add(router: _Router, event: AlertEvent, alert: Alert, channel: str, due_at: datetime) -> None:
    if alert.snoozed_until is not None and alert.snoozed_until > due_at:
        due_at = alert.snoozed_until
    router.session.add(
        AlertDelivery(
            delivery_id=alert_id(f"delivery|{alert.alert_id}|{channel}|{event.step}|{event.number}"),
            alert_id=alert.alert_id,
            event_id=event.id,
            channel=channel,
            step=event.step,
            number=event.number,
            message=message_of(event, step=event.step, number=event.number),
            state="pending",
            created_at=router.at,
            due_at=due_at,
            attempts=0,
        )
    )
    router.session.flush()


def message_of(event: AlertEvent, *, step: str, number: int) -> dict[str, Any]:
    """What is sent: the incident as it was at the event, and what happened."""
    return {
        **event.incident,
        "step": step,
        "number": number,
        "at": event.at.isoformat(),
        "actor": event.actor,
        "note": event.text,
    }


def _escalate(session: Session, settings: AlertSettings, at: datetime) -> None:
    for number, route in enumerate(settings.routes, 1):
        if not route.escalate_to:
            continue
        since = at - timedelta(minutes=route.escalate_minutes)
        escalated_ids = sa.select(AlertEvent.alert_id).where(AlertEvent.step == "escalated", AlertEvent.number == number)
        first_sent = sa.select(AlertDelivery.alert_id).where(AlertDelivery.step == "opened", AlertDelivery.sent_at <= since)
        waiting: Iterable[Alert] = session.scalars(
            sa.select(Alert).where(
                Alert.state == "open",
                Alert.alert_id.in_(first_sent),
                Alert.alert_id.not_in(escalated_ids),
                sa.or_(Alert.snoozed_until.is_(None), Alert.snoozed_until <= at),
            )
        ).all()
        for alert in waiting:
            if is_fitting(route, alert):
                text = f"Nobody has acknowledged it for {route.escalate_minutes} minutes."
                note(session, alert, "escalated", text=text, number=number)
