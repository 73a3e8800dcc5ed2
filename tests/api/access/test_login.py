"""Log-in, sessions, one-time links and what attacks them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from api.access.hosts import Site
from api.client import Client
from ledger.access import links, sessions, users
from ledger.access.attempts import ACCOUNT, AttemptLimiter, TooManyAttemptsError
from ledger.access.principals import Grant
from ledger.access_tables import LoginLink, UserSession
from ledger.audit import Audit, AuditPersonal, erase
from ledger.books import Books
from ledger.errors import DeniedError, UsageError
from ledger.settings import ServeSettings
from tests.support.api_examples import TOKEN, reach
from tests.support.people import BROWSER, PASSWORD, add_person, cheap_passwords, log_in


@pytest.fixture(scope="module")
def home_books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """One ledger for all: tests add people of their own."""
    with cheap_passwords(), Books.open(tmp_path_factory.mktemp("login")) as books:
        add_person(books, "root", "admin")
        yield books


@pytest.fixture
def http(home_books: Books) -> Iterator[httpx.Client]:
    with reach(home_books) as client:
        yield client


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Books]:
    """A ledger without people."""
    with cheap_passwords(), Books.open(tmp_path) as books:
        yield books


def proxied(books: Books, **settings: Any) -> Any:
    return reach(books, site=Site.of(ServeSettings(**settings)))


def entries(books: Books, action: str) -> list[Audit]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(Audit).where(Audit.action == action)))


def test_a_person_logs_in_sees_what_is_theirs_and_logs_out(home_books: Books, http: httpx.Client) -> None:
    add_person(home_books, "ada", "viewer:Care")
    page = http.get("/login?return_to=/v1/me")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert not re.search(r"(src|href)=.http", page.text)
    answer = log_in(http, " Ada", return_to="/v1/me")
    assert (answer.status_code, answer.headers["location"]) == (303, "/v1/me")
    header = answer.headers["set-cookie"]
    assert re.match(r"rootcost_session=[\w-]{43}; Max-Age=604800; Path=/; HttpOnly; SameSite=Lax$", header)
    me = http.get("/v1/me").json()
    assert (me["name"], me["kind"], me["role"], me["scope"]) == ("ada", "user", "viewer", ["Care"])
    assert "logged in as ada" in http.get("/login").text
    stolen_cookie = http.cookies["rootcost_session"]
    assert http.post("/logout", headers=BROWSER, follow_redirects=False).headers["location"] == "/login"
    log_in(http, "ada")
    http.follow_redirects = False
    http.headers["Sec-Fetch-Site"] = "same-origin"
    Client("http://127.0.0.1", http=http).log_out()
    assert http.get("/v1/me").status_code == 401, "the dashboard logs out through the client"
    http.cookies.clear()
    ended_answer = http.get("/v1/me", headers={"Cookie": f"rootcost_session={stolen_cookie}"})
    assert (ended_answer.status_code, ended_answer.json()["type"]) == (401, "/problems/login-needed")
    with home_books.database.session() as session:
        assert stolen_cookie not in str(session.execute(sa.select(UserSession.__table__)).all())


def test_nobody_reads_once_there_are_people(empty: Books) -> None:
    with reach(empty) as http:
        assert http.get("/v1/me").json()["kind"] == "machine"
        assert http.get("/v1/me", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 401, "it came from elsewhere"
        add_person(empty, "ada", "viewer")
        http.app.state.authenticator.forget_people()
        answer = http.get("/v1/me")
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/login-needed")
        page = http.get("/v1/costs?by=team&limit=5", headers={"Accept": "text/html"}, follow_redirects=False)
        assert page.headers["location"] == "/login?return_to=%2Fv1%2Fcosts%3Fby%3Dteam%26limit%3D5"
        assert http.get("/health").status_code == 200
        assert http.get("/v1/me", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    with proxied(empty, host="0.0.0.0") as http:
        assert http.get("/v1/me").status_code == 401


def test_the_policy_of_a_form_lets_its_answer_lead_on(home_books: Books, http: httpx.Client) -> None:
    """Browsers hold the redirect after a form to its form-action, too: a log-in would seem to do nothing."""
    users.add_user(home_books, "mary", [Grant("viewer")], actor="test")
    token, _ = links.user_link(home_books, "mary", actor="test")
    password, deep = {"password": PASSWORD, "repeated": PASSWORD}, "http://127.0.0.1:8501/explorer"
    forms: list[tuple[str, str, dict[str, str]]] = [
        (f"/setup?token={token}", "/setup", {"token": token, **password}),
        ("/login", "/logout", {}),
        ("/login", "/login", {"name": "mary", **password}),
        (f"/login?return_to={deep}", "/login", {"name": "mary", **password, "return_to": deep}),
    ]
    refusal = http.post("/setup", data={"token": token, "password": "short"}, headers=BROWSER)
    assert "http://127.0.0.1:8501" in refusal.headers["content-security-policy"], "what was wrong is mended on that page"
    for page, action, form in forms:
        policy = http.get(page).headers["content-security-policy"].partition("form-action")[2]
        location = urlsplit(http.post(action, data=form, headers=BROWSER, follow_redirects=False).headers["location"])
        assert not location.netloc or f"{location.scheme}://{location.netloc}" in policy, page
        if action == "/login":
            http.cookies.clear()


@pytest.mark.parametrize("address", [
    "https://evil.example/", "//evil.example", "/\\evil.example", "http://127.0.0.1@evil.example/", "http://127.0.0.1:9999/", "javascript:alert(1)",
    "\thttps://evil.example", "http://127.0.0.1.evil.example:8501/", "http:evil.example", "/a\r\nSet-Cookie: a=b", "http://[::1", "https:///x",
])  # fmt: skip
def test_it_leads_on_to_own_addresses_only(address: str) -> None:
    site = Site.of(ServeSettings())
    scope = {"type": "http", "scheme": "http", "headers": [(b"host", b"127.0.0.1:8787")], "state": {}}
    assert site.return_address(address, scope) == "http://127.0.0.1:8501/"
    for own in ("/v1/me?x=1", "http://127.0.0.1:8501/deep?team=care", "http://127.0.0.1:8787/v1/me", "http://localhost:8501/"):
        assert site.return_address(own, scope) == own


def test_a_wrong_password_and_a_wrong_name_say_the_same(home_books: Books, http: httpx.Client) -> None:
    add_person(home_books, "grace", "viewer")
    answers = [log_in(http, name, "wrong password") for name in ("grace", "nobody at all", "<b>&\"'")]
    assert {answer.status_code for answer in answers} == {401}
    words = [re.sub(r'value="[^"]*"', "", answer.text) for answer in answers]
    assert words[0] == words[1] == words[2]
    assert "<b>" not in answers[2].text


def test_attempts_are_bounded(home_books: Books, http: httpx.Client) -> None:
    add_person(home_books, "linus", "viewer")
    codes = [log_in(http, "linus", f"guess {number}").status_code for number in range(7)]
    assert codes == [401] * 5 + [429] * 2
    refused_answer = log_in(http, "linus")
    assert refused_answer.status_code == 429
    assert 0 < int(refused_answer.headers["retry-after"]) <= 300
    assert log_in(http, "root").status_code == 303, "others log in from there"


def test_a_million_attempts_take_bounded_memory_and_a_set_clock_frees_nobody() -> None:
    seconds = [0.0]
    limiter = AttemptLimiter(lambda: seconds[0])
    admitted_attempts = 0
    for number in range(12_000):  # a sample of a million, from as many addresses
        try:
            limiter.admit("ada", f"2001:db8:{number:x}::1")
            admitted_attempts += 1
        except TooManyAttemptsError:
            pass
    assert admitted_attempts == ACCOUNT.attempts
    for number in range(12_000):
        with contextlib.suppress(TooManyAttemptsError):
            limiter.admit(f"user {number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limiter) <= 10_001
    seconds[0] += 1000
    limiter.admit("ada", "192.0.2.1")


def test_changes_with_a_cookie_come_from_our_own_pages(home_books: Books, http: httpx.Client) -> None:
    cookie = {"Cookie": f"rootcost_session={add_person(home_books, 'csrf', 'admin')}"}
    budget: dict[str, Any] = {"scope": "team", "scope_name": "Care", "amount": "5", "currency": "USD"}
    own = [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1"}]
    foreign: list[dict[str, str]] = [
        {}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}, {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8501"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    ]  # fmt: skip
    for headers in foreign:
        answer = http.put("/v1/budgets/care", json=budget, headers=cookie | headers)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/cross-site"), headers
        assert http.post("/logout", headers=cookie | headers).status_code == 403
        assert http.post("/login", data={"name": "root", "password": PASSWORD}, headers=headers).status_code == 403
    for headers, condition in zip(own, ({"If-None-Match": "*"}, {"If-Match": "*"}), strict=True):
        assert http.put("/v1/budgets/care", json=budget, headers=cookie | headers | condition).status_code == 200
    key = {"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "cross-site", "If-Match": "*"}
    assert http.put("/v1/budgets/care", json=budget, headers=key).status_code == 200


@pytest.mark.clock
def test_sessions_end(home_books: Books, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """By age, idleness, revocation, with the user, and where the clock was set back."""
    tokens = [add_person(home_books, name, "viewer") for name in ("s1", "s2", "s3")]
    moment = datetime.now(UTC)
    shift = timedelta()
    monkeypatch.setattr(sessions, "now", lambda: moment + shift)

    def is_in_force(token: str) -> bool:
        return sessions.principal_of_session(home_books, token) is not None

    for shift, expected in [
        (timedelta(), True),
        (timedelta(hours=11), True),
        (timedelta(hours=22), True),  # seen 11 hours before
        (timedelta(hours=35), False),  # idle for more than 12
        (timedelta(hours=-1), False),
        (timedelta(minutes=-4), True),
    ]:
        assert is_in_force(tokens[0]) == expected, shift
    for hours in range(0, 190, 10):
        shift = timedelta(hours=hours)
        assert is_in_force(tokens[1]) == (hours < 168), hours
    shift = timedelta()
    users.set_disabled(home_books, "s3", is_disabled=True, actor="test")
    assert not is_in_force(tokens[2])
    users.set_disabled(home_books, "s3", is_disabled=False, actor="test")
    assert not is_in_force(tokens[2]), "enabling opens no old session"
    users.set_disabled(home_books, "s3", is_disabled=True, actor="test")
    with pytest.raises(DeniedError):
        links.user_link(home_books, "s3", actor="test")
    assert log_in(http, "s3").status_code == 401


@pytest.mark.clock
def test_who_asks_only_who_is_logged_in_does_not_use_a_session(
    home_books: Books, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open tab asks every second; the idle time goes on. A page that is read right after it is a use."""
    cookie = {"Cookie": f"rootcost_session={add_person(home_books, 'idler', 'viewer')}"}
    moment, shift = datetime.now(UTC), timedelta()
    monkeypatch.setattr(sessions, "now", lambda: moment + shift)

    def asked(hours: int, *addresses: str) -> list[int]:
        nonlocal shift
        shift = timedelta(hours=hours)
        http.app.state.authenticator.forget_session(cookie["Cookie"].partition("=")[2])  # type: ignore[attr-defined]
        return [http.get(address, headers=cookie).status_code for address in addresses]

    assert asked(11, "/v1/me", "/v1/budgets") == [200, 200]
    assert asked(22, "/v1/me") == [200]
    assert asked(24, "/v1/me", "/v1/budgets") == [401, 401], "last used after 11 hours"


