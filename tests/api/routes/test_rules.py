"""Shared-cost rules over the API: listed, with their versions, and tried on a month before they are in force."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from attribution.run import attribute
from ingest.run import ingest
from ledger import registry
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.published import runs_in_force
from tests.support.api_examples import reach
from tests.support.cli_books import write_files

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
