"""Authentication: who sent a request, from its credentials."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from threading import Lock

from ledger.access.keys import FIRST_KEY, principal_of_key
from ledger.access.principals import Principal
from ledger.access.sessions import principal_of_session
from ledger.access.users import has_people
from ledger.books import Books

_KNOWN_SECONDS = 1.0
"""How long a key or a session is taken as valid without asking the database: senders of telemetry come hundreds of times a second."""
_MAX_KNOWN = 1000
_SESSION_KINDS = ("idle session", "session")
"""Kept apart: a request that is a use, right after one that is none, must be noted."""


class Authenticator:
    """Finds the principal of a credential: the token of the first start, an API key, or the cookie of a session."""

    def __init__(self, books: Books, *, token: str) -> None:
        self._books = books
        self._token = token.encode()
        self._known: dict[bytes, tuple[float, Principal | None]] = {}
        self._people: tuple[float, bool] = (float("-inf"), False)
        self._lock = Lock()

    def of_header(self, authorization: str) -> Principal | None:
        """The principal of an Authorization header; None if it is none of a key in force."""
        scheme, _, credentials = authorization.partition(" ")
        return self.of_key(credentials.strip()) if scheme.lower() == "bearer" else None

    def of_key(self, credentials: str) -> Principal | None:
        """The principal of a key. A revoked key is refused within a second."""
        # Compared in constant time, so that timing reveals nothing.
        if self._token and hmac.compare_digest(credentials.encode("utf-8", "replace"), self._token):
            return FIRST_KEY
        return self._cached("key", credentials, principal_of_key)

    def of_session(self, cookie: str, *, is_use: bool = True) -> Principal | None:
        """The principal of a session's cookie. A session that ended is refused within a second. What is no use of it leaves it idle."""
        return self._cached(_SESSION_KINDS[is_use], cookie, partial(principal_of_session, is_use=is_use))

    def forget_session(self, cookie: str) -> None:
        """A session has ended here: the next request is refused."""
        with self._lock:
            for kind in _SESSION_KINDS:
                self._known.pop(_digest(kind, cookie), None)

    def has_people(self) -> bool:
        """Whether people are set up, or a provider that knows them: then nobody reads without being known. Users are never deleted."""
        if self._books.settings.access.providers:
            return True
        at, is_answer = self._people
        if is_answer or time.monotonic() - at < _KNOWN_SECONDS:
            return is_answer
        self._people = (time.monotonic(), has_people(self._books))
        return self._people[1]

    def forget_people(self) -> None:
        """A user may have been added here."""
        self._people = (float("-inf"), self._people[1])

    def _cached(self, kind: str, credentials: str, find: Callable[[Books, str], Principal | None]) -> Principal | None:
        digest, at = _digest(kind, credentials), time.monotonic()
        with self._lock:
            if (entry := self._known.get(digest)) is not None and at - entry[0] < _KNOWN_SECONDS:
                return entry[1]
        principal = find(self._books, credentials)
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = (at, principal)
        return principal


def _digest(kind: str, credentials: str) -> bytes:
    return sha256(f"{kind} {credentials}".encode("utf-8", "replace")).digest()
