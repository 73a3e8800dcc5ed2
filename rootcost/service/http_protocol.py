"""Uvicorn's HTTP/1.1 with a time limit for the head of a request, which it does not have itself."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class TimedProtocol(H11Protocol):
    """Closes a connection whose next request has not come with all its headers in time, also one that sends nothing at all."""

    HEAD_SECONDS = 10.0

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is open: its first request is due."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came: if they complete no request, the one they begin is due."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._is_answering():
            self._stop()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its annotation says
        return cycle is not None and not cycle.response_complete

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
