"""Rate limits: how many requests one principal may make a minute, told with every answer.

    RateLimit-Policy: "principal";q=6000;w=60      the quota and its window in seconds
    RateLimit: "principal";r=5987;t=41             what is left of it, and the seconds until it is whole again

One key that asks without end must not keep everybody else waiting; beyond the quota it gets 429 with Retry-After. Telemetry is never counted:
what a gateway sends once is lost if it is refused. Nor is this machine, which reads without a key while nobody is set up. Each process counts
for itself. The fields are those of the IETF draft (httpapi-ratelimit-headers).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestError, error_response
from api.idempotency import RECEIVERS
from ledger.access.principals import MACHINE, Principal

WINDOW_SECONDS: Final = 60
_COUNTED: Final = ("/v1/", "/mcp")
_MAX_WINDOWS: Final = 10_000
"""Windows that are kept; beyond it those that have ended are forgotten."""


class RateLimits:
    """ASGI middleware that counts requests by principal. Runs where the principal is known."""

    def __init__(self, app: ASGIApp, *, quota: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self._quota, self._clock = app, quota, clock
        self._windows: dict[str, tuple[float, int]] = {}
        """By principal: when the window ends, and requests in it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or refuses it (429)."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(_COUNTED) or path.startswith(RECEIVERS):
            await self.app(scope, receive, send)
            return
        principal: Principal = scope["state"]["principal"]
        if principal == MACHINE:
            await self.app(scope, receive, send)
            return
        requests, seconds = self._count(principal.id)
        fields = {
            "RateLimit-Policy": f'"principal";q={self._quota};w={WINDOW_SECONDS}',
            "RateLimit": f'"principal";r={max(0, self._quota - requests)};t={seconds}',
        }
        if requests > self._quota:
            refusal = RequestError(
                429,
                "rate-limited",
                f"{principal.name} has made {self._quota:,} requests within a minute",
                where="Authorization",
                remedy=f"ask again in {seconds} s, or raise serve.requests_per_minute",
                headers=fields | {"Retry-After": str(seconds)},
            )
            await error_response(refusal, path)(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(fields)
            await send(message)

        await self.app(scope, receive, send_with_fields)

    def _count(self, principal_id: str) -> tuple[int, int]:
        """Counts a request: requests in the window, this one too, and seconds until it ends."""
        at = self._clock()
        if len(self._windows) >= _MAX_WINDOWS:
            self._windows = {name: window for name, window in self._windows.items() if window[0] > at}
        ends_at, requests = self._windows.get(principal_id, (at, 0))
        if ends_at <= at:
            ends_at, requests = at + WINDOW_SECONDS, 0
        self._windows[principal_id] = (ends_at, requests + 1)
        return requests + 1, ceil(ends_at - at)
