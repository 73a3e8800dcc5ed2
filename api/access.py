"""Access control: requests must address a loopback host name, and changes need the token."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import RequestError, error_response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Access:
    """ASGI middleware that refuses requests before any route sees them.

    The Host header must be a loopback name, which stops DNS rebinding; other hosts get 421.
    Every method but GET, HEAD and OPTIONS needs ``Authorization: Bearer <token>``, whatever the path; without it the answer is 401.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self._token = token.encode()
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses the request or passes it on."""
        if scope["type"] == "http":
            error = self._check(scope)
            if error is not None:
                await error_response(error, scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        name = host_name(headers.get("host", ""))
        if name not in self._hosts:
            return RequestError(
                421,
                "misdirected",
                f"{name or 'no name'!r} is not a name of this machine",
                where="Host",
                remedy="use http://127.0.0.1 or http://localhost",
            )
        if scope["method"] in _READING:
            return None
        authorization = headers.get("authorization", "")
        scheme, _, credentials = authorization.partition(" ")
        # Compared in constant time, also where no token was sent, so that timing reveals nothing.
        matches = hmac.compare_digest(credentials.strip().encode(), self._token)
        if matches and scheme.lower() == "bearer" and self._token:
            return None
        return RequestError(
            401,
            "token-needed",
            "the token is wrong" if authorization else "this request needs the token",
            where="Authorization",
            remedy="send `Authorization: Bearer <token>`; the token is in HOME/token and was printed at the first start",
            headers={"WWW-Authenticate": 'Bearer realm="rootcost"'},
        )


def host_name(host: str) -> str:
    """The name in a Host header, without its port.

    >>> host_name("localhost:8787"), host_name("[::1]:8787"), host_name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
