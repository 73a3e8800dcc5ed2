"""Each kind of receiver gets what its own documentation asks for."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ledger.alert_settings import AlertSettings, Channel
from ledger.alerts import alert_id, close
from ledger.books import Books
from ledger.db import Alert
from rootcost.alerting import senders
from rootcost.alerting.dispatch import Dispatcher
from rootcost.alerting.messages import AlertMessage, Parcel, Places
from tests.rootcost.alerting.test_delivery import Clock, an_alert, raise_alerts, with_alerts
from tests.support.smtp_server import Mailbox, mailbox

AT = datetime(2026, 10, 5, 12, tzinfo=UTC)
PLACES = Places("https://cost.example.com", "https://api.example.com")
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def message(number: int = 1, **fields: Any) -> AlertMessage:
    values = {
        "alert_id": f"a{number}", "kind": "budget", "severity": "critical", "subject": "Care", "text": "Care is over its budget.",
        "payload": {"actual": "120.5"}, "team": "Care", "figure": "USD 120.50", "limit_text": "USD 100", "next_step": "Look at it.",
        "chain_id": "t:s", "address": "/v1/costs", "created_at": AT.isoformat(), "at": AT.isoformat(), "step": "opened", "number": 1,
        "actor": "system", "note": "",
    }  # fmt: skip
    return AlertMessage(f"d{number}", values | fields, PLACES)


def sent(channel: dict[str, Any], *messages: AlertMessage, at: datetime = AT) -> httpx.Request:
    """The request of one attempt."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(202)

    settings = Channel.model_validate({"name": "x", "url": "https://example.com/hook", **channel})
    outcome = senders.send(settings, Parcel("d1", messages or (message(),), at), transport=httpx.MockTransport(answer))
    assert (outcome.error, outcome.status) == (None, 202)
    return requests[0]


def test_webhooks_are_signed_at_each_attempt_over_the_bytes_that_are_sent() -> None:
    other_secret = "whsec_" + base64.b64encode(b"n" * 24).decode()
    first, second = (sent({"kind": "webhook", "secret": f"{SECRET} {other_secret}"}, at=AT + timedelta(hours=h)) for h in (0, 1))
    for request, hours in ((first, 0), (second, 1)):
        seconds = str(int((AT + timedelta(hours=hours)).timestamp()))
        assert (request.headers["webhook-id"], request.headers["webhook-timestamp"]) == ("d1", seconds)
        content = b"d1." + seconds.encode() + b"." + request.content
        keys = [b"k" * 24, b"n" * 24]
        signatures = ["v1," + base64.b64encode(hmac.new(key, content, "sha256").digest()).decode() for key in keys]
        assert request.headers["webhook-signature"].split() == signatures
    assert first.content == second.content
    assert "webhook-signature" not in sent({"kind": "webhook"}).headers


def test_a_key_that_is_none_is_told() -> None:
    channel = Channel.model_validate({"name": "x", "kind": "webhook", "url": "https://example.com", "secret": "whsec_näh"})
    outcome = senders.send(channel, Parcel("d1", (message(),), AT))
    assert outcome.error is not None
    assert "not base64" in outcome.error


def test_cloudevents_have_the_id_of_the_delivery() -> None:
    request = sent({"kind": "cloudevents", "secret": "t0ken"})
    event = json.loads(request.content)
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["authorization"] == "Bearer t0ken"
    assert {k: event[k] for k in ("specversion", "id", "source", "type", "subject", "datacontenttype")} == {
        "specversion": "1.0", "id": "d1", "source": "/rootcost/alerts", "type": "rootcost.budget.opened", "subject": "Care",
        "datacontenttype": "application/json",
    }  # fmt: skip
    assert event["data"]["figure"] == "USD 120.50"


def test_slack_stays_within_its_limits_and_escapes() -> None:
    (header, section, context) = json.loads(sent({"kind": "slack"}, message(text="a <b> & c")).content)["blocks"]
    assert header["text"]["text"] == "[critical] Care"
    assert "a &lt;b&gt; &amp; c" in section["text"]["text"]
    assert "<https://cost.example.com/alerts?alert=a1|Alert>" in section["text"]["text"]
    assert context["elements"][0]["text"] == "id d1"
    document = json.loads(sent({"kind": "slack"}, *(message(n, text="x" * 5000, subject="s" * 400) for n in range(60))).content)
    texts = [block["text"]["text"] for block in document["blocks"] if "text" in block]
    assert len(document["blocks"]) <= 50
    assert len(texts[0]) <= 150
    assert max(map(len, texts)) <= 3_000
    assert sum(map(len, texts)) < 13_000
    assert texts[-1].startswith("and ")


