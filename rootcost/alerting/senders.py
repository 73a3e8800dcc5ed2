"""Senders: how each kind of receiver is told. A sender makes one attempt and says how it ended; the outbox decides about the next.

    webhook       Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature over the bytes that are sent
    cloudevents   CloudEvents 1.0, structured JSON
    slack         incoming webhook, blocks within Slack's limits
    pagerduty     Events v2: trigger, acknowledge, resolve by one dedup_key for each incident
    alertmanager  API v2; an alert is sent again while it lasts, else it would resolve itself
    heartbeat     GET
    email         `rootcost.alerting.mail`

A 2xx is success. 410 ends the channel. Redirects are failures: an alert goes where the settings say and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ledger.addresses import masked
from ledger.alerting.outbox import Outcome
from ledger.errors import SettingsError
from ledger.periods import now
from rootcost.alerting.messages import Parcel, group_title, shortened

if TYPE_CHECKING:
    import httpx

    from ledger.alert_settings import Channel

DEADLINE_SECONDS: Final = 15.0
"""How long an attempt may take from its first byte to the last, however slowly the receiver answers."""
REPEAT_SECONDS: Final = 60.0
"""How often an Alertmanager is told again of what lasts."""
_ANSWER_BYTES: Final = 500
_GONE: Final = 410
_PAGERDUTY_SEVERITIES: Final = {"info": "info", "warning": "warning", "critical": "critical"}
_PAGERDUTY_ACTIONS: Final = {"acknowledged": "acknowledge", "resolved": "resolve", "withdrawn": "resolve"}
_SLACK_BLOCKS, _SLACK_TEXT, _SLACK_HEADER, _SLACK_TOTAL = 50, 3_000, 150, 12_000


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request of one attempt."""

    url: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


def groups(channel: Channel) -> bool:
    """Whether several alerts may be one message: for people, not for machines, which tell incidents apart."""
    return channel.kind in ("slack", "email")


def repeat_seconds(channel: Channel) -> float:
    """How often the receiver is told again of what lasts; 0: once."""
    return REPEAT_SECONDS if channel.kind == "alertmanager" else 0.0


def send(channel: Channel, parcel: Parcel, *, transport: httpx.AsyncBaseTransport | None = None) -> Outcome:
    """Makes one attempt."""
    try:
        if channel.kind == "email":
            from rootcost.alerting.mail import send_mail

            return send_mail(channel, parcel)
        request = REQUESTS[channel.kind](channel, parcel)
    except SettingsError as error:
        return Outcome(error=str(error))
    return asyncio.run(_exchange(request, transport))


@cache
def _certificates() -> ssl.SSLContext:
    """The trusted certificates, read once: they are large."""
    import httpx

    return httpx.create_ssl_context()


async def _exchange(request: HttpRequest, transport: httpx.AsyncBaseTransport | None) -> Outcome:
    import httpx

    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            async with (
                httpx.AsyncClient(
                    timeout=DEADLINE_SECONDS, follow_redirects=False, transport=transport, verify=_certificates()
                ) as client,
                client.stream(request.method, request.url, content=request.body or None, headers=dict(request.headers)) as answer,
            ):
                if answer.is_success:
                    return Outcome(status=answer.status_code)
                text = b""
                async for chunk in answer.aiter_bytes():
                    text += chunk
                    if len(text) >= _ANSWER_BYTES:
                        break
                return _refusal(answer.status_code, answer.headers.get("retry-after", ""), text[:_ANSWER_BYTES])
    except TimeoutError:
        return Outcome(error=f"no answer within {DEADLINE_SECONDS:.0f} seconds")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Outcome(error=masked(f"{type(error).__name__}: {error}"))


def _refusal(status: int, retry_after: str, text: bytes) -> Outcome:
    reason = " ".join(text.decode("utf-8", "replace").split())
    error = masked(f"HTTP {status}{f': {shortened(reason, 200)}' if reason else ''}")
    return Outcome(status=status, error=error, retry_at=retry_time(retry_after, now()), gone=status == _GONE)


def retry_time(header: str, at: datetime) -> datetime | None:
    """When a receiver wants to be asked again, from its Retry-After: seconds, or a date. None: it does not say.

    >>> at = datetime(2026, 10, 5, 12, tzinfo=UTC)
    >>> retry_time("120", at).isoformat(), retry_time("Mon, 05 Oct 2026 13:00:00 GMT", at).hour, retry_time("soon", at)
    ('2026-10-05T12:02:00+00:00', 13, None)
    """
    text = header.strip()
    if text.isdecimal() and text.isascii():
        return at + timedelta(seconds=min(int(text[:9]), 10**7))
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def signature(key: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signatures of Standard Webhooks, one for each key: HMAC-SHA256 over id, time and body. Raises `SettingsError` for a key that is none.

    >>> signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    signatures = []
    for one_key in key.split():
        try:
            secret = base64.b64decode(one_key.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError) as error:
            remedy = "write whsec_ and 24 to 64 bytes in base64"
            raise SettingsError("a signing key is not base64", where="alerts.channels: secret", remedy=remedy) from error
        signatures.append("v1," + base64.b64encode(hmac.new(secret, content, "sha256").digest()).decode())
    return " ".join(signatures)


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str).encode()


def _bearer(channel: Channel) -> dict[str, str]:
    key = channel.key()
    return {"Authorization": f"Bearer {key}"} if key else {}


