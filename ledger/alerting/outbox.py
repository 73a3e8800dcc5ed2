"""The outbox: messages are claimed by lease, and sent, put off, or given up. Delivery is at least once, always with the same id.

    pending ─claim─▶ sending ─▶ sent
       ▲                │ └───▶ dead      after `alerts.give_up_hours`, or when the receiver is gone (410)
       └────────────────┘ failed: later and later, or when the receiver says (Retry-After)

A process that dies while sending leaves its lease behind; when it has run out, another attempt is made with the same id and content.
Nothing is sent about an incident to a channel while an earlier message about it waits there.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ledger.alert_tables import Alert, AlertChannel, AlertDelivery, AlertEvent
from ledger.alerts import OPEN_STATES, alert_id
from ledger.db import Database

LEASE_SECONDS: Final = 60.0
"""How long a claimed message belongs to its claimer. Longer than any sender may take."""
MAX_GROUP: Final = 50
"""Messages that are sent as one at most."""
_FIRST_PAUSE_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 3600.0
_LONGEST_RETRY_AFTER: Final = timedelta(days=1)
_KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages that are sent as one: `batch_id` is the id they are sent with, `attempts` counts this attempt."""

    batch_id: str
    lease: str
    channel: str
    messages: tuple[AlertDelivery, ...]
    attempts: int

    @property
    def delivery_ids(self) -> list[str]:
        """Ids of the messages."""
        return [message.delivery_id for message in self.messages]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. Without an error it was sent; `gone`: the receiver wants nothing any more; `retry_at`: when it wants to be asked again;
    `warning`: what was wrong although it was sent.
    """

    status: int | None = None
    error: str | None = None
    retry_at: datetime | None = None
    gone: bool = False
    warning: str | None = None


def pause_seconds(attempts: int, key: str = "") -> float:
    """Pause after so many failed attempts: doubling from 5 seconds, an hour at most, up to a fifth longer by the key, so that not all come at once.

    >>> [pause_seconds(n) for n in (1, 2, 3, 20)]
    [5.0, 10.0, 20.0, 3600.0]
    """
    seconds = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 20), _LONGEST_PAUSE_SECONDS)
    jitter = int(alert_id(f"{key}|{attempts}")[:4], 16) / 0xFFFF / 5 if key else 0.0
    return seconds * (1 + jitter)


def due_channels(database: Database, at: datetime) -> list[str]:
    """Channels for which something is due."""
    with database.session() as session:
        return list(
            session.scalars(sa.select(AlertDelivery.channel).where(_is_due(at)).distinct().order_by(AlertDelivery.channel))
        )


def _is_due(at: datetime) -> sa.ColumnElement[bool]:
    is_waiting = (AlertDelivery.state == "pending") & (AlertDelivery.due_at <= at)
    return is_waiting | ((AlertDelivery.state == "sending") & (AlertDelivery.leased_until <= at))


def claim(database: Database, channel: str, at: datetime, *, group_over: int = 0) -> Claim | None:
    """Takes the oldest message that is due for a channel; None if there is none. With `group_over`, all that are due where they are more.

    The messages of a batch stay together: what was attempted as one is repeated as one.
    """
    with database.session() as session:
        rows = _due_rows(session, channel, at, limit=MAX_GROUP if group_over else 1)
        if not rows:
            return None
        first = rows[0]
        if first.batch_id is not None:
            is_in_batch = (AlertDelivery.batch_id == first.batch_id) & AlertDelivery.state.in_(("pending", "sending"))
            rows = session.scalars(sa.select(AlertDelivery).where(is_in_batch)).all()
        elif len(rows := [row for row in rows if row.batch_id is None]) <= group_over:
            rows = rows[:1]
        delivery_ids, batch_id = [row.delivery_id for row in rows], first.batch_id or first.delivery_id
    lease = uuid.uuid4().hex
    with database.session() as session:
        # In a transaction of its own, and first in it: where another process was faster, fewer rows are there to be taken.
        claim_result = session.execute(
            sa.update(AlertDelivery)
            .where(AlertDelivery.delivery_id.in_(delivery_ids), _is_due(at))
            .values(
                state="sending", lease=lease, leased_until=at + timedelta(seconds=LEASE_SECONDS), batch_id=batch_id,
                attempts=AlertDelivery.attempts + 1,
            )
            .execution_options(synchronize_session=False)
        )  # fmt: skip
        if claim_result.rowcount != len(delivery_ids):  # type: ignore[attr-defined]
            session.rollback()
            return None
        messages = session.scalars(
            sa.select(AlertDelivery).where(AlertDelivery.lease == lease).order_by(AlertDelivery.event_id)
        ).all()
        return Claim(batch_id, lease, channel, tuple(messages), max(message.attempts for message in messages))


def _due_rows(session: Session, channel: str, at: datetime, *, limit: int) -> Sequence[AlertDelivery]:
    earlier = aliased(AlertDelivery)
    waits_for_earlier = sa.exists().where(
        earlier.alert_id == AlertDelivery.alert_id,
        earlier.channel == AlertDelivery.channel,
        earlier.event_id < AlertDelivery.event_id,
        earlier.state.in_(("pending", "sending")),
    )
    return session.scalars(
        sa.select(AlertDelivery)
        .where(AlertDelivery.channel == channel, _is_due(at), ~waits_for_earlier)
        .order_by(AlertDelivery.batch_id.is_(None), AlertDelivery.event_id)
        .limit(limit)
    ).all()


def settle(
    database: Database, claim: Claim, outcome: Outcome, at: datetime, *, give_up_hours: float, repeat_seconds: float = 0
) -> None:
    """Writes down how an attempt ended, unless the lease was lost meanwhile. With `repeat_seconds` what was sent is sent again while the incident lasts."""
    with database.session() as session:
        for message in session.scalars(sa.select(AlertDelivery).where(AlertDelivery.lease == claim.lease)):
            if message.state != "sending":
                continue
            message.lease, message.leased_until = None, None
            message.status, message.error = outcome.status, outcome.error or outcome.warning
            alert = session.get_one(Alert, message.alert_id)
            alert.attempts += 1
            alert.last_error = outcome.error
            if outcome.error is None:
                message.state, message.sent_at = "sent", at
                alert.delivered_at = alert.delivered_at or at
                if repeat_seconds and alert.state in OPEN_STATES:
                    message.state, message.due_at = "pending", at + timedelta(seconds=repeat_seconds)
                continue
            is_late = at - message.created_at >= timedelta(hours=give_up_hours)
            message.state = "dead" if outcome.gone or is_late else "pending"
            pause = timedelta(seconds=pause_seconds(message.attempts, claim.batch_id))
            retry_at = outcome.retry_at and min(outcome.retry_at, at + _LONGEST_RETRY_AFTER)
            message.due_at = retry_at or at + pause
        if outcome.retry_at is not None:
            _put_off(session, claim.channel, min(outcome.retry_at, at + _LONGEST_RETRY_AFTER))


def _put_off(session: Session, channel: str, until: datetime) -> None:
    """A receiver that says when it wants to be asked again is not asked for anything before."""
    session.execute(
        sa.update(AlertDelivery)
        .where(AlertDelivery.channel == channel, AlertDelivery.state == "pending", AlertDelivery.due_at < until)
        .values(due_at=until)
        .execution_options(synchronize_session=False)
    )


def note_channel(database: Database, channel: str, fingerprint: str, outcome: Outcome, at: datetime) -> None:
    """Writes down what is known of a receiver. One that is gone is disabled until its settings change."""
    with database.session() as session:
        stored_channel = session.get(AlertChannel, channel)
        if stored_channel is None:
            stored_channel = AlertChannel(name=channel, fingerprint=fingerprint)
            session.add(stored_channel)
        if stored_channel.fingerprint != fingerprint:
            stored_channel.fingerprint, stored_channel.disabled_at = fingerprint, None
        stored_channel.error = outcome.error
        if outcome.error is None:
            stored_channel.succeeded_at = at
        else:
            stored_channel.failed_at = at
        if outcome.gone:
            stored_channel.disabled_at = at


def disabled_channels(database: Database) -> dict[str, str]:
    """Receivers that are gone, each with the fingerprint of the settings for which that is so."""
    with database.session() as session:
        rows = session.scalars(sa.select(AlertChannel).where(AlertChannel.disabled_at.is_not(None)))
        return {row.name: row.fingerprint for row in rows}


def bury(database: Database, channel: str, reason: str) -> int:
    """Makes dead letters of what waits for a channel that is not there, or gone; returns how many."""
    with database.session() as session:
        burial = session.execute(
            sa.update(AlertDelivery)
            .where(AlertDelivery.channel == channel, AlertDelivery.state == "pending")
            .values(state="dead", error=reason)
            .execution_options(synchronize_session=False)
        )
        return int(burial.rowcount)  # type: ignore[attr-defined]


def retry(session: Session, alert: str, at: datetime) -> int:
    """Puts the dead letters of an alert into the outbox again, with the ids that they had; returns how many."""
    letters = session.scalars(
        sa.select(AlertDelivery).where(AlertDelivery.alert_id == alert, AlertDelivery.state == "dead")
    ).all()
    for letter in letters:
        letter.state, letter.due_at, letter.created_at = "pending", at, at
    return len(letters)


def remove_beats(database: Database, at: datetime) -> None:
    """Removes the heartbeats of the days before: a day of them is history enough."""
    with database.session() as session:
        for table, is_old in (
            (AlertDelivery, (AlertDelivery.step == "beat") & (AlertDelivery.created_at < at - _KEPT)),
            (AlertEvent, (AlertEvent.step == "beat") & (AlertEvent.routed_at < at - _KEPT)),
        ):
            event_ids = sa.select(AlertDelivery.event_id) if table is AlertEvent else None
            condition = is_old if event_ids is None else is_old & AlertEvent.id.not_in(event_ids)
            session.execute(sa.delete(table).where(condition).execution_options(synchronize_session=False))
