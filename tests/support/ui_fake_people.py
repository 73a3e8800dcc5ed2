"""The canned API once people are set up: each has a session, a role over teams or the whole, and the rows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from http.cookies import SimpleCookie
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, Response

from api import models as m
from ledger.access.principals import Grant, Principal
from ledger.access.roles import Permission
from tests.support import ui_fake_api as fake

COOKIE = "rootcost_session"
WHOLE = ("/v1/balance", "/v1/periods", "/v1/evidence", "/v1/gaps", "/v1/runs", "/v1/sources", "/v1/source-runs", "/v1/problems")
"""What is answered to who sees the whole."""


def me(principal: Principal) -> m.Me:
    """What the API tells of a principal."""
    reaches = {p.value: principal.teams(p) for p in Permission if principal.may(p)}
    permissions: Any = {name: "whole" if teams is None else sorted(teams) for name, teams in reaches.items()}
    return m.Me(
        principal=principal.id,
        kind=principal.kind,
        name=principal.name,
        role=",".join(dict.fromkeys(grant.role for grant in principal.grants)),
        scope=permissions.get("costs:read", []),
        grants=[m.GrantRow(role=grant.role, team=grant.team or None) for grant in principal.grants],
        permissions=permissions,
    )


@dataclass
class Person:
    """Somebody with a role, and the canned API as he may see it."""

    principal: Principal
    app: FastAPI

    @classmethod
    def of(cls, name: str, *grants: str) -> Person:
        principal = Principal(f"user:{name}", "user", name, tuple(map(Grant.parse, grants)))
        teams = principal.teams(Permission.COSTS_READ)
        return cls(principal, fake.make_app(atoms=[a for a in fake.ATOMS if teams is None or a["team"] in teams]))


@dataclass
class People:
    """An API that answers by session: `sessions` maps the value of a cookie to whose it is."""

    sessions: dict[str, Person] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Session, method and path of every request."""
    set_cookie: str = ""
    """A cookie that every answer sets."""
    tag: str = ""
    """The ETag of every answer to a reading; the same for everybody, which the API never does."""
    conditions: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Session, path and `If-None-Match` of every reading."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = Headers(scope=scope)
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        session, path, method = morsel.value if morsel else "", scope["path"], scope["method"]
        self.requests.append((session, method, path))
        person = self.sessions.get(session)
        answer: Response | None = None
        if path == "/health":
            answer = JSONResponse({"status": "ok", "version": "0", "checks": {}})
        elif path == "/login":
            answer = HTMLResponse("<h1>Log in</h1>")
        elif path == "/sessions":
            owners = {sha256(name.encode()).hexdigest(): one.principal.id for name, one in self.sessions.items()}
            hashes = QueryParams(scope["query_string"]).getlist("session")
            answer = JSONResponse({"people": True, "in_force": {name: owners[name] for name in hashes if name in owners}})
        elif person is None:
            answer = _refusal(401, "login-needed", "nobody is logged in")
        elif path == "/logout" and method == "POST":
            del self.sessions[session]
            answer = Response(status_code=204)
        elif path == "/v1/me":
            answer = JSONResponse(me(person.principal).model_dump(mode="json"))
        elif path.startswith(WHOLE) and person.principal.teams(Permission.COSTS_READ) is not None:
            answer = _refusal(403, "denied", "this needs books:read over the whole")
        elif method != "GET" and headers.get("sec-fetch-site") != "same-origin":
            answer = _refusal(403, "cross-site", "a change with a cookie comes from a page of this host")
        if answer is not None:
            await answer(scope, receive, send)
            return
        assert person is not None
        condition = headers.get("if-none-match")
        if method == "GET":
            self.conditions.append((session, path, condition))
        if self.tag and condition == self.tag:
            await Response(status_code=304, headers={"ETag": self.tag})(scope, receive, send)
            return
        if method != "GET":
            MutableHeaders(scope=scope)["Authorization"] = f"Bearer {fake.TOKEN}"  # the app beneath knows no sessions

        async def sending(message: Any) -> None:
            if self.set_cookie and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Set-Cookie"] = self.set_cookie
            if self.tag and method == "GET" and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["ETag"] = self.tag
            await send(message)

        await person.app(scope, receive, sending)


def _refusal(status: int, kind: str, detail: str) -> Response:
    document = {"type": f"/problems/{kind}", "title": kind, "status": status, "detail": detail}
    return JSONResponse(document, status, media_type="application/problem+json")
