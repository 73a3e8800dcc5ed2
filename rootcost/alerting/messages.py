"""Wording of alerts for people: a title, the figure and the limit, links to the page and the chain, and the next step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    from ledger.settings import Settings

_PREFIXES: Final = {
    "escalated": "Not acknowledged: ",
    "corrected": "Corrected: ",
    "acknowledged": "Acknowledged: ",
    "resolved": "Resolved: ",
    "withdrawn": "Withdrawn: ",
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where links lead: origins of the dashboard and of the API."""

    dashboard: str
    api: str

    @classmethod
    def of(cls, settings: Settings) -> Places:
        """The origins that the settings name, else those on this machine."""
        serve = settings.serve
        return cls(
            settings.alerts.dashboard_url.rstrip("/") or f"http://localhost:{serve.ui_port}",
            serve.public_url.rstrip("/") or f"http://localhost:{serve.port}",
        )


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A message about one incident, as it is sent."""

    delivery_id: str
    fields: Mapping[str, Any]
    places: Places

    @property
    def step(self) -> str:
        """What happened: opened, escalated, corrected, acknowledged, resolved, withdrawn."""
        return str(self.fields["step"])

    @property
    def title(self) -> str:
        """One line: what happened, to what."""
        return one_line(f"{_PREFIXES.get(self.step, '')}[{self.fields['severity']}] {self.fields['subject']}")

    @property
    def page(self) -> str:
        """The alert's page, where it is acknowledged, snoozed and commented."""
        return f"{self.places.dashboard}/alerts?{urlencode({'alert': self.fields['alert_id']})}"

    @property
    def links(self) -> dict[str, str]:
        """Addresses by what they lead to."""
        links = {"Alert": self.page}
        if self.fields.get("kind") == "anomaly":
            links["Anomaly"] = f"{self.places.dashboard}/anomalies?{urlencode({'anomaly': self.fields['alert_id']})}"
        if chain_id := self.fields.get("chain_id"):
            links["Chain"] = f"{self.places.dashboard}/chains?{urlencode({'chain': chain_id})}"
        if str(address := self.fields.get("address") or "").startswith("/"):
            links["Figures"] = self.places.api + str(address)
        return links

    @property
    def lines(self) -> list[str]:
        """The message in lines."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        fields = self.fields
        yield str(fields["text"])
        if fields.get("note"):
            actor = "" if fields.get("actor") in ("", "system") else f"{fields['actor']}: "
            yield f"{actor}{fields['note']}"
        elif self.step in ("acknowledged", "resolved"):
            yield f"{self.step.capitalize()} by {fields.get('actor') or 'system'}."
        if fields.get("figure"):
            yield f"Figure: {fields['figure']}" + (f"; limit: {fields['limit_text']}" if fields.get("limit_text") else "")
        if fields.get("team"):
            yield f"Team: {fields['team']}"
        if fields.get("next_step") and self.step not in ("resolved", "withdrawn"):
            yield f"Next step: {fields['next_step']}"

    def document(self) -> dict[str, Any]:
        """The message for machines. Amounts are decimal strings."""
        fields = {name: value for name, value in self.fields.items() if name != "number"}
        return {"type": f"alert.{self.step}", "timestamp": fields["at"], **fields, "links": self.links}


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one attempt sends: messages of one incident each, under one id."""

    batch_id: str
    messages: Sequence[AlertMessage]
    at: datetime


def one_line(text: str) -> str:
    r"""A text without line breaks.

    >>> one_line("a\r\nBcc: b")
    'a Bcc: b'
    """
    return " ".join(text.split())


def shortened(text: str, limit: int) -> str:
    """A text of at most so many characters.

    >>> shortened("abcdef", 4), shortened("abc", 4)
    ('abc…', 'abc')
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"


def group_title(messages: Sequence[AlertMessage]) -> str:
    """One line for several messages."""
    if len(messages) == 1:
        return messages[0].title
    severities = {str(message.fields["severity"]) for message in messages}
    highest = next((severity for severity in ("critical", "warning") if severity in severities), "info")
    return f"[{highest}] {len(messages)} alerts, the first is {messages[0].fields['subject']}"


def group_text(messages: Sequence[AlertMessage]) -> str:
    """Plain text of one or several messages."""
    parts = []
    for message in messages:
        lines = [*([message.title] if len(messages) > 1 else []), *message.lines]
        lines += [f"{name}: {address}" for name, address in message.links.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
