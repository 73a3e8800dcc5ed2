"""Tables of alerts: incidents, what happened to them, the outbox of messages about them, and mutes.

    alerts            one incident per cause
    alert_events      what happened to it: opened, corrected, escalated, acknowledged, resolved, withdrawn, commented, …
    alert_deliveries  the outbox: one message per incident, channel and event
    alert_channels    what the receivers said: paused, disabled, last success
    alert_mutes       what is not to be told, why, and until when

An event is written in the transaction of what it tells; `ledger.alert_routes` turns events into deliveries, `ledger.alert_outbox` hands these out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ledger.base import ALL_COLUMNS, Base, UtcDateTime


class Alert(Base):
    """An incident. Its id is the hash of its cause, so a repeated run does not raise it again.

    `figure` and `limit_text` are the number and the limit as people read them, `team` is the owner when it was raised, `month` and `run_id` what
    it was computed from. `channels` names the receivers where routes do not decide. `state`: open, acknowledged, resolved or withdrawn.
    """

    __tablename__ = "alerts"
    audited: ClassVar = frozenset[str]()

    alert_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(32))
    severity: Mapped[str] = mapped_column(sa.String(16))
    subject: Mapped[str] = mapped_column(sa.String(512))
    text: Mapped[str] = mapped_column(sa.Text)
    address: Mapped[str] = mapped_column(sa.String(1024), default="")
    payload: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(sa.Text)
    state: Mapped[str] = mapped_column(sa.String(16), default="open")
    team: Mapped[str | None] = mapped_column(sa.String(256))
    month: Mapped[str | None] = mapped_column(sa.String(7))
    run_id: Mapped[str | None] = mapped_column(sa.String(40))
    figure: Mapped[str] = mapped_column(sa.String(128), default="")
    limit_text: Mapped[str] = mapped_column(sa.String(128), default="")
    next_step: Mapped[str] = mapped_column(sa.Text, default="")
    chain_id: Mapped[str | None] = mapped_column(sa.String(128))
    channels: Mapped[list[str] | None] = mapped_column(sa.JSON)
    changed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    snoozed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AlertEvent(Base):
    """Something that happened to an incident, with its figures as they were then. Rows are only added; `routed_at`: when deliveries were made."""

    __tablename__ = "alert_events"
    audited: ClassVar = frozenset[str]()
    __table_args__ = (sa.UniqueConstraint("alert_id", "step", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[str] = mapped_column(sa.ForeignKey("alerts.alert_id"), index=True)
    step: Mapped[str] = mapped_column(sa.String(16))
    number: Mapped[int]
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(sa.String(128))
    text: Mapped[str] = mapped_column(sa.Text, default="")
    incident: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    routed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)


class AlertDelivery(Base):
    """A message to a channel, with the id under which it is delivered at least once. `state`: pending, sending, sent, dead or dropped.

    Messages of one `batch_id` are sent as one; it is fixed before the first attempt, so a repeated attempt has the same id and content.
    """

    __tablename__ = "alert_deliveries"
    audited: ClassVar = frozenset[str]()
    __table_args__ = (
        sa.UniqueConstraint("alert_id", "channel", "step", "number"),
        sa.Index("ix_alert_deliveries_due", "state", "due_at"),
    )

    delivery_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    alert_id: Mapped[str] = mapped_column(sa.ForeignKey("alerts.alert_id"), index=True)
    event_id: Mapped[int] = mapped_column(sa.ForeignKey("alert_events.id"))
    channel: Mapped[str] = mapped_column(sa.String(64))
    step: Mapped[str] = mapped_column(sa.String(16))
    number: Mapped[int]
    message: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    state: Mapped[str] = mapped_column(sa.String(16), default="pending")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lease: Mapped[str | None] = mapped_column(sa.String(40))
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    batch_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(sa.Text)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AlertChannel(Base):
    """What is known of a receiver: disabled (410) while its settings are those of `fingerprint`, and how the last attempts went."""

    __tablename__ = "alert_channels"
    audited: ClassVar = frozenset[str]()

    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(sa.String(64))
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    succeeded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(sa.Text)


class AlertMute(Base):
    """Incidents that are not told, from now until `expires_at`: all of a kind, of a team, of a subject, or of several of these at once."""

    __tablename__ = "alert_mutes"
    audited: ClassVar = ALL_COLUMNS

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(32), default="")
    team: Mapped[str] = mapped_column(sa.String(256), default="")
    subject: Mapped[str] = mapped_column(sa.String(512), default="")
    reason: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(sa.String(128))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
