"""Two people change one thing: the second is told what the first changed, and nothing is overwritten unseen. Rules: tests/api/routes/test_rules.py."""

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
    for version, amount, revision in (("expected", "5", 1), ("current", "6", 2)):
        assert problem[version].items() >= (TERMS | {"name": "care", "amount": amount, "revision": revision}).items()
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


def change_twice(
    http: Any, method: str, address: str, read_address: str, bodies: tuple[Any, Any], revision: str = "revision"
) -> Any:
    """Two people read something and change it one after the other; returns the problem that the second is told."""
    seen_version = http.get(read_address, headers=AUTHOR)
    tag = seen_version.headers["ETag"]
    assert tag == f'"{seen_version.json()[revision]}"'
    assert http.request(method, address, json=bodies[0], headers=AUTHOR).json()["type"] == "/problems/precondition-needed"
    first = http.request(method, address, json=bodies[0], headers=AUTHOR | {"If-Match": tag})
    assert first.status_code == 200, first.text
    assert first.headers["ETag"] not in (tag, "")
    assert http.get(read_address, headers=AUTHOR).headers["ETag"] == first.headers["ETag"]
    second = http.request(method, address, json=bodies[1], headers=AUTHOR | {"If-Match": tag})
    assert (second.status_code, second.json()["type"]) == (412, "/problems/changed-meanwhile"), second.text
    assert http.get(read_address, headers=AUTHOR).headers["ETag"] == first.headers["ETag"], "nothing was overwritten"
    unknown = http.request(method, address, json=bodies[1], headers=AUTHOR | {"If-Match": '"0000"'})
    assert (unknown.status_code, unknown.json().get("expected")) == (412, None if revision == "revision" else {"version": "0000"})
    return second.json()


def test_terms_and_schedule_of_a_source(http: Any) -> None:
    new_source = {"name": "bill", "source": "aws-cur", "addresses": ["s3://billing/a/"], "cron": "@daily"}
    tag = http.post("/v1/sources", json=new_source, headers=AUTHOR).headers["ETag"]
    terms = {"addresses": ["s3://billing/b/"], "cron": "@hourly"}, {"addresses": ["s3://billing/c/"]}
    problem = change_twice(http, "PUT", "/v1/sources/bill", "/v1/sources/bill", terms)
    assert (problem["expected"]["uris"], problem["current"]["uris"]) == (["s3://billing/a/"], ["s3://billing/b/"])
    pauses = {"paused": True}, {"paused": True, "cron": "@weekly"}
    problem = change_twice(http, "PATCH", "/v1/schedule/bill", "/v1/sources/bill", pauses)
    assert [problem[side]["paused"] for side in ("expected", "current")] == [False, True]
    entry = http.patch("/v1/schedule/bill", json={"paused": False, "cron": "@weekly"}, headers=AUTHOR | {"If-Match": "*"}).json()
    assert (entry["paused"], entry["cron"]) == (False, "@weekly")
    assert http.delete("/v1/sources/bill", headers=AUTHOR).status_code == 428
    assert http.delete("/v1/sources/bill", headers=AUTHOR | {"If-Match": tag}).status_code == 412
    assert http.delete("/v1/sources/bill", headers=AUTHOR | {"If-Match": f'"{entry["revision"]}"'}).status_code == 204


def test_of_changes_of_a_source_at_once_one_is_made(http: Any) -> None:
    """A source has no numbered revisions: its row is locked while it is compared."""
    new_source = {"name": "busy", "source": "aws-cur", "addresses": ["s3://billing/a/"]}
    seen_version = {"If-Match": http.post("/v1/sources", json=new_source, headers=AUTHOR).headers["ETag"]}

    def change(number: int) -> int:
        terms = {"addresses": [f"s3://billing/{number}/"]}
        return int(http.put("/v1/sources/busy", json=terms, headers=AUTHOR | seen_version).status_code)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(change, range(4))) == [200, 412, 412, 412]


def test_roles_and_state_of_a_person(http: Any) -> None:
    person = http.post("/v1/users", json={"name": "ada", "grants": ["viewer:Care"]}, headers=AUTHOR).json()["user"]
    address = f"/v1/users/{person['user_id']}"
    problem = change_twice(http, "PATCH", address, address, ({"grants": ["finance", "viewer:Care"]}, {"grants": ["viewer"]}))
    assert problem["expected"] == {"grants": ["viewer:Care"], "disabled": False}
    assert problem["current"] == {"grants": ["finance", "viewer:Care"], "disabled": False}
    problem = change_twice(http, "PATCH", address, address, ({"disabled": True}, {"grants": ["viewer"]}))
    assert [problem[side]["disabled"] for side in ("expected", "current")] == [False, True]


def test_a_price_list_goes_into_the_book_that_it_was_compared_with(http: Any) -> None:
    head = "provider,model,meter,unit,rate,currency,valid_from\nacme,big,input_tokens,1M tokens,"
    kind = AUTHOR | {"Content-Type": "text/csv"}

    def enter(rate: str, **options: Any) -> Any:
        condition = {"If-Match": tag} if (tag := options.pop("tag", "")) else {}
        content = f"{head}{rate},USD,2026-10-01\n"
        return http.post("/v1/prices/import", content=content, params=options, headers=kind | condition)

    trial = enter("2.00", preview=True)
    assert enter("2.00").status_code == 428
    assert trial.headers["ETag"] == http.get("/v1/price-book", headers=AUTHOR).headers["ETag"]
    assert enter("2.00", tag=trial.headers["ETag"]).json()["added"] == 1
    late_import = enter("2.50", tag=trial.headers["ETag"])
    assert (late_import.status_code, late_import.json()["expected"]) == (412, {"version": trial.json()["version"]})
    assert late_import.json()["current"]["rates"] == 1
    doubtful = enter("200", tag=http.get("/v1/price-book", headers=AUTHOR).headers["ETag"])
    assert doubtful.json()["staged"] == 1
    for verb in ("reject", "accept"):
        answer = http.post(f"/v1/prices/staged/{verb}", json={}, headers=AUTHOR | {"If-Match": trial.headers["ETag"]})
        assert answer.status_code == 412
    decision = http.post("/v1/prices/staged/reject", json={}, headers=AUTHOR | {"If-Match": doubtful.headers["ETag"]}).json()
    assert (decision["decided"], decision["staged"]) == (1, 0)
