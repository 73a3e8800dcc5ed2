"""Digests are sent once a period, and a receiver of a team gets that team's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ledger.books import Books
from rootcost.alerting.digests import decide_due
from rootcost.alerting.dispatch import Dispatcher
from tests.rootcost.alerting.test_delivery import with_alerts
from tests.support.alert_receiver import receiving
from tests.support.api_examples import write_worked_example


def test_a_digest_is_sent_once_and_shows_what_the_receiver_may_see(books: Books) -> None:
    write_worked_example(books)
    at = datetime(2026, 10, 6, 8, 30, tzinfo=UTC)  # the worked example is of 5 October
    with receiving() as receiver:
        channels = [
            {"name": "finance", "kind": "webhook", "url": receiver.url},
            {"name": "care", "kind": "webhook", "url": receiver.url, "teams": ["Care"]},
        ]
        digests = [{"channels": ["finance", "care"], "every": "day"}]
        with_alerts(books, channels=channels, digests=digests)
        assert decide_due(books, at) == 2
        assert decide_due(books, at + timedelta(hours=20)) == 0
        Dispatcher(books, clock=lambda: at).dispatch()
        documents = {delivery.document["figure"]: delivery.document["text"] for delivery in receiver.accepted}
    assert set(documents) == {"USD 0.03", "USD 0.018"}
    assert "Dev: USD 0.009" in documents["USD 0.03"]
    assert "Care: USD 0.018" in documents["USD 0.018"]
    assert "Dev" not in documents["USD 0.018"]