def test_grants_count_at_once(home_books: Books) -> None:
    token = add_person(home_books, "granted", "viewer:Care")
    users.add_grants(home_books, "granted", [Grant("finance")], actor="test")
    principal = sessions.principal_of_session(home_books, token)
    assert principal is not None
    assert [str(grant) for grant in principal.grants] == ["finance", "viewer:Care"]
    users.remove_grants(home_books, "granted", [Grant("finance"), Grant("viewer", "Care")], actor="test")
    principal = sessions.principal_of_session(home_books, token)
    assert principal is not None
    assert principal.grants == ()


def test_the_first_administrator_is_made_once(empty: Books) -> None:
    token = links.first_admin_link(empty)
    assert token is not None
    with reach(empty) as http:
        for _ in range(2):  # mail scanners open links
            assert "first administrator" in http.get(f"/setup?token={token}").text
        form = {"token": token, "name": "Root", "password": PASSWORD, "repeated": PASSWORD}
        assert "differ" in http.post("/setup", data=form | {"repeated": "x"}, headers=BROWSER).text
        assert "12 characters" in http.post("/setup", data=form | {"password": "x", "repeated": "x"}, headers=BROWSER).text
        answer = http.post("/setup", data=form, headers=BROWSER, follow_redirects=False)
        assert answer.status_code == 303
        assert http.get("/v1/me").json()["role"] == "admin"
        http.cookies.clear()
        assert http.get("/v1/me").status_code == 401, "from now on nobody reads unknown"
        assert http.get(f"/setup?token={token}").status_code == 410
        assert http.post("/setup", data=form | {"name": "eve"}, headers=BROWSER).status_code == 410
        assert links.first_admin_link(empty) is None
        with empty.database.session() as session:
            assert token not in str(session.execute(sa.select(LoginLink.__table__)).all())


