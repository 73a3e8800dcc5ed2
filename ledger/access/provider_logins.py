"""Log-in of people whom a provider of OpenID Connect knows: found by issuer and subject, never by name or address.

A name or an address can be given to another person there, or be that of a user with a password here; issuer and subject cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access import grants
from ledger.access.sessions import grants_of, open_session
from ledger.access.users import new_user, user_name
from ledger.access_tables import User
from ledger.audit import record
from ledger.books import Books
from ledger.errors import DeniedError

MAX_GROUPS: Final = 1000
"""Groups of a session that no role is mapped to; all others are kept."""
_MAX_NAME_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True)
class ProviderIdentity:
    """Who somebody is, as a provider says. `are_groups_missing`: it has groups, and did not send them."""

    provider: str
    issuer: str
    subject: str
    name: str
    email: str = ""
    groups: tuple[str, ...] = ()
    are_groups_missing: bool = False


@dataclass(frozen=True, slots=True)
class ProviderLogin:
    """A session that was opened: what its cookie holds, the name here, and whether there is any role."""

    token: str
    name: str
    has_roles: bool


def log_in(books: Books, identity: ProviderIdentity, *, address: str = "") -> ProviderLogin:
    """Opens a session; the first log-in of a person makes a user. Raises `DeniedError` for a disabled one."""
    try:
        return _log_in(books, identity, address)
    except sa.exc.IntegrityError:  # two first log-ins at once: the other one has made the user
        return _log_in(books, identity, address)


def _log_in(books: Books, identity: ProviderIdentity, address: str) -> ProviderLogin:
    with books.database.session() as session:
        is_person = (User.issuer == identity.issuer, User.subject == identity.subject)
        user = session.scalars(sa.select(User).where(*is_person)).first()
        if user is None:
            user = _new_user(session, identity)
        elif user.disabled_at is not None:
            raise DeniedError(f"{user.name} is disabled", where=user.name, remedy="ask an administrator")
        if identity.email and user.email != identity.email:
            user.email, personal = identity.email, {"name": user.name, "email": identity.email}
            record(session, f"provider:{identity.provider}", "user.email", f"user:{user.id}", personal=personal)
        kept_groups = _kept_groups(session, identity)
        token = open_session(
            session, user, books.settings.access, address=address, provider=identity.provider, groups=kept_groups
        )
        return ProviderLogin(token, user.name, bool(grants_of(session, user, identity.provider, kept_groups)))


def _new_user(session: Session, identity: ProviderIdentity) -> User:
    digest = sha256(f"{identity.issuer} {identity.subject}".encode()).hexdigest()[:8]
    name = "".join(character for character in identity.name if character.isprintable()).strip()[:_MAX_NAME_CHARACTERS] or digest
    names = [name, f"{name} ({identity.provider})", f"{name} ({identity.provider} {digest})"]
    taken_names = set(session.scalars(sa.select(User.name).where(User.name.in_([user_name(text) for text in names]))))
    free_name = next((text for text in names if user_name(text) not in taken_names), digest)
    user = new_user(session, free_name, [], actor=f"provider:{identity.provider}", email=identity.email)
    user.issuer, user.subject = identity.issuer, identity.subject
    return user


def _kept_groups(session: Session, identity: ProviderIdentity) -> list[str]:
    """Those that a role is mapped to, and others up to a limit, so that one that is mapped later counts."""
    by_group = grants.by_holder(session, "group")
    is_mapped = {group: f"{identity.provider}/{group}" in by_group for group in dict.fromkeys(identity.groups)}
    unmapped_groups = [group for group, has_roles in is_mapped.items() if not has_roles]
    return [group for group, has_roles in is_mapped.items() if has_roles] + unmapped_groups[:MAX_GROUPS]
