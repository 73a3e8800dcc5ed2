"""Alerts over the API: seen by who may see them, answered once, muted, and receivers listed without their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.alert_settings import AlertSettings, Channel
from ledger.alerting import outbox
from ledger.alerting.routes import route_events
from ledger.alerts import add_new, alert_id
from ledger.books import Books
from ledger.db import Alert, Audit
from ledger.periods import now
from tests.support.api_examples import reach

CHANNEL = Channel(name="oncall", kind="webhook", url=SecretStr("http://127.0.0.1:9/s3cret"))
CARE, DEV = alert_id("care"), alert_id("dev")


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("alerts")) as home_books:
        home_books.settings = home_books.settings.model_copy(update={"alerts": AlertSettings(channels=[CHANNEL])})
        with home_books.database.session() as session:
            add_new(session, [
                Alert(
                    alert_id=key, kind="budget", severity="critical", subject=team, text=f"{team} is over", team=team,
                    payload={"scope": "team", "scope_name": team}, created_at=now(), attempts=0,
                )
                for key, team in ((CARE, "Care"), (DEV, "Dev"))
            ])  # fmt: skip
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    with reach(books) as client:
        yield client


@pytest.fixture(scope="module")
def care(books: Books) -> dict[str, str]:
    return header(books, Grant("finance", "Care"))


@pytest.fixture(scope="module")
def admin(books: Books) -> dict[str, str]:
    return header(books, Grant("admin"))


def header(books: Books, grant: Grant) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_key(books, 'clerk', [grant], actor='test')[1]}"}


def answer(http: httpx.Client, key: dict[str, str], alert: str, **response: Any) -> httpx.Response:
    return http.post(f"/v1/alerts/{alert}/responses", json=response, headers=key)


@pytest.mark.clock
def test_a_team_sees_answers_and_mutes_its_own_alerts_only(
    http: httpx.Client, care: dict[str, str], admin: dict[str, str]
) -> None:
    assert [row["subject"] for row in http.get("/v1/alerts", headers=care).json()["rows"]] == ["Care"]
    assert http.get(f"/v1/alerts/{DEV}", headers=care).status_code == 404
    assert answer(http, care, DEV, action="acknowledge").status_code == 404
    until = (now() + timedelta(hours=1)).isoformat()
    assert http.post("/v1/alert-mutes", json={"team": "Dev", "reason": "x", "until": until}, headers=care).status_code == 403
    assert http.post("/v1/alert-mutes", json={"kind": "budget", "reason": "x", "until": until}, headers=care).status_code == 403
    mute = http.post("/v1/alert-mutes", json={"team": "Care", "reason": "x", "until": until}, headers=care)
    assert mute.status_code == 201
    assert http.get("/v1/alert-channels", headers=care).status_code == 403
    assert http.post("/v1/alert-mutes", json={"reason": "x", "until": until}, headers=admin).status_code == 400
    assert http.delete(f"/v1/alert-mutes/{mute.json()['id']}", headers=care).status_code == 204
    assert http.get("/v1/alert-mutes", headers=care).json()["rows"] == []


@pytest.mark.clock
def test_answers_are_events_and_entries_of_the_audit_log(http: httpx.Client, care: dict[str, str], books: Books) -> None:
    assert answer(http, care, CARE, action="comment").status_code == 400
    assert answer(http, care, CARE, action="snooze").status_code == 400
    assert answer(http, care, CARE, action="snooze", until="2020-01-01T00:00:00Z").status_code == 400
    answer(http, care, CARE, action="comment", text="a load test")
    answer(http, care, CARE, action="acknowledge", text="mine")
    answer(http, care, CARE, action="acknowledge", text="mine")
    until = (now() + timedelta(hours=2)).isoformat()
    assert answer(http, care, CARE, action="snooze", until=until).json()["snoozed_until"] is not None
    document = answer(http, care, CARE, action="resolve", text="over").json()
    assert document["state"] == "resolved"
    assert [(event["step"], event["actor"]) for event in document["events"]] == [
        ("opened", "system"), ("commented", "clerk"), ("acknowledged", "clerk"), ("snoozed", "clerk"), ("resolved", "clerk"),
    ]  # fmt: skip
    assert answer(http, care, CARE, action="acknowledge").status_code == 400
    with books.database.session() as session:
        actions = session.scalars(sa.select(Audit.action).where(Audit.subject == CARE).order_by(Audit.sequence)).all()
    assert actions == ["alert.comment", "alert.acknowledge", "alert.snooze", "alert.resolve"]
    assert [row["state"] for row in http.get("/v1/alerts?state=resolved", headers=care).json()["rows"]] == ["resolved"]


@pytest.mark.clock
def test_dead_letters_are_listed_and_sent_again_with_their_ids(http: httpx.Client, admin: dict[str, str], books: Books) -> None:
    at = now()
    route_events(books, at)
    claim = outbox.claim(books.database, "oncall", at)
    assert claim is not None
    outcome = outbox.Outcome(status=410, error="HTTP 410", gone=True)
    outbox.settle(books.database, claim, outcome, at, give_up_hours=1)
    outbox.note_channel(books.database, "oncall", "f", outcome, at)
    (letter,) = http.get("/v1/alert-deliveries?state=dead", headers=admin).json()["rows"]
    assert (letter["delivery_id"], letter["status"], letter["error"]) == (claim.batch_id, 410, "HTTP 410")
    channels = http.get("/v1/alert-channels", headers=admin)
    assert [(row["name"], row["state"], row["dead"]) for row in channels.json()["rows"]] == [("oncall", "gone", 1)]
    assert "s3cret" not in channels.text
    detail = answer(http, admin, letter["alert_id"], action="retry").json()
    assert {(row["delivery_id"], row["state"]) for row in detail["deliveries"] if row["step"] == "opened"} == {
        (claim.batch_id, "pending")
    }


def test_a_receiver_is_tried(http: httpx.Client, admin: dict[str, str], care: dict[str, str]) -> None:
    assert http.post("/v1/alert-channels/oncall/test", headers=care).status_code == 403
    assert http.post("/v1/alert-channels/nobody/test", headers=admin).status_code == 404
    test = http.post("/v1/alert-channels/oncall/test", headers=admin)
    assert (test.status_code, test.json()["kind"]) == (202, "test")
