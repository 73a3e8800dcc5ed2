"""Log-ins on their way to a provider and back: one row each, for ten minutes and one return.

The key of a row is the hash of the state in the address and of the secret in the browser's cookie: a return with a state that is not its
browser's finds nothing, so that nobody can be logged in as somebody else by a link.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from ledger.access.attempts import TooManyAttemptsError
from ledger.access.sessions import hash_of
from ledger.access_tables import PendingLogin
from ledger.books import Books
from ledger.periods import now

LIFE: Final = timedelta(minutes=10)
MAX_ROWS: Final = 10_000
"""How many may be on their way at once."""
_FULL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class PendingRow:
    """What the return is checked against, and the address to go to after it."""

    nonce: str
    verifier: str
    return_to: str


def keep_login(books: Books, provider: str, row: PendingRow, *, state: str, browser: str) -> None:
    """Keeps a log-in until its return. Raises `TooManyAttemptsError` when too many are on their way."""
    at = now()
    with books.database.session() as session:
        is_over = sa.or_(PendingLogin.expires_at <= at, PendingLogin.expires_at > at + LIFE)  # the second: the clock was set back
        session.execute(sa.delete(PendingLogin).where(is_over))
        if (session.scalar(sa.select(sa.func.count()).select_from(PendingLogin)) or 0) >= MAX_ROWS:
            raise TooManyAttemptsError(_FULL_SECONDS)
        session.add(
            PendingLogin(
                state_hash=_key(state, browser),
                provider=provider,
                nonce=row.nonce,
                verifier=row.verifier,
                return_to=row.return_to,
                expires_at=at + LIFE,
            )
        )


def take_login(books: Books, provider: str, *, state: str, browser: str) -> PendingRow | None:
    """The log-in that returns, which uses it up; None if there is none of this state, browser and provider, or its time is over."""
    at, columns = now(), (PendingLogin.nonce, PendingLogin.verifier, PendingLogin.return_to, PendingLogin.expires_at)
    removal = sa.delete(PendingLogin).where(PendingLogin.state_hash == _key(state, browser), PendingLogin.provider == provider)
    with books.database.session() as session:
        row = session.execute(removal.returning(*columns), execution_options={"synchronize_session": False}).first()
    if row is None or not at < row.expires_at <= at + LIFE:
        return None
    return PendingRow(row.nonce, row.verifier, row.return_to)


def _key(state: str, browser: str) -> str:
    return hash_of(f"{state} {browser}")
