"""ETags of readings: an answer that has not changed is not made again (304).

    dependencies=reads(PROBLEMS, Alert)   what the answers of a route stand on beside the published runs
    unless_modified(request, books)       by the gate of the route, once the permission is there; raises `NotModifiedError`

A tag is a sealed digest of the published runs, of what else the route reads, of the query and the accepted types, of who asks and what it may
see, and of the settings and the version. It is weak: the same answer, not the same bytes. A route without `reads`, such as one that tells the age
of facts, has no tag. `api.answer_cache` keeps what has a tag.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.queries.gate import ScopedBooks
from api.queries.state_digest import state_of
from ledger.access.principals import Principal
from ledger.access.roles import Permission
from ledger.base import Base
from ledger.books import Books
from ledger.settings import Settings
from ledger.tables import Table
from ledger.version import product_version

_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "The answer with an ETag of `If-None-Match` is still the answer; it is not sent again"}
}
"""The description of 304 for a route with `Reads`."""


class NotModifiedError(Exception):
    """The answer is the one that the client has (304)."""


class Reads:
    """A dependency of a route: the tables and database rows that its answers stand on, beside the published runs."""

    def __init__(self, *parts: Table | type[Base]) -> None:
        self.tables = [part for part in parts if isinstance(part, Table)]
        self.rows = [part for part in parts if not isinstance(part, Table)]

    async def __call__(self, request: Request) -> None:
        """Notes what the answer stands on, for the gate."""
        request.state.reads = self


def reads(*parts: Table | type[Base]) -> list[Any]:
    """The dependencies of a route whose answers stand on these parts, beside the published runs."""
    return [Depends(Reads(*parts))]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the answer to a request stands on: the permission that its gate asked for, what it reads, and that as it was before it was made."""

    permission: Permission
    parts: Reads
    state: tuple[str, ...]

    @classmethod
    def of(cls, books: Books, permission: Permission, parts: Reads) -> Self:
        """The state of the parts, now."""
        return cls(permission, parts, tuple(state_of(books, parts.tables, parts.rows)))


class TagSeal:
    """Makes tags with a key of this home, its settings and the version."""

    def __init__(self, key: bytes, settings: Settings) -> None:
        self._key = key
        self._start = (product_version(), settings.model_dump_json())

    def tag(self, scope: Scope, principal: Principal, reading: Reading) -> str:
        """The tag of what a principal is answered to a request."""
        # Order matters within a parameter (`by`), not between them.
        parameters = sorted(parameters_of(scope), key=lambda item: item[0])
        query = (f"{name}={value}" for name, value in parameters)
        accept = Headers(scope=scope).get("accept", "")
        parts = (*self._start, principal.scope_key, reading.permission.value, scope["path"], *query, accept, *reading.state)
        seal = hmac.new(self._key, digestmod="sha256")
        for part in parts:
            seal.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
        return f'"{seal.hexdigest()[:32]}"'


def unless_modified(request: Request, books: ScopedBooks) -> None:
    """Sets the ETag of an answer that is about to be made. Raises `NotModifiedError` if the client has that answer."""
    parts: Reads | None = getattr(request.state, "reads", None)
    if parts is None or request.method != "GET":
        return
    request.state.reading = Reading.of(books.whole, books.permission, parts)
    seal: TagSeal = request.app.state.tag_seal
    tag = seal.tag(request.scope, books.principal, request.state.reading)
    request.state.etag = f"W/{tag}"
    if tag in tags_of(request.headers.get("if-none-match", "")):
        raise NotModifiedError


def parameters_of(scope: Scope) -> list[tuple[str, str]]:
    """The query parameters of a request."""
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def tags_of(header: str) -> list[str]:
    """The opaque tags of If-None-Match or If-Match, without the mark of weak ones.

    >>> tags_of('W/"a", "b,c"'), tags_of("*"), tags_of("a")
    (['"a"', '"b,c"'], [], [])
    """
    return [tag.removeprefix("W/") for tag in _TAG.findall(header)]


async def not_modified(_request: Request, error: Exception) -> Response:
    """304, without a body."""
    assert isinstance(error, NotModifiedError)
    return Response(status_code=304)


class _HeadEndedError(Exception):
    """The headers of an answer to HEAD are sent: nobody reads the rest."""


class ReadingHeaders:
    """ASGI middleware of readings: answers carry their ETag, and HEAD is answered as GET without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and the answer with its headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_with_etag(message: Message) -> None:
            etag = scope.get("state", {}).get("etag")
            if etag and message["type"] == "http.response.start" and message["status"] in (200, 304):
                MutableHeaders(scope=message)["ETag"] = etag
            await send(message)
            if is_head:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _HeadEndedError

        try:
            if is_head:
                scope["method"] = "GET"
            await self.app(scope, receive, send_with_etag)
        except _HeadEndedError:
            return
        finally:
            if is_head:  # for what counts requests
                scope["method"] = "HEAD"
