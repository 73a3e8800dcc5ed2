"""Cursors: where a page ended, for the next one. Opaque and sealed: only what this service has given out is taken back.

A cursor belongs to one query of one principal, and to the published runs that the page was read from. A changed one, or one of another query or
principal, is refused (400); one of runs that were replaced is gone (410), since the next page would not fit the one before.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from api.errors import RequestError
from ledger.access.principals import Principal

_SEAL_BYTES = 16
_PAGING: Final = frozenset({"format", "limit", "offset", "cursor"})
_TYPES: Final[Mapping[str, Any]] = {
    "m": (Decimal, str, Decimal),
    "t": (datetime, datetime.isoformat, datetime.fromisoformat),
    "d": (date, date.isoformat, date.fromisoformat),
}
"""Values that JSON does not have: type, how it is written, how it is read."""


class CursorSeal:
    """Makes and opens cursors with the secret of this home.

    >>> seal = CursorSeal("secret")
    >>> cursor = seal.close([Decimal("0.5"), "chain-1"], query="q", runs="r")
    >>> seal.open(cursor, query="q", runs="r")
    [Decimal('0.5'), 'chain-1']
    """

    def __init__(self, secret: str) -> None:
        self._key = sha256(b"cursor\0" + secret.encode()).digest()

    def close(self, keys: Sequence[Any], *, query: str, runs: str) -> str:
        """The cursor after a row with these keys."""
        content = json.dumps([[_written(value) for value in keys], query, runs], separators=(",", ":")).encode()
        return urlsafe_b64encode(self._seal(content) + content).decode().rstrip("=")

    def handed_to(self, cursor: str, *, query: str) -> str:
        """A cursor of this service as another principal gets it with the same rows: of its own query.

        >>> seal = CursorSeal("secret")
        >>> seal.handed_to(seal.close(["chain-1"], query="q", runs="r"), query="p") == seal.close(["chain-1"], query="p", runs="r")
        True
        """
        keys, _, runs = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_SEAL_BYTES:])
        content = json.dumps([keys, query, runs], separators=(",", ":")).encode()
        return urlsafe_b64encode(self._seal(content) + content).decode().rstrip("=")

    def open(self, cursor: str, *, query: str, runs: str) -> list[Any]:
        """The keys in a cursor. Raises `RequestError`."""
        try:
            token_bytes = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (Base64Error, ValueError):
            token_bytes = b""
        seal, content = token_bytes[:_SEAL_BYTES], token_bytes[_SEAL_BYTES:]
        # A text that decodes to the same bytes is another text: what was given out is taken back as it was.
        is_same_text = urlsafe_b64encode(token_bytes).decode().rstrip("=") == cursor
        if not is_same_text or not hmac.compare_digest(seal, self._seal(content)):
            raise RequestError(400, "cursor", "the cursor is none of this service", where="cursor", remedy=_START_AGAIN)
        keys, its_query, its_runs = json.loads(content)
        if its_query != query:
            detail = "the cursor belongs to another query, or to another principal"
            raise RequestError(400, "cursor", detail, where="cursor", remedy=_START_AGAIN)
        if its_runs != runs:
            detail = "the page before was read from runs that have been replaced since"
            raise RequestError(410, "cursor-replaced", detail, where="cursor", remedy=_START_AGAIN)
        return [_read(value) for value in keys]

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_SEAL_BYTES]


def query_of(path: str, parameters: Iterable[tuple[str, str]], principal: Principal) -> str:
    """Digest of what is asked, and by whom."""
    texts = (f"{name}={value}" for name, value in sorted(parameters) if name not in _PAGING)
    return digest(path, principal.scope_key, *texts)


def digest(*parts: str) -> str:
    """A short digest of texts."""
    return sha256("\0".join(parts).encode()).hexdigest()[:32]


_START_AGAIN = "ask again without cursor, from the first page on"


def _written(value: Any) -> Any:
    for name, (kind, write, _) in _TYPES.items():
        if isinstance(value, kind):
            return {name: write(value)}
    return value


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, text),) = value.items()
        return _TYPES[name][2](text)
    return value