@pytest.mark.parametrize(("step", "action"), [("opened", "trigger"), ("acknowledged", "acknowledge"), ("withdrawn", "resolve")])
def test_pagerduty_knows_an_incident_by_its_key(step: str, action: str) -> None:
    request = sent({"kind": "pagerduty", "url": "", "secret": "routing"}, message(step=step, text="x" * 2_000))
    event = json.loads(request.content)
    assert str(request.url) == "https://events.pagerduty.com/v2/enqueue"
    assert (event["routing_key"], event["event_action"], event["dedup_key"]) == ("routing", action, "a1")
    assert len(event["payload"]["summary"]) == 1_024
    assert (event["payload"]["severity"], event["payload"]["custom_details"]["id"]) == ("critical", "d1")


def test_alertmanager_gets_labels_without_figures() -> None:
    (first,) = json.loads(sent({"kind": "alertmanager"}).content)
    (last,) = json.loads(sent({"kind": "alertmanager"}, message(step="resolved", figure="USD 130"), at=AT).content)
    assert first["labels"] == last["labels"]
    assert "USD 120.50" not in json.dumps(first["labels"])
    assert (first["annotations"]["figure"], first["startsAt"]) == ("USD 120.50", AT.isoformat())
    assert datetime.fromisoformat(first["endsAt"]) == AT + timedelta(minutes=5)
    assert datetime.fromisoformat(last["endsAt"]) == AT
    assert str(sent({"kind": "alertmanager"}).url) == "https://example.com/hook/api/v2/alerts"


def test_alertmanager_is_told_again_while_it_lasts(books: Books) -> None:
    clock, states = Clock(), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        (alert,) = json.loads(request.content)
        states.append("over" if datetime.fromisoformat(alert["endsAt"]) <= clock.at else "lasts")
        return httpx.Response(200)

    with_alerts(books, channels=[{"name": "am", "kind": "alertmanager", "url": "http://127.0.0.1:9"}])
    dispatcher = Dispatcher(books, transport=httpx.MockTransport(answer), clock=clock)
    raise_alerts(books, an_alert())
    for _ in range(3):
        dispatcher.dispatch()
        clock.forward(seconds=61)
    with books.database.session() as session:
        close(session, session.get_one(Alert, alert_id("cause 1")), "resolved")
    for _ in range(3):
        dispatcher.dispatch()
        clock.forward(seconds=61)
    assert states == ["lasts", "lasts", "lasts", "over"]


@pytest.fixture(scope="module")
def box() -> Iterator[Mailbox]:
    with mailbox() as server:
        yield server


def test_mail_has_the_id_and_several_alerts_are_one_mail(books: Books, box: Mailbox) -> None:
    mail = {"name": "mail", "kind": "email", "url": box.url, "recipients": ["ada@example.com", "bo@example.com"]}
    with_alerts(books, channels=[mail], group_over=2)
    clock, box.data_codes = Clock(), [451]
    dispatcher = Dispatcher(books, clock=clock)
    raise_alerts(books, an_alert(0, subject="Care\r\nBcc: eve@example.com"))
    assert dispatcher.dispatch().failed
    assert box.mails == []
    clock.forward(minutes=1)
    dispatcher.dispatch()
    (first,) = box.mails
    assert first["Subject"] == "[critical] Care Bcc: eve@example.com"
    assert first["Bcc"] is None
    assert "Figure: USD 120.50; limit: USD 100" in first.get_content()
    raise_alerts(books, *(an_alert(number) for number in range(1, 6)))
    assert len(dispatcher.dispatch().sent) == 5
    second = box.mails[1]
    assert second["Subject"] == "[critical] 5 alerts, the first is care-1"
    assert second["Message-ID"] != first["Message-ID"]
    assert second.get_content().count("Next step") == 5


def test_some_refused_recipients_do_not_send_it_to_the_others_again(books: Books, box: Mailbox) -> None:
    box.refused_recipients, box.mails[:] = {"nobody@example.com"}, []
    mail = {"name": "mail", "kind": "email", "url": box.url, "recipients": ["ada@example.com", "nobody@example.com"]}
    with_alerts(books, channels=[mail])
    raise_alerts(books, an_alert())
    clock = Clock()
    assert Dispatcher(books, clock=clock).dispatch().sent
    clock.forward(hours=1)
    assert not Dispatcher(books, clock=clock).dispatch().sent
    assert len(box.mails) == 1


@pytest.mark.parametrize(("terms", "words"), [
    ({"channels": [{"name": "x", "kind": "slack", "url": "ftp://secret-host/"}]}, "url is no http:// or https:// address"),
    ({"channels": [{"name": "x", "kind": "email", "url": "smtp://h", "recipients": ["ada"]}]}, "recipients must name addresses"),
    ({"channels": [{"name": "x", "kind": "pagerduty"}] * 2}, "two channels have one name"),
    ({"routes": [{"channels": ["nobody"]}]}, "there is no channel nobody"),
    ({"channels": [{"name": "x", "kind": "pagerduty"}], "routes": [{"channels": ["x"], "quiet": "22-7"}]}, "22:00-07:00"),
    ({"channels": [{"name": "x", "kind": "pagerduty"}], "routes": [{"channels": ["x"], "escalate_minutes": 5}]}, "need each other"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(terms: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        AlertSettings.model_validate(terms)
    assert "secret-host" not in str(error.value).split("input_value")[0]
