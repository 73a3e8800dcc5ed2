"""Access control before any route: the host name that a request addresses, who sent it, and whether a page of ours made it."""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import quote

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.authentication import Authenticator
from api.access.cookies import session_cookie
from api.access.hosts import LOOPBACK, Site, apply_forwarding, host_name, origin_of
from api.errors import RequestError, error_response, rootcost_error
from api.problem_types import PATH as PROBLEM_TYPE_PATH
from ledger.access.principals import MACHINE, Principal
from ledger.audit_denials import DenialLog
from ledger.errors import RootCostError

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_MCP = "/mcp"
_WHO = "/v1/me"
"""Open tabs ask it every second who is logged in: that is no use of a session."""
"""Its tools only read, and are called by POST."""
RESOURCE_METADATA: Final = f"/.well-known/oauth-protected-resource{_MCP}"
"""Where MCP clients look for how to be let in (RFC 9728)."""
PUBLIC = frozenset(
    {
        "/health",
        "/ready",
        "/openapi.json",
        "/login",
        "/logout",
        "/setup",
        "/sessions",
        "/login/{provider}",
        "/login/{provider}/callback",
        "/problems",
        "/problems/{kind}",
    }
    | {RESOURCE_METADATA}
)
"""Paths that anybody may ask for: they tell nothing of the ledger, or are for logging in."""
_NOBODY: Final = Principal("anonymous", "machine", "nobody")
LOGIN_NEEDED: Final = "login-needed"


class Access:
    """ASGI middleware that refuses requests before any route sees them, and sets ``request.state.principal``.

    The Host header must be an allowed name, which stops DNS rebinding; other hosts get 421. Then the sender must be known: by
    ``Authorization: Bearer <key>``, else by the cookie of a session, else, while no people are set up and the server listens on loopback
    only, it is "this machine", which may read only. Others get 401; a browser that opens a page is sent to the log-in.

    A change with a cookie must come from a page of ours (403), since browsers send cookies with the forms of other sites, too.
    """

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator, denials: DenialLog, site: Site) -> None:
        self.app = app
        self._authenticator, self._denials, self._site = authenticator, denials, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses the request or passes it on."""
        if scope["type"] == "http":
            apply_forwarding(scope, self._site)
            try:
                scope["state"]["principal"] = await self._principal(scope)
            except RequestError as error:
                answer = await self._refusal(scope, error)
                await answer(scope, receive, send)
                return
            except RootCostError as error:  # the database does not answer who that is
                answer = await rootcost_error(Request(scope), error)
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _refusal(self, scope: Scope, error: RequestError) -> Response:
        if error.kind == LOGIN_NEEDED and scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            address = f"{quote(scope['path'])}?{query}" if query else quote(scope["path"])
            return RedirectResponse(f"/login?return_to={quote(address, safe='')}", 302, {"Cache-Control": "no-store"})
        subject, address = f"{scope['method']} {scope['path']}", (scope.get("client") or ("",))[0]
        note = partial(self._denials.note, subject, status=error.status, reason=error.detail, address=address)
        await run_in_threadpool(note)
        return error_response(error, scope["path"])

    async def _principal(self, scope: Scope) -> Principal:
        headers = Headers(scope=scope)
        name = host_name(headers.get("host", ""))
        if name not in self._site.hosts:
            raise RequestError(
                421,
                "misdirected",
                f"{name or 'no name'!r} is not a name of this machine",
                where="Host",
                remedy="use http://127.0.0.1 or http://localhost; other names are set in serve.allowed_hosts",
            )
        is_public = scope["path"] in PUBLIC or scope["path"].startswith(("/login/", PROBLEM_TYPE_PATH))
        authorization = headers.get("authorization", "")
        if authorization and not is_public:
            principal = await run_in_threadpool(self._authenticator.of_header, authorization)
            if principal is None:
                raise _key_needed("the token is wrong", scope, error="invalid_token")
            return principal
        cookie = session_cookie(scope)
        of_session = partial(self._authenticator.of_session, is_use=scope["path"] != _WHO)
        person = await run_in_threadpool(of_session, cookie) if cookie else None
        if scope["method"] not in _READING and (person is not None or is_public):
            _check_origin(scope, headers)
        if person is not None or is_public:
            return person or _NOBODY
        return await self._machine(scope, name)

    async def _machine(self, scope: Scope, name: str) -> Principal:
        """This machine, while nobody is set up."""
        if await run_in_threadpool(self._authenticator.has_people):
            raise RequestError(
                401,
                LOGIN_NEEDED,
                "nobody is logged in, or the log-in has ended",
                where="Cookie",
                remedy="log in at /login, or send `Authorization: Bearer <key>`",
                headers=_challenge(scope),
            )
        is_here = self._site.on_loopback and name in LOOPBACK and not scope["state"]["has_forwarding"]
        if not is_here or (scope["method"] not in _READING and scope["path"] != _MCP):
            raise _key_needed("this request needs a key", scope)
        return MACHINE


def _challenge(scope: Scope, *, error: str = "") -> dict[str, str]:
    """How to be let in, as the MCP specification asks: where /mcp describes itself, and what is wrong with a key that was sent."""
    parts = ['realm="rootcost"']
    if error:
        parts.append(f'error="{error}"')
    if scope["path"] == _MCP:
        parts.append(f'resource_metadata="{origin_of(scope)}{RESOURCE_METADATA}"')
    return {"WWW-Authenticate": f"Bearer {', '.join(parts)}"}


def _key_needed(detail: str, scope: Scope, *, error: str = "") -> RequestError:
    return RequestError(
        401,
        "token-needed",
        detail,
        where="Authorization",
        remedy="send `Authorization: Bearer <key>`: one of `rootcost keys create`, or the token of the first start in HOME/token",
        headers=_challenge(scope, error=error),
    )


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Raises `RequestError` (403) unless the request was made by a page of this origin."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin", "").lower()
    if site == "same-origin" or (site is None and origin == origin_of(scope)):
        return
    raise RequestError(
        403,
        "cross-site",
        "a change with a cookie must come from a page of this server",
        where="Sec-Fetch-Site" if site is not None else "Origin",
        remedy="programs send `Authorization: Bearer <key>` instead of a cookie",
    )
