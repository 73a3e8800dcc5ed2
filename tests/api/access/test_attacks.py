"""Attacks on the API: text that would be a header of its own, hosts that are none, tokens of before, and what is asked for hashes of sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api.access.authentication import Authenticator
from ledger.access.keys import FIRST_KEY, create_key
from ledger.access.principals import Grant
from ledger.access.sessions import hash_of, log_out
from ledger.access.users import set_disabled
from ledger.books import Books
from rootcost.service.serve import token_of
from tests.support.api_examples import CODER, TOKEN, WORKED_EXAMPLE, cost, publish, reach, write_worked_example
from tests.support.people import BROWSER, add_person, cheap_passwords, log_in

INJECTED = "x\r\nSet-Cookie: injected=1\r\n\r\n<b>é€"
AUTHOR = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with Books.open(tmp_path_factory.mktemp("attacks")) as home_books:
        write_worked_example(home_books)
        publish(home_books, [*WORKED_EXAMPLE, cost("1", currency=INJECTED, **CODER)])
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[Any]:
    with reach(books) as client:
        yield client


def require_clean(answer: Any) -> None:
    """No header holds a line break or anything that was sent to become one."""
    assert answer.status_code < 500, (answer.request.url, answer.text)
    for name, value in answer.headers.multi_items():
        assert "\n" not in value, (answer.request.url, name, value)
        assert "\r" not in value, (answer.request.url, name, value)
        assert name != "set-cookie", (answer.request.url, value)


@pytest.mark.slow
def test_text_of_a_request_never_becomes_a_header(http: Any) -> None:
    """In every path and query parameter of every route, and in the headers that are read."""
    routes = http.app.openapi()["paths"]
    text = quote(INJECTED, safe="")
    sent_headers = ("Accept", "If-None-Match", "If-Match", "Idempotency-Key", "Content-Type", "Origin", "X-Forwarded-Host")
    for path, methods in routes.items():
        for method, operation in methods.items():
            parameters = operation.get("parameters", [])
            address = path
            for parameter in parameters:
                if parameter["in"] == "path":
                    address = address.replace(f"{{{parameter['name']}}}", text)
            query = "&".join(f"{p['name']}={text}" for p in parameters if p["in"] == "query")
            headers = AUTHOR | dict.fromkeys(sent_headers, "x é\x0b; y")
            body = None if method == "get" else b"{}"
            require_clean(
                http.request(
                    method, f"{address}?{query}", headers={k: v.encode("latin-1") for k, v in headers.items()}, content=body
                )
            )
            if method == "get":
                require_clean(http.get(address, headers=AUTHOR))


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet", "arrow"])
def test_a_currency_of_a_bill_never_becomes_a_header(http: Any, form: str) -> None:
    answer = http.get(f"/v1/costs?by=team&format={form}", headers=AUTHOR)
    require_clean(answer)
    assert answer.status_code == 200
    if form != "json":
        assert f"cost.{quote(INJECTED, safe='')}=1" in answer.headers["RootCost-Totals"]


def test_names_that_were_stored_never_become_headers(http: Any) -> None:
    """Names of what can be changed have no line breaks; other odd ones are escaped in `Location`."""
    terms = {"scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD"}
    assert http.post("/v1/budgets", json=terms | {"name": INJECTED}, headers=AUTHOR).status_code == 422
    assert http.post("/v1/rules", json={"name": INJECTED}, headers=AUTHOR).status_code == 400
    for path, body in (("/v1/budgets", terms | {"name": "<é €>; x"}), ("/v1/rules", {"name": "<é €>; x"})):
        answer = http.post(path, json=body, headers=AUTHOR)
        require_clean(answer)
        assert answer.headers["Location"] == f"{path}/{quote('<é €>; x', safe='')}"
        assert http.get(answer.headers["Location"], headers=AUTHOR).status_code == 200


@pytest.mark.parametrize(
    "address", ["/\r\nSet-Cookie: a=b", "//evil.example", "https://evil.example/", "/%0d%0aSet-Cookie:a=b", "/é"]
)
def test_where_a_log_in_leads_is_no_header(books: Books, http: Any, address: str) -> None:
    with cheap_passwords():
        name = f"ada{abs(hash(address))}"
        add_person(books, name, "viewer:Care")
        answer = log_in(http, name, return_to=address)
    http.cookies.clear()
    assert answer.status_code == 303
    assert answer.headers["location"].isascii()
    assert "evil" not in answer.headers["location"]
    assert [value.partition("=")[0] for value in answer.headers.get_list("set-cookie")] == ["rootcost_session"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:80@evil.example",
        "127.0.0.1:evil.example",
        "127.0.0.1/evil.example:80",
        "[::1].evil.example",
        '127.0.0.1:80"',
        "",
        "[::1",
    ],
)
def test_a_host_that_is_no_name_and_port_is_refused(http: Any, host: str) -> None:
    """Links of invitations and of log-ins are made with it."""
    answer = http.get("/v1/me", headers=AUTHOR | {"Host": host})
    assert answer.status_code in (400, 421), answer.text
    require_clean(answer)


def test_a_token_of_before_is_refused(books: Books, tmp_path: Path) -> None:
    """A token file that is deleted is made anew, for its owner only; the one before lets nobody in."""
    old_token, is_new = token_of(tmp_path)
    assert is_new
    assert token_of(tmp_path) == (old_token, False)
    (tmp_path / "token").unlink()
    new_token, _ = token_of(tmp_path)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    authenticator = Authenticator(books, token=new_token)
    assert authenticator.of_key(new_token) == FIRST_KEY
    assert [authenticator.of_key(text) for text in (old_token, "", new_token[:-1], new_token + "x", new_token.lower())] == [
        None
    ] * 5


def test_metrics_and_gauges_are_for_who_sees_the_whole(books: Books, http: Any) -> None:
    for grant in ("viewer:Care", "platform:Care", "admin:Care", "viewer"):
        _, key = create_key(books, "test", [Grant.parse(grant)], actor="test")
        for address in ("/metrics", "/metrics?format=csv", "/v1/sources", "/v1/problems"):
            answer = http.get(address, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code in (403, 422), (grant, address)
            assert "Dev" not in answer.text


def test_only_who_has_a_session_learns_whether_it_is_in_force(books: Books, http: Any) -> None:
    with cheap_passwords():
        token = add_person(books, "grace", "viewer:Care")
        add_person(books, "root", "admin")
    ask = {"session": [hash_of(token), "0" * 64]}
    states = http.get("/sessions", params=ask)
    assert states.json()["people"]
    assert list(states.json()["in_force"]) == [hash_of(token)]
    assert "grace" not in states.text
    assert http.get("/sessions", params={"session": token}).status_code == 422
    assert http.get("/sessions", params={"session": ["0" * 64] * 201}).status_code == 422
    set_disabled(books, "grace", is_disabled=True, actor="test")
    assert http.get("/sessions", params=ask).json()["in_force"] == {}
    set_disabled(books, "grace", is_disabled=False, actor="test")
    log_out(books, token)
    assert http.get("/sessions", params=ask, headers=BROWSER).json()["in_force"] == {}
