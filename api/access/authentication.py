"""Authentication: who sent a request, from its credentials."""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from threading import Lock

from ledger.access.keys import FIRST_KEY, principal_of_key
from ledger.access.principals import Principal
from ledger.books import Books

_KNOWN_SECONDS = 1.0
"""How long a key is taken as valid without asking the database: senders of telemetry come hundreds of times a second."""
_MAX_KNOWN = 1000


class Authenticator:
    """Finds the principal of a bearer credential: the token of the first start, or an API key."""

    def __init__(self, books: Books, *, token: str) -> None:
        self._books = books
        self._token = token.encode()
        self._known: dict[bytes, tuple[float, Principal | None]] = {}
        self._lock = Lock()

    def of_header(self, authorization: str) -> Principal | None:
        """The principal of an Authorization header; None if it is none of a key in force."""
        scheme, _, credentials = authorization.partition(" ")
        return self.of_key(credentials.strip()) if scheme.lower() == "bearer" else None

    def of_key(self, credentials: str) -> Principal | None:
        """The principal of a key. A revoked key is refused within a second."""
        # Compared in constant time, so that timing reveals nothing.
        if self._token and hmac.compare_digest(credentials.encode(), self._token):
            return FIRST_KEY
        digest, at = sha256(credentials.encode()).digest(), time.monotonic()
        with self._lock:
            if (entry := self._known.get(digest)) is not None and at - entry[0] < _KNOWN_SECONDS:
                return entry[1]
        principal = principal_of_key(self._books, credentials)
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[digest] = (at, principal)
        return principal
