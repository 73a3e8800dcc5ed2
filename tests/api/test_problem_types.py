"""Problem types: every error document leads to a page that says what it means."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api import client, problem_types
from api.errors import _KINDS
from api.problem_types import PROBLEM_TYPES
from ledger.books import Books
from tests.support.api_examples import TOKEN, reach

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Books.open(tmp_path_factory.mktemp("problem-types")) as books, reach(books) as api:
        yield api


def raised_kinds() -> Iterator[tuple[str, Any, Any]]:
    """Place, status and kind of every problem document that the code makes."""
    for path in [*(ROOT / "api").rglob("*.py"), *(ROOT / "rootcost").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("RequestError", "document") and len(node.args) > 1:
                status, kind = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(kind, ast.Constant):
                    yield f"{path.name}:{node.lineno}", status.value, kind.value


def test_every_problem_of_the_code_is_listed() -> None:
    raised_problems = list(raised_kinds())
    assert len(raised_problems) > 20
    for place, status, kind in raised_problems:
        assert kind in PROBLEM_TYPES, f"{place}: name {kind!r} in {problem_types.__name__}, with what it means and what to do"
        assert status in PROBLEM_TYPES[kind].statuses, f"{place}: {kind} comes with {status}, too"
    for _, status, kind in _KINDS:
        assert status in PROBLEM_TYPES[kind].statuses


def test_the_type_of_a_problem_is_the_address_of_its_page(http: Any) -> None:
    """As JSON and, for a browser, as HTML; nobody needs to be known."""
    document = http.get("/v1/chains/none").json()
    page = http.get(document["type"])
    assert page.json() == {
        "type": "/problems/not-found",
        "statuses": [404],
        "title": document["title"],
        "meaning": PROBLEM_TYPES["not-found"].meaning,
        "remedy": PROBLEM_TYPES["not-found"].remedy,
    }
    browser = http.get(document["type"], headers={"Accept": "text/html,*/*;q=0.8", "Authorization": "Bearer wrong"})
    assert browser.headers["content-type"].startswith("text/html")
    assert document["title"] in browser.text
    overview = http.get("/problems").json()
    assert [row["type"] for row in overview["rows"]] == [problem_types.type_uri(kind) for kind in PROBLEM_TYPES]
    assert http.get("/problems/none").status_code == 404


def test_documents_of_one_form_say_so(http: Any) -> None:
    """406 with the one type there is; a change is not made either."""
    for path in ("/v1/overview", "/v1/freshness", "/v1/me"):
        refusal = http.get(path, headers={"Accept": "text/csv"})
        assert (refusal.status_code, refusal.json()["remedy"]) == (406, "accept one of: application/json"), path
    headers = {"Accept": "text/csv", "Authorization": f"Bearer {TOKEN}"}
    budget = {"name": "care", "scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD"}
    assert http.post("/v1/budgets", json=budget, headers=headers).status_code == 406
    assert http.get("/v1/budgets").json()["rows"] == []
    assert http.get("/v1/costs", headers={"Accept": "text/csv"}).status_code == 200


def test_a_client_without_a_service_names_its_type() -> None:
    with client.Client("http://127.0.0.1:9", timeout_seconds=0.5) as nobody, pytest.raises(client.ApiProblem) as problem:
        nobody.health()
    assert problem.value.type == "/problems/unreachable"
