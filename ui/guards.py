"""What stands before every request to the dashboard: allowed host names, security headers, and the log-in of page loads."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from http.cookiejar import CookieJar, DefaultCookiePolicy
from http.cookies import SimpleCookie
from urllib.parse import quote

import httpx
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui import renewals, session_watch
from ui.addresses import public_address
from ui.identity import session_cookie
from ui.session_watch import SessionWatch

_OWN_PATHS = ("/_stcore/", "/static/", "/media/", "/component/", renewals.PATH)
"""Paths that are no pages."""
_CLOSED_PATHS = ("/_stcore/agent", "/_stcore/metrics", "/auth/")
"""What Streamlit serves beside the pages, even when it is off: its own agent API, metrics and log-in."""
_SCRIPT_TAG = f'<script src="{session_watch.SCRIPT_PATH}"></script>'.encode()
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Sessions:
    """Asks the API whether a session is in force; an answer is taken as valid for a quarter of a second."""

    KEPT_SECONDS = 0.25
    MOST = 1000

    def __init__(self, api_url: str) -> None:
        self.api_url = api_url.rstrip("/")
        nothing_kept = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._client = httpx.AsyncClient(base_url=self.api_url, timeout=5.0, trust_env=False, cookies=nothing_kept)
        self._known: dict[str, tuple[float, bool]] = {}

    async def is_login_needed(self, cookie: str) -> bool:
        """Whether the API would answer nobody with this cookie. While it does not answer at all, nobody is sent to it."""
        key, now = sha256(cookie.encode()).hexdigest(), time.monotonic()
        if (entry := self._known.get(key)) is not None and now - entry[0] < self.KEPT_SECONDS:
            return entry[1]
        try:
            answer = await self._client.get("/v1/me", headers={"Cookie": cookie} if cookie else {})
        except httpx.HTTPError:
            return False
        if len(self._known) >= self.MOST:
            self._known.clear()
        is_needed = answer.status_code == 401
        self._known[key] = (now, is_needed)
        return is_needed


class Guards:
    """ASGI middleware around Streamlit."""

    def __init__(self, app: ASGIApp, *, sessions: Sessions, hosts: Collection[str], script_hashes: Collection[str]) -> None:
        self.app = app
        self._sessions, self._hosts, self._script_hashes = sessions, hosts, " ".join(script_hashes)
        self._watch = SessionWatch(sessions.api_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses the request, sends it to the log-in page, or passes it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        is_allowed = _name_of(host) in self._hosts and re.fullmatch(r"\[?[\w.:-]+\]?", host, flags=re.ASCII)
        if scope["type"] == "websocket":
            if not is_allowed:
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
            elif scope["path"] == session_watch.PATH:
                await self._watch.watch(scope, receive, send, cookie=cookie_of(scope))
            else:
                await self.app(scope, receive, send)
            return
        sending = self._with_headers(send, host if is_allowed else "")
        if not is_allowed:
            refusal = PlainTextResponse(
                "This is not a name of the dashboard: open it at 127.0.0.1 or localhost, with the port that is in its address.",
                421,
            )
            await refusal(scope, receive, sending)
        elif scope["path"].startswith(_CLOSED_PATHS):
            await PlainTextResponse("There is nothing here.", 404)(scope, receive, sending)
        elif scope["path"] == session_watch.SCRIPT_PATH:
            await session_watch.script()(scope, receive, sending)
        elif _is_page(scope) and await self._sessions.is_login_needed(cookie_of(scope)):
            await self._to_login(scope, host)(scope, receive, sending)
        elif scope["method"] == "GET" and _is_page(scope):
            await self.app(_as_new(scope), receive, _with_script(sending))
        else:
            await self.app(scope, receive, sending)

    def _to_login(self, scope: Scope, host: str) -> Response:
        login = public_address(f"{self._sessions.api_url}/login", api=self._sessions.api_url, host=_name_of(host))
        path = quote(scope["path"]) + (f"?{scope['query_string'].decode('ascii', 'replace')}" if scope["query_string"] else "")
        page = f"{httpx.URL(login).scheme}://{host}{path}"
        return RedirectResponse(f"{login}?return_to={quote(page, safe='')}", 302, headers={"Cache-Control": "no-store"})

    def _with_headers(self, send: Send, host: str) -> Send:
        policy = "; ".join(
            (
                "default-src 'self'",
                # Components bring their script as a blob; nothing needs eval or scripts within the page.
                f"script-src 'self' {self._script_hashes} blob:",
                "worker-src 'self' blob:",
                "style-src 'self' 'unsafe-inline'",
                "img-src 'self' data: blob:",
                "font-src 'self' data:",
                f"connect-src 'self' ws://{host} wss://{host}" if host else "connect-src 'none'",
                "object-src 'none'",
                "base-uri 'self'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            )
        )

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**_HEADERS, "Content-Security-Policy": policy})
            await send(message)

        return sending


def _as_new(scope: Scope) -> Scope:
    """A request for a page, whole and as it is: the file beneath may be the same while the page that is made of it is not."""
    left_out = (b"if-none-match", b"if-modified-since", b"range", b"accept-encoding")
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in left_out]}


def _with_script(send: Send) -> Send:
    """Puts the script that covers ended sessions into a page, before every other script."""
    start: Message = {}
    content = bytearray()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and _is_html(message):
            start.update(message)
        elif message["type"] == "http.response.body" and start:
            content.extend(message.get("body", b""))
            if not message.get("more_body"):
                body = bytes(content).replace(b"<head>", b"<head>" + _SCRIPT_TAG, 1)
                headers = MutableHeaders(scope=start)
                headers["Content-Length"] = str(len(body))
                for validator in ("etag", "last-modified"):
                    del headers[validator]
                await send(start)
                await send({"type": "http.response.body", "body": body})
        else:
            await send(message)

    return sending


def _is_html(start: Message) -> bool:
    return start["status"] == 200 and Headers(raw=start["headers"]).get("content-type", "").startswith("text/html")


def _is_page(scope: Scope) -> bool:
    """Whether a browser opens a page, rather than a part of one."""
    if scope["method"] not in ("GET", "HEAD") or scope["path"].startswith(_OWN_PATHS):
        return False
    return "." not in scope["path"].rpartition("/")[2] or "text/html" in Headers(scope=scope).get("accept", "")


def cookie_of(scope: Scope) -> str:
    """The session cookie of a request, as a Cookie header has it."""
    cookies: SimpleCookie = SimpleCookie()
    for part in Headers(scope=scope).get("cookie", "").split(";"):
        cookies.load(part.strip())
    return session_cookie({name: morsel.value for name, morsel in cookies.items()})


def session_picture(sessions: Sessions) -> Callable[[Request], Awaitable[Response]]:
    """The route of pictures by which a waiting tab learns of a log-in in another tab."""

    async def picture(request: Request) -> Response:
        cookie = cookie_of(request.scope)
        if cookie and not await sessions.is_login_needed(cookie):
            renewals.put(request.path_params["name"], cookie)
        return Response(renewals.PICTURE, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})

    return picture


def _name_of(host: str) -> str:
    """The name in a Host header, without its port.

    >>> _name_of("localhost:8501"), _name_of("[::1]:8501"), _name_of("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    name, _, _ = host[1:].partition("]") if host.startswith("[") else host.partition(":")
    return name.lower()
