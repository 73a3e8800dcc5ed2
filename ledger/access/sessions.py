"""Sessions of people who are logged in: the cookie holds 256 random bits, and a row their SHA-256.

A session ends by its age, by idleness, by log-out, and with its user. Its grants are read anew with every request, so that a grant that was
taken away is gone at once.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access import grants
from ledger.access.principals import Grant, Principal
from ledger.access_tables import User, UserSession
from ledger.audit import record
from ledger.books import Books
from ledger.errors import ObjectMissingError
from ledger.periods import now
from ledger.settings import AccessSettings

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_SEEN_NOTED_EVERY: Final = timedelta(minutes=1)
_CLOCK_SKEW: Final = timedelta(minutes=5)
_KEPT: Final = timedelta(days=30)
"""How long the rows of sessions that have ended stay."""
_ID_CHARACTERS: Final = 16
LOGGED_IN: Final = "access.login"
LOGGED_OUT: Final = "access.logout"
ENDED: Final = "session.end"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as lists show it; `session_id` is the beginning of the hash of its cookie."""

    session_id: str
    user_id: int
    name: str
    provider: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime


def open_session(
    session: Session, user: User, settings: AccessSettings, *, address: str = "", provider: str = "", groups: Sequence[str] = ()
) -> str:
    """Logs a user in; returns what the cookie holds."""
    at, token = now(), secrets.token_urlsafe(32)
    session.execute(sa.delete(UserSession).where(UserSession.expires_at < at - _KEPT))
    session.add(
        UserSession(
            session_hash=hash_of(token),
            user_id=user.id,
            created_at=at,
            last_seen_at=at,
            expires_at=at + timedelta(hours=settings.session_hours),
            provider=provider,
            groups=list(groups),
        )
    )
    user.last_login_at = at
    actor, personal = f"user:{user.id}", {"name": user.name, "address": address}
    record(session, actor, LOGGED_IN, actor, after={"provider": provider or "password"}, personal=personal)
    return token


def principal_of_session(books: Books, token: str, *, is_use: bool = True) -> Principal | None:
    """Whose session it is; None for a wrong, expired, idle or revoked one, or one of a disabled user. Notes a use, once a minute at most."""
    if not _TOKEN.fullmatch(token):
        return None
    at = now()
    with books.database.session() as session:
        row = session.get(UserSession, hash_of(token))
        if row is None or not _is_active(row, at, books.settings.access):
            return None
        user = session.get_one(User, row.user_id)
        if user.disabled_at is not None:
            return None
        if is_use and abs(at - row.last_seen_at) >= _SEEN_NOTED_EVERY:
            row.last_seen_at = at
        return Principal(f"user:{user.id}", "user", user.name, grants_of(session, user, row.provider, row.groups))


def users_in_force(books: Books, session_hashes: Collection[str]) -> dict[str, str]:
    """Of these hashes of sessions those that are in force, and the user of each (user:ID). Unlike a request that is no use of them."""
    at = now()
    query = sa.select(UserSession, User).join(User, User.id == UserSession.user_id)
    asked_rows = query.where(UserSession.session_hash.in_(session_hashes), User.disabled_at.is_(None))
    with books.database.session() as session:
        rows = session.execute(asked_rows).all()
    return {row.session_hash: f"user:{user.id}" for row, user in rows if _is_active(row, at, books.settings.access)}


def list_sessions(books: Books) -> list[SessionRow]:
    """Sessions in force, newest first."""
    at = now()
    query = sa.select(UserSession, User).join(User, User.id == UserSession.user_id)
    order = (UserSession.created_at.desc(), UserSession.session_hash)
    with books.database.session() as session:
        pairs = session.execute(query.where(UserSession.revoked_at.is_(None), User.disabled_at.is_(None)).order_by(*order))
        return [_row(row, user) for row, user in pairs if _is_active(row, at, books.settings.access)]


def log_out(books: Books, token: str, *, address: str = "") -> None:
    """Ends the session of a cookie; one that has ended already stays so."""
    with books.database.session() as session:
        row = session.get(UserSession, hash_of(token))
        if row is None or row.revoked_at is not None:
            return
        row.revoked_at = now()
        user = session.get_one(User, row.user_id)
        record(session, f"user:{user.id}", LOGGED_OUT, f"user:{user.id}", personal={"name": user.name, "address": address})


def end_session(books: Books, session_id: str, *, actor: str) -> SessionRow:
    """Ends a session by the id of lists. Raises `ObjectMissingError` if none has it."""
    is_id = len(session_id) == _ID_CHARACTERS and session_id.isalnum()
    with books.database.session() as session:
        rows = sa.select(UserSession).where(UserSession.session_hash.startswith(session_id, autoescape=True))
        row = session.scalars(rows).first() if is_id else None
        if row is None:
            raise ObjectMissingError("no session has that id", where=session_id, remedy="GET /v1/sessions lists them")
        user = session.get_one(User, row.user_id)
        if row.revoked_at is None:
            row.revoked_at = now()
            record(session, actor, ENDED, f"user:{user.id}", after={"session": session_id}, personal={"name": user.name})
        return _row(row, user)


def end_sessions_of(session: Session, user_id: int) -> int:
    """Ends all sessions of a user; returns how many. The caller records why."""
    is_active = (UserSession.user_id == user_id, UserSession.revoked_at.is_(None))
    ended_sessions: Any = session.execute(sa.update(UserSession).where(*is_active).values(revoked_at=now()))
    return int(ended_sessions.rowcount)


def hash_of(token: str) -> str:
    """The hash under which a token is stored."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def _is_active(row: UserSession, at: datetime, settings: AccessSettings) -> bool:
    """Whether a session is in force. One of the future, of before the clock was set back, is not: its end would come too late.

    Nor is one of a provider that is no longer set up.
    """
    return (
        row.revoked_at is None
        and row.created_at <= at + _CLOCK_SKEW
        and at < min(row.expires_at, row.created_at + timedelta(hours=settings.session_hours))
        and at - row.last_seen_at < timedelta(minutes=settings.idle_minutes)
        and (not row.provider or any(provider.name == row.provider for provider in settings.providers))
    )


def grants_of(session: Session, user: User, provider: str, groups: Sequence[str]) -> tuple[Grant, ...]:
    """A user's own grants, and those of the groups that a provider said at log-in."""
    user_grants = grants.by_holder(session, "user", str(user.id)).get(str(user.id), ())
    if not groups:
        return user_grants
    by_group = grants.by_holder(session, "group")
    group_grants = [grant for group in groups for grant in by_group.get(f"{provider}/{group}", ())]
    return tuple(dict.fromkeys([*user_grants, *group_grants]))


def _row(row: UserSession, user: User) -> SessionRow:
    return SessionRow(
        session_id=row.session_hash[:_ID_CHARACTERS],
        user_id=user.id,
        name=user.name,
        provider=row.provider,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
    )
