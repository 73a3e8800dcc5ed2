"""The client has a method for every route, goes through pages, tries again with one key, and raises what the API said."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from api.client import ApiProblem, Client, InvalidProblem, MissingProblem, ReplacedProblem, UnavailableProblem, UnreachableProblem
from api.models import NewSource
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.books import Books
from tests.support.api_examples import WORKED_EXAMPLE, app_of, client_of, publish, write_worked_example
from tests.support.paths import ROOT

NOT_OF_ROUTES = {"close", "every", "rows"}
"""Methods that are about the connection, or about any route."""


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("client")) as home_books:
        write_worked_example(home_books)
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with client_of(app_of(books)) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def client(books: Books, http: httpx.Client) -> Client:
    _, key = create_key(books, "script", [Grant("admin")], actor="test")
    return Client("http://127.0.0.1", key, http=http)


def argument(kind: Any) -> Any:
    """Some value of a parameter's type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_construct()
    return b"" if kind is bytes else 1 if kind is int else "x"


def requested(method: str) -> Iterator[tuple[str, str]]:
    """Verb and path of the requests that a method sends when it is called with what it needs, and with the name of one thing."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=b"{}")

    with Client("http://api", http=httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer))) as recorder:
        call: Callable[..., Any] = getattr(recorder, method)
        kinds = get_type_hints(call)
        needed_names = [name for name, p in inspect.signature(call).parameters.items() if p.default is inspect.Parameter.empty]
        for names in (needed_names, [*needed_names, *({"name"} & kinds.keys() - set(needed_names))]):
            with contextlib.suppress(ValidationError):  # the answer is none of its model; what was asked is what counts
                call(**{name: argument(kinds[name]) for name in names})
    assert len(requests) == 2
    yield from ((request.method, request.url.path) for request in requests)


def test_every_route_has_a_method_and_every_method_a_route(http: Any) -> None:
    routes = {
        (verb.upper(), path): re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for path, verbs in http.app.openapi()["paths"].items()
        for verb in verbs
    }
    methods = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")} - NOT_OF_ROUTES
    reached_routes = set()
    for method, verb, path in ((name, *request) for name in sorted(methods) for request in requested(name)):
        matches = [route for route, pattern in routes.items() if route[0] == verb and pattern.fullmatch(path)]
        assert matches or path == "/logout", f"Client.{method} asks for {verb} {path}, which is no route"
        reached_routes |= set(sorted(matches, key=lambda route: "{" in route[1])[:1])
    assert set(routes) - reached_routes == set(), "routes without a method of the client"


def test_all_rows_come_page_by_page_and_a_replaced_run_says_so(books: Books, client: Client) -> None:
    chains = list(client.every(client.chains, limit=1))
    assert len(chains) == len({chain.chain_id for chain in chains}) == 2
    later_rows = client.every(client.chains, limit=1)
    next(later_rows)
    publish(books, [], run="run-2")
    with pytest.raises(ReplacedProblem, match="replaced") as error:
        next(later_rows)
    assert error.value.remedy


def test_what_the_api_said_is_raised(client: Client) -> None:
    with pytest.raises(MissingProblem, match="no source is named 'bill'"):
        client.source("bill")
    with pytest.raises(InvalidProblem, match="a bill needs an address") as error:
        client.add_source(NewSource(name="bill", source="focus"))
    assert (error.value.where, error.value.status) == ("addresses", 400)


def test_the_example_of_the_page_runs(
    books: Books, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints costs and calls; run again, it prints why the budget is not added."""
    _, key = create_key(books, "page", [Grant("admin")], actor="test")
    monkeypatch.setenv("ROOTCOST_KEY", key)
    monkeypatch.setattr("httpx.Client", lambda **_: http)
    monkeypatch.setattr(Client, "close", lambda _: None)
    publish(books, WORKED_EXAMPLE)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text("utf-8"), re.DOTALL)
    for _ in range(2):
        exec(compile(example, "docs/client.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert {"Care 0.018 USD", "Dev 0.009 USD", "2 calls"} <= set(lines)
    assert "a budget of that name is in force" in lines[-1]


def answers(*statuses: int) -> tuple[Client, list[httpx.Request]]:
    """A client of an API that answers with these statuses in turn; 0: not at all."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        status = statuses[len(requests)]
        requests.append(request)
        if not status:
            raise httpx.ReadError("cut off")
        return httpx.Response(status, json={"title": "busy", "status": status}, headers={"Retry-After": "7"})

    transport = httpx.MockTransport(answer)
    return Client("http://api", retries=2, http=httpx.Client(base_url="http://api", transport=transport)), requests


def test_a_change_is_sent_again_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    client, requests = answers(0, 503, 204)
    client.drop_budget("care")
    assert waits == [0.5, 7]
    (key,) = {request.headers["Idempotency-Key"] for request in requests}
    client, next_requests = answers(204)
    client.drop_budget("care")
    assert next_requests[0].headers["Idempotency-Key"] != key


def test_it_tells_that_an_answer_is_a_stored_one() -> None:
    is_stored = iter([False, True, False])
    transport = httpx.MockTransport(
        lambda _: httpx.Response(204, headers={"RootCost-Replayed": "true"} if next(is_stored) else {})
    )
    client = Client("http://127.0.0.1", http=httpx.Client(transport=transport, base_url="http://127.0.0.1"))
    for is_replay in (False, True, False):
        client.drop_budget("care")
        assert client.is_replay == is_replay


@pytest.mark.parametrize(
    ("statuses", "problem"), [((503, 503, 503), UnavailableProblem), ((0, 0, 0), UnreachableProblem), ((418,), ApiProblem)]
)
def test_it_gives_up(statuses: tuple[int, ...], problem: type[ApiProblem], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    client, requests = answers(*statuses)
    with pytest.raises(problem):
        client.drop_budget("care")
    assert len(requests) == len(statuses)
