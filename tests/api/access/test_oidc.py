"""Log-in at real providers of OpenID Connect, and everything that may come back instead."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from ledger.access import group_roles, pending_logins, sessions, users
from ledger.access.principals import Grant
from ledger.access_tables import PendingLogin, User, UserSession
from ledger.audit import Audit
from ledger.books import Books
from ledger.errors import SettingsError, UsageError
from ledger.periods import now
from ledger.settings import AccessSettings, Settings
from ledger.settings_sections import OidcProvider
from tests.support.api_examples import app_of, client_of, reach
from tests.support.cli_books import Command
from tests.support.oidc import SECRET, Provider, run_provider
from tests.support.people import add_person, cheap_passwords

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the provider is made of
ORIGIN = "http://127.0.0.1"


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[Provider, Provider]]:
    with ExitStack() as stack:
        yield stack.enter_context(run_provider()), stack.enter_context(run_provider())


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, providers: tuple[Provider, Provider]) -> Iterator[Books]:
    access = AccessSettings(providers=[providers[0].settings("company", title="Company & Co"), providers[1].settings("partner")])
    with cheap_passwords(), Books(Settings(home=tmp_path_factory.mktemp("oidc"), access=access)) as provider_books:
        group_roles.map_group(provider_books, "company", "care", [Grant("viewer", "Care")], actor="test")
        group_roles.map_group(provider_books, "company", "care", [Grant("platform", "Care")], actor="test")
        yield provider_books


@pytest.fixture(scope="module")
def app(books: Books) -> Any:
    return app_of(books)


@pytest.fixture
def http(app: Any, providers: tuple[Provider, Provider]) -> Any:
    """A browser without cookies."""
    for provider in providers:
        provider.userinfo.clear()
    return new_browser(app)


def new_browser(app: Any) -> Any:
    client = client_of(app)
    client.follow_redirects = False
    return client


def depart(http: httpx.Client, name: str = "company", return_to: str = "") -> str:
    answer = http.get(f"/login/{name}", params={"return_to": return_to} if return_to else {})
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def log_in(
    http: httpx.Client, provider: Provider, subject: str, name: str = "company", return_to: str = "/v1/me", **claims: Any
) -> httpx.Response:
    provider.set_user(subject, **claims)
    return http.get(provider.log_in(depart(http, name, return_to), subject).removeprefix(ORIGIN))


def test_who_is_in_a_group_logs_in_with_its_roles(
    http: httpx.Client, books: Books, providers: tuple[Provider, Provider], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    company = providers[0]
    page = http.get("/login?return_to=/v1/me%3Fx%3D1").text
    assert 'href="/login/company?return_to=%2Fv1%2Fme%3Fx%3D1">Log in with Company &amp; Co</a>' in page
    assert "Log in with partner" in page
    company.set_user("1001", preferred_username="Ada@Example.com", email="ada@example.com", groups=["care", "chess"])
    departure = depart(http, return_to="/v1/me?x=1")
    query = parse_qs(urlsplit(departure).query)
    assert (query["code_challenge_method"], query["redirect_uri"]) == (["S256"], [f"{ORIGIN}/login/company/callback"])
    answer = http.get(company.log_in(departure, "1001").removeprefix(ORIGIN))
    assert (answer.status_code, answer.headers["location"]) == (303, "/v1/me?x=1")
    assert company.is_proof(departure)
    me = http.get("/v1/me").json()
    assert (me["name"], me["role"], me["scope"]) == ("ada@example.com", "platform,viewer", ["Care"])
    with books.database.session() as session:
        assert session.scalars(sa.select(User.issuer).where(User.name == "ada@example.com")).one() == company.url
        everything = [
            str(row)
            for table in sa.inspect(books.database.engine).get_table_names()
            for row in session.execute(sa.text(f'SELECT * FROM "{table}"'))
        ]
    assert company.secrets[-1] == SECRET
    token = http.cookies["rootcost_session"]
    for secret in (SECRET, token, company.forms[-1]["code"], company.forms[-1]["code_verifier"]):
        assert not [row for row in everything if secret in row]
        # Not those of the browser and of the provider, which run here, too.
        assert not [
            record
            for record in caplog.records
            if record.name not in ("httpx2", "httpx", "werkzeug") and secret in record.getMessage()
        ]
    assert SECRET not in caplog.text


def test_roles_of_a_group_count_at_once_and_are_audited(
    http: httpx.Client, books: Books, providers: tuple[Provider, Provider]
) -> None:
    answer = log_in(http, providers[0], "1002", preferred_username="grace", groups=["late"])
    assert answer.status_code == 200
    assert "No role belongs to your groups at Company &amp; Co: late." in answer.text
    assert 'href="/v1/me"' in answer.text
    assert http.get("/v1/me").json()["scope"] == []
    assert http.get("/v1/costs").status_code == 403
    group_roles.map_group(books, "company", "late", [Grant("finance")], actor="cli")
    http.app.state.authenticator.forget_session(http.cookies["rootcost_session"])  # type: ignore[attr-defined]
    assert http.get("/v1/me").json()["scope"] == "whole"
    assert [row.grants for row in group_roles.list_groups(books) if row.group == "late"] == [(Grant("finance"),)]
    assert group_roles.unmap_group(books, "company", "late", [], actor="cli").grants == ()
    http.app.state.authenticator.forget_session(http.cookies["rootcost_session"])  # type: ignore[attr-defined]
    assert http.get("/v1/me").json()["scope"] == []
    with books.database.session() as session:
        entries = session.scalars(sa.select(Audit).where(Audit.subject == "company/late").order_by(Audit.sequence)).all()
    assert [(entry.action, entry.after) for entry in entries] == [
        ("role.map", {"grants": ["finance"]}),
        ("role.unmap", {"grants": ["finance"]}),
    ]
    for provider, group in (("compny", "late"), ("company", " "), ("company", "x" * 500)):
        with pytest.raises(UsageError):
            group_roles.map_group(books, provider, group, [Grant("viewer")], actor="cli")


@pytest.mark.parametrize(
    "sign",
    [
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example"}}},
        {"hasgroups": True},
        {},
    ],
)
def test_groups_that_do_not_fit_the_token_are_read_at_userinfo(
    http: httpx.Client, providers: tuple[Provider, Provider], sign: dict[str, Any]
) -> None:
    providers[0].userinfo["groups"] = [f"group {number}" for number in range(300)] + ["care"]
    answer = log_in(http, providers[0], "1003", preferred_username="linus", **sign)
    assert answer.status_code == 303, answer.text
    assert http.get("/v1/me").json()["scope"] == ["Care"]
    providers[0].userinfo.clear()
    answer = log_in(http, providers[0], "1003", preferred_username="linus", **sign)
    assert answer.status_code == 200
    assert ("they are more than it sends" if sign else "named no group of yours") in answer.text


def test_groups_of_a_session_are_bounded(http: httpx.Client, books: Books, providers: tuple[Provider, Provider]) -> None:
    groups = [f"group {number}" for number in range(3000)] + ["care", 7, None, {"name": "care"}, "x" * 1000]
    assert log_in(http, providers[0], "1004", groups=groups).status_code == 303
    with books.database.session() as session:
        kept_groups = session.get_one(UserSession, sessions.hash_of(http.cookies["rootcost_session"])).groups
    assert (len(kept_groups), kept_groups[0]) == (1001, "care")


@pytest.mark.parametrize(("claims", "words"), [
    ({"aud": "another client"}, "its aud is not that of this log-in"),
    ({"aud": ["another client", "rootcost"]}, "its azp is not that of this log-in"),
    ({"aud": "another client", "azp": "rootcost"}, "its aud is not that of this log-in"),
    ({"iss": "https://evil.example"}, "its iss is not that of this log-in"),
    ({"exp": 1}, "it has expired"),
    ({"exp": "never"}, "its exp is not that of this log-in"),
    ({"iat": 4102444800}, "its iat is not that of this log-in"),
    ({"nonce": "of another log-in"}, "its nonce is not that of this log-in"),
    ({"at_hash": "x"}, "its at_hash is not that of this log-in"),
])  # fmt: skip
def test_a_token_that_is_not_for_this_log_in_is_refused(
    http: httpx.Client, books: Books, providers: tuple[Provider, Provider], claims: dict[str, Any], words: str
) -> None:
    answer = log_in(http, providers[0], "1005", preferred_username="mallory", groups=["care"], **claims)
    assert answer.status_code == 403
    assert words in answer.text
    assert "You are not logged in" in answer.text
    assert "rootcost_session" not in answer.headers.get("set-cookie", "")
    assert http.get("/v1/me").status_code == 401
    assert not [user for user in users.list_users(books) if user.name == "mallory"]


def test_a_token_of_another_key_is_refused(providers: tuple[Provider, Provider]) -> None:
    from api.access.oidc import OidcClient, ProviderError

    client, back = OidcClient(providers[0].settings("company")), f"{ORIGIN}/login/company/callback"

    async def identify() -> None:
        departure = await client.depart(back)
        client._app.server_metadata["jwks"] = httpx.get(f"{providers[1].url}/jwks", trust_env=False).json()
        code = parse_qs(urlsplit(providers[0].log_in(departure.url, "1006")).query)["code"][0]
        await client.identify(code, redirect_uri=back, nonce=departure.nonce, verifier=departure.verifier)

    with pytest.raises(ProviderError, match="its signature does not hold"):
        asyncio.run(identify())


def test_a_return_counts_once_and_in_its_own_browser_only(http: httpx.Client, providers: tuple[Provider, Provider]) -> None:
    company = providers[0]
    company.set_user("1007", preferred_username="barbara", groups=["care"])
    back = company.log_in(depart(http), "1007").removeprefix(ORIGIN)
    another_browser = new_browser(http.app)  # type: ignore[attr-defined]
    assert another_browser.get(back).status_code == 400, "a link with somebody's return logs nobody else in"
    depart(another_browser)
    assert another_browser.get(back).status_code == 400
    state = parse_qs(urlsplit(back).query)["state"][0]
    lies = [
        back.replace(state, "lie"),
        back.replace(state, ""),
        "/login/company/callback",
        back.replace("/company/", "/partner/"),
    ]
    for lie in lies:
        answer = http.get(lie)
        assert (answer.status_code, "Log in again" in answer.text) == (400, True), lie
    assert http.get(back).status_code == 303
    assert http.get("/v1/me").json()["name"] == "barbara"
    assert http.get(back).status_code == 400
    assert http.get("/v1/me").json()["name"] == "barbara"


def test_two_tabs_log_in_and_the_earlier_session_ends(http: httpx.Client, providers: tuple[Provider, Provider]) -> None:
    providers[0].set_user("1008", preferred_username="ken", groups=["care"])
    returns = [providers[0].log_in(depart(http, return_to=f"/v1/me?tab={tab}"), "1008").removeprefix(ORIGIN) for tab in (1, 2)]
    answers = [http.get(returns[0])]
    first_token = http.cookies["rootcost_session"]
    answers.append(http.get(returns[1]))
    assert [answer.headers["location"] for answer in answers] == ["/v1/me?tab=1", "/v1/me?tab=2"]
    http.cookies.clear()
    assert http.get("/v1/me", headers={"Cookie": f"rootcost_session={first_token}"}).status_code == 401


def test_two_providers_know_different_people(http: httpx.Client, books: Books, providers: tuple[Provider, Provider]) -> None:
    """Nor does a name or an address make somebody a user of the same name: it could be given to anybody there."""
    add_person(books, "root", "admin")
    names = []
    for provider, name, subject in (
        (providers[0], "company", "1"),
        (providers[0], "company", "2"),
        (providers[1], "partner", "1"),
    ):
        log_in(http, provider, subject, name, preferred_username="root", email="root@example.com", groups=["care"])
        me = http.get("/v1/me").json()
        names.append(me["name"].removesuffix(f" {pair_digest(provider.url, subject)})") + (")" if subject == "2" else ""))
        assert me["scope"] == (["Care"] if name == "company" else []), "a group of that name at the partner is another group"
    assert names == ["root (company)", "root (company)", "root (partner)"]
    log_in(http, providers[0], "1", preferred_username="renamed", email="new@example.com", groups=["care"])
    assert http.get("/v1/me").json()["name"] == "root (company)", "who it is, whatever the provider calls it now"
    assert [user.email for user in users.list_users(books) if user.name == "root (company)"] == ["new@example.com"]


def pair_digest(issuer: str, subject: str) -> str:
    return sha256(f"{issuer} {subject}".encode()).hexdigest()[:8]


def test_what_the_provider_refuses_or_does_not_answer_is_a_page(
    http: httpx.Client, books: Books, providers: tuple[Provider, Provider]
) -> None:
    def return_of(**query: str) -> httpx.Response:
        state = parse_qs(urlsplit(depart(http)).query)["state"][0]
        return http.get("/login/company/callback", params={"state": state, **query})

    refusal = return_of(error="access_denied", error_description="call 555-0100")
    assert (refusal.status_code, "did not log you in: access_denied." in refusal.text, "555" in refusal.text) == (
        403,
        True,
        False,
    )
    assert "script" not in return_of(error="<script>").text
    assert return_of(code="x", iss="https://evil.example").status_code == 403
    assert return_of(code="never given").status_code == 403
    assert return_of().status_code == 403
    assert http.get("/login/nobody").status_code == http.get("/login/nobody/callback?state=x").status_code == 404
    log_in(http, providers[0], "1009", preferred_username="disabled", groups=["care"])
    users.set_disabled(books, "disabled", is_disabled=True, actor="cli")
    answer = log_in(http, providers[0], "1009", groups=["care"])
    assert (answer.status_code, "is disabled" in answer.text) == (403, True)
    providers[0].userinfo["sub"] = "somebody else"
    assert "told of somebody else" in log_in(http, providers[0], "1010").text


def test_a_provider_that_is_away_or_is_another_is_told(tmp_path: Path, providers: tuple[Provider, Provider]) -> None:
    access = AccessSettings(providers=[
        OidcProvider(name="away", issuer="http://127.0.0.1:9", client_id="rootcost"),
        providers[0].settings("renamed", issuer=f"{providers[0].url}/"),
    ])  # fmt: skip
    with Books(Settings(home=tmp_path, access=access)) as books, reach(books) as http:
        first, second = http.get("/login/away"), http.get("/login/renamed")
        assert (first.status_code, "away does not answer. Try again." in first.text) == (502, True)
        assert (second.status_code, "by another name than the settings" in second.text) == (502, True)
        assert http.get("/v1/me").status_code == 401, "people are set up where their provider is"
        page = http.get("/v1/me", headers={"Accept": "text/html"}, follow_redirects=False)
        assert page.headers["location"] == "/login?return_to=%2Fv1%2Fme"


def test_sessions_of_a_provider_end_with_it(http: httpx.Client, books: Books, providers: tuple[Provider, Provider]) -> None:
    log_in(http, providers[1], "1011", "partner", preferred_username="edsger")
    token = http.cookies["rootcost_session"]
    assert sessions.principal_of_session(books, token) is not None
    without = books.settings.model_copy(update={"access": AccessSettings(providers=[providers[0].settings("company")])})
    books.settings, settings = without, books.settings
    try:
        assert sessions.principal_of_session(books, token) is None
    finally:
        books.settings = settings


@pytest.mark.parametrize("evil", ["https://evil.example/", "//evil.example", "/\\evil.example", "http://127.0.0.1:9999/"])
def test_it_leads_on_to_own_addresses_only(http: httpx.Client, providers: tuple[Provider, Provider], evil: str) -> None:
    assert log_in(http, providers[0], "1012", return_to=evil, groups=["care"]).headers["location"] == f"{ORIGIN}:8501/"


@pytest.mark.clock
def test_log_ins_on_their_way_are_few_and_end(books: Books, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    row = pending_logins.PendingRow("nonce", "verifier", "/")

    def keep(state: str) -> None:
        pending_logins.keep_login(books, "company", row, state=state, browser="b")

    def take(state: str) -> pending_logins.PendingRow | None:
        return pending_logins.take_login(books, "company", state=state, browser="b")

    at = now()
    for late in (timedelta(minutes=11), timedelta(days=-1)):  # ten minutes are over; the clock was set back
        monkeypatch.setattr(pending_logins, "now", lambda: at)
        keep("late")
        monkeypatch.setattr(pending_logins, "now", lambda late=late: at + late)
        assert take("late") is None
    monkeypatch.setattr(pending_logins, "now", lambda: at)
    monkeypatch.setattr(pending_logins, "MAX_ROWS", 2)
    with books.database.session() as session:
        session.execute(sa.delete(PendingLogin))
    keep("1")
    keep("2")
    answer = http.get("/login/company")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    monkeypatch.setattr(pending_logins, "now", lambda: at + timedelta(hours=1))
    assert http.get("/login/company").status_code == 302


@pytest.mark.parametrize(("changes", "words"), [
    ({"issuer": "http://login.example.com"}, "is no issuer"),
    ({"issuer": "https://login.example.com/?a=b"}, "is no issuer"),
    ({"issuer": "https://user:secret@login.example.com"}, "is no issuer"),
    ({"scopes": ["profile"]}, "must hold openid"),
    ({"name": "Big Company"}, "should match pattern"),
])  # fmt: skip
def test_settings_of_a_provider_are_checked(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OidcProvider(**{"name": "company", "issuer": "https://login.example.com", "client_id": "rootcost"} | changes)
    one = OidcProvider(name="company", issuer="https://login.example.com", client_id="rootcost")
    with pytest.raises(ValidationError, match="two have one name"):
        AccessSettings(providers=[one, one])


def test_the_secret_of_a_client_is_shown_nowhere(home: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    home.mkdir(exist_ok=True)
    rootcost = Command(home)
    provider = 'name = "company"\nissuer = "https://login.example.com"\nclient_id = "rootcost"\n'
    (home / "rootcost.toml").write_text(f'[[access.providers]]\n{provider}client_secret = "in the settings"\n')
    for output in ("toml", "json"):
        output_text = rootcost("config", "show", "--format", output)
        assert (output_text.code, "in the settings" in output_text.out, "company" in output_text.out) == (0, False, True)
    values = {"name": "company", "issuer": "https://login.example.com", "client_id": "rootcost"}
    assert "in the settings" not in repr(OidcProvider(**values, client_secret="in the settings"))
    assert OidcProvider(**values, client_secret_file=str(tmp_path / "secret")).secret() == "from a file"
    with pytest.raises(SettingsError, match="client_secret_file"):
        OidcProvider(**values, client_secret_file=str(tmp_path / "nowhere")).secret()


def test_groups_are_mapped_by_command(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "rootcost.toml").write_text(
        '[[access.providers]]\nname = "company"\nissuer = "https://login.example.com"\nclient_id = "x"\n'
    )
    rootcost = Command(home)
    assert "company: viewer:Care" in rootcost("roles", "map", "add", "company", "care", "--role", "viewer:Care").out
    assert "'compny' is no provider" in rootcost("roles", "map", "add", "compny", "care", "--role", "viewer").err
    (row,) = json.loads(rootcost("roles", "map", "list", "--format", "json").out)
    assert row == {"provider": "company", "group": "care", "grants": ["viewer:Care"]}
    assert "no roles" in rootcost("roles", "map", "remove", "company", "care").out
    assert "finance" in rootcost("roles").out
