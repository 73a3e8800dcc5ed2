"""People: added, disabled, granted roles, and logged in by name and password."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access import grants, passwords
from ledger.access.principals import Grant
from ledger.access.sessions import end_sessions_of, open_session
from ledger.access_tables import LoginLink, RoleGrant, User
from ledger.audit import record, terms_digest
from ledger.books import Books
from ledger.db import lock_row
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as lists show it; `state` is active, disabled or invited (without a password yet); `revision` stands for roles and state."""

    user_id: int
    name: str
    email: str | None
    issuer: str | None
    grants: tuple[Grant, ...]
    state: str
    created_at: datetime
    last_login_at: datetime | None
    revision: str


Check = Callable[[Session, UserRow], None]
"""Raises where a user is not what a change was made from."""


def accept_any(_session: Session, _user: UserRow) -> None:
    """For changes of whatever is there."""


def user_name(text: str) -> str:
    """A name as it is stored and compared: NFC, trimmed, lower case. Raises `UsageError` for one that cannot be one.

    >>> user_name("  Ada ")
    'ada'
    """
    name = unicodedata.normalize("NFC", text).strip().lower()
    if not name or len(name) > 200 or not name.isprintable():
        raise UsageError("a user needs a name of at most 200 printable characters", where="name", remedy="an address will do")
    return name


def add_user(books: Books, name: str, roles: list[Grant], *, actor: str, email: str = "") -> UserRow:
    """Adds a user without a password: an invitation link (`ledger.access.links`) lets the person choose one."""
    with books.database.session() as session:
        user = new_user(session, name, roles, actor=actor, email=email)
        return _row(session, user)


def new_user(session: Session, name: str, roles: list[Grant], *, actor: str, email: str = "") -> User:
    """Adds a user within a transaction. Raises `UsageError` if there is one of that name."""
    name, at = user_name(name), now()
    if session.scalars(sa.select(User).where(User.name == name)).first() is not None:
        raise UsageError("there is a user of that name", where="name", remedy="choose another, or grant that user a role")
    user = User(name=name, email=email.strip()[:320] or None, created_at=at)
    session.add(user)
    session.flush()
    grants.add(session, "user", str(user.id), roles, actor=actor, at=at)
    after = {"grants": [str(grant) for grant in roles]}
    record(session, actor, "user.add", f"user:{user.id}", after=after, personal={"name": name, "email": email.strip()})
    return user


def list_users(books: Books) -> list[UserRow]:
    """All users by name, disabled ones too."""
    with books.database.session() as session:
        return [_row(session, user) for user in session.scalars(sa.select(User).order_by(User.name))]


def set_disabled(books: Books, name: str, *, is_disabled: bool, actor: str) -> UserRow:
    """Disables a user, which ends all sessions at once, or enables one again. Raises `UsageError` for the last administrator."""
    return change_user(books, name, is_disabled=is_disabled, actor=actor)


def change_user(
    books: Books,
    name: str,
    *,
    actor: str,
    roles: list[Grant] | None = None,
    is_disabled: bool | None = None,
    check: Check = accept_any,
) -> UserRow:
    """Gives a user these roles and no others, and disables or enables it; what is None stays.

    Raises `UsageError` where that would leave nobody who is administrator.
    """
    with books.database.session() as session, _an_admin_stays(session):
        user = user_of(session, name)
        lock_row(session, User, user.id)
        session.refresh(user)
        check(session, _row(session, user))
        if roles is not None:
            _set_roles(session, user, roles, actor)
        if is_disabled is not None and is_disabled != (user.disabled_at is not None):
            _set_disabled(session, user, actor, is_disabled=is_disabled)
        session.flush()
        return _row(session, user)


def _set_disabled(session: Session, user: User, actor: str, *, is_disabled: bool) -> None:
    user.disabled_at = now() if is_disabled else None
    ended_sessions = end_sessions_of(session, user.id) if is_disabled else 0
    session.execute(sa.delete(LoginLink).where(LoginLink.user_id == user.id, LoginLink.used_at.is_(None)))
    action, after = "user.disable" if is_disabled else "user.enable", {"ended_sessions": ended_sessions}
    record(session, actor, action, f"user:{user.id}", after=after, personal={"name": user.name})


def add_grants(books: Books, name: str, roles: list[Grant], *, actor: str) -> UserRow:
    """Gives a user roles."""
    with books.database.session() as session:
        user = user_of(session, name)
        new_roles = grants.add(session, "user", str(user.id), roles, actor=actor, at=now())
        _record_roles(session, user, "user.grant", new_roles, actor)
        return _row(session, user)


def remove_grants(books: Books, name: str, roles: list[Grant], *, actor: str) -> UserRow:
    """Takes roles from a user. What the user does not have is no error, the last administrator's role is a `UsageError`."""
    with books.database.session() as session, _an_admin_stays(session):
        user = user_of(session, name)
        _record_roles(session, user, "user.revoke", grants.remove(session, "user", str(user.id), roles), actor)
        return _row(session, user)


