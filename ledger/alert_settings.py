"""Settings of alerts: receivers, which alerts each gets and when, and digests."""

from __future__ import annotations

import re
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from ledger.errors import SettingsError
from ledger.settings_sections import Section

Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")
ChannelName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,39}$")]
WEBHOOK: Final = "webhook"
"""Name of the channel that `webhook_url` is."""
PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_WEB: Final = ("http", "https")
_SCHEMES: Final = {"email": ("smtp", "smtps")}


class Channel(Section):
    """A receiver of alerts; repeatable."""

    name: ChannelName = Field(description="Short name, as routes, digests and `rootcost alerts test` call it.")
    kind: Literal["webhook", "cloudevents", "slack", "pagerduty", "email", "alertmanager", "heartbeat"] = Field(
        description="webhook (signed, Standard Webhooks), cloudevents, slack (incoming webhook), pagerduty (Events v2), email (SMTP), "
        "alertmanager (API v2), or heartbeat: an address that is asked for after each evaluation, so that its silence is noticed."
    )
    url: SecretStr = Field(
        SecretStr(""),
        description="Where it receives: https://…, or smtp://user:password@host:587 for email (smtps:// for TLS from the start). "
        "Of pagerduty it may be empty.",
    )
    url_file: str = Field("", description="A file that holds the address, so that rootcost.toml does not.")
    secret: SecretStr = Field(
        SecretStr(""),
        description="Of webhook: what bodies are signed with, whsec_ and base64; several, separated by spaces, while one replaces the "
        "other. Of pagerduty: the routing key. Of cloudevents, alertmanager and heartbeat: a bearer token.",
    )
    secret_file: str = Field("", description="A file that holds it, so that rootcost.toml does not.")
    recipients: list[str] = Field(default_factory=list, description="Of email: who gets it.")
    sender: str = Field("rootcost@localhost", max_length=320, description="Of email: whom it is from.")
    teams: list[str] = Field(
        default_factory=list, description="It sees alerts of these teams and their agents only. Empty: of all, and of the whole."
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.kind == "email" and (
            not self.recipients or any("@" not in r or re.search(r"[\s,;<>]", r) for r in self.recipients)
        ):
            raise ValueError(f"channel {self.name}: recipients must name addresses, as oncall@example.com")
        if self.url_file or (self.kind == "pagerduty" and not self.url.get_secret_value()):
            return self
        if not _fits(self.url.get_secret_value(), _SCHEMES.get(self.kind, _WEB)):
            # Not quoted: it may hold a secret.
            schemes = " or ".join(f"{scheme}://" for scheme in _SCHEMES.get(self.kind, _WEB))
            raise ValueError(f"channel {self.name}: url is no {schemes} address")
        return self

    def address(self) -> str:
        """Where it receives. Raises `SettingsError` for a file that cannot be read or holds no address."""
        address = _text_of(self.url_file, f"alerts.channels {self.name}: url_file") or self.url.get_secret_value()
        if self.kind == "pagerduty" and not address:
            return PAGERDUTY_URL
        if not _fits(address, _SCHEMES.get(self.kind, _WEB)):
            raise SettingsError(
                "holds no address", where=self.url_file, remedy=f"alerts.channels {self.name}: see docs/alerts.md"
            )
        return address

    def key(self) -> str:
        """What requests are signed or authenticated with; "" for none. Raises `SettingsError` for a file that cannot be read."""
        return _text_of(self.secret_file, f"alerts.channels {self.name}: secret_file") or self.secret.get_secret_value()


class Route(Section):
    """Which alerts go to which receivers; repeatable. All routes that fit apply. Without any, every receiver gets what it may see."""

    channels: list[ChannelName] = Field(min_length=1, description="Names of the receivers.")
    kinds: list[str] = Field(
        default_factory=list, description="Only these kinds: budget, anomaly, runaway, drift, stale_source, … Empty: all."
    )
    teams: list[str] = Field(default_factory=list, description="Only alerts of these teams. Empty: all.")
    severity: Severity = Field("info", description="Only this severity and above.")
    quiet: str = Field(
        "",
        description='Hours in which nothing but what is critical is sent, as "22:00-07:00" in the reporting timezone: it waits for their end.',
    )
    escalate_minutes: int = Field(
        0,
        ge=0,
        le=7 * 24 * 60,
        description="How long an alert may stay without acknowledgement before `escalate_to` gets it. 0: for ever.",
    )
    escalate_to: list[ChannelName] = Field(default_factory=list, description="Names of the receivers that then get it.")

    @field_validator("quiet")
    @classmethod
    def _is_a_range(cls, value: str) -> str:
        if value and not _HOURS.fullmatch(value):
            raise ValueError(f'{value!r} is no range of hours; write "22:00-07:00"')
        return value

    @model_validator(mode="after")
    def _escalates_somewhere(self) -> Self:
        if bool(self.escalate_minutes) != bool(self.escalate_to):
            raise ValueError("escalate_minutes and escalate_to need each other")
        return self

    def quiet_hours(self) -> tuple[time, time] | None:
        """Begin and end of the quiet hours; the end may lie on the next day."""
        match = _HOURS.fullmatch(self.quiet)
        return (time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))) if match else None


