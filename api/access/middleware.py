"""Access control before any route: the host name that a request addresses, and who sent it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access.authentication import Authenticator
from api.access.hosts import LOOPBACK, host_name
from api.errors import RequestError, error_response
from ledger.access.principals import MACHINE, Principal
from ledger.audit_denials import DenialLog

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_MCP = "/mcp"
"""Its tools only read, and are called by POST."""
PUBLIC = frozenset({"/health", "/ready", "/openapi.json"})
"""Paths that anybody may read: they tell nothing of the ledger."""


class Access:
    """ASGI middleware that refuses requests before any route sees them, and sets ``request.state.principal``.

    The Host header must be an allowed name, which stops DNS rebinding; other hosts get 421. Then the sender must be known: by
    ``Authorization: Bearer <key>``, else it is "this machine", which may read only. Others get 401.
    """

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator, denials: DenialLog, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self._authenticator, self._denials = authenticator, denials
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses the request or passes it on."""
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["principal"] = await self._principal(scope)
            except RequestError as error:
                subject, address = f"{scope['method']} {scope['path']}", (scope.get("client") or ("",))[0]
                note = partial(self._denials.note, subject, status=error.status, reason=error.detail, address=address)
                await run_in_threadpool(note)
                await error_response(error, scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        headers = Headers(scope=scope)
        name = host_name(headers.get("host", ""))
        if name not in self._hosts:
            raise RequestError(
                421,
                "misdirected",
                f"{name or 'no name'!r} is not a name of this machine",
                where="Host",
                remedy="use http://127.0.0.1 or http://localhost",
            )
        authorization = headers.get("authorization", "")
        if authorization:
            principal = await run_in_threadpool(self._authenticator.of_header, authorization)
            if principal is not None:
                return principal
        elif scope["method"] in _READING or scope["path"] == _MCP:
            return MACHINE
        raise RequestError(
            401,
            "token-needed",
            "the token is wrong" if authorization else "this request needs a key",
            where="Authorization",
            remedy="send `Authorization: Bearer <key>`: one of `rootcost keys create`, or the token of the first start in HOME/token",
            headers={"WWW-Authenticate": 'Bearer realm="rootcost"'},
        )
