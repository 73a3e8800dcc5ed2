"""Alerts reach their receivers: once where nothing happens, at least once where something does, and always with the same id."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ledger.alert_settings import AlertSettings
from ledger.alert_tables import AlertChannel, AlertDelivery, AlertEvent
from ledger.alerting import outbox, responses
from ledger.alerting.routes import NOBODY
from ledger.alerts import add_new, alert_id, close, settle
from ledger.books import Books
from ledger.db import Alert
from ledger.periods import now
from rootcost.alerting import senders
from rootcost.alerting.dispatch import Dispatcher
from rootcost.alerting.messages import AlertMessage, Places
from tests.endurance.alerts import run
from tests.support.alert_receiver import Receiver, receiving

RAISED_AT = datetime(2026, 10, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    with receiving() as first, receiving() as second:
        yield first, second


@pytest.fixture
def receiver(receivers: tuple[Receiver, Receiver]) -> Receiver:
    for one in receivers:
        one.deliveries.clear()
        one.script()
    return receivers[0]


@pytest.fixture
def other(receivers: tuple[Receiver, Receiver]) -> Receiver:
    return receivers[1]


class Clock:
    """The time of the dispatcher."""

    def __init__(self) -> None:
        self.at = now() + timedelta(seconds=5)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **parts: float) -> None:
        self.at += timedelta(**parts)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def with_alerts(books: Books, **terms: Any) -> Books:
    """The books with other settings of alerts."""
    books.settings = books.settings.model_copy(update={"alerts": AlertSettings.model_validate(terms)})
    return books


def webhook(receiver: Receiver, name: str = "hook", **terms: Any) -> dict[str, Any]:
    return {"name": name, "kind": "webhook", "url": receiver.url, **terms}


def an_alert(number: int = 1, **columns: Any) -> Alert:
    fields: dict[str, Any] = {
        "alert_id": alert_id(f"cause {number}"), "kind": "budget", "severity": "critical", "subject": f"care-{number}",
        "text": "Care has used 120 % of its budget", "payload": {"actual": "120.5", "scope": "team", "scope_name": "Care"}, "team": "Care",
        "figure": "USD 120.50", "limit_text": "USD 100", "next_step": "rootcost budgets list", "created_at": RAISED_AT, "attempts": 0,
    }  # fmt: skip
    return Alert(**fields | columns)


def raise_alerts(books: Books, *alerts: Alert) -> list[str]:
    with books.database.session() as session:
        return [alert.alert_id for alert in add_new(session, alerts)]


def deliveries(books: Books) -> list[AlertDelivery]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(AlertDelivery).order_by(AlertDelivery.event_id, AlertDelivery.channel)))


def stored(books: Books, number: int = 1) -> Alert:
    with books.database.session() as session:
        return session.get_one(Alert, alert_id(f"cause {number}"))


def steps(receiver: Receiver) -> list[str]:
    return [delivery.document["type"].removeprefix("alert.") for delivery in receiver.accepted]


def test_an_alert_is_posted_once_and_says_number_limit_and_what_to_do(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    raise_alerts(books, an_alert(chain_id="t:s", address="/v1/costs?by=team"))
    assert raise_alerts(books, an_alert()) == []  # the same cause
    dispatcher = Dispatcher(books, clock=clock)
    assert dispatcher.dispatch().sent == [alert_id("cause 1")]
    assert dispatcher.dispatch().sent == []
    (delivery,) = receiver.deliveries
    document = delivery.document
    assert delivery.headers["idempotency-key"] == delivery.headers["webhook-id"] == deliveries(books)[0].delivery_id
    assert {name: document[name] for name in ("type", "kind", "severity", "figure", "limit_text", "next_step", "team")} == {
        "type": "alert.opened", "kind": "budget", "severity": "critical", "figure": "USD 120.50", "limit_text": "USD 100",
        "next_step": "rootcost budgets list", "team": "Care",
    }  # fmt: skip
    assert document["links"] == {
        "Alert": f"http://localhost:8501/alerts?alert={alert_id('cause 1')}",
        "Chain": "http://localhost:8501/chains?chain=t%3As",
        "Figures": "http://localhost:8787/v1/costs?by=team",
    }
    assert stored(books).delivered_at is not None


def test_an_alert_of_an_anomaly_leads_to_its_page() -> None:
    fields = {"step": "opened", "kind": "anomaly", "alert_id": "3f2a", "at": "2026-10-05T06:00:00Z"}
    message = AlertMessage("d-1", fields, Places("http://localhost:8501", "http://localhost:8787"))
    assert message.links["Anomaly"] == "http://localhost:8501/anomalies?anomaly=3f2a"


def test_without_a_receiver_the_dashboard_is_the_address(books: Books, clock: Clock) -> None:
    raise_alerts(books, an_alert())
    assert Dispatcher(books, clock=clock).dispatch().sent == []
    assert (stored(books).address, stored(books).delivered_at) == (NOBODY, clock.at)


def test_the_decision_and_its_event_are_one_transaction(books: Books) -> None:
    def decide() -> None:
        with books.database.session() as session:
            add_new(session, [an_alert()])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide()
    with books.database.session() as session:
        assert session.scalars(sa.select(AlertEvent)).all() == []


@pytest.mark.parametrize("answer", ["500", "302", "404", "hang", "drip"])
def test_what_fails_is_tried_again_later_with_the_same_id_and_content(
    books: Books, receiver: Receiver, clock: Clock, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    raise_alerts(books, an_alert())
    receiver.script(answer)
    dispatcher = Dispatcher(books, clock=clock)
    with monkeypatch.context() as patch:
        if answer in ("hang", "drip"):
            patch.setattr(senders, "DEADLINE_SECONDS", 0.4)
        assert dispatcher.dispatch().failed == [alert_id("cause 1")]
    assert stored(books).delivered_at is None
    assert stored(books).last_error
    clock.forward(seconds=4)
    assert dispatcher.dispatch().sent == [], "the pause of 5 seconds is not over"
    clock.forward(seconds=3)
    assert dispatcher.dispatch().sent == [alert_id("cause 1")]
    first, second = receiver.deliveries
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert stored(books).last_error is None


def test_a_receiver_that_asks_for_patience_is_asked_for_nothing_before(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    raise_alerts(books, an_alert(1), an_alert(2), an_alert(3))
    receiver.script("429")  # Retry-After: 120
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    assert len(receiver.deliveries) == 1
    clock.forward(seconds=110)
    dispatcher.dispatch()
    assert len(receiver.deliveries) == 1
    clock.forward(seconds=15)
    dispatcher.dispatch()
    assert len(receiver.accepted) == 3


def test_a_receiver_that_is_gone_gets_nothing_more_until_it_is_changed(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    raise_alerts(books, an_alert(1))
    receiver.script("410")
    Dispatcher(books, clock=clock).dispatch()
    raise_alerts(books, an_alert(2))
    Dispatcher(books, clock=clock).dispatch()
    assert [row.state for row in deliveries(books)] == ["dead", "dead"]
    assert len(receiver.deliveries) == 1
    with_alerts(books, channels=[webhook(receiver, secret="whsec_" + "QUJD" * 8)])
    with books.database.session() as session:
        assert outbox.retry(session, alert_id("cause 2"), clock.at) == 1
    Dispatcher(books, clock=clock).dispatch()
    with books.database.session() as session:
        assert session.get_one(AlertChannel, "hook").disabled_at is None
    assert [delivery.document["subject"] for delivery in receiver.accepted] == ["care-2"]


def test_what_cannot_be_delivered_for_days_is_a_dead_letter(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)], give_up_hours=1)
    raise_alerts(books, an_alert())
    receiver.script("500", "500")
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    clock.forward(hours=2)
    dispatcher.dispatch()
    (letter,) = deliveries(books)
    assert (letter.state, letter.status, letter.attempts) == ("dead", 500, 2)


def test_a_process_that_died_while_sending_leaves_a_lease_that_runs_out(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    raise_alerts(books, an_alert())
    from ledger.alerting.routes import route_events

    route_events(books, clock.at)
    claim = outbox.claim(books.database, "hook", clock.at)
    assert claim is not None
    assert outbox.claim(books.database, "hook", clock.at) is None
    Dispatcher(books, clock=clock).dispatch()
    assert receiver.deliveries == []
    clock.forward(seconds=outbox.LEASE_SECONDS + 1)
    Dispatcher(books, clock=clock).dispatch()
    assert receiver.accepted[0].headers["webhook-id"] == claim.batch_id
    outbox.settle(books.database, claim, outbox.Outcome(error="late"), clock.at, give_up_hours=1)
    assert deliveries(books)[0].state == "sent", "the lease was lost: what the late process says does not count"


def test_a_receiver_that_hangs_keeps_nobody_else_waiting(
    books: Books, receiver: Receiver, other: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "DEADLINE_SECONDS", 0.5)
    with_alerts(books, channels=[webhook(receiver), webhook(other, "other")])
    raise_alerts(books, an_alert(1), an_alert(2))
    receiver.script("hang", "hang", "hang")
    result = Dispatcher(books, clock=clock).dispatch()
    assert len(other.accepted) == 2
    assert len(result.failed) == 2


def test_routes_choose_by_team_kind_and_severity(books: Books, receiver: Receiver, other: Receiver, clock: Clock) -> None:
    routes = [{"channels": ["care"], "teams": ["Care"], "severity": "critical"}, {"channels": ["all"], "kinds": ["drift"]}]
    with_alerts(books, channels=[webhook(receiver, "care"), webhook(other, "all")], routes=routes)
    raise_alerts(
        books,
        an_alert(1),
        an_alert(2, severity="warning"),
        an_alert(3, team="Dev"),
        an_alert(4, kind="drift", team=None, severity="info"),
    )
    Dispatcher(books, clock=clock).dispatch()
    assert [delivery.document["subject"] for delivery in receiver.accepted] == ["care-1"]
    assert [delivery.document["subject"] for delivery in other.accepted] == ["care-4"]


def test_a_receiver_of_a_team_sees_that_team_only(books: Books, receiver: Receiver, clock: Clock) -> None:
    from ledger import registry

    registry.import_text(books, "agent,team\nsupport-bot,Care\ncoder,Dev\n", uri="agents.csv", actor="test")
    with_alerts(books, channels=[webhook(receiver, teams=["Care"])])
    own = {"payload": {"scope": "agent", "scope_name": "support-bot"}}
    foreign = {"payload": {"scope": "agent", "scope_name": "coder"}, "team": "Care"}
    of_whole = {"payload": {"scope": "provider", "scope_name": "AWS"}, "team": None}
    raise_alerts(
        books, an_alert(1, **own), an_alert(2, **foreign), an_alert(3, **of_whole), an_alert(4, payload={"scope": "model"})
    )
    Dispatcher(books, clock=clock).dispatch()
    assert [delivery.document["subject"] for delivery in receiver.accepted] == ["care-1", "care-4"]


def test_quiet_hours_hold_back_what_is_not_critical(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)], routes=[{"channels": ["hook"], "quiet": "22:00-07:00"}])
    clock.at = datetime(2036, 3, 1, 23, tzinfo=UTC)
    raise_alerts(books, an_alert(1), an_alert(2, severity="warning"))
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    assert [delivery.document["subject"] for delivery in receiver.accepted] == ["care-1"]
    clock.forward(hours=8)
    dispatcher.dispatch()
    assert [delivery.document["subject"] for delivery in receiver.accepted] == ["care-1", "care-2"]


def test_what_nobody_acknowledges_is_escalated_once(books: Books, receiver: Receiver, other: Receiver, clock: Clock) -> None:
    routes = [{"channels": ["hook"], "escalate_minutes": 30, "escalate_to": ["boss"]}]
    with_alerts(books, channels=[webhook(receiver), webhook(other, "boss")], routes=routes)
    raise_alerts(books, an_alert(1), an_alert(2))
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    with books.database.session() as session:
        responses.acknowledge(session, session.get_one(Alert, alert_id("cause 2")), "user:1", name="ada", text="mine")
    for _ in range(3):
        clock.forward(minutes=31)
        dispatcher.dispatch()
    assert [(d.document["subject"], d.document["type"]) for d in other.accepted] == [("care-1", "alert.escalated")]
    assert steps(receiver) == ["opened", "opened", "acknowledged"]


def test_who_was_told_is_told_the_end_and_nobody_else(books: Books, receiver: Receiver, other: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver), webhook(other, "other")])
    raise_alerts(books, an_alert())
    other.script("410")
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    raise_alerts(books, an_alert(2))
    with books.database.session() as session:
        for number in (1, 2):  # the second before anybody was told
            close(session, session.get_one(Alert, alert_id(f"cause {number}")), "resolved", text="It is over.")
    dispatcher.dispatch()
    assert [(d.document["subject"], d.document["type"]) for d in receiver.accepted] == [
        ("care-1", "alert.opened"),
        ("care-1", "alert.resolved"),
    ]
    assert other.accepted == []


def test_the_end_is_not_told_before_the_beginning(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    raise_alerts(books, an_alert())
    receiver.script("500")  # which may have been read all the same
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    with books.database.session() as session:
        close(session, session.get_one(Alert, alert_id("cause 1")), "withdrawn")
    dispatcher.dispatch()
    assert receiver.accepted == []
    clock.forward(minutes=5)
    dispatcher.dispatch()
    assert steps(receiver) == ["opened", "withdrawn"]


def test_an_alert_of_a_superseded_run_is_corrected_or_withdrawn(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    dispatcher = Dispatcher(books, clock=clock)

    def evaluate(*alerts: Alert, run: str = "r") -> None:
        with books.database.session() as session:
            settle(session, "budget", "2026-10", alerts, run_id=run)
        dispatcher.dispatch()

    def at_figure(figure: str) -> Alert:
        return an_alert(
            month="2026-10", payload={"actual": figure, "scope": "team", "scope_name": "Care"}, figure=f"USD {figure}"
        )

    evaluate(at_figure("120.5"))
    evaluate(at_figure("130"))  # it grows: nobody is told again, and the page says it
    assert (steps(receiver), stored(books).figure) == (["opened"], "USD 130")
    evaluate(at_figure("101"), run="r2")
    assert [d.document["figure"] for d in receiver.accepted] == ["USD 120.5", "USD 101"]
    evaluate(run="r3")
    assert steps(receiver) == ["opened", "corrected", "withdrawn"]
    assert "run r3" in receiver.accepted[-1].document["note"]
    evaluate(at_figure("140"))
    assert steps(receiver)[-1] == "opened"
    assert len({d.headers["webhook-id"] for d in receiver.accepted}) == 4


@pytest.mark.clock
def test_mutes_and_snoozes_hold_back_and_end(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[webhook(receiver)])
    with books.database.session() as session:
        responses.mute(session, "cli", team="Care", reason="migration", until=now() + timedelta(hours=1))
    raise_alerts(books, an_alert(1), an_alert(2, team="Dev"))
    dispatcher = Dispatcher(books, clock=clock)
    dispatcher.dispatch()
    assert [d.document["subject"] for d in receiver.accepted] == ["care-2"]
    clock.forward(hours=2)
    raise_alerts(books, an_alert(3))
    with books.database.session() as session:
        responses.snooze(session, session.get_one(Alert, alert_id("cause 3")), "cli", clock.at + timedelta(hours=3))
    dispatcher.dispatch()
    assert len(receiver.accepted) == 1
    clock.forward(hours=4)
    dispatcher.dispatch()
    assert [d.document["subject"] for d in receiver.accepted] == ["care-2", "care-3"]


def test_heartbeats_go_through_the_whole_chain(books: Books, receiver: Receiver, clock: Clock) -> None:
    with_alerts(books, channels=[{"name": "watchdog", "kind": "heartbeat", "url": receiver.url}])
    dispatcher = Dispatcher(books, clock=clock)
    receiver.script("500")
    for _ in range(3):
        dispatcher.beat()
        dispatcher.dispatch()
        clock.forward(hours=13)
    raise_alerts(books, an_alert())  # a heartbeat is no receiver of alerts
    dispatcher.dispatch()
    assert len(receiver.accepted) == 2
    dispatcher.beat()
    with books.database.session() as session:
        assert len(session.scalars(sa.select(AlertEvent).where(AlertEvent.step == "beat")).all()) <= 3


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, kills=6, seed=3)
    assert result.is_sound, result
    assert result.decided > 3
