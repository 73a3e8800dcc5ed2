"""Reservations over the API: who may reserve for whom, and the tiny client of agents."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from rootcost_litellm.agent import Budget, BudgetExceededError, BudgetUnavailableError
from tests.support.api_examples import reach

LIMIT = {"amount": "0.30", "currency": "USD", "enforcement": "hard"}


def set_limit(http: Any, admin: dict[str, str], team: str) -> None:
    terms = LIMIT | {"name": team.lower(), "scopes": {"team": team}}
    assert http.post("/v1/budgets", json=terms, headers=admin).status_code == 201


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("reservations")) as home_books:
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with reach(books) as client:
        yield client


def header(books: Books, grant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_key(books, 'agent', [Grant.parse(grant)], actor='test')[1]}"}


def test_a_call_reserves_commits_and_is_refused_with_402(books: Books, http: Any) -> None:
    admin, agent = header(books, "admin"), header(books, "ingest:Care")
    set_limit(http, admin, "Care")
    first = http.post("/v1/reservations", json={"reservation_id": "a", "amount": "0.25"}, headers=agent)
    assert (first.status_code, first.json()["state"], first.json()["scopes"]) == (201, "open", {"team": "Care"})
    refusal = http.post("/v1/reservations", json={"amount": "0.10"}, headers=agent)
    assert refusal.status_code == 402
    assert refusal.json()["type"].endswith("/budget-exceeded")
    assert "budget care (team Care, by month) has USD 0.05 left of 0.30, and this asks for 0.10" in refusal.json()["detail"]
    assert "can raise it" in refusal.json()["remedy"]
    assert [row["reservation_id"] for row in http.get("/v1/reservations", headers=admin).json()["rows"]] == ["a"]
    assert http.post("/v1/reservations/a/commit", json={"cost": "0.05"}, headers=agent).json()["cost"] == "0.05"
    assert http.post("/v1/reservations", json={"reservation_id": "b", "amount": "0.10"}, headers=agent).status_code == 201
    assert http.post("/v1/reservations/b/release", headers=agent).json()["state"] == "released"


def test_a_team_reserves_for_itself_and_sees_no_other(books: Books, http: Any) -> None:
    data, dev = header(books, "ingest:Data"), header(books, "platform:Dev")
    assert http.post("/v1/reservations", json={"reservation_id": "of-data", "amount": "1"}, headers=data).status_code == 201
    assert http.post("/v1/reservations", json={"amount": "1", "team": "Dev"}, headers=data).status_code == 403
    assert http.get("/v1/reservations", headers=dev).json()["rows"] == []
    assert http.post("/v1/reservations/of-data/commit", json={"cost": "0"}, headers=dev).status_code == 403
    assert http.post("/v1/reservations/none/release", headers=data).status_code == 404
    assert http.post("/v1/reservations", json={"amount": "1"}, headers=header(books, "viewer:Care")).status_code == 403


def test_an_agent_without_a_gateway_reserves_with_a_few_lines(books: Books, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        if not request.full_url.startswith("http://testserver/"):
            raise OSError("connection refused")
        answer = http.post(request.selector, content=request.data, headers=dict(request.header_items()))
        if answer.status_code >= 400:
            raise urllib.error.HTTPError(request.full_url, answer.status_code, "", Message(), io.BytesIO(answer.content))
        return io.BytesIO(answer.content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    set_limit(http, header(books, "admin"), "Bots")
    budget = Budget("http://testserver", header(books, "ingest")["Authorization"].removeprefix("Bearer "))
    with budget.reserve("0.20", team="Bots", agent="bot") as hold:
        hold.commit("0.10")
    assert hold.state == "committed"
    with pytest.raises(BudgetExceededError, match=r"has USD 0.20 left of 0.30"):
        budget.reserve("0.21", team="Bots")
    with pytest.raises(BudgetUnavailableError, match="squad"):
        budget.reserve("0.1", squad="x")
    with budget.reserve("0.1", team="Bots") as hold:
        hold.release()
    assert hold.state == "released"
    with pytest.raises(BudgetUnavailableError, match="does not answer"):
        Budget("http://127.0.0.1:9", timeout_seconds=1).reserve("0.1")
