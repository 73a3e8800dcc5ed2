"""`rootcost alerts`: a receiver is tested, an alert listed and answered, and what is wrong is said in a sentence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.alerts import add_new, alert_id
from ledger.books import Books
from ledger.db import Alert
from tests.support.alert_receiver import receiving
from tests.support.cli_books import Command

ALERT = alert_id("a")


@pytest.fixture
def rootcost(home: Path) -> Command:
    with Books.open(home) as books, books.database.session() as session:
        alert = Alert(
            alert_id=ALERT, kind="budget", severity="critical", subject="Care", text="Care is over its budget", payload={},
            figure="USD 120", limit_text="USD 100", next_step="Look.", created_at=datetime(2026, 10, 5, tzinfo=UTC), attempts=0,
        )  # fmt: skip
        add_new(session, [alert])
    return Command(home)


def test_a_channel_is_tested_through_the_outbox(rootcost: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rootcost("alerts", "test").code == 2
    with receiving() as receiver:
        monkeypatch.setenv("ROOTCOST_ALERTS__WEBHOOK_URL", receiver.url)
        result = rootcost("alerts", "test", "webhook")
        assert (result.code, result.out.strip()) == (0, "webhook: accepted")
        receiver.script("500")
        failure = rootcost("alerts", "test")
        assert (failure.code, failure.out.strip()) == (1, "webhook: pending: HTTP 500")
        assert {delivery.document["kind"] for delivery in receiver.deliveries} == {"budget", "test"}


def test_an_alert_is_listed_and_answered(rootcost: Command) -> None:
    (row,) = json.loads(rootcost("alerts", "list", "--format", "json").out)
    assert (row["alert_id"], row["figure"], row["limit_text"], row["next_step"]) == (ALERT, "USD 120", "USD 100", "Look.")
    assert rootcost("alerts", "ack", ALERT[:6], "--text", "mine").code == 0
    assert rootcost("alerts", "snooze", ALERT[:6], "--for", "4h").code == 0
    output = rootcost("alerts", "show", ALERT[:6]).out
    assert "acknowledged by command line: mine" in output
    wrong = rootcost("alerts", "snooze", ALERT[:6], "--for", "soon")
    assert (wrong.code, "write 90m, 4h or 2d" in wrong.err) == (2, True)
    assert rootcost("alerts", "ack", "zz").code == 1
    assert rootcost("alerts", "mute", "--for", "2d", "--reason", "x").code == 2
    assert rootcost("alerts", "mute", "--team", "Care", "--for", "2d", "--reason", "migration").code == 0
    assert "migration" in rootcost("alerts", "mutes").out
    assert rootcost("alerts", "unmute", "1").code == 0
