"""One-time links: for the first administrator, for a user who was invited, and for a new password.

The SHA-256 of a link's token is stored. A link holds for 15 minutes and for one use, and only setting the password uses it: whatever opens
links in mails does not.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access import passwords
from ledger.access.principals import Grant
from ledger.access.sessions import end_sessions_of, hash_of, open_session
from ledger.access.users import has_admin, new_user, user_name, user_of
from ledger.access_tables import LoginLink, User
from ledger.audit import record
from ledger.books import Books
from ledger.errors import DeniedError
from ledger.periods import now

Purpose = Literal["first-admin", "invitation", "reset"]
LIFE: Final = timedelta(minutes=15)


class LinkError(DeniedError):
    """A link was used, has expired, or never was."""

    def __init__(self) -> None:
        super().__init__("this link was used, or has expired", remedy="ask for a new one: `rootcost users link NAME`")


@dataclass(frozen=True, slots=True)
class LinkRow:
    """What an open link is for; `name` is empty for the first administrator, who chooses one."""

    purpose: Purpose
    name: str


def first_admin_link(books: Books) -> str | None:
    """A token for the first administrator's link; None once there is an administrator. Earlier ones no longer hold."""
    with books.database.session() as session:
        if has_admin(session):
            return None
        session.execute(sa.delete(LoginLink).where(LoginLink.purpose == "first-admin"))
        return _new_link(session, "first-admin", None)


def was_first_admin_link_made(books: Books) -> bool:
    """Whether a link for the first administrator was ever made for this ledger."""
    with books.database.session() as session:
        is_first = LoginLink.purpose == "first-admin"
        return session.scalars(sa.select(LoginLink.token_hash).where(is_first).limit(1)).first() is not None


def user_link(books: Books, name: str, *, actor: str) -> tuple[str, Purpose]:
    """A token by which a user sets a password: an invitation for who has none, else a reset. Earlier ones no longer hold."""
    with books.database.session() as session:
        user = user_of(session, name)
        if user.disabled_at is not None or user.issuer is not None:
            reason = "is disabled" if user.disabled_at is not None else f"logs in at {user.issuer}"
            raise DeniedError(f"{user.name} {reason}", where=name, remedy="there is no password to set")
        purpose: Purpose = "reset" if user.password_hash else "invitation"
        session.execute(sa.delete(LoginLink).where(LoginLink.user_id == user.id, LoginLink.used_at.is_(None)))
        record(session, actor, "user.link", f"user:{user.id}", after={"purpose": purpose}, personal={"name": user.name})
        return _new_link(session, purpose, user.id), purpose


def look_at(books: Books, token: str) -> LinkRow:
    """What a link is for, without using it. Raises `LinkError`."""
    with books.database.session() as session:
        link = session.get(LoginLink, hash_of(token))
        at = now()
        if link is None or link.used_at is not None or not link.created_at - timedelta(minutes=5) <= at < link.expires_at:
            raise LinkError
        return _purpose_of(session, link)


def use(books: Books, token: str, *, name: str, password: str, address: str = "") -> str:
    """Sets the password by a link and logs in; returns what the session's cookie holds. Of two uses at once one is refused.

    Raises `LinkError`, and `UsageError` for a name or password that will not do, which leaves the link as it is.
    """
    link_row = look_at(books, token)
    name = user_name(name) if link_row.purpose == "first-admin" else link_row.name
    passwords.check_strength(password, name=name)
    password_hash = passwords.hash_password(password)
    at = now()
    with books.database.session() as session:
        is_open = (LoginLink.token_hash == hash_of(token), LoginLink.used_at.is_(None), LoginLink.expires_at > at)
        used_links: Any = session.execute(sa.update(LoginLink).where(*is_open).values(used_at=at))
        if used_links.rowcount != 1:
            raise LinkError
        link = session.get_one(LoginLink, hash_of(token))
        _purpose_of(session, link)
        user = _user_of(session, link, name)
        user.password_hash = password_hash
        ended_sessions = end_sessions_of(session, user.id)
        after = {"purpose": link.purpose, "ended_sessions": ended_sessions}
        personal = {"name": user.name, "address": address}
        record(session, f"user:{user.id}", "user.password", f"user:{user.id}", after=after, personal=personal)
        return open_session(session, user, books.settings.access, address=address)


def _user_of(session: Session, link: LoginLink, name: str) -> User:
    if link.user_id is None:
        return new_user(session, name, [Grant("admin")], actor="link:first-admin")
    return session.get_one(User, link.user_id)


def _purpose_of(session: Session, link: LoginLink) -> LinkRow:
    if link.user_id is None:
        if has_admin(session):
            raise LinkError
        return LinkRow("first-admin", "")
    user = session.get_one(User, link.user_id)
    if user.disabled_at is not None:
        raise LinkError
    return LinkRow("reset" if link.purpose == "reset" else "invitation", user.name)


def _new_link(session: Session, purpose: Purpose, user_id: int | None) -> str:
    token, at = secrets.token_urlsafe(32), now()
    has_ended = (LoginLink.expires_at < at - timedelta(days=30), LoginLink.purpose != "first-admin")
    session.execute(sa.delete(LoginLink).where(*has_ended))
    session.add(LoginLink(token_hash=hash_of(token), purpose=purpose, user_id=user_id, created_at=at, expires_at=at + LIFE))
    return token
