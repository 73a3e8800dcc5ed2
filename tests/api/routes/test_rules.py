"""Shared-cost rules over the API: listed, with their versions, added, changed and removed, and tried on a month before they are in force."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api import queries
from api.queries import of_operator
from attribution.run import attribute
from ingest.run import ingest
from ledger import registry
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.db import Audit
from ledger.published import runs_in_force
from tests.support.api_examples import reach
from tests.support.cli_books import Command, write_files

RULES = """
[[attribution.shared]]
name = "support"
service = "AWS Support"
method = "even"

[[attribution.shared]]
name = "first"
priority = 5
service = "AWS Tax"
valid_to = 2027-01-01
"""


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """The worked example, attributed: 1 000 tokens that nobody logged cost 0.003 USD."""
    home, files = tmp_path_factory.mktemp("rules"), write_files(tmp_path_factory.mktemp("files"))
    (home / "rootcost.toml").write_text(RULES)
    with Books.open(home) as home_books:
        ingest(home_books, "focus", [str(files / "bill.csv")])
        ingest(home_books, "otlp", [str(files / "traces.json")])
        registry.import_csv(home_books, files / "agents.csv")
        attribute(home_books, cause="test")
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    _, key = create_key(books, "clerk", [Grant("finance")], actor="test")
    with reach(books) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def test_rules_are_listed_as_they_are_tried(http: httpx.Client) -> None:
    first, second = http.get("/v1/rules").json()["rows"]
    assert (first["name"], first["terms"], first["valid_to"]) == ("first", {"service": "AWS Tax"}, "2027-01-01")
    assert (second["rule"], second["terms"]["method"]) == (f"support@{second['version']}", "even")
    assert {row["rule"] for row in http.get("/v1/rules/versions").json()["rows"]} == {first["rule"], second["rule"]}
    assert second["used_since"] is not None


def test_other_rules_are_tried_and_nothing_is_published(books: Books, http: httpx.Client) -> None:
    before = runs_in_force(books.database)
    draft = {
        "month": "2026-10",
        "rules": [{"name": "rest", "reason": "uncaptured_usage", "method": "even", "teams": ["Care", "Daata"]}],
    }
    answer = http.post("/v1/rules/preview", json=draft)
    assert answer.status_code == 200, answer.text
    changes = {row["team"]: Decimal(row["change"]) for row in answer.json()["rows"]}
    assert changes[None] == Decimal("-0.003")
    assert (changes["Care"], sum(changes.values())) == (Decimal("0.0015"), 0)
    assert [problem["reason"].split(":")[0] for problem in answer.json()["problems"]] == ["unknown_team"]
    assert http.post("/v1/rules/preview", json={"month": "2026-10"}).json()["rows"] == []
    assert runs_in_force(books.database) == before


@pytest.mark.parametrize(
    ("draft", "status", "place"),
    [
        ({"month": "October"}, 422, "month"),
        ({"month": "2026-10", "rules": [{"name": "a"}, {"name": "b", "methd": "even"}]}, 400, "rules.1.methd"),
        ({"month": "2026-10", "rules": [{"name": "a", "method": "fixed"}]}, 400, "rules.0"),
    ],
)
def test_a_rule_that_cannot_be_names_its_place(http: httpx.Client, draft: dict[str, Any], status: int, place: str) -> None:
    answer = http.post("/v1/rules/preview", json=draft)
    assert (answer.status_code, answer.json()["where"]) == (status, place), answer.text
    assert answer.json()["remedy"]


REST = {"name": "rest", "reason": "uncaptured_usage", "method": "even", "teams": ["Care", "Data"]}


def shared_costs(books: Books) -> dict[str, Decimal]:
    """Cost of class shared by team, in the published run."""
    costs = queries.costs(of_operator(books), queries.CostQuery(by=("initiator_team", "cost_class")))
    rows = costs.filter(costs["cost_class"] == "shared").iter_rows(named=True)
    return {row["initiator_team"]: row["cost"] for row in rows}


def test_a_rule_of_the_ledger_from_its_first_day_to_its_end(books: Books, http: httpx.Client) -> None:
    """Added, it splits what nobody used; who comes second sees both versions; removed, the month is as it was."""
    trial = http.post("/v1/rules/preview", json={"month": "2026-10", "changed": [REST]}).json()
    assert {row["team"]: row["change"] for row in trial["rows"]} == {"Care": "0.0015", "Data": "0.0015", None: "-0.003"}
    answer = http.post("/v1/rules", json=REST)
    assert (answer.status_code, answer.headers["Location"], answer.headers["ETag"]) == (201, "/v1/rules/rest", '"1"'), answer.text
    assert http.get("/v1/rules/rest").json() == answer.json()
    assert [(row["name"], row["origin"], row["revision"]) for row in http.get("/v1/rules").json()["rows"]] == [
        ("first", "settings", None), ("support", "settings", None), ("rest", "ledger", 1),
    ]  # fmt: skip
    assert attribute(books).months == ["2026-10"], "it is an input of the month"
    assert shared_costs(books) == {"Care": Decimal("0.0015"), "Data": Decimal("0.0015")}

    seen_tag = {"If-Match": http.get("/v1/rules/rest").headers["ETag"]}
    terms = REST | {"method": "fixed", "shares": {"Care": "2", "Data": "1"}}
    assert http.put("/v1/rules/rest", json=terms).status_code == 428
    change = http.put("/v1/rules/rest", json=terms, headers=seen_tag)
    assert (change.status_code, change.headers["ETag"]) == (200, '"2"'), change.text
    late_change = http.put("/v1/rules/rest", json=REST, headers=seen_tag)
    assert (late_change.status_code, late_change.json()["type"]) == (412, "/problems/changed-meanwhile")
    assert (late_change.json()["expected"]["method"], late_change.json()["current"]["shares"]) == (
        "even",
        {"Care": "2", "Data": "1"},
    )
    assert http.put("/v1/rules/rest", json=terms, headers={"If-Match": "*"}).headers["ETag"] == '"2"', "nothing to change"
    assert http.delete("/v1/rules/rest", headers=seen_tag).status_code == 412
    attribute(books)
    assert shared_costs(books) == {"Care": Decimal("0.002"), "Data": Decimal("0.001")}

    removal = {"month": "2026-10", "removed": ["rest"]}
    assert {row["team"] for row in http.post("/v1/rules/preview", json=removal).json()["rows"]} == {"Care", "Data", None}
    assert http.delete("/v1/rules/rest", headers={"If-Match": '"2"'}).status_code == 204
    assert http.get("/v1/rules/rest").status_code == 404
    attribute(books)
    assert shared_costs(books) == {}
    with books.database.session() as session:
        entries = session.scalars(sa.select(Audit).where(Audit.subject == "rest").order_by(Audit.sequence)).all()
    assert [(row.action, row.actor.split(":")[0]) for row in entries] == [
        ("rule.add", "key"), ("rule.change", "key"), ("rule.remove", "key"),
    ]  # fmt: skip
    before, after = entries[1].before, entries[1].after
    assert before == REST | {"revision": 1}
    assert after == REST | {"method": "fixed", "shares": {"Care": "2", "Data": "1"}, "revision": 2}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "place", "sentence"),
    [
        ("POST", "", {"method": "even"}, 400, "name", "required"),
        ("POST", "", {"name": "a/b"}, 400, "name", "without '/'"),
        ("POST", "", {"name": "versions"}, 400, "name", "none of"),
        ("POST", "", {"name": "a", "methd": "even"}, 400, "methd", "Extra"),
        ("POST", "", {"name": "a", "priority": True}, 400, "priority", "integer"),
        ("POST", "", {"name": "a", "method": "fixed"}, 400, "", "needs `shares`"),
        ("POST", "", {"name": "support"}, 409, "support", "settings file"),
        ("POST", "", ["a"], 422, "", ""),
        ("PUT", "/support", {"method": "even"}, 409, "support", "take it out there"),
        ("PUT", "/a", {"name": "b"}, 400, "name", "keeps its name"),
        ("DELETE", "/support", None, 409, "support", "settings file"),
        ("DELETE", "/nothing", None, 404, "nothing", "no rule of the ledger"),
    ],
)
def test_a_change_that_cannot_be_names_its_place(
    http: httpx.Client, method: str, path: str, body: Any, status: int, place: str, sentence: str
) -> None:
    condition = {"If-None-Match": "*"} if method == "PUT" else {"If-Match": "*"}
    answer = http.request(method, f"/v1/rules{path}", json=body, headers=condition)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert problem["where"] == place or not place
    assert sentence in problem["detail"] + problem["remedy"]
    assert len(http.get("/v1/rules").json()["rows"]) == 2


def test_commands_set_and_remove_rules(books: Books, http: httpx.Client, tmp_path: Path) -> None:
    run, file = Command(books.home), tmp_path / "rules.toml"
    file.write_text('[[shared]]\nname = "rest"\nreason = "uncaptured_usage"\nteams = ["Care", "Nobody"]\nmethod = "even"\n')
    preview = run("rules", "preview", "--month", "2026-10", "--set", file, "--format", "json").rows
    assert {row["team"]: row["change"] for row in preview} == {"Care": "0.0015", "Nobody": "0.0015", None: "-0.003"}
    result = run("rules", "set", file)
    assert result.code == 0
    assert "is set" in result.out
    assert "unknown_team: Nobody" in result.err
    assert "was set already" in run("rules", "set", file).out
    assert [(row["rule"].split("@")[0], row["origin"]) for row in run("rules", "list", "--format", "json").rows] == [
        ("first", "settings"), ("support", "settings"), ("rest", "ledger"),
    ]  # fmt: skip
    assert http.get("/v1/rules/rest").json()["revision"] is not None
    file.write_text(file.read_text() + '[[shared]]\nname = "support"\n')
    refusal = run("rules", "set", file)
    assert refusal.code == 2
    assert "settings file" in refusal.err
    assert run("rules", "remove", "rest").code == 0
    assert run("rules", "remove", "rest").code == 1
