"""Answers that are kept: they are sent again only while they hold, to who has the same grants, and their sizes have a limit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from api.answer_cache import Answer, AnswerCache, Answers, Question
from api.cursors import CursorSeal
from api.etags import Reading, Reads, TagSeal
from ledger import registry
from ledger.access.keys import create_key
from ledger.access.principals import Grant, Principal
from ledger.access.roles import Permission
from ledger.books import Books
from ledger.budgets import reservations, revisions
from ledger.budgets.reservations import Request
from ledger.budgets.revisions import Change
from ledger.budgets.terms import Terms
from ledger.db import BudgetRevision
from ledger.periods import now
from ledger.store import Store
from tests.support.api_examples import app_of, client_of, cost, publish, write_worked_example

ADDRESSES = ("/v1/costs?by=team", "/v1/chains?limit=1", "/v1/balance", "/v1/budgets", "/v1/explain/cell?by=team")


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("answers")) as home_books:
        write_worked_example(home_books)
        yield home_books


@pytest.fixture(scope="module")
def one_app(books: Books) -> Iterator[Any]:
    with client_of(app_of(books)) as client:
        yield client


@pytest.fixture
def http(one_app: Any) -> Any:
    """The API, which keeps no answer yet."""
    forget_answers(one_app)
    return one_app


def forget_answers(http: Any) -> None:
    http.get("/health")  # the app is put together with its first request
    answers = kept_answers(http.app)
    answers.by_question.clear()
    answers.size = 0


def header_of(books: Books, *grants: str) -> dict[str, str]:
    """A key with these grants, as a header."""
    return {"Authorization": f"Bearer {create_key(books, 'test', [Grant.parse(grant) for grant in grants], actor='test')[1]}"}


def kept_answers(app: Any) -> Answers:
    """The answers that an app keeps."""
    layer = app.middleware_stack
    while not isinstance(layer, AnswerCache):
        layer = layer.app
    return layer.answers


def test_who_has_the_same_grants_is_answered_without_reading_a_table(
    books: Books, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, other = header_of(books, "viewer", "auditor"), header_of(books, "auditor", "viewer"), header_of(books, "admin")
    answers = {address: http.get(address, headers=first) for address in ADDRESSES}
    forget_answers(http)
    own_cursor = http.get("/v1/chains?limit=1", headers=second)
    assert own_cursor.json()["rows"] == answers["/v1/chains?limit=1"].json()["rows"]
    assert own_cursor.json()["next"] != answers["/v1/chains?limit=1"].json()["next"], "a cursor is of one principal"
    forget_answers(http)
    answers = {address: http.get(address, headers=first) for address in ADDRESSES}
    monkeypatch.setattr(Store, "scan", lambda *_, **__: pytest.fail("an answer was made"))
    for address, answer in answers.items():
        second_answer = http.get(address, headers=second)
        assert (second_answer.status_code, second_answer.headers["Content-Type"]) == (200, answer.headers["Content-Type"]), (
            address
        )
        assert second_answer.content == (own_cursor if "limit" in address else answer).content
        assert second_answer.headers["ETag"] != answer.headers["ETag"], "a tag is of one principal"
        assert second_answer.headers.get("Link") == (own_cursor if "limit" in address else answer).headers.get("Link")
        assert http.head(address, headers=second).headers["Content-Length"] == second_answer.headers["Content-Length"]
        condition = {"If-None-Match": second_answer.headers["ETag"]}
        assert [http.get(address, headers=header | condition).status_code for header in (second, first)] == [304, 200]
    monkeypatch.undo()
    following = [{"cursor": http.get("/v1/chains?limit=1", headers=header).json()["next"]} for header in (first, second)]
    for header, statuses in ((first, [200, 400]), (second, [400, 200])):
        assert [http.get("/v1/chains?limit=1", params=params, headers=header).status_code for params in following] == statuses
    for address in ADDRESSES:
        assert http.get(address, headers=other).status_code == 200
    lines = http.get("/metrics", headers=first).text.splitlines()
    request_lines = [
        line for line in lines if line.startswith('rootcost_http_requests_total{method="GET",route="/v1/costs",status="200"}')
    ]
    assert request_lines and float(request_lines[0].split()[-1]) >= 4


@pytest.mark.parametrize("order", [("admin", "viewer:Care", "viewer:Dev"), ("viewer:Dev", "viewer:Care", "admin")])
def test_nobody_is_answered_what_another_scope_was(books: Books, http: Any, order: tuple[str, ...]) -> None:
    """Whoever asks first: each is answered as if alone."""
    headers = {grant: header_of(books, grant) for grant in order}
    addresses = ("/v1/costs?by=team", "/v1/chains", "/v1/budgets")
    answers_alone = {}
    for grant in order:
        forget_answers(http)
        answers_alone[grant] = [http.get(address, headers=headers[grant]).json() for address in addresses]
    forget_answers(http)
    for grant in (*order, *order):
        assert [http.get(address, headers=headers[grant]).json() for address in addresses] == answers_alone[grant], grant
    totals = {grant: answers[0]["totals"] for grant, answers in answers_alone.items()}
    assert totals == {"admin": {"USD": "0.03"}, "viewer:Care": {"USD": "0.018"}, "viewer:Dev": {"USD": "0.009"}}


def test_a_role_that_is_taken_away_takes_the_answers_with_it(books: Books, http: Any) -> None:
    header = header_of(books, "viewer:Care")
    assert http.get("/v1/costs?by=team", headers=header).status_code == 200
    assert http.get("/v1/balance", headers=header_of(books, "admin")).status_code == 200
    assert http.get("/v1/balance", headers=header).status_code == 403


def test_what_another_process_changes_is_in_the_next_answer(tmp_path: Any) -> None:
    """A publication, a budget, money that is held, a registry: by other books, which share nothing with those of the API but the home."""
    with (
        Books.open(tmp_path / "home") as own_books,
        Books.open(tmp_path / "home") as other_books,
        client_of(app_of(own_books)) as client,
    ):
        write_worked_example(own_books)

        def ask(address: str) -> Any:
            answers = [client.get(address).json() for _ in range(2)]
            assert answers[0] == answers[1]
            return answers[0]

        assert (ask("/v1/costs?by=team")["totals"], ask("/v1/overview")["month"]) == ({"USD": "0.03"}, "2026-10")
        budgets, agents = ask("/v1/budgets"), ask("/v1/agents")
        publish(other_books, [cost("5", run_id="run-2", month="2026-11")], month="2026-11", run="run-2", rollup=None)
        assert (ask("/v1/costs?by=team")["totals"], ask("/v1/overview")["month"]) == ({"USD": "5.03"}, "2026-11")
        registry.import_text(other_books, "agent,team\nnew-bot,Care\n", uri="a.csv", actor="test")
        assert len(ask("/v1/agents")["registered"]) == len(agents["registered"]) + 1
        with other_books.database.session() as session:
            revisions.add(
                session, Terms(name="new", scopes={"team": "Care"}, amount=Decimal(10), enforcement="advisory"), Change("test")
            )
        assert ask("/v1/budgets")["total"] == budgets["total"] + 1
        held_amounts = []
        steps: list[Callable[[], object]] = [
            lambda: reservations.reserve(other_books, Request({"team": "Care"}, Decimal(3), "USD", 600, "one"), "test"),
            lambda: reservations.reserve(other_books, Request({"team": "Care"}, Decimal(2), "USD", 600, "two"), "test"),
            lambda: reservations.release(other_books, "one"),
            lambda: reservations.commit(other_books, "two", Decimal(1)),
        ]
        for step in steps:
            step()
            held_amounts.append(next(row for row in ask("/v1/budgets")["rows"] if row["name"] == "new")["encumbered"])
            assert ask("/v1/reservations")["total"] == [1, 2, 1, 0][len(held_amounts) - 1]
        assert held_amounts == ["3", "5", "2", "0"]
        publish(other_books, [cost("7", run_id="run-3", month="2026-11")], month="2026-11", run="run-3", rollup=None)
        assert ask("/v1/costs?by=team")["totals"] == {"USD": "7.03"}


@pytest.mark.clock
def test_an_owner_whose_time_comes_changes_the_answer(books: Books, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begins_at = now() + timedelta(days=1)
    registry.import_text(books, f"agent,team,valid_from\nlate-bot,Care,{begins_at.isoformat()}\n", uri="a.csv", actor="test")
    tags = [http.get("/v1/agents").headers["ETag"] for _ in range(2)]
    monkeypatch.setattr("api.queries.state_digest.now", lambda: begins_at + timedelta(minutes=1))
    tags += [http.get("/v1/agents").headers["ETag"] for _ in range(2)]
    monkeypatch.undo()
    tags += [http.get("/v1/agents").headers["ETag"] for _ in range(2)]
    assert tags[0] == tags[1] == tags[4] == tags[5] and tags[2] == tags[3] != tags[0]


def test_commits_of_a_real_other_process_are_a_new_revision(books: Books) -> None:
    values = [books.database.unless_changed("test", lambda _: object()) for _ in range(2)]
    assert values[0] is values[1]
    code = f"import sqlite3; c = sqlite3.connect({books.database.engine.url.database!r}); c.execute(\"UPDATE runs SET cause = 'x'\"); c.commit()"
    with books.database.session() as session:  # one that changes nothing is no commit
        session.get(BudgetRevision, 1)
    assert books.database.unless_changed("test", lambda _: object()) is values[0]
    code = code.replace("UPDATE runs SET cause = 'x'", "INSERT INTO marks VALUES ('test', 'key', '1', '2026-10-01 00:00:00')")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert books.database.unless_changed("test", lambda _: object()) is not values[0]


def question(number: int, **fields: Any) -> Question:
    return Question(**({"origin": "", "path": f"/v1/{number:06d}", "query": b"", "accept": "", "grants": ()} | fields))


def answer_of(size: int) -> Answer:
    return Answer(Reading(Permission.COSTS_READ, Reads(), ()), None, [], b"x" * size)


def test_answers_stay_below_the_limit_and_the_ones_asked_for_last_stay() -> None:
    answers = Answers(1_000_000)
    for number in range(400):
        answers.put(question(number), answer_of(20_000))
        assert answers.get([question(0)])
        assert answers.size <= 1_000_000
        assert sum(len(answer.body) for answer in answers.by_question.values()) <= answers.size
    assert len(answers.by_question) == 45
    assert answers.get([question(399)]) and not answers.get([question(1)])
    answers.put(question(399), answer_of(200_000))
    assert answers.get([question(399)]) is None, "too large a part of the limit"
    for number in range(500):
        answers.put(question(number), answer_of(0))
    assert answers.size <= 1_000_000
    answers.put(question(1), answer_of(100_000))
    answers.put(question(1), answer_of(10))
    assert answers.size == sum(len(a.body) + len(q.path) + 2_000 for q, a in answers.by_question.items())


def test_none_is_kept_where_the_setting_says_so(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers(http.app), "max_bytes", 0)
    assert http.get("/v1/costs?by=team").json() == http.get("/v1/costs?by=team").json()
    assert not kept_answers(http.app).by_question


def test_streams_errors_and_what_has_no_tag_are_not_kept(books: Books, http: Any) -> None:
    for address in (
        "/v1/costs?by=team&format=csv",
        "/v1/freshness",
        "/v1/me",
        "/v1/chains/none",
        "/v1/costs?by=nothing",
        "/v1/budgets/none",
    ):
        http.get(address)
    assert not kept_answers(http.app).by_question
    http.get("/v1/costs?by=team")
    assert len(kept_answers(http.app).by_question) == 1


def test_an_answer_that_many_wait_for_is_made_once(books: Books) -> None:
    """And when it cannot be made, everybody is told."""
    paths_made: list[str] = []
    statuses = [200, 200, 503]

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        number = len(paths_made)
        paths_made.append(scope["path"])
        await asyncio.sleep(0)
        scope["state"]["reading"] = Reading.of(books, Permission.COSTS_READ, Reads(BudgetRevision))
        await send({"type": "http.response.start", "status": statuses[min(number, 2)], "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % number})

    cache = AnswerCache(
        app, books=books, seal=TagSeal(b"secret", books.settings), cursor_seal=CursorSeal("secret"), max_bytes=1_000_000
    )

    async def ask(query: bytes) -> tuple[int, bytes]:
        principal = Principal("key:1", "key", "test", (Grant("viewer"),))
        scope = {
            "type": "http", "method": "GET", "path": "/v1/x", "query_string": query, "headers": [], "scheme": "http",
            "state": {"principal": principal},
        }  # fmt: skip
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        await cache(scope, None, send)  # type: ignore[arg-type]
        return messages[0]["status"], messages[1]["body"]

    async def ask_together(query: bytes) -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(ask(query) for _ in range(5)))

    asyncio.run(ask_together(b"first"))
    assert len(paths_made) == 5, "nothing tells yet that answers of this path are kept"
    paths_made.clear()
    assert asyncio.run(ask_together(b"a")) == [(200, b"0")] * 5
    assert asyncio.run(ask_together(b"b")) == [(200, b"1")] * 5
    assert paths_made == ["/v1/x"] * 2
    assert {status for status, _ in asyncio.run(ask_together(b"c"))} == {503}
