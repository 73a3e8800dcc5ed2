"""Covers the tabs of a session at once when it ends, whatever the page is doing: the server tells each tab's browser over a socket.

    SessionWatch(api_url)   asks the API a few times a second which sessions are in force, all those of open tabs in one request
    PATH, SCRIPT_PATH       the socket of a tab, and the script that listens to it and covers the page

A message is "open" while nobody is set up, "" where nobody is logged in, else a digest of who is. A tab that is covered connects anew, with the
cookie that the browser has by then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from hashlib import sha256
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

PATH: Final = "/session-watch"
SCRIPT_PATH: Final = "/session-watch.js"
INTERVAL_SECONDS: Final = 0.25
_MAX_HASHES: Final = 200
_SCRIPT: Final = (Path(__file__).parent / "assets" / "session_watch.js").read_bytes()
_OPEN, _ENDED = "open", ""


class SessionWatch:
    """Knows which sessions of open tabs are in force, and tells the tabs what has changed."""

    def __init__(self, api_url: str) -> None:
        nothing_kept = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._client = httpx.AsyncClient(base_url=api_url.rstrip("/"), timeout=5.0, trust_env=False, cookies=nothing_kept)
        self._tabs: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)
        """By hash of the session ("" for none): what waits to be told to each tab."""
        self._states: dict[str, str] = {}
        self._asking: asyncio.Task[None] | None = None

    async def watch(self, scope: Scope, receive: Receive, send: Send, *, cookie: str) -> None:
        """The socket of a tab, until it is closed. `cookie` is the session as a Cookie header has it."""
        socket = WebSocket(scope, receive, send)
        if not _is_own(scope):
            await socket.close(1008)
            return
        await socket.accept()
        session_hash, changes = _hash(cookie), asyncio.Queue[str]()
        self._tabs[session_hash].add(changes)
        if (state := self._states.get(session_hash)) is not None:
            changes.put_nowait(state)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_on())
        telling = asyncio.create_task(_tell(socket, changes))
        try:
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    await socket.receive_text()
        finally:
            telling.cancel()
            self._tabs[session_hash].discard(changes)
            if not self._tabs[session_hash]:
                del self._tabs[session_hash]
                self._states.pop(session_hash, None)

    async def _ask_on(self) -> None:
        """Asks for as long as there are tabs. While the API does not answer, nothing changes."""
        while self._tabs:
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                await self._ask()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _ask(self) -> None:
        hashes = list(self._tabs)
        for start in range(0, len(hashes), _MAX_HASHES):
            part = hashes[start : start + _MAX_HASHES]
            answer = await self._client.get("/sessions", params={"session": [one for one in part if one]})
            answer.raise_for_status()
            states = answer.json()
            for session_hash in part:
                user = states["in_force"].get(session_hash)
                self._note(session_hash, _OPEN if not states["people"] else _ENDED if user is None else _digest(user))

    def _note(self, session_hash: str, state: str) -> None:
        if session_hash not in self._tabs or self._states.get(session_hash) == state:
            return
        self._states[session_hash] = state
        for changes in self._tabs[session_hash]:
            changes.put_nowait(state)


def script() -> Response:
    """The script of the browser."""
    return Response(_SCRIPT, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


async def _tell(socket: WebSocket, changes: asyncio.Queue[str]) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it was closed meanwhile
        while True:
            await socket.send_text(await changes.get())


def _is_own(scope: Scope) -> bool:
    """Whether a page of this server opens the socket."""
    headers = Headers(scope=scope)
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "")


def _hash(cookie: str) -> str:
    """The hash of a session, by which the API knows it; "" for none.

    >>> _hash("rootcost_session=a") == sha256(b"a").hexdigest(), _hash("")
    (True, '')
    """
    token = cookie.partition("=")[2]
    return sha256(token.encode()).hexdigest() if token else ""


def _digest(user: str) -> str:
    return sha256(user.encode()).hexdigest()[:16]
