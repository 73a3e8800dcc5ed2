"""Budgets over the API: raises that need a second person, names to choose from, and what a team may see of others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from ledger import db
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.audit import record
from ledger.books import Books
from ledger.settings import BudgetSettings
from tests.support.api_examples import reach, write_worked_example

TERMS = {"scopes": {"team": "Care"}, "amount": "100", "currency": "USD"}
RULES = BudgetSettings(raise_share=Decimal("0.2"), authority={"platform": Decimal(500)})


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("budgets")) as home_books:
        home_books.settings = home_books.settings.model_copy(update={"budgets": RULES})
        write_worked_example(home_books)
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with reach(books) as client:
        yield client


@pytest.fixture(scope="module")
def people(books: Books) -> dict[str, dict[str, str]]:
    grants = {"ada": "platform:Care", "bo": "platform:Care", "cyd": "finance", "dan": "platform:Dev"}
    keys = {name: create_key(books, name, [Grant.parse(grant)], actor="test")[1] for name, grant in grants.items()}
    return {name: {"Authorization": f"Bearer {key}", "If-Match": "*"} for name, key in keys.items()}


def put(http: Any, headers: dict[str, str], name: str, **change: Any) -> Any:
    return http.put(f"/v1/budgets/{name}", json=change, headers=headers)


def decide(http: Any, headers: dict[str, str], request_id: str, *, approve: bool = True) -> Any:
    return http.post(f"/v1/budget-requests/{request_id}/decision", json={"approve": approve}, headers=headers)


@pytest.fixture
def budget(http: Any, people: dict[str, dict[str, str]], request: pytest.FixtureRequest) -> str:
    """A budget of Care of 100, named after the test."""
    name: str = request.node.name[:60]
    assert http.post("/v1/budgets", json=TERMS | {"name": name}, headers=people["ada"]).status_code == 201
    return name


def test_a_raise_above_the_share_awaits_a_second_person(http: Any, people: dict[str, dict[str, str]], budget: str) -> None:
    assert put(http, people["ada"], budget, amount="120").status_code == 200
    request_answer = put(http, people["ada"], budget, amount="300", reason="launch")
    assert (request_answer.status_code, request_answer.json()["amount"], request_answer.json()["revision"]) == (202, "120", 2)
    pending = request_answer.json()["pending"]
    assert (pending["amount"], pending["current_amount"], pending["reason"], pending["state"]) == (
        "300",
        "120",
        "launch",
        "waiting",
    )
    own = decide(http, people["ada"], pending["request_id"])
    assert (own.status_code, "somebody else must approve it" in own.text) == (403, True)
    assert decide(http, people["dan"], pending["request_id"]).status_code == 403
    approval = decide(http, people["bo"], pending["request_id"])
    assert (approval.status_code, approval.json()["amount"], approval.json()["revision"]) == (200, "300", 3)
    assert "the request is approved" in decide(http, people["bo"], pending["request_id"]).text
    newest = http.get(f"/v1/budgets/{budget}/revisions", headers=people["ada"]).json()["rows"][0]
    assert (newest["reason"], newest["recorded_by"].startswith("key:")) == ("launch", True)


def test_nobody_approves_beyond_his_authority(http: Any, people: dict[str, dict[str, str]], budget: str) -> None:
    request_id = put(http, people["ada"], budget, amount="600").json()["pending"]["request_id"]
    refusal = decide(http, people["bo"], request_id)
    assert (refusal.status_code, refusal.json()["detail"]) == (403, "bo may approve up to 500.00 USD, and this is 600.00")
    assert "finance or admin" in refusal.json()["remedy"]
    assert decide(http, people["cyd"], request_id).json()["amount"] == "600"


def test_a_request_lapses_and_one_of_an_older_version_is_refused(
    books: Books, http: Any, people: dict[str, dict[str, str]], budget: str
) -> None:
    first = put(http, people["ada"], budget, amount="200").json()["pending"]["request_id"]
    assert put(http, people["ada"], budget, owner="ada").status_code == 200
    assert "the budget has changed since it was asked" in decide(http, people["bo"], first).text
    assert decide(http, people["bo"], first, approve=False).json()["amount"] == "100"
    second = put(http, people["ada"], budget, amount="200").json()["pending"]["request_id"]
    with books.database.session() as session:
        request = session.get_one(db.BudgetRequest, second)
        request.expires_at -= timedelta(days=30)
        record(session, "test", "budget.ask", budget)
    assert "the request is expired" in decide(http, people["bo"], second).text
    rows = http.get("/v1/budget-requests", headers=people["ada"]).json()["rows"]
    assert {row["request_id"]: row["state"] for row in rows if row["budget"] == budget} == {first: "refused", second: "expired"}
    assert http.get("/v1/budget-requests", headers=people["dan"]).json()["rows"] == []


def test_a_temporary_raise_is_asked_for_and_every_step_is_audited(
    books: Books, http: Any, people: dict[str, dict[str, str]], budget: str
) -> None:
    request_answer = put(http, people["ada"], budget, amount="400", raised_until="2126-01-01T00:00:00Z").json()["pending"]
    approval = decide(http, people["bo"], request_answer["request_id"]).json()
    assert (approval["amount"], approval["base_amount"], approval["raised_until"]) == ("400", "100", "2126-01-01T00:00:00Z")
    with books.database.session() as session:
        actions = session.scalars(sa.select(db.Audit.action).where(db.Audit.subject == budget).order_by(db.Audit.sequence)).all()
    assert actions == ["budget.add", "budget.ask", "budget.change", "budget.approve"]


def test_names_are_those_of_the_ledger_and_others_are_flagged(http: Any, people: dict[str, dict[str, str]]) -> None:
    names = http.get("/v1/budget-names", headers=people["cyd"]).json()["names"]
    assert (names["team"], names["model"]) == (["Care", "Data", "Dev"], ["M"])
    assert http.get("/v1/budget-names", headers=people["ada"]).json()["names"]["team"] == ["Care"]
    terms = TERMS | {"name": "slip", "scopes": {"team": "Care", "model": "gtp"}}
    answer = http.post("/v1/budgets", json=terms, headers=people["ada"]).json()
    assert answer["notes"] == ["no model 'gtp' is registered or has spent so far"]
    http.delete("/v1/budgets/slip", headers=people["ada"])


def test_budgets_about_the_same_cost_are_told(http: Any, people: dict[str, dict[str, str]]) -> None:
    terms = TERMS | {"scopes": {"agent": "support-bot", "team": "care"}, "period": "day"}
    _, answer = (http.post("/v1/budgets", json=terms | {"name": name}, headers=people["cyd"]) for name in ("first", "second"))
    assert answer.json()["notes"] == ["overlaps first: the same cost counts against both"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scopes": {}}, "a budget on nobody limits nothing"),
        ({"currency": "JPY"}, "there is no exchange rate into JPY"),
        ({"parent": "nothing"}, "no such budget"),
        ({"period": "range"}, "a range has both a start and an end"),
        ({"amount": "-1"}, "greater than 0"),
        ({"amount": 1.5}, "decimal string"),
        ({"colour": "red"}, "colour"),
        ({"scopes": {"colour": "red"}}, "scopes"),
    ],
)
def test_what_is_no_budget_is_refused(
    http: Any, people: dict[str, dict[str, str]], change: dict[str, Any], sentence: str
) -> None:
    answer = http.post("/v1/budgets", json=TERMS | {"name": "wrong"} | change, headers=people["cyd"])
    assert 400 <= answer.status_code < 500
    assert sentence in answer.text


def test_a_part_is_not_larger_than_what_its_parent_leaves(http: Any, people: dict[str, dict[str, str]]) -> None:
    company = {"name": "company", "scopes": {"organisation": "Acme"}, "amount": "150", "currency": "USD", "period": "quarter"}
    assert http.post("/v1/budgets", json=company, headers=people["cyd"]).status_code == 201
    part = {
        "name": "part",
        "scopes": {"team": "Dev"},
        "amount": "200",
        "currency": "USD",
        "period": "quarter",
        "parent": "company",
    }
    refusal = http.post("/v1/budgets", json=part, headers=people["cyd"])
    assert (refusal.status_code, "only 150.00 USD" in refusal.text) == (400, True)
    assert http.post("/v1/budgets", json=part | {"amount": "150"}, headers=people["cyd"]).json()["parent"] == "company"
    assert "its parent company only 100.00" in put(http, people["cyd"], "company", amount="100").text
    assert "budgets are parts of it: part" in http.delete("/v1/budgets/company", headers=people["cyd"]).text
