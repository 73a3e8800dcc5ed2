"""The dispatcher: turns events into messages, and sends what is due. Any number of processes may do so at once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from ledger.alert_tables import Alert, AlertDelivery
from ledger.alerting import outbox
from ledger.alerting.outbox import Outcome
from ledger.alerting.routes import route_events
from ledger.alerts import alert_id, note
from ledger.errors import SettingsError
from ledger.periods import now
from rootcost.alerting import senders
from rootcost.alerting.messages import AlertMessage, Parcel, Places

if TYPE_CHECKING:
    import httpx

    from ledger.alert_settings import Channel
    from ledger.books import Books

_ROUND_SECONDS: Final = 30.0
"""How long one round may send to one channel; the next goes on."""
_FAILURES: Final = 3
"""Attempts in a row that may fail in a round before a channel is left alone until the next."""
_THREADS: Final = 8
WATCHDOG: Final = alert_id("watchdog")
"""Id of the incident that heartbeats are events of: it never ends."""


@dataclass(slots=True)
class DispatchResult:
    """Ids of the alerts of which a message was sent, or failed, in one round."""

    sent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Dispatcher:
    """Sends what the outbox holds. `transport` and `clock` are for tests."""

    def __init__(
        self, books: Books, *, transport: httpx.AsyncBaseTransport | None = None, clock: Callable[[], datetime] = now
    ) -> None:
        self._books = books
        self._transport = transport
        self._clock = clock

    def dispatch(self) -> DispatchResult:
        """One round. Failures are kept with the messages and never raised: a later round tries again."""
        at = self._clock()
        route_events(self._books, at)
        database = self._books.database
        channels = {channel.name: channel for channel in self._books.settings.alerts.receivers()}
        disabled_channels = outbox.disabled_channels(database)
        due_channels = []
        for name in outbox.due_channels(database, at):
            channel = channels.get(name)
            if channel is None:
                outbox.bury(database, name, "the settings have no channel of that name any more")
            elif disabled_channels.get(name) == fingerprint_of(channel):
                outbox.bury(database, name, "the receiver is gone (HTTP 410); change the channel to enable it again")
            else:
                due_channels.append(channel)
        result = DispatchResult()
        if due_channels:
            # A receiver that hangs must not keep others waiting.
            with ThreadPoolExecutor(min(_THREADS, len(due_channels)), thread_name_prefix="alerts") as pool:
                for part in pool.map(self._send_due, due_channels):
                    result.sent += part.sent
                    result.failed += part.failed
        return result

    def _send_due(self, channel: Channel) -> DispatchResult:
        result, failures = DispatchResult(), 0
        settings, deadline = self._books.settings.alerts, time.monotonic() + _ROUND_SECONDS
        while failures < _FAILURES and time.monotonic() < deadline:
            group_over = settings.group_over if senders.groups(channel) else 0
            claim = outbox.claim(self._books.database, channel.name, self._clock(), group_over=group_over)
            if claim is None:
                break
            outcome = self._attempt(channel, claim)
            at = self._clock()
            repeat_seconds = senders.repeat_seconds(channel)
            outbox.settle(
                self._books.database, claim, outcome, at, give_up_hours=settings.give_up_hours, repeat_seconds=repeat_seconds
            )
            outbox.note_channel(self._books.database, channel.name, fingerprint_of(channel), outcome, at)
            alert_ids = [message.alert_id for message in claim.messages]
            (result.sent if outcome.error is None else result.failed).extend(alert_ids)
            failures = 0 if outcome.error is None else failures + 1
            if outcome.gone or outcome.retry_at is not None:
                break
        return result

    def _attempt(self, channel: Channel, claim: outbox.Claim) -> Outcome:
        places = Places.of(self._books.settings)
        messages = [AlertMessage(message.delivery_id, message.message, places) for message in claim.messages]
        return senders.send(channel, Parcel(claim.batch_id, messages, self._clock()), transport=self._transport)

    def beat(self) -> None:
        """A heartbeat through the whole chain: an event, a message, a request. Without a channel of that kind it does nothing."""
        channels = [channel.name for channel in self._books.settings.alerts.receivers() if channel.kind == "heartbeat"]
        if not channels:
            return
        at = self._clock()
        with self._books.database.session() as session:
            session.execute(
                sa.update(AlertDelivery)
                .where(AlertDelivery.alert_id == WATCHDOG, AlertDelivery.state == "pending")
                .values(state="dropped", error="a newer heartbeat follows")
                .execution_options(synchronize_session=False)
            )
            watchdog = session.get(Alert, WATCHDOG)
            if watchdog is None:
                watchdog = Alert(
                    alert_id=WATCHDOG, kind="watchdog", severity="info", subject="RootCost", text="The evaluator works.",
                    payload={}, created_at=at, delivered_at=at, state="watchdog", attempts=0,
                )  # fmt: skip
                session.add(watchdog)
                session.flush()
            watchdog.channels = channels
            note(session, watchdog, "beat")
        outbox.remove_beats(self._books.database, at)


def fingerprint_of(channel: Channel) -> str:
    """Changes with the address or key of a channel, which it does not give away."""
    try:
        text = f"{channel.kind}\n{channel.address()}\n{channel.key()}\n{','.join(channel.recipients)}"
    except SettingsError as error:
        text = str(error)
    return hashlib.sha256(text.encode()).hexdigest()
