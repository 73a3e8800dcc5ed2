"""Answers that are kept: an answer whose ETag still holds is sent again, and is not made again.

An answer is kept under the request as it was sent and the grants of who asked, so that it reaches nobody who may see more or less. A cursor
belongs to its principal: each gets one of its own with the rows, and what was asked for with one is kept under the principal, too. Before an
answer is sent, what it stands on is looked at (`api.queries.state_digest`): a publication, a commit or a changed row, by whichever process, and
it is made anew. While it is made, others with the same request wait for it. The sizes of all answers stay below a limit; those that were not
asked for longest go first. Streams and answers without a tag are not kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.cursors import CursorSeal, query_of
from api.etags import Reading, TagSeal, parameters_of, tags_of
from ledger.access.principals import Grant, Principal
from ledger.books import Books
from ledger.errors import RootCostError

_OVERHEAD_BYTES: Final = 2_000
"""Of an answer beside its body and its address: objects and headers."""
_MAX_SHARE: Final = 8
"""An answer larger than this part of the limit is not kept."""
_MAX_PATHS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Question:
    """A request as far as its answer depends on it. `principal` is "" where the answer is the same for all who have these grants."""

    origin: str
    path: str
    query: bytes
    accept: str
    grants: tuple[Grant, ...]
    principal: str = ""

    @classmethod
    def of(cls, scope: Scope, principal: str = "") -> Question:
        """The question of a request."""
        headers, asker = Headers(scope=scope), scope["state"]["principal"]
        origin = f"{scope['scheme']}://{headers.get('host', '')}"
        return cls(
            origin, scope["path"], scope["query_string"], headers.get("accept", ""), tuple(sorted(asker.grants)), principal
        )


@dataclass(slots=True)
class Answer:
    """An answer: what it stands on, its route (for the metrics), and its messages."""

    reading: Reading
    route: Any
    headers: list[tuple[bytes, bytes]]
    body: bytes
    cursor: str | None = None
    """The cursor in it, of the principal it was made for."""


@dataclass(slots=True)
class Answers:
    """Answers by question, the ones asked for last at the end, together not larger than a limit."""

    max_bytes: int
    size: int = 0
    by_question: OrderedDict[Question, Answer] = field(default_factory=OrderedDict)

    def get(self, questions: Iterable[Question]) -> Answer | None:
        """The answer to the first question that has one."""
        for question in questions:
            if (answer := self.by_question.get(question)) is not None:
                self.by_question.move_to_end(question)
                return answer
        return None

    def put(self, question: Question, answer: Answer) -> None:
        """Keeps an answer, in place of the one before; lets go of others where the limit needs it."""
        if (former := self.by_question.pop(question, None)) is not None:
            self.size -= _size(question, former)
        if (size := _size(question, answer)) * _MAX_SHARE > self.max_bytes:
            return
        self.by_question[question] = answer
        self.size += size
        while self.size > self.max_bytes:
            self.size -= _size(*self.by_question.popitem(last=False))


def _size(question: Question, answer: Answer) -> int:
    return len(answer.body) + len(question.query) + len(question.path) + _OVERHEAD_BYTES


class AnswerCache:
    """ASGI middleware that answers readings from what is kept. Runs where the principal is known, and where HEAD has become GET."""

    def __init__(self, app: ASGIApp, *, books: Books, seal: TagSeal, cursor_seal: CursorSeal, max_bytes: int) -> None:
        self.app, self._books, self._seal, self._cursor_seal = app, books, seal, cursor_seal
        self.answers = Answers(max_bytes)
        self._paths: set[str] = set()
        """Paths of which an answer was kept: worth waiting for."""
        self._in_progress: dict[Question, asyncio.Event] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers from what is kept, or passes the request on and keeps the answer."""
        is_reading = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith("/v1/")
        if not is_reading or not self.answers.max_bytes:
            await self.app(scope, receive, send)
            return
        question = Question.of(scope)
        if question.path in self._paths and (event := self._in_progress.get(question)) is not None:
            await event.wait()
        if await self._answered(scope, question, send):
            return
        await self._make(scope, receive, send, question)

    async def _answered(self, scope: Scope, question: Question, send: Send) -> bool:
        """Whether an answer was kept that still holds; it is sent, or said to be the one that the client has (304)."""
        principal: Principal = scope["state"]["principal"]
        answer = self.answers.get((question, Question.of(scope, principal.id)))
        if answer is None:
            return False
        try:
            reading = await run_in_threadpool(Reading.of, self._books, answer.reading.permission, answer.reading.parts)
        except RootCostError:  # whoever makes the answer is told
            return False
        if reading.state != answer.reading.state:
            return False
        tag = self._seal.tag(scope, principal, reading)
        scope["route"], scope["state"]["etag"] = answer.route, f"W/{tag}"
        if tag in tags_of(Headers(scope=scope).get("if-none-match", "")):
            await send({"type": "http.response.start", "status": 304, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            headers, body = self._handed_to(principal, scope, answer)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        return True

    def _handed_to(self, principal: Principal, scope: Scope, answer: Answer) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of an answer as a principal gets them: with a cursor of its own, which is as long."""
        if answer.cursor is None:
            return list(answer.headers), answer.body
        query = query_of(scope["path"], parameters_of(scope), principal)
        before, after = answer.cursor.encode(), self._cursor_seal.handed_to(answer.cursor, query=query).encode()
        return [(name, value.replace(before, after)) for name, value in answer.headers], answer.body.replace(before, after)

    async def _make(self, scope: Scope, receive: Receive, send: Send, question: Question) -> None:
        event, head = asyncio.Event(), None
        self._in_progress.setdefault(question, event)

        async def note(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
            elif head is not None:
                self._keep(scope, question, head, message)
                head = None
                self._end(question, event)
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            self._end(question, event)

    def _end(self, question: Question, event: asyncio.Event) -> None:
        """Lets those go on who wait for the answer."""
        event.set()
        if self._in_progress.get(question) is event:
            del self._in_progress[question]

    def _keep(self, scope: Scope, question: Question, head: Message, body: Message) -> None:
        """Keeps the answer that a message begins, if that is all of it and it has a tag."""
        reading: Reading | None = scope["state"].get("reading")
        if reading is None or head["status"] != 200 or body.get("more_body", False):
            return
        if scope["state"].get("is_personal"):
            question = Question.of(scope, scope["state"]["principal"].id)
        if len(self._paths) >= _MAX_PATHS:
            self._paths.clear()
        self._paths.add(question.path)
        headers = [(name, value) for name, value in head["headers"] if name.lower() != b"etag"]
        cursor = scope["state"].get("next_cursor")
        self.answers.put(question, Answer(reading, scope.get("route"), headers, body.get("body", b""), cursor))
