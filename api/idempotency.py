"""`Idempotency-Key`: a change that is sent twice, since its answer was lost, is made once.

The answer of a change that succeeded is stored for a day, by principal, route and key. The same key with the same request gets that answer again
(`RootCost-Replayed: true`), with another request 422, and 409 while the first one is being made. An error changes nothing and is not stored:
the same key may be sent again. Answers with secrets (`Cache-Control: no-store`, keys, users) are not stored either, only that they were given.
Telemetry needs no key: its rows have keys of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestError, error_response
from ledger.access_tables import IdempotentRequest
from ledger.db import Database
from ledger.periods import now

KEPT_FOR: Final = timedelta(hours=24)
LOST_AFTER: Final = timedelta(minutes=5)
"""A request without an answer for so long has ended with its process."""
_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
RECEIVERS: Final = ("/v1/traces", "/v1/logs", "/v1/metrics", "/v1/litellm")
"""Where telemetry is sent."""
_SECRET: Final = ("/v1/keys", "/v1/users")
_HEADERS: Final = ("content-type", "etag", "location")
_MAX_KEY: Final = 256


@dataclass(slots=True)
class _Answer:
    """What the application answered, as it passes."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    def note(self, message: Message) -> None:
        """Notes a part of the answer."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(Headers(raw=message["headers"]))
        else:
            self.body += message.get("body", b"")


class Idempotency:
    """ASGI middleware that stores the answers of changes with a key, and gives them again. Runs where the principal is known."""

    def __init__(self, app: ASGIApp, *, database: Database, max_body_bytes: int) -> None:
        self.app, self._database, self._max_body_bytes = app, database, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers with what is stored."""
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        path: str = scope.get("path", "")
        if key is None or scope["method"] not in _CHANGING or not path.startswith("/v1/") or path.startswith(RECEIVERS):
            await self.app(scope, receive, send)
            return
        try:
            body = await self._body(receive)
            claim = await run_in_threadpool(self._claim, scope, key, body)
        except RequestError as error:
            await error_response(error, path)(scope, receive, send)
            return
        if isinstance(claim, Response):
            await claim(scope, receive, send)
            return
        await self._make(scope, receive, send, body, claim)

    async def _make(self, scope: Scope, receive: Receive, send: Send, body: bytes, claim: int) -> None:
        answer, is_sent = _Answer(), False

        async def receive_body() -> Message:
            nonlocal is_sent
            if is_sent:
                return await receive()
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        messages: list[Message] = []

        async def hold(message: Message) -> None:
            answer.note(message)
            messages.append(message)

        try:
            await self.app(scope, receive_body, hold)
        finally:
            # Before the client hears of it: what he sends again then is answered from here.
            await run_in_threadpool(self._settle, claim, answer, scope["path"])
        for message in messages:
            await send(message)

    async def _body(self, receive: Receive) -> bytes:
        body, has_more = bytearray(), True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError(400, "format", "the body ended before it was whole", where="body", remedy="send it again")
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                raise RequestError(
                    413,
                    "too-large",
                    f"the body is larger than {self._max_body_bytes} bytes",
                    where="body",
                    remedy="send it in parts",
                )
        return bytes(body)

    def _claim(self, scope: Scope, key: str, body: bytes) -> int | Response:
        """The id of the row that says that the change is being made, or the stored answer. Raises `RequestError`."""
        if not 0 < len(key) <= _MAX_KEY:
            raise RequestError(
                400,
                "usage",
                f"a key has 1 to {_MAX_KEY} characters",
                where="Idempotency-Key",
                remedy="send a UUID for each change",
            )
        headers, principal = Headers(scope=scope), scope["state"]["principal"]
        request_parts = [
            scope["query_string"],
            headers.get("content-type", "").encode(),
            headers.get("if-match", "").encode(),
            body,
        ]
        fingerprint = sha256(b"\0".join(str(len(part)).encode() + b":" + part for part in request_parts)).hexdigest()
        # With its grants: who may no longer see an answer does not get it again.
        holder = {"principal": f"{principal.id[:100]} {principal.scope_key}", "key": key}
        route = f"{scope['method']} {scope['path']}"
        holder["route"] = route if len(route) <= 512 else sha256(route.encode()).hexdigest()
        for _ in range(2):
            if (stored_answer := self._stored(holder)) is None:
                try:
                    with self._database.session() as session:
                        row = IdempotentRequest(**holder, fingerprint=fingerprint, created_at=now())
                        session.add(row)
                        session.flush()
                        return row.id
                except sa.exc.IntegrityError:  # another request with the key came first
                    continue
            return _repeated(stored_answer, fingerprint)
        raise _in_flight()

    def _stored(self, holder: dict[str, str]) -> IdempotentRequest | None:
        row = IdempotentRequest
        is_expired = row.created_at < now() - KEPT_FOR
        is_lost = row.status.is_(None) & (row.created_at < now() - LOST_AFTER)
        with self._database.session() as session:
            stored_answer = session.scalars(sa.select(row).filter_by(**holder)).first()
            if session.scalar(sa.select(row.id).where(is_expired | is_lost).limit(1)) is None:
                return stored_answer
            session.execute(sa.delete(row).where(is_expired | is_lost), execution_options={"synchronize_session": False})
            return session.scalars(sa.select(row).filter_by(**holder), execution_options={"populate_existing": True}).first()

    def _settle(self, claim: int, answer: _Answer, path: str) -> None:
        """Stores the answer of a change that was made; of one that was not, the key is free again."""
        with self._database.session() as session:
            if not 200 <= answer.status < 300:
                session.execute(sa.delete(IdempotentRequest).where(IdempotentRequest.id == claim))
                return
            is_secret = path.startswith(_SECRET) or "no-store" in answer.headers.get("cache-control", "")
            stored_answer: dict[str, Any] = {"status": answer.status}
            if not is_secret:
                headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
                stored_answer |= {"headers": headers, "body": answer.body.decode()}
            session.execute(sa.update(IdempotentRequest).where(IdempotentRequest.id == claim).values(**stored_answer))


def _repeated(stored_answer: IdempotentRequest, fingerprint: str) -> Response:
    if stored_answer.fingerprint != fingerprint:
        raise RequestError(
            422,
            "idempotency-key-reused",
            "the key was sent with another request",
            where="Idempotency-Key",
            remedy="send a new key for each change",
        )
    if stored_answer.status is None:
        raise _in_flight()
    if stored_answer.body is None:
        raise RequestError(
            409,
            "answer-not-kept",
            "the change was made; its answer holds a secret, and is not kept",
            where="Idempotency-Key",
            remedy="look whether it is there; make a new one if its secret is lost",
        )
    return Response(stored_answer.body, stored_answer.status, {**(stored_answer.headers or {}), "RootCost-Replayed": "true"})


def _in_flight() -> RequestError:
    return RequestError(
        409,
        "in-flight",
        "a request with the same key is being answered",
        where="Idempotency-Key",
        remedy="send it again after the seconds in Retry-After",
        headers={"Retry-After": "1"},
    )
