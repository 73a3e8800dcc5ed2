"""Outbox of alerts: each is delivered at least once, or carries the error that prevented it.

An alert is a row before it is a message. It is POSTed to the webhook until that answers 2xx; its `alert_id` goes along as
``Idempotency-Key``, so a receiver can tell a repeat from a second alert. Without a webhook the dashboard is the address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ledger.db import Alert
from ledger.periods import now

if TYPE_CHECKING:
    import httpx

    from ledger.books import Books

DASHBOARD, WEBHOOK = "dashboard", "webhook"
"""Addresses as alerts show them: a webhook's URL is a secret, so it is never written down."""

TRIES = 3
"""POSTs of one alert in one round; further rounds follow (see `Outbox`)."""

_SLOWEST_ROUND_SECONDS = 3600.0


@dataclass(slots=True)
class DeliveryRound:
    """Alerts sent and failed in one round."""

    sent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def backoff_seconds(rounds_failed: int) -> float:
    """Pause before the next round for an alert whose rounds failed: doubling from 4 seconds, one hour at most.

    >>> [backoff_seconds(n) for n in (1, 2, 3, 20)]
    [4.0, 8.0, 16.0, 3600.0]
    """
    return float(min(2.0 ** (rounds_failed + 1), _SLOWEST_ROUND_SECONDS))


class Outbox:
    """Delivers stored alerts. Keeps a backoff per alert, so that a failing webhook is not called in every round."""

    def __init__(self, books: Books, *, client: httpx.Client | None = None, first_pause_seconds: float = 0.5) -> None:
        self._books = books
        self._client = client
        self._first_pause_seconds = first_pause_seconds
        self._rounds_failed: dict[str, int] = {}
        self._due_at: dict[str, float] = {}

    def deliver(self, *, clock: Callable[[], float] | None = None) -> DeliveryRound:
        """Sends what is due, oldest first. A failure is kept on the alert and never raised: the next round tries again."""
        import time

        at = (clock or time.monotonic)()
        round_result = DeliveryRound()
        with self._books.database.session() as session:
            waiting = session.scalars(sa.select(Alert).where(Alert.delivered_at.is_(None)).order_by(Alert.created_at)).all()
        url = self._books.settings.alerts.webhook_url
        for alert in waiting:
            if self._due_at.get(alert.alert_id, at) > at:
                continue
            if not url:
                self._note(alert.alert_id, attempts=0, error=None, address=DASHBOARD)
                round_result.sent.append(alert.alert_id)
                continue
            attempts, error = self._post(url, alert)
            self._note(alert.alert_id, attempts=attempts, error=error, address=WEBHOOK)
            if error is None:
                round_result.sent.append(alert.alert_id)
                self._due_at.pop(alert.alert_id, None)
            else:
                failed_rounds = self._rounds_failed[alert.alert_id] = self._rounds_failed.get(alert.alert_id, 0) + 1
                self._due_at[alert.alert_id] = at + backoff_seconds(failed_rounds)
                round_result.failed.append(alert.alert_id)
        return round_result

    def _post(self, url: str, alert: Alert) -> tuple[int, str | None]:
        """Number of attempts, and the last error (None: delivered)."""
        import httpx
        from tenacity import RetryError, Retrying, stop_after_attempt, wait_exponential_jitter

        attempts = 0
        last = "no answer"
        client = self._client or httpx.Client(timeout=10.0, follow_redirects=False)
        first = self._first_pause_seconds
        try:
            for attempt in Retrying(
                stop=stop_after_attempt(TRIES), wait=wait_exponential_jitter(multiplier=first, max=8 * first, jitter=first)
            ):
                with attempt:
                    attempts += 1
                    try:
                        answer = client.post(url, json=message(alert), headers={"Idempotency-Key": alert.alert_id})
                    except (httpx.HTTPError, httpx.InvalidURL) as error:
                        last = f"{type(error).__name__}: {error}"
                        raise
                    if not answer.is_success:
                        last = f"HTTP {answer.status_code}"
                        raise httpx.HTTPStatusError(last, request=answer.request, response=answer)
        except RetryError:
            return attempts, last
        finally:
            if self._client is None:
                client.close()
        return attempts, None

    def _note(self, alert_id: str, *, attempts: int, error: str | None, address: str) -> None:
        with self._books.database.session() as session:
            alert = session.get_one(Alert, alert_id)
            alert.attempts += attempts
            alert.last_error = error
            alert.address = alert.address or address
            if error is None:
                alert.delivered_at = now()


def message(alert: Alert) -> dict[str, Any]:
    """What the webhook receives: the alert as it is stored; amounts are decimal strings."""
    return {
        "alert_id": alert.alert_id,
        "kind": alert.kind,
        "severity": alert.severity,
        "subject": alert.subject,
        "text": alert.text,
        "created_at": alert.created_at.isoformat(),
        "payload": alert.payload,
    }
