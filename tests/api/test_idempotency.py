"""`Idempotency-Key`: what is sent twice is done once, and nobody gets the answer of another."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from api import idempotency
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.access_tables import IdempotentRequest
from ledger.books import Books
from ledger.periods import now
from tests.support.api_examples import TOKEN, reach

TERMS = {"scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD"}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("idempotency")) as home_books:
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with reach(books) as client:
        yield client


def post(http: Any, name: str, key: str, *, token: str = TOKEN, amount: str = "5") -> Any:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    return http.post("/v1/budgets", json=TERMS | {"name": name, "amount": amount}, headers=headers)


def test_the_same_request_gets_the_same_answer(http: Any) -> None:
    first, second = post(http, "care", "k1"), post(http, "care", "k1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    names = ("ETag", "Location", "Content-Type")
    assert [second.headers[name] for name in names] == [first.headers[name] for name in names]
    assert ("RootCost-Replayed" in first.headers, second.headers["RootCost-Replayed"]) == (False, "true")
    assert post(http, "care", "k2").status_code == 409, "another key is another request"
    assert post(http, "care", "k1", amount="6").json()["type"] == "/problems/idempotency-key-reused"
    delete = {"Authorization": f"Bearer {TOKEN}", "If-Match": '"1"', "Idempotency-Key": "k1"}
    assert [http.delete("/v1/budgets/care", headers=delete).status_code for _ in range(2)] == [204, 204]


def test_an_error_is_not_kept_and_a_key_is_of_one_principal(books: Books, http: Any) -> None:
    assert post(http, "late", "k3", amount="-1").status_code == 422
    assert post(http, "late", "k3").status_code == 201
    _, viewer = create_key(books, "viewer", [Grant("viewer")], actor="test")
    _, platform = create_key(books, "platform", [Grant("platform")], actor="test")
    assert post(http, "late", "k3", token=viewer).status_code == 403
    assert post(http, "late", "k3", token=platform).status_code == 409
    for key in ("", "k" * 257):
        assert post(http, "never", key).status_code == 400


def test_requests_at_once_make_one_change(http: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(http, "at-once", "k4"), range(4)))
    kinds = {answer.json().get("type", "") for answer in answers if answer.status_code != 201}
    assert kinds <= {"/problems/in-flight"}
    assert sum(answer.status_code == 201 and "RootCost-Replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.clock
def test_a_key_expires_and_a_lost_request_frees_it(books: Books, http: Any) -> None:
    assert post(http, "old", "k5").status_code == 201

    def age(span: timedelta, **values: Any) -> None:
        with books.database.session() as session:
            session.execute(
                sa.update(IdempotentRequest).where(IdempotentRequest.key == "k5").values(created_at=now() - span, **values)
            )

    age(timedelta(hours=23))
    assert post(http, "old", "k5").status_code == 201
    age(timedelta(minutes=4), status=None)
    in_flight = post(http, "old", "k5")
    assert (in_flight.status_code, in_flight.headers["Retry-After"]) == (409, "1")
    age(idempotency.LOST_AFTER + timedelta(seconds=1))
    assert post(http, "old", "k5").json()["type"] == "/problems/exists"
    assert post(http, "older", "k5").status_code == 201
    age(idempotency.KEPT_FOR + timedelta(seconds=1))
    assert post(http, "older", "k5").json()["type"] == "/problems/exists"


def test_secrets_are_not_kept(books: Books, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "_SECRET", ("/v1/budgets",))
    assert post(http, "secret", "k6").status_code == 201
    assert post(http, "secret", "k6").json()["type"] == "/problems/answer-not-kept"
    with books.database.session() as session:
        assert session.scalars(sa.select(IdempotentRequest.body).where(IdempotentRequest.key == "k6")).all() == [None]