def set_grants(books: Books, name: str, roles: list[Grant], *, actor: str) -> UserRow:
    """Gives a user these roles and no others. Raises `UsageError` where that would leave nobody who is administrator."""
    return change_user(books, name, roles=roles, actor=actor)


def _set_roles(session: Session, user: User, roles: list[Grant], actor: str) -> None:
    held_roles = set(grants.by_holder(session, "user", str(user.id)).get(str(user.id), ()))
    lost_roles = grants.remove(session, "user", str(user.id), sorted(held_roles - set(roles)))
    new_roles = grants.add(session, "user", str(user.id), roles, actor=actor, at=now())
    _record_roles(session, user, "user.revoke", lost_roles, actor)
    _record_roles(session, user, "user.grant", new_roles, actor)


def find_user(books: Books, name: str) -> UserRow:
    """The user of a name or an id. Raises `ObjectMissingError` if there is none."""
    with books.database.session() as session:
        return _row(session, user_of(session, name))


def end_user_sessions(books: Books, name: str, *, actor: str) -> int:
    """Logs a user out everywhere; returns of how many sessions."""
    with books.database.session() as session:
        user = user_of(session, name)
        ended_sessions = end_sessions_of(session, user.id)
        after = {"ended_sessions": ended_sessions}
        record(session, actor, "user.log-out", f"user:{user.id}", after=after, personal={"name": user.name})
        return ended_sessions


def log_in(books: Books, name: str, password: str, *, address: str = "") -> str | None:
    """Opens a session for a name and a password; None if they are wrong, whatever is wrong with them. Takes as long in each case."""
    by_name = sa.select(User).where(User.name == unicodedata.normalize("NFC", name).strip().lower())
    with books.database.session() as session:
        user = session.scalars(by_name).first()
        password_hash = user.password_hash if user is not None and user.disabled_at is None else None
    # Outside of the transaction: a check takes a fifth of a second.
    if not passwords.is_right(password, password_hash) or user is None or password_hash is None:
        return None
    new_hash = passwords.hash_password(password) if passwords.is_outdated(password_hash) else password_hash
    with books.database.session() as session:
        user = session.get_one(User, user.id)
        if user.disabled_at is not None or user.password_hash != password_hash:
            return None
        user.password_hash = new_hash
        return open_session(session, user, books.settings.access, address=address)


def has_people(books: Books) -> bool:
    """Whether there is any user: from then on nobody reads without being known."""
    with books.database.session() as session:
        return session.scalars(sa.select(User.id).limit(1)).first() is not None


def has_admin(session: Session) -> bool:
    """Whether somebody who can log in is administrator over the whole, or a group of a provider is."""
    is_admin = (RoleGrant.role == "admin", RoleGrant.team == "")
    holders = set(session.scalars(sa.select(RoleGrant.holder).where(*is_admin, RoleGrant.holder_kind == "user")))
    can_log_in = sa.or_(User.password_hash.is_not(None), User.issuer.is_not(None))
    users = session.scalars(sa.select(User.id).where(User.disabled_at.is_(None), can_log_in))
    if any(str(user_id) in holders for user_id in users):
        return True
    return session.scalars(sa.select(RoleGrant.id).where(*is_admin, RoleGrant.holder_kind == "group")).first() is not None


@contextmanager
def _an_admin_stays(session: Session) -> Iterator[None]:
    """Raises `UsageError` where a change takes away the last one who may let others in; where there was none, everything may be changed."""
    had_admin = has_admin(session)
    yield
    session.flush()
    if had_admin and not has_admin(session):
        raise UsageError(
            "nobody would be administrator any more",
            where="name",
            remedy="make somebody else administrator first, who has logged in once",
        )


def user_of(session: Session, name: str) -> User:
    """The user of a name or an id (user:3). Raises `ObjectMissingError` if there is none."""
    by_id = name.startswith("user:") and name[5:].isascii() and name[5:].isdigit() and len(name) < 15
    condition = User.id == int(name[5:]) if by_id else User.name == unicodedata.normalize("NFC", name).strip().lower()
    user = session.scalars(sa.select(User).where(condition)).first()
    if user is None:
        raise ObjectMissingError("no user has that name", where=name, remedy="`rootcost users list` shows the names")
    return user


def _record_roles(session: Session, user: User, action: str, roles: list[Grant], actor: str) -> None:
    if roles:
        after = {"grants": [str(grant) for grant in roles]}
        record(session, actor, action, f"user:{user.id}", after=after, personal={"name": user.name})


def _row(session: Session, user: User) -> UserRow:
    state = "disabled" if user.disabled_at else "active" if user.password_hash or user.issuer else "invited"
    roles = grants.by_holder(session, "user", str(user.id)).get(str(user.id), ())
    return UserRow(
        user_id=user.id,
        name=user.name,
        email=user.email,
        issuer=user.issuer,
        grants=roles,
        state=state,
        created_at=user.created_at,
        last_login_at=user.last_login_at,
        revision=terms_digest(grants.terms_of(roles, is_disabled=user.disabled_at is not None)),
    )
