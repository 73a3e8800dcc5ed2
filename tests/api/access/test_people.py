"""People, keys, sessions and roles over the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from ledger.access import sessions
from ledger.access.keys import create_key
from ledger.access.principals import Grant
from ledger.access_tables import ApiKey
from ledger.audit import Audit
from ledger.books import Books
from ledger.settings import AccessSettings, Settings
from ledger.settings_sections import OidcProvider
from tests.support.api_examples import reach
from tests.support.people import BROWSER, PASSWORD, add_person, cheap_passwords, log_in

ANY = {"If-Match": "*"}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    access = AccessSettings(providers=[OidcProvider(name="company", issuer="https://login.example.com", client_id="rootcost")])
    with cheap_passwords(), Books(Settings(home=tmp_path_factory.mktemp("people"), access=access)) as home_books:
        add_person(home_books, "root", "admin")
        yield home_books


@pytest.fixture(scope="module")
def http(books: Books) -> Iterator[httpx.Client]:
    """With the key of an administrator."""
    with reach(books) as client:
        _, key = create_key(books, "admin", [Grant("admin")], actor="test")
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def actions(books: Books, subject: str) -> list[str]:
    with books.database.session() as session:
        entries = session.scalars(sa.select(Audit).where(Audit.subject == subject).order_by(Audit.sequence)).all()
    assert all(entry.actor.startswith(("key:", "user:")) for entry in entries), [entry.actor for entry in entries]
    return [entry.action for entry in entries]


def test_a_person_is_added_changed_and_kept_out(books: Books, http: httpx.Client) -> None:
    answer = http.post("/v1/users", json={"name": "Ada", "grants": ["viewer:Care"], "email": "ada@example.com"})
    assert answer.status_code == 201, answer.text
    invitation = answer.json()
    user, address = invitation["user"], f"/v1/users/{invitation['user']['user_id']}"
    assert (user["name"], user["state"], user["grants"], invitation["purpose"]) == (
        "ada",
        "invited",
        ["viewer:Care"],
        "invitation",
    )
    assert invitation["link"].startswith("http://127.0.0.1/setup?token=")
    assert [row["name"] for row in http.get("/v1/users").json()["rows"]] == ["ada", "root"]
    token = invitation["link"].partition("token=")[2]
    form = {"token": token, "password": PASSWORD, "repeated": PASSWORD}
    assert http.post("/setup", data=form, headers=BROWSER, follow_redirects=False).status_code == 303
    cookie = {"Authorization": "", "Cookie": f"rootcost_session={http.cookies['rootcost_session']}"}
    http.cookies.clear()
    new_state = http.patch(address, json={"grants": ["finance", "viewer:Data"]}, headers=ANY)
    assert new_state.json()["grants"] == ["finance", "viewer:Data"]
    assert http.post(f"{address}/link").json()["purpose"] == "reset"
    assert http.patch(address, json={"disabled": True}, headers=ANY).json()["state"] == "disabled"
    http.app.state.authenticator.forget_session(cookie["Cookie"].partition("=")[2])  # type: ignore[attr-defined]
    assert http.get("/v1/me", headers=cookie).status_code == 401
    assert http.post(f"{address}/link").status_code == 403
    assert http.patch(address, json={"disabled": False}, headers=ANY).json()["state"] == "active"
    assert http.delete(f"{address}/sessions").status_code == 204
    assert actions(books, f"user:{user['user_id']}") == [
        "user.add", "user.link", "user.password", "access.login", "user.revoke", "user.grant", "user.link", "user.disable", "user.enable", "user.log-out",
    ]  # fmt: skip


def test_a_key_is_shown_once_and_revoked(books: Books, http: httpx.Client) -> None:
    answer = http.post("/v1/keys", json={"name": "care exporter", "grants": ["viewer:Care"], "days": 30})
    assert answer.status_code == 201, answer.text
    key, status = answer.json()["key"], answer.json()["status"]
    assert http.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).json()["scope"] == ["Care"]
    listing = http.get("/v1/keys")
    assert key not in listing.text
    assert key.rpartition("_")[2] not in listing.text
    with books.database.session() as session:
        assert key.rpartition("_")[2] not in str(session.execute(sa.select(ApiKey.__table__)).all())
    row = next(row for row in listing.json()["rows"] if row["key_id"] == status["key_id"])
    assert (row["state"], row["grants"], row["created_by"].startswith("key:"), row["expires_at"] is None) == (
        "active",
        ["viewer:Care"],
        True,
        False,
    )
    assert http.delete(f"/v1/keys/{status['key_id']}").status_code == 204
    assert next(row for row in http.get("/v1/keys").json()["rows"] if row["key_id"] == status["key_id"])["state"] == "revoked"
    assert actions(books, status["key_id"]) == ["key.create", "key.revoke"]


def test_a_person_sees_and_ends_its_own_sessions_an_administrator_all(books: Books, http: httpx.Client) -> None:
    add_person(books, "grace", "viewer:Care")
    tokens = []
    for _ in range(2):
        tokens.append(log_in(http, "grace").cookies["rootcost_session"])
        http.cookies.clear()
    own = {"Authorization": "", "Cookie": f"rootcost_session={tokens[0]}"} | BROWSER
    rows = http.get("/v1/sessions", headers=own | {"Accept": "application/json"}).json()["rows"]
    assert {row["name"] for row in rows} == {"grace"}
    assert [row["session_id"] for row in rows if row["current"]] == [sessions.hash_of(tokens[0])[:16]]
    assert tokens[0] not in str(rows)
    everybody = http.get("/v1/sessions").json()["rows"]
    assert {"grace", "root"} <= {row["name"] for row in everybody}
    foreign_id = next(row["session_id"] for row in everybody if row["name"] == "root")
    assert http.delete(f"/v1/sessions/{foreign_id}", headers=own).status_code == 404
    assert http.delete(f"/v1/sessions/{sessions.hash_of(tokens[1])[:16]}", headers=own).status_code == 204
    assert sessions.principal_of_session(books, tokens[1]) is None
    assert http.delete(f"/v1/sessions/{sessions.hash_of(tokens[0])[:16]}").status_code == 204
    assert sessions.principal_of_session(books, tokens[0]) is None


def test_roles_and_roles_of_groups(books: Books, http: httpx.Client) -> None:
    assert "people:write" in next(row for row in http.get("/v1/roles").json()["rows"] if row["role"] == "admin")["permissions"]
    change = {"provider": "company", "group": "care/leads", "grants": ["viewer:Care", "platform:Care"]}
    assert http.put("/v1/group-roles", json=change, headers=ANY).json()["grants"] == ["platform:Care", "viewer:Care"]
    assert http.put("/v1/group-roles", json=change | {"grants": ["viewer:Care"]}, headers=ANY).json()["grants"] == ["viewer:Care"]
    (row,) = http.get("/v1/group-roles").json()["rows"]
    assert row == {"provider": "company", "group": "care/leads", "grants": ["viewer:Care"], "revision": row["revision"]}
    assert http.put("/v1/group-roles", json=change | {"grants": []}, headers=ANY).json()["grants"] == []
    assert http.get("/v1/group-roles?format=csv").text.splitlines() == ["provider,group,grants,revision"]
    assert actions(books, "company/care/leads") == ["role.map", "role.unmap", "role.unmap"]


def test_roles_of_a_group_are_changed_as_they_were_seen(http: httpx.Client) -> None:
    change = {"provider": "company", "group": "leads", "grants": ["viewer"]}
    none_yet = http.put("/v1/group-roles", json=change | {"grants": []}, headers=ANY).headers["ETag"]
    assert http.put("/v1/group-roles", json=change, headers={"If-Match": none_yet}).status_code == 200
    late_change = http.put("/v1/group-roles", json=change | {"grants": ["finance"]}, headers={"If-Match": none_yet})
    assert (late_change.status_code, late_change.json()["expected"]["grants"]) == (412, [])
    (row,) = http.get("/v1/group-roles").json()["rows"]
    assert late_change.json()["current"]["grants"] == row["grants"] == ["viewer"]
    seen = {"If-Match": f'"{row["revision"]}"'}
    assert http.put("/v1/group-roles", json=change | {"grants": ["finance"]}, headers=seen).json()["grants"] == ["finance"]


@pytest.mark.parametrize(("method", "address", "body", "status"), [
    ("POST", "/v1/users", {"name": "x", "grants": []}, 422),
    ("POST", "/v1/users", {"name": "x", "grants": ["king"]}, 400),
    ("POST", "/v1/users", {"name": "x\r\nSet-Cookie: a=b", "grants": ["viewer"]}, 422),
    ("POST", "/v1/users", {"name": "x", "grants": ["viewer:\x00"]}, 422),
    ("POST", "/v1/users", {"name": "x", "grants": ["viewer"] * 300}, 422),
    ("POST", "/v1/users", {"name": "root", "grants": ["viewer"]}, 400),
    ("POST", "/v1/users", {"name": "x", "grants": ["viewer"], "password": "y"}, 422),
    ("PATCH", "/v1/users/9999", {"disabled": True}, 404),
    ("PATCH", "/v1/users/99999999999", {"disabled": True}, 422),
    ("POST", "/v1/users/9999/link", None, 404),
    ("POST", "/v1/keys", {"name": "x", "grants": ["viewer"], "days": 0}, 422),
    ("DELETE", "/v1/keys/000000000000", None, 404),
    ("DELETE", "/v1/sessions/0000000000000000", None, 404),
    ("DELETE", "/v1/sessions/%25", None, 422),
    ("PUT", "/v1/group-roles", {"provider": "nobody", "group": "x", "grants": ["viewer"]}, 400),
])  # fmt: skip
def test_what_cannot_be_is_refused(http: httpx.Client, method: str, address: str, body: Any, status: int) -> None:
    answer = http.request(method, address, json=body, headers=ANY)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_mcp_clients_are_told_how_to_be_let_in(http: httpx.Client) -> None:
    address = "http://127.0.0.1/.well-known/oauth-protected-resource/mcp"
    for header, error in (({"Authorization": ""}, ""), ({"Authorization": "Bearer x"}, 'error="invalid_token", ')):
        answer = http.post("/mcp", json={}, headers=header)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (
            401,
            f'Bearer realm="rootcost", {error}resource_metadata="{address}"',
        )
    assert http.get("/v1/me", headers={"Authorization": ""}).headers["www-authenticate"] == 'Bearer realm="rootcost"'
    metadata = http.get(address, headers={"Authorization": ""})
    assert (metadata.status_code, metadata.json()["resource"], metadata.json()["bearer_methods_supported"]) == (
        200,
        "http://127.0.0.1/mcp",
        ["header"],
    )
