"""Bodies must arrive in time: a sender that trickles its bytes holds neither memory nor a place for ever."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestError


class BodyDeadline:
    """ASGI middleware that gives up a request whose body has not arrived after `seconds`; the route answers 408."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with a `receive` that does not wait beyond the deadline."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        is_whole = False

        async def receive_in_time() -> Message:
            nonlocal is_whole
            if is_whole:  # what comes now is the sender's leaving, which may take as long as the answer does
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise RequestError(
                    408,
                    "body-too-slow",
                    f"the body did not arrive within {self._seconds:g} s",
                    where="body",
                    remedy="send smaller bodies, or raise serve.request_seconds",
                    headers={"Connection": "close"},
                ) from None
            is_whole = not message.get("more_body", False)
            return message

        await self.app(scope, receive_in_time, send)
