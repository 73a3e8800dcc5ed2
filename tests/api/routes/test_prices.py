"""The price book over the API: lists are compared, entered, doubted and decided about, with who did it in the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.db import Audit
from tests.support.api_examples import reach

ANY = {"If-Match": "*"}
HEAD = "provider,model,meter,unit,rate,currency,valid_from\n"
FIRST = f"{HEAD}acme,big,input_tokens,1M tokens,2.00,USD,2026-10-01\nacme,big,output_tokens,1M tokens,8.00,USD,2026-10-01\n"
SECOND = f"{HEAD}acme,big,input_tokens,1M tokens,2.50,USD,2026-11-01\nacme,big,output_tokens,1M tokens,800,USD,2026-11-01\n"
SECOND += "acme,big,output_tokens,1M tokens,-1,USD,2026-11-02\n"
LITELLM = (
    '{"acme/small": {"litellm_provider": "acme", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}}'
)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("prices")) as home_books:
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    _, key = create_key(books, "clerk", [Grant("finance")], actor="test")
    with reach(books) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def send(http: httpx.Client, content: str, kind: str = "text/csv", **options: Any) -> httpx.Response:
    return http.post("/v1/prices/import", content=content.encode(), params=options, headers={"Content-Type": kind} | ANY)


def test_lists_are_compared_entered_and_decided_about(books: Books, http: httpx.Client) -> None:
    options: dict[str, Any] = {"origin": "contract", "name": "acme.csv"}
    trial = send(http, FIRST, preview=True, **options).json()
    assert (trial["preview"], trial["added"], trial["staged"]) == (True, 2, 0)
    assert http.get("/v1/prices").json()["total"] == 0
    result = send(http, FIRST, **options).json()
    assert result == trial | {"preview": False, "version": result["version"]}
    assert send(http, FIRST, **options).json()["unchanged"] == 2

    result = send(http, SECOND, **options).json()
    assert (result["added"], result["changed"], result["staged"], len(result["problems"])) == (1, 1, 1, 1)
    doubtful, plausible = result["changes"]
    assert (doubtful["rate"], doubtful["old_rate"], plausible["rate"]) == ("0.0008", "0.000008", "0.0000025")
    assert "more than 10 times" in doubtful["doubt"]
    assert [row["model"] for row in http.get("/v1/prices/staged").json()["rows"]] == ["big"]

    inputs = http.get("/v1/prices", params={"model": "BIG", "meter": "input_tokens"}).json()["rows"]
    assert [(row["rate"], (row["until"] or "")[:10]) for row in inputs] == [("0.000002", "2026-11-01"), ("0.0000025", "")]
    book = http.get("/v1/price-book").json()
    rejection = http.post("/v1/prices/staged/reject", json={"model": "small"}, headers=ANY).json()
    assert rejection == {"decided": 0, "staged": 1, "version": book["version"]}
    accepted = http.post("/v1/prices/staged/accept", json={"book": "acme"}, headers=ANY).json()
    assert (accepted["decided"], accepted["staged"]) == (1, 0)
    assert accepted["version"] != book["version"]
    assert http.get("/v1/prices").json()["total"] == 4
    with books.database.session() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.action.like("prices.%")).order_by(Audit.sequence)).all()
    assert [(row.action, row.actor.split(":")[0]) for row in rows] == [
        ("prices.import", "key"), ("prices.import", "key"), ("prices.accept", "key"),
    ]  # fmt: skip


def test_a_public_map_is_read_as_json(http: httpx.Client) -> None:
    result = send(http, LITELLM, "application/json", preview=True, name="map.json").json()
    assert [row["model"] for row in result["changes"]] == ["acme/small"] * 2
    assert result["book"].startswith("litellm sha256:")


@pytest.mark.parametrize(
    ("content", "kind", "options", "status", "place"),
    [
        ("a,b\n1,2\n", "text/csv", {}, 400, "upload.csv"),
        ("{", "application/json", {}, 400, "upload.csv"),
        (FIRST, "text/plain", {}, 415, "Content-Type"),
        (FIRST, "text/csv", {"valid_from": "soon"}, 400, "valid_from"),
        (FIRST, "text/csv", {"origin": "observed"}, 422, "origin"),
        (FIRST, "text/csv", {"factor": 1}, 422, "factor"),
    ],
)
def test_what_is_no_price_list_names_place_and_remedy(
    http: httpx.Client, content: str, kind: str, options: dict[str, Any], status: int, place: str
) -> None:
    answer = send(http, content, kind, **options)
    assert (answer.status_code, answer.json()["where"]) == (status, place), answer.text
    assert answer.json()["remedy"]
