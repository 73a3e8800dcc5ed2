"""Two people change one budget: the second is told what the first changed, and nothing is overwritten unseen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from tests.support.api_examples import TOKEN, reach

TERMS = {"scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD", "view": "initiator"}
AUTHOR = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("preconditions")) as home_books:
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with reach(books) as client:
        yield client


def put(http: Any, name: str, amount: str, **headers: str) -> Any:
    conditions = {key.replace("_", "-"): value for key, value in headers.items()}
    return http.put(f"/v1/budgets/{name}", json=TERMS | {"amount": amount}, headers=AUTHOR | conditions)


def test_the_second_of_two_people_is_told_what_the_first_changed(http: Any) -> None:
    answer = http.post("/v1/budgets", json=TERMS | {"name": "care"}, headers=AUTHOR)
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"')
    tag = http.get("/v1/budgets/care").headers["ETag"]
    assert tag == '"1"'
    first = put(http, "care", "6", If_Match=tag)
    assert (first.status_code, first.headers["ETag"]) == (200, '"2"')

    second = put(http, "care", "7", If_Match=tag)
    assert second.status_code == 412
    problem = second.json()
    assert problem["type"] == "/problems/changed-meanwhile"
    assert problem["expected"] == TERMS | {"name": "care", "amount": "5", "revision": 1}
    assert problem["current"] == TERMS | {"name": "care", "amount": "6", "revision": 2}
    assert http.delete("/v1/budgets/care", headers=AUTHOR | {"If-Match": tag}).status_code == 412
    assert http.get("/v1/budgets/care").json()["amount"] == "6"

    assert put(http, "care", "7", If_Match='"2"').status_code == 200
    assert http.delete("/v1/budgets/care", headers=AUTHOR | {"If-Match": '"1", "3"'}).status_code == 204
    late_change = put(http, "care", "8", If_Match='"3"').json()
    assert (late_change["status"], late_change["expected"]["amount"], late_change.get("current")) == (412, "7", None)


def test_a_change_says_what_it_has_seen(http: Any) -> None:
    """428 without; weak tags and tags of others are no revision; `*` is whatever is there."""
    assert put(http, "new", "1").json()["type"] == "/problems/precondition-needed"
    assert http.delete("/v1/budgets/new", headers=AUTHOR).status_code == 428
    assert put(http, "new", "1", If_Match="*").status_code == 412
    assert put(http, "new", "1", If_None_Match="*").status_code == 200
    assert put(http, "new", "1", If_None_Match="*").status_code == 412
    for tag in ('W/"1"', '"x"', "1", "", '"-1"', '"99999999999999999999"'):
        assert put(http, "new", "2", If_Match=tag).status_code == 412, tag
    assert put(http, "new", "2", If_Match="*").json()["revision"] == 2
    assert http.put("/v1/budgets/new", json=TERMS, headers={"If-Match": '"2"'}).status_code == 401


def test_a_version_of_another_team_is_not_told(books: Books, http: Any) -> None:
    assert put(http, "moved", "1", If_None_Match="*").status_code == 200
    of_dev = TERMS | {"scope_name": "Dev", "amount": "77"}
    for terms in (of_dev, TERMS):  # it was Dev's once
        assert http.put("/v1/budgets/moved", json=terms, headers=AUTHOR | {"If-Match": "*"}).status_code == 200
    _, key = create_key(books, "care", [Grant("platform", "Care")], actor="test")
    own_key = {"Authorization": f"Bearer {key}", "If-Match": '"2"'}
    refusal = http.put("/v1/budgets/moved", json=TERMS, headers=own_key)
    assert (refusal.status_code, refusal.json().get("expected"), refusal.json()["current"]["revision"]) == (412, None, 3)
    assert "77" not in refusal.text


def test_of_changes_at_once_one_is_made(http: Any) -> None:
    assert put(http, "busy", "1", If_None_Match="*").status_code == 200
    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(
            answer.status_code for answer in pool.map(lambda n: put(http, "busy", str(n), If_Match='"1"'), range(2, 6))
        )
    assert statuses == [200, 412, 412, 412]
    assert http.get("/v1/budgets/busy").json()["revision"] == 2
