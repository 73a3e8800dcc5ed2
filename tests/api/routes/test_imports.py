"""Owners of names and exchange rates over the API: tried, entered, listed, and in the audit log with who did it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ledger import registry
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.db import Audit
from tests.support.api_examples import reach

RATES = "date,from,to,rate,source\n2026-10-01,EUR,USD,1.0842,ECB\n2026-10-02,EUR,USD,1.0900,ECB\n2026-10-03,EUR,EUR,1,ECB\n"
AGENTS = "agent,team,valid_from,aliases\nsupport-bot,Care,2026-01-01,helper;desk\n"


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("imports")) as home_books:
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    _, key = create_key(books, "clerk", [Grant("finance"), Grant("platform")], actor="test")
    with reach(books) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def send(http: httpx.Client, path: str, content: str) -> Any:
    answer = http.post(path, content=content.encode(), headers={"Content-Type": "text/csv"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def actors(books: Books, action: str) -> list[str]:
    with books.database.session() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.action == action).order_by(Audit.sequence))
        return [f"{row.actor.split(':')[0]} {row.subject}" for row in rows]


def test_exchange_rates_are_tried_entered_and_listed(books: Books, http: httpx.Client) -> None:
    trial = send(http, "/v1/exchange-rates/import?preview=true&name=ecb.csv", RATES)
    assert (trial["preview"], trial["added"], [p["line"] for p in trial["problems"]]) == (True, 2, ["line 4"])
    assert http.get("/v1/exchange-rates").json()["total"] == 0
    assert actors(books, "exchange.import") == []
    result = send(http, "/v1/exchange-rates/import?name=ecb.csv", RATES)
    assert result == trial | {"preview": False, "problems": result["problems"]}
    second_result = send(http, "/v1/exchange-rates/import?name=ecb.csv", RATES.replace("1.0900", "1.0950"))
    assert (second_result["added"], second_result["changed"], second_result["unchanged"]) == (1, 1, 1)
    rows = http.get("/v1/exchange-rates?limit=1").json()
    assert (rows["total"], rows["rows"][0]["rate"], rows["rows"][0]["day"]) == (2, "1.0842", "2026-10-01")
    following = http.get("/v1/exchange-rates", params={"limit": 1, "cursor": rows["next"]}).json()
    assert (following["rows"][0]["rate"], following["next"]) == ("1.095", None)
    assert actors(books, "exchange.import") == ["key ecb.csv"] * 2


def test_the_registry_is_tried_entered_and_told_as_it_was(books: Books, http: httpx.Client) -> None:
    trial = send(http, "/v1/agents/import?preview=true&name=agents.csv", AGENTS)
    assert [(row["kind"], row["name"], row["earlier_team"], row["team"]) for row in trial["changes"]] == [
        ("agent", "support-bot", None, "Care"), ("alias", "helper", None, "Care"), ("alias", "desk", None, "Care"),
    ]  # fmt: skip
    assert registry.rows(books).is_empty()
    assert send(http, "/v1/agents/import?name=agents.csv", AGENTS)["names"] == 3

    entry = {"agent": "support-bot", "team": "Growth", "valid_from": "2026-10-01"}
    change = http.post("/v1/agents?preview=true", json=entry).json()["changes"]
    assert [(row["earlier_team"], row["team"]) for row in change] == [("Care", "Growth")]
    assert http.post("/v1/agents", json=entry).json()["names"] == 1
    assert http.post("/v1/agents", json=entry).json()["unchanged"] == 1
    owners = [row for row in http.get("/v1/agents").json()["registered"] if row["name"] == "support-bot"]
    assert [(row["team"], (row["valid_to"] or "")[:10]) for row in owners] == [("Care", "2026-10-01"), ("Growth", "")]
    history = http.get("/v1/agents/history", params={"name": "support-bot"}).json()["rows"]
    assert [row["team"] for row in history] == ["Growth", "Care"]
    assert actors(books, "registry.import") == ["key agents.csv", "key agent support-bot"]


def test_problems_of_a_registry_file_stay_until_it_is_mended(http: httpx.Client) -> None:
    """As with the command; a preview leaves them as they are."""

    def stored_problems() -> list[tuple[str, str, str]]:
        rows = http.get("/v1/problems?source=registry").json()["rows"]
        return [(row["file"], row["line"], row["field"]) for row in rows]

    def send_teamless(query: str) -> None:
        assert send(http, f"/v1/agents/import?name=teams.csv{query}", "agent,team\nlonely,\n")["problems"]

    send_teamless("&preview=true")
    assert stored_problems() == []
    send_teamless("")
    assert stored_problems() == [("teams.csv", "line 2", "team")]
    send(http, "/v1/agents/import?name=teams.csv", "agent,team\nlonely,Care\n")
    assert stored_problems() == []


@pytest.mark.parametrize(
    ("entry", "status", "place"),
    [
        ({"agent": "a;b", "team": "Care"}, 422, "agent"),
        ({"agent": "a", "team": "Care", "valid_from": "October"}, 400, "valid_from"),
        ({"agent": "a", "team": "Care", "valid_from": "2026-10", "valid_to": "2026-09"}, 400, "valid_to"),
        ({"agent": "a", "team": "Care", "aliases": ["support-bot"]}, 400, "aliases"),
    ],
)
def test_an_entry_that_cannot_be_names_the_field(
    books: Books, http: httpx.Client, entry: dict[str, Any], status: int, place: str
) -> None:
    http.post("/v1/agents", json={"agent": "support-bot", "team": "Care"})
    count = registry.rows(books).height
    answer = http.post("/v1/agents", json=entry)
    assert (answer.status_code, answer.json()["where"]) == (status, place), answer.text
    assert answer.json()["remedy"]
    assert registry.rows(books).height == count
