"""Passwords of local users: argon2id with the library's parameters, two checks at once at most."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ledger.access.attempts import TooManyAttemptsError
from ledger.errors import UsageError

MIN_CHARACTERS: Final = 12
MAX_CHARACTERS: Final = 256
MAX_CHECKS: Final = 2
"""How many passwords are hashed at once: each takes 64 MiB and a fifth of a second of a core."""
_WAIT_SECONDS: Final = 10.0

HASHER = PasswordHasher()
_slots = threading.BoundedSemaphore(MAX_CHECKS)


def check_strength(password: str, *, name: str) -> None:
    """Raises `UsageError` for a password that is too short, too long, or the name."""
    if len(password) < MIN_CHARACTERS:
        problem = f"a password has at least {MIN_CHARACTERS} characters"
    elif len(password) > MAX_CHARACTERS:
        problem = f"a password has at most {MAX_CHARACTERS} characters"
    elif password.casefold() == name.casefold() or len(set(password)) < 4:
        problem = "that password is guessed at once"
    else:
        return
    raise UsageError(problem, where="password", remedy="several words that belong together only for you are easily kept in mind")


def hash_password(password: str) -> str:
    """The hash that is stored."""
    with _slot():
        return HASHER.hash(_normal(password))


def is_right(password: str, password_hash: str | None) -> bool:
    """Whether the password has that hash. Without one it is compared with another's, so that timing tells nobody which names there are."""
    with _slot():
        try:
            HASHER.verify(password_hash or _dummy_hash(HASHER), _normal(password[: MAX_CHARACTERS + 1]))
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return HASHER.check_needs_rehash(password_hash)


@lru_cache(maxsize=2)
def _dummy_hash(hasher: PasswordHasher) -> str:
    return hasher.hash("the password of nobody")


def _normal(password: str) -> bytes:
    # As keyboards differ in how they send an accented letter.
    return unicodedata.normalize("NFC", password).encode("utf-8", "replace")


@contextmanager
def _slot() -> Iterator[None]:
    if not _slots.acquire(timeout=_WAIT_SECONDS):
        raise TooManyAttemptsError(_WAIT_SECONDS)
    try:
        yield
    finally:
        _slots.release()
