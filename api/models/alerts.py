"""Models of alerts: incidents, what happened to them, messages about them, receivers, answers and mutes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from api.models.base import RequestModel, ResponseModel

AlertId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{1,40}$")]
AlertAction = Literal["acknowledge", "snooze", "comment", "resolve", "retry"]
_Text = Annotated[str, StringConstraints(max_length=2_000)]


def _text_only(value: object) -> object:
    if not isinstance(value, str | datetime):
        raise ValueError("must be a time in ISO 8601, as text")
    return value


Instant = Annotated[datetime, Field(strict=False), BeforeValidator(_text_only)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
_Name = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]


class AlertRow(ResponseModel):
    """An alert."""

    alert_id: str = Field(description="Hash of its cause: one cause raises one alert.")
    kind: str = Field(description="budget, anomaly, runaway, drift, stale_source, backup_failed, …")
    severity: str = Field(description="info, warning or critical.")
    subject: str = Field(description="Subject of the alert.")
    text: str = Field(description="The message.")
    address: str = Field(default="", description="Path of the page or query that shows it.")
    payload: dict[str, Any] = Field(default_factory=dict, description="Figures of the alert.")
    created_at: datetime = Field(description="When it was raised.")
    delivered_at: datetime | None = Field(default=None, description="When the first receiver accepted it.")
    attempts: int = Field(description="Number of delivery attempts.")
    last_error: str | None = Field(default=None, description="Error of the last failed attempt.")
    state: str = Field(default="open", description="open, acknowledged, resolved (it is over) or withdrawn (it never was).")
    team: str | None = Field(default=None, description="Team it is about, when it was raised.")
    figure: str = Field(default="", description="The number that raised it, for people.")
    limit_text: str = Field(default="", description="The limit or expectation it was compared with, for people.")
    next_step: str = Field(default="", description="What to do about it.")
    chain_id: str | None = Field(default=None, description="The chain it is about, or the dearest one.")
    changed_at: datetime | None = Field(default=None, description="When something happened to it last.")
    snoozed_until: datetime | None = Field(default=None, description="Nothing is sent about it before.")


class AlertEventRow(ResponseModel):
    """Something that happened to an alert."""

    step: str = Field(description="opened, corrected, escalated, acknowledged, snoozed, commented, muted, resolved or withdrawn.")
    at: datetime = Field(description="When.")
    actor: str = Field(description="Who; system: the evaluation.")
    text: str = Field(default="", description="What was said.")


class AlertDeliveryRow(ResponseModel):
    """A message about an alert to one receiver."""

    delivery_id: str = Field(description="Id it is sent with, the same at each attempt.")
    alert_id: str = Field(description="The alert.")
    channel: str = Field(description="The receiver.")
    step: str = Field(description="What it tells: opened, escalated, corrected, acknowledged, resolved, withdrawn.")
    state: str = Field(description="pending, sending, sent, dead (given up), or dropped (nothing to tell any more).")
    created_at: datetime = Field(description="When it was decided.")
    due_at: datetime = Field(description="When it is sent, or tried again.")
    attempts: int = Field(description="Number of attempts.")
    status: int | None = Field(default=None, description="Status code of the last answer.")
    error: str | None = Field(default=None, description="Error of the last attempt.")
    sent_at: datetime | None = Field(default=None, description="When the receiver accepted it.")


class AlertDetail(AlertRow):
    """An alert with its history and messages."""

    events: list[AlertEventRow] = Field(description="What happened to it, oldest first.")
    deliveries: list[AlertDeliveryRow] = Field(description="Messages about it, oldest first.")


class AlertResponse(RequestModel):
    """An answer to an alert."""

    action: AlertAction = Field(
        description="acknowledge: taken up, not escalated any more; snooze: nothing is sent until `until`; comment; resolve: it is over; "
        "retry: messages that were given up are sent again."
    )
    text: _Text = Field(default="", description="What others should know. A comment needs it.")
    until: Instant | None = Field(default=None, description="End of a snooze.")


class AlertChannelRow(ResponseModel):
    """A receiver of alerts."""

    name: str = Field(description="Its name in the settings.")
    kind: str = Field(description="webhook, cloudevents, slack, pagerduty, email, alertmanager or heartbeat.")
    teams: list[str] = Field(description="Teams whose alerts it sees; empty: all.")
    state: str = Field(description="ok, failing, gone (it answered 410), or unused.")
    succeeded_at: datetime | None = Field(default=None, description="When it last accepted something.")
    failed_at: datetime | None = Field(default=None, description="When it last refused something.")
    error: str | None = Field(default=None, description="Why.")
    waiting: int = Field(description="Messages that wait for it.")
    dead: int = Field(description="Messages that were given up.")


class NewMute(RequestModel):
    """What is not to be told. At least one of kind, team and subject."""

    kind: _Name = Field(default="", description="Only this kind of alert.")
    team: _Name = Field(default="", description="Only alerts of this team.")
    subject: Annotated[str, StringConstraints(max_length=512)] = Field(default="", description="Only this subject.")
    reason: Reason = Field(description="Why nobody is to be told.")
    until: Instant = Field(description="When it ends.")


class MuteRow(ResponseModel):
    """A mute in force."""

    id: int = Field(description="Its number.")
    kind: str = Field(description="Only this kind of alert; empty: any.")
    team: str = Field(description="Only alerts of this team; empty: any.")
    subject: str = Field(description="Only this subject; empty: any.")
    reason: str = Field(description="Why nobody is told.")
    created_by: str = Field(description="Who muted it.")
    created_at: datetime = Field(description="When.")
    expires_at: datetime = Field(description="When it ends.")
