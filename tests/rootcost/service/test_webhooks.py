"""Alerts reach the webhook once, survive its outages, and tell why they are late."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from ledger.books import Books
from ledger.db import Alert
from rootcost.service.webhooks import DASHBOARD, TRIES, Outbox


def raise_alert(books: Books, alert_id: str = "a1") -> None:
    with books.database.session() as session:
        session.add(
            Alert(
                alert_id=alert_id,
                kind="budget",
                severity="critical",
                subject="Care",
                text="Care has used 120 % of its budget",
                payload={"amount": "100", "spent": "120.5"},
                created_at=datetime(2026, 10, 5, tzinfo=UTC),
            )
        )


def stored(books: Books, alert_id: str = "a1") -> Alert:
    with books.database.session() as session:
        return session.get_one(Alert, alert_id)


@pytest.fixture
def with_webhook(home: Path, monkeypatch: pytest.MonkeyPatch) -> Books:
    monkeypatch.setenv("ROOTCOST_ALERTS__WEBHOOK_URL", "http://127.0.0.1:9/hook")
    return Books.open(home)


class Webhook:
    """A receiver that answers with the given codes, then 200."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.received: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.received.append(request)
        return httpx.Response(self.codes.pop(0) if self.codes else 200)

    def outbox(self, books: Books) -> Outbox:
        return Outbox(books, client=httpx.Client(transport=httpx.MockTransport(self)), first_pause_seconds=0.001)


def test_an_alert_is_posted_once_with_its_id_as_idempotency_key(with_webhook: Books) -> None:
    raise_alert(with_webhook)
    hook = Webhook()
    outbox = hook.outbox(with_webhook)

    assert outbox.deliver().sent == ["a1"]
    assert outbox.deliver().sent == []

    (request,) = hook.received
    assert request.headers["Idempotency-Key"] == "a1"
    assert json.loads(request.content) == {
        "alert_id": "a1",
        "kind": "budget",
        "severity": "critical",
        "subject": "Care",
        "text": "Care has used 120 % of its budget",
        "created_at": "2026-10-05T00:00:00+00:00",
        "payload": {"amount": "100", "spent": "120.5"},
    }
    kept = stored(with_webhook)
    assert kept.delivered_at is not None
    assert (kept.attempts, kept.last_error) == (1, None)


def test_a_stumble_is_retried_within_the_round(with_webhook: Books) -> None:
    raise_alert(with_webhook)
    hook = Webhook(503, 500)
    assert hook.outbox(with_webhook).deliver().sent == ["a1"]
    assert stored(with_webhook).attempts == 3


def test_a_dead_webhook_is_told_on_the_alert_and_tried_again_when_due(with_webhook: Books) -> None:
    raise_alert(with_webhook)
    hook = Webhook(*[503] * TRIES)
    outbox = hook.outbox(with_webhook)

    assert outbox.deliver(clock=lambda: 100.0).failed == ["a1"]
    kept = stored(with_webhook)
    assert (kept.delivered_at, kept.attempts, kept.last_error) == (None, 3, "HTTP 503")

    outbox.deliver(clock=lambda: 103.9)
    assert len(hook.received) == 3, "the pause of 4 seconds is not over"
    assert outbox.deliver(clock=lambda: 104.0).sent == ["a1"]
    assert stored(with_webhook).last_error is None


def test_an_unreachable_webhook_is_no_exception(with_webhook: Books) -> None:
    raise_alert(with_webhook)

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    outbox = Outbox(with_webhook, client=httpx.Client(transport=httpx.MockTransport(refuse)), first_pause_seconds=0.001)
    assert outbox.deliver().failed == ["a1"]
    assert stored(with_webhook).last_error == "ConnectError: connection refused"


def test_without_a_webhook_the_dashboard_is_the_address(books: Books) -> None:
    raise_alert(books)
    assert Outbox(books).deliver().sent == ["a1"]
    kept = stored(books)
    assert kept.address == DASHBOARD
    assert kept.delivered_at is not None