@pytest.mark.clock
def test_links_end(home_books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    add_person(home_books, "linked", "viewer")
    earlier, _ = links.user_link(home_books, "linked", actor="test")
    token, purpose = links.user_link(home_books, "linked", actor="test")
    assert purpose == "reset"
    for wrong in (earlier, token[:-1], "", "x" * 5000):
        with pytest.raises(links.LinkError):
            links.look_at(home_books, wrong)
    with pytest.raises(UsageError):
        links.use(home_books, token, name="", password="linked")
    at = datetime.now(UTC)
    for shift in (timedelta(minutes=16), timedelta(hours=-1)):
        monkeypatch.setattr(links, "now", lambda shift=shift: at + shift)
        with pytest.raises(links.LinkError):
            links.use(home_books, token, name="", password=PASSWORD)
    monkeypatch.setattr(links, "now", lambda: datetime.now(UTC))
    (open_session,) = [row for row in sessions.list_sessions(home_books) if row.name == "linked"]
    links.use(home_books, token, name="", password=PASSWORD + "!")
    after = [row.session_id for row in sessions.list_sessions(home_books) if row.name == "linked"]
    assert len(after) == 1
    assert open_session.session_id not in after, "a new password ends other sessions"
    with pytest.raises(links.LinkError):
        links.use(home_books, token, name="", password=PASSWORD)


def test_a_proxy_is_believed_only_where_it_is_trusted(home_books: Books) -> None:
    token = add_person(home_books, "proxied", "viewer")
    forged_answer = {"X-Forwarded-Host": "gateway.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
    with proxied(home_books) as http:
        assert http.get("/login", headers={"Host": "gateway.example.com"}).status_code == 421
        assert "Secure" not in log_in(http, "proxied").headers["set-cookie"]
        http.headers.update(forged_answer)
        assert "Secure" not in log_in(http, "proxied").headers["set-cookie"]
    names = {"allowed_hosts": ["gateway.example.com"], "trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]}
    with proxied(home_books, **names) as http:
        http.app.state.peer = "10.1.2.3"
        transport = httpx.ASGITransport(app=http.app, client=("10.1.2.3", 1))

    async def through_proxy() -> tuple[httpx.Response, httpx.Response, httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8787", headers=forged_answer) as browser:
            answer = await browser.post("/login", data={"name": "proxied", "password": PASSWORD}, headers=BROWSER)
            host_cookie = await browser.get("/v1/me", headers={"Cookie": f"__Host-rootcost_session={token}"})
            plain_cookie = await browser.get("/v1/me", headers={"Cookie": f"rootcost_session={token}"})
            evil = await browser.get("/login", headers={"X-Forwarded-Host": "evil.example"})
            return answer, host_cookie, plain_cookie, evil

    answer, host_cookie, plain_cookie, evil = asyncio.run(through_proxy())
    assert re.match(r"__Host-rootcost_session=.*; Path=/; HttpOnly; SameSite=Lax; Secure$", answer.headers["set-cookie"])
    assert answer.headers["location"] == "/"
    assert host_cookie.json()["name"] == "proxied"
    assert plain_cookie.status_code == 401, "another server on that host may have set it"
    assert evil.status_code == 421


@pytest.mark.parametrize("cookie", ["", "x", "ü" * 43, "a" * 43, "'; DROP TABLE users", "a" * 7000, "a=b; rootcost_session=c"])
def test_a_cookie_that_is_none_is_nobody(http: httpx.Client, cookie: str) -> None:
    answer = http.get("/v1/me", headers={b"Cookie": f"rootcost_session={cookie}".encode()})
    assert answer.status_code == 401


@pytest.mark.parametrize(("body", "status"), [
    (b"name=a&name=b&password=c", 400), (b"name=%ff&password=c", 400), (b"\xff", 400), (b"a=1&" * 11, 400), (b"x" * 20_000, 413), (b"", 401),
])  # fmt: skip
def test_forms_are_small_and_whole(http: httpx.Client, body: bytes, status: int) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/login", content=body, headers=BROWSER | kind).status_code == status
    assert http.post("/login", json={"name": "root"}, headers=BROWSER).status_code == 415


def test_what_people_do_is_in_the_audit_log_and_their_names_can_be_erased(home_books: Books, http: httpx.Client) -> None:
    add_person(home_books, "audited", "viewer")
    log_in(http, "audited", "wrong")
    log_in(http, "audited")
    http.post("/logout", headers=BROWSER)
    for action in ("user.add", "user.link", "user.password", "access.login", "access.logout"):
        assert all("audited" not in f"{e.before}{e.after}{e.subject}{e.actor}" for e in entries(home_books, action)), action
        assert entries(home_books, action), action
    assert any(e.subject == "POST /login" for e in entries(home_books, "access.denied"))
    with home_books.database.session() as session:
        assert erase(session, "cli", "audited") >= 5
    with home_books.database.session() as session:
        assert session.scalars(sa.select(AuditPersonal).where(AuditPersonal.value == "audited")).all() == []


def test_every_answer_has_the_headers_that_browsers_need(home_books: Books, http: httpx.Client) -> None:
    answers = [http.get(path) for path in ("/health", "/login", "/v1/me", "/nothing", "/setup?token=x")]
    http.app.state.authenticator = None  # type: ignore[attr-defined]
    answers.append(http.post("/logout", headers=BROWSER | {"Cookie": "rootcost_session=x"}, follow_redirects=False))
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401, 410, 500]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] in ("no-store", "private, no-cache")
