"""Anomalies over the API: seen by who may see them, answered with a reason, muted; each answer ends the one incident of its cause."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from attribution.monitoring import anomalies
from ledger import registry
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.alert_tables import Alert, AlertEvent
from ledger.alerting.routes import route_events
from ledger.books import Books
from ledger.db import Audit
from ledger.periods import now
from tests.attribution.monitoring.test_anomalies import SPIKE, write
from tests.support.api_examples import reach

TODAY = SPIKE + timedelta(days=3)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("anomalies")) as home_books:
        registry.import_text(home_books, "agent,team\ncoder,Dev\nsupport-bot,Care\n", uri="agents.csv", actor="test")
        write(home_books)
        anomalies.detect(home_books, today=TODAY)
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    with reach(books) as client:
        yield client


@pytest.fixture(scope="module")
def dev(books: Books) -> dict[str, str]:
    return header(books, Grant("finance", "Dev"))


def header(books: Books, grant: Grant) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_key(books, 'clerk', [grant], actor='test')[1]}"}


def listed(http: httpx.Client, key: dict[str, str], **conditions: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = http.get("/v1/anomalies", params=conditions, headers=key).json()["rows"]
    return rows


@pytest.fixture(scope="module")
def cause(http: httpx.Client, dev: dict[str, str]) -> str:
    (row,) = listed(http, dev, scope="agent")
    return str(row["anomaly_id"])


def test_an_anomaly_is_listed_by_state_kind_scope_and_team(http: httpx.Client, dev: dict[str, str], cause: str) -> None:
    assert [row["anomaly_id"] for row in listed(http, dev, state="open", kind="spike", team="Dev")] == [cause]
    assert {row["part_of"] for row in listed(http, dev, state="part")} == {cause}
    assert listed(http, dev, kind="silent") == listed(http, dev, team="Care") == []
    row = http.get(f"/v1/anomalies/{cause}", headers=dev).json()
    assert sum(map(Decimal, row["drivers"].values())) == Decimal(row["excess"])


def test_what_is_others_is_not_there(books: Books, http: httpx.Client, cause: str) -> None:
    care, viewer = header(books, Grant("finance", "Care")), header(books, Grant("viewer", "Dev"))
    planned_body = {"answer": "planned", "reason": "a load test"}
    for method, path, body in (("GET", "", None), ("POST", "/answers", planned_body), ("DELETE", "/mutes", None)):
        assert http.request(method, f"/v1/anomalies/{cause}{path}", json=body, headers=care).status_code == 404
    assert http.post(f"/v1/anomalies/{cause}/answers", json=planned_body, headers=viewer).status_code == 403


@pytest.mark.clock
def test_a_muted_scope_is_not_told_and_says_until_when(books: Books, http: httpx.Client, dev: dict[str, str], cause: str) -> None:
    terms = {"reason": "migration", "until": (now() + timedelta(hours=1)).isoformat()}
    assert http.post(f"/v1/anomalies/{cause}/mutes", json=terms | {"reason": ""}, headers=dev).status_code == 422
    mute = http.post(f"/v1/anomalies/{cause}/mutes", json=terms, headers=dev)
    assert (mute.status_code, mute.json()["subject"], mute.json()["team"]) == (201, "agent coder", "Dev")
    assert http.get(f"/v1/anomalies/{cause}", headers=dev).json()["mute_reason"] == "migration"
    route_events(books, now())
    with books.database.session() as session:
        assert "muted" in session.scalars(sa.select(AlertEvent.step).where(AlertEvent.alert_id == cause)).all()
    assert http.delete(f"/v1/anomalies/{cause}/mutes", headers=dev).status_code == 204
    assert http.delete(f"/v1/anomalies/{cause}/mutes", headers=dev).status_code == 404
    assert http.get(f"/v1/anomalies/{cause}", headers=dev).json()["muted_until"] is None


def test_an_answer_ends_the_incident_of_its_cause_for_good(
    books: Books, http: httpx.Client, dev: dict[str, str], cause: str
) -> None:
    part = listed(http, dev, state="part")[0]["anomaly_id"]
    refusal = http.post(f"/v1/anomalies/{part}/answers", json={"answer": "false", "reason": "x"}, headers=dev)
    assert refusal.status_code == 400 and cause in refusal.json()["remedy"]
    early = {"answer": "planned", "reason": "x", "until": "2020-01-01T00:00:00Z"}
    assert http.post(f"/v1/anomalies/{cause}/answers", json=early, headers=dev).status_code == 400
    answered_row = http.post(
        f"/v1/anomalies/{cause}/answers", json={"answer": "false", "reason": "month end"}, headers=dev
    ).json()
    assert (answered_row["state"], answered_row["answer_reason"], answered_row["answered_by"]) == ("false", "month end", "clerk")
    anomalies.detect(books, today=TODAY)
    with books.database.session() as session:
        assert session.scalars(sa.select(Alert.state).where(Alert.kind == "anomaly")).all() == ["resolved"]
        actions = session.scalars(sa.select(Audit.action).where(Audit.action.like("a%.%"))).all()
        assert {"anomaly.answer", "alert.mute", "alert.unmute"} <= set(actions)


def test_one_that_is_larger_than_what_was_answered_false_is_told(books: Books, http: httpx.Client, dev: dict[str, str]) -> None:
    day = SPIKE + timedelta(days=1)
    write(books, "45", spike_day=day, run="run-2")
    anomalies.detect(books, today=TODAY)
    assert [row["state"] for row in listed(http, dev, scope="agent")] == ["untold"]
    write(books, "90", spike_day=day, run="run-3")
    anomalies.detect(books, today=TODAY)
    assert [row["state"] for row in listed(http, dev, scope="agent")] == ["open"]