class Digest(Section):
    """A summary of costs, budgets and alerts, sent once a day or week; repeatable. A receiver with `teams` gets those of its teams."""

    channels: list[ChannelName] = Field(min_length=1, description="Names of the receivers.")
    every: Literal["day", "week"] = Field(
        "week", description="day: of the day before; week: of the seven days before, on Mondays."
    )
    at: str = Field("08:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="When, in the reporting timezone.")


class AlertSettings(Section):
    """Alerts (see docs/alerts.md)."""

    webhook_url: str = Field("", description="Every alert is POSTed here as JSON. Empty: the dashboard, and `channels`.")
    thresholds: list[Decimal] = Field(
        default_factory=lambda: [Decimal("0.5"), Decimal("0.8"), Decimal(1)],
        description="Shares of a budget that raise an alert, once a period each.",
    )
    channels: list[Channel] = Field(default_factory=list, description="Receivers of alerts.")
    routes: list[Route] = Field(default_factory=list, description="Which alerts go to which receivers.")
    digests: list[Digest] = Field(default_factory=list, description="Summaries sent at set times.")
    group_over: int = Field(
        5, ge=1, description="When more alerts than this wait for one Slack or e-mail receiver they are sent as one message."
    )
    give_up_hours: float = Field(72.0, gt=0, description="How long delivery is tried before a message is a dead letter.")
    dashboard_url: str = Field("", description="Origin of the dashboard in links of alerts. Empty: the one on this machine.")

    @field_validator("webhook_url", "dashboard_url")
    @classmethod
    def _can_be_posted_to(cls, value: str) -> str:
        if value and not _fits(value, _WEB):
            # Not quoted: the address of a webhook is a secret.
            raise ValueError("is no http:// or https:// address; leave it empty for the dashboard only")
        return value.rstrip("/") if value.count("/") == 3 else value

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [channel.name for channel in self.receivers()]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two channels have one name; {WEBHOOK} is the one of webhook_url"
                if WEBHOOK in names
                else "two channels have one name"
            )
        parts: list[Route | Digest] = [*self.routes, *self.digests]
        for number, part in enumerate(parts, 1):
            names_used = [*part.channels, *(part.escalate_to if isinstance(part, Route) else ())]
            if unknown := [name for name in names_used if name not in names]:
                place = f"route {number}" if isinstance(part, Route) else f"digest {number - len(self.routes)}"
                raise ValueError(f"{place}: there is no channel {unknown[0]}; there are: {', '.join(names) or 'none'}")
        return self

    def receivers(self) -> list[Channel]:
        """All channels, with the one of `webhook_url`."""
        legacy = [Channel(name=WEBHOOK, kind="webhook", url=SecretStr(self.webhook_url))] if self.webhook_url else []
        return [*legacy, *self.channels]


def _fits(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        address = urlsplit(value)
        port_fits = address.port is None or address.port > 0
    except ValueError:
        return False
    return address.scheme in schemes and bool(address.hostname) and port_fits


def _text_of(path: str, setting: str) -> str:
    if not path:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"cannot be read: {reason}", where=path, remedy=setting) from error
    if not text:
        raise SettingsError("is empty", where=path, remedy=setting)
    return text