def _webhook(channel: Channel, parcel: Parcel) -> HttpRequest:
    """Signed anew at each attempt: receivers refuse old times. The id stays."""
    body, seconds = _json(parcel.messages[0].document()), int(parcel.at.timestamp())
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": parcel.batch_id,
        "webhook-id": parcel.batch_id,
        "webhook-timestamp": str(seconds),
    }
    if key := channel.key():
        headers["webhook-signature"] = signature(key, parcel.batch_id, seconds, body)
    return HttpRequest(channel.address(), body, headers)


def _cloudevents(channel: Channel, parcel: Parcel) -> HttpRequest:
    message = parcel.messages[0]
    event = {
        "specversion": "1.0",
        "id": parcel.batch_id,
        "source": "/rootcost/alerts",
        "type": f"rootcost.{message.fields['kind']}.{message.step}",
        "subject": message.fields["subject"],
        "time": message.fields["at"],
        "datacontenttype": "application/json",
        "data": message.document(),
    }
    headers = {"Content-Type": "application/cloudevents+json", "Idempotency-Key": parcel.batch_id, **_bearer(channel)}
    return HttpRequest(channel.address(), _json(event), headers)


def _slack(channel: Channel, parcel: Parcel) -> HttpRequest:
    """Slack has no id of a message: it stands in its last line, so that a repeat is recognised."""
    title = group_title(parcel.messages)
    blocks: list[dict[str, Any]] = [_block("header", shortened(title, _SLACK_HEADER), "plain_text")]
    room = _SLACK_TOTAL - len(title)
    for number, message in enumerate(parcel.messages):
        heading = f"*{_escaped(message.title)}*\n" if len(parcel.messages) > 1 else ""
        links = " · ".join(f"<{address}|{name}>" for name, address in message.links.items())
        text = shortened(heading + _escaped("\n".join(message.lines)), _SLACK_TEXT - len(links) - 1) + "\n" + links
        room -= len(text)
        if room < 0 or len(blocks) > _SLACK_BLOCKS - 3:
            remaining = len(parcel.messages) - number
            blocks.append(_block("section", f"and {remaining} more: <{message.places.dashboard}/alerts|all alerts>"))
            break
        blocks.append(_block("section", text))
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"id {parcel.batch_id}"}]})
    body = {"text": shortened(_escaped(title), _SLACK_TEXT), "blocks": blocks}
    return HttpRequest(channel.address(), _json(body), {"Content-Type": "application/json"})


def _block(kind: str, text: str, text_kind: str = "mrkdwn") -> dict[str, Any]:
    return {"type": kind, "text": {"type": text_kind, "text": text}}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _pagerduty(channel: Channel, parcel: Parcel) -> HttpRequest:
    message = parcel.messages[0]
    fields = message.fields
    event: dict[str, Any] = {
        "routing_key": channel.key(),
        "event_action": _PAGERDUTY_ACTIONS.get(message.step, "trigger"),
        "dedup_key": fields["alert_id"],
        "payload": {
            "summary": shortened(f"{message.title}: {fields['text']}", 1_024),
            "source": "rootcost",
            "severity": _PAGERDUTY_SEVERITIES.get(str(fields["severity"]), "warning"),
            "timestamp": fields["created_at"],
            "component": fields["subject"],
            "group": fields.get("team") or "",
            "class": fields["kind"],
            "custom_details": {
                "id": parcel.batch_id,
                **{name: fields.get(name) for name in ("figure", "limit_text", "next_step", "note", "payload")},
            },
        },
        "links": [{"href": address, "text": name} for name, address in message.links.items()],
    }
    return HttpRequest(channel.address(), _json(event), {"Content-Type": "application/json"})


def _alertmanager(channel: Channel, parcel: Parcel) -> HttpRequest:
    """Labels are the identity, so figures are annotations. It ends by itself a while after it was told last."""
    message = parcel.messages[0]
    fields = message.fields
    labels = {
        "alertname": f"rootcost_{fields['kind']}",
        "severity": fields["severity"],
        "subject": fields["subject"],
        "alert_id": fields["alert_id"],
        **({"team": fields["team"]} if fields.get("team") else {}),
    }
    is_over = message.step in ("resolved", "withdrawn")
    ends_at = parcel.at if is_over else parcel.at + timedelta(seconds=5 * REPEAT_SECONDS)
    alert = {
        "labels": labels,
        "annotations": {
            "summary": message.title,
            "description": "\n".join(message.lines),
            "figure": fields.get("figure") or "",
            "limit": fields.get("limit_text") or "",
            "next_step": fields.get("next_step") or "",
            "id": parcel.batch_id,
        },
        "startsAt": fields["created_at"],
        "endsAt": ends_at.isoformat(),
        "generatorURL": message.page,
    }
    url = channel.address().rstrip("/")
    url = url if url.endswith("/alerts") else f"{url}/api/v2/alerts"
    return HttpRequest(url, _json([alert]), {"Content-Type": "application/json", **_bearer(channel)})


def _heartbeat(channel: Channel, parcel: Parcel) -> HttpRequest:
    return HttpRequest(channel.address(), headers={"Idempotency-Key": parcel.batch_id, **_bearer(channel)}, method="GET")


REQUESTS: Final[Mapping[str, Callable[[Channel, Parcel], HttpRequest]]] = {
    "webhook": _webhook,
    "cloudevents": _cloudevents,
    "slack": _slack,
    "pagerduty": _pagerduty,
    "alertmanager": _alertmanager,
    "heartbeat": _heartbeat,
}
"""The request of an attempt, by kind of channel."""
