"""ETags: the same answer is not made twice, and an answer that differs has another tag."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute

from api.etags import Reads
from ledger import db, registry
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from ledger.problems import Problem, to_frame
from ledger.store import Store
from ledger.tables import PROBLEMS, SPANS, TABLES
from tests.support.api_examples import CHAIN_1, HOUR, SPAN_ROWS, TOKEN, app_of, client_of, frame, publish, write_worked_example

ADDRESSES = {
    "/v1/costs": "/v1/costs?by=team,agent",
    "/v1/chains/{chain_id:path}": f"/v1/chains/{CHAIN_1}",
    "/v1/explain/{ref:path}": f"/v1/explain/{CHAIN_1}",
    "/v1/explain/cell": "/v1/explain/cell?by=team",
}
WHO_ASKS = {"api_keys", "role_grants", "users", "user_sessions"}
"""Tables of which the tag knows by the principal."""


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("etags")) as home_books:
        write_worked_example(home_books)
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with client_of(app_of(books)) as client:
        yield client


def tagged_routes(app: Any) -> dict[str, Reads]:
    """Path → what the route reads."""
    routers = [getattr(route, "original_router", None) for route in app.routes]
    routes = [route for router in filter(None, routers) for route in router.routes if isinstance(route, APIRoute)]
    parts = ((route.path, dependency.call) for route in routes for dependency in route.dependant.dependencies)
    return {path: call for path, call in parts if isinstance(call, Reads)}


def test_an_answer_that_is_known_is_not_made_again(books: Books, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """304 with the same tag and without a body; nothing of the store is read."""
    answers = {path: http.get(ADDRESSES.get(path, path)) for path in tagged_routes(http.app) if "{name}" not in path}
    assert len(answers) > 12
    monkeypatch.setattr(Store, "scan", lambda *_, **__: pytest.fail("an answer was made"))
    for path, answer in answers.items():
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["Vary"] == "Accept, Authorization, Cookie"
        tag = answer.headers["ETag"]
        assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag)
        second_answer = http.get(ADDRESSES.get(path, path), headers={"If-None-Match": f'"other", {tag}'})
        assert (second_answer.status_code, second_answer.content, second_answer.headers["ETag"]) == (304, b"", tag), path


def test_tags_differ_by_query_format_and_principal(books: Books, http: Any) -> None:
    keys = [create_key(books, "test", [Grant.parse(grant)], actor="test")[1] for grant in ("viewer", "viewer", "viewer:Care")]
    requests = [
        ("/v1/costs?by=team", {}),
        ("/v1/costs?by=agent", {}),
        ("/v1/costs?by=team,agent", {}),
        ("/v1/costs?by=agent,team", {}),
        ("/v1/costs?by=agent&by=team", {}),
        ("/v1/costs?by=team&format=csv", {}),
        ("/v1/costs?by=team", {"Accept": "text/csv"}),
        *(("/v1/costs?by=team", {"Authorization": f"Bearer {key}"}) for key in keys),
    ]
    tags = [http.get(address, headers=headers).headers["ETag"] for address, headers in requests]
    assert len(set(tags)) == len(requests)
    for address, headers in requests:
        other_tags = [tag for tag, request in zip(tags, requests, strict=True) if request != (address, headers)]
        assert http.get(address, headers={**headers, "If-None-Match": ", ".join(other_tags)}).status_code == 200
    same_query = [http.get(f"/v1/costs?{query}").headers["ETag"] for query in ("by=team&view=executor", "view=executor&by=team")]
    assert same_query[0] == same_query[1]


def test_errors_have_no_tag(http: Any) -> None:
    for address in ("/v1/chains/none", "/v1/costs?by=nothing", "/v1/costs?misspelt=1"):
        answer = http.get(address, headers={"If-None-Match": "*"})
        assert answer.status_code in (400, 404, 422)
        assert "ETag" not in answer.headers


def test_head_is_get_without_the_body(http: Any) -> None:
    for address in ("/health", "/v1/costs?by=team", "/v1/chains?format=csv", "/v1/chains/none"):
        get, head = http.get(address), http.head(address)
        assert (head.status_code, head.content) == (get.status_code, b"")
        for name in ("Content-Type", "Content-Length", "ETag", "RootCost-Rows"):
            assert head.headers.get(name) == get.headers.get(name), (address, name)
    assert http.head("/v1/traces").status_code == 405
    assert "HEAD" in http.put("/v1/costs", headers={"Authorization": f"Bearer {TOKEN}"}).headers["Allow"]


def test_what_an_answer_reads_is_in_its_tag(books: Books, http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table that is read while an answer is made is one of `reads`, or holds conclusions of the published runs."""
    conclusions = {table.name for table in TABLES.values() if {"run_id", "rollup_id"} & set(table.partition_by)}
    opened_tables: set[str] = set()
    statements: list[str] = []

    def noting(open_table: Callable[..., Any]) -> Callable[..., Any]:
        def open_and_note(store: Store, table: Any, **options: Any) -> Any:
            opened_tables.add(table.name)
            return open_table(store, table, **options)

        return open_and_note

    def note_statement(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    for name in ("delta", "newest"):
        monkeypatch.setattr(Store, name, noting(getattr(Store, name)))
    sa.event.listen(books.database.engine, "before_cursor_execute", note_statement)
    _, key = create_key(books, "team", [Grant("finance", "Care"), Grant("viewer", "Data"), Grant("finance")], actor="test")
    _, team_key = create_key(books, "team", [Grant("viewer", "Care")], actor="test")
    try:
        for path, parts_read in tagged_routes(http.app).items():
            for holder in (key, team_key):
                opened_tables.clear()
                statements.clear()
                answer = http.get(ADDRESSES.get(path, path), headers={"Authorization": f"Bearer {holder}"})
                if answer.status_code != 200:
                    continue
                assert opened_tables - conclusions <= {table.name for table in parts_read.tables}, path
                selected_tables = {name for text in statements for name in re.findall(r"(?:FROM|JOIN) (\w+)", text)}
                assert selected_tables - {"published", *WHO_ASKS} <= {row.__tablename__ for row in parts_read.rows}, path
    finally:
        sa.event.remove(books.database.engine, "before_cursor_execute", note_statement)


def a_problem(books: Books) -> None:
    books.store.append(PROBLEMS, to_frame([Problem("otlp", "file", "1", "name", "is empty", "name every span")]))


def an_alert(books: Books) -> None:
    with books.database.session() as session:
        session.add(db.Alert(alert_id="a", kind="budget", severity="warning", subject="s", text="t", payload={}, created_at=HOUR))


def a_delivery(books: Books) -> None:
    with books.database.session() as session:
        session.get_one(db.Alert, "a").delivered_at = HOUR


def a_run(books: Books) -> None:
    with books.database.session() as session:
        session.add(db.Run(run_id="r", started_at=HOUR, status="running", months=["2026-10"], inputs={}))


def the_end_of_a_run(books: Books) -> None:
    with books.database.session() as session:
        run = session.get_one(db.Run, "r")
        run.status, run.finished_at = "failed", HOUR + timedelta(minutes=1)


@pytest.mark.parametrize(("change", "path"), [
    (a_problem, "/v1/problems"), (a_problem, "/v1/overview"), (an_alert, "/v1/alerts"), (a_delivery, "/v1/alerts"),
    (a_run, "/v1/runs"), (the_end_of_a_run, "/v1/runs"),
    (lambda books: registry.import_text(books, "agent,team,valid_from\nnew-bot,Care,2026-01-01\n", uri="a.csv", actor="test"), "/v1/agents"),
    (lambda books: books.store.append(SPANS, frame(SPANS, SPAN_ROWS[:1])), f"/v1/chains/{CHAIN_1}"),
    (lambda books: publish(books, [], month="2026-11", run="run-2", rollup=None), "/v1/costs"),
])  # fmt: skip
def test_a_change_changes_the_tag(books: Books, http: Any, change: Callable[[Books], object], path: str) -> None:
    first_answer = http.get(path)
    assert first_answer.status_code == 200
    change(books)
    second_answer = http.get(path, headers={"If-None-Match": first_answer.headers["ETag"]})
    assert second_answer.status_code == 200
    assert second_answer.headers["ETag"] != first_answer.headers["ETag"]
