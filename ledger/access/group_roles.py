"""Roles of the groups of a provider: who is in a group at log-in has its roles, besides those of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from ledger.access import grants
from ledger.access.principals import Grant
from ledger.audit import record
from ledger.books import Books
from ledger.errors import UsageError
from ledger.periods import now

MAX_GROUP_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of a provider, and its roles."""

    provider: str
    group: str
    grants: tuple[Grant, ...]


def map_group(books: Books, provider: str, group: str, roles: list[Grant], *, actor: str) -> GroupRow:
    """Gives a group roles. Raises `UsageError` for a provider that is not set up, or for no group."""
    names = [entry.name for entry in books.settings.access.providers]
    if provider not in names:
        remedy = f"one of: {', '.join(names)}" if names else "set it up in rootcost.toml first: [[access.providers]]"
        raise UsageError(f"{provider!r} is no provider", where="provider", remedy=remedy)
    if not group.strip() or len(group) > MAX_GROUP_CHARACTERS or not group.isprintable():
        limit = f"a group needs a name of at most {MAX_GROUP_CHARACTERS} printable characters"
        raise UsageError(limit, where="group", remedy="as the provider sends it, for Entra the object id")
    with books.database.session() as session:
        new_roles = grants.add(session, "group", f"{provider}/{group}", roles, actor=actor, at=now())
        _record(session, actor, "role.map", f"{provider}/{group}", new_roles)
        return _row(session, provider, group)


def unmap_group(books: Books, provider: str, group: str, roles: list[Grant], *, actor: str) -> GroupRow:
    """Takes roles from a group, or all of them if none is named. What it does not have is no error."""
    holder = f"{provider}/{group}"
    with books.database.session() as session:
        roles = roles or list(grants.by_holder(session, "group", holder).get(holder, ()))
        _record(session, actor, "role.unmap", holder, grants.remove(session, "group", holder, roles))
        return _row(session, provider, group)


def set_group(books: Books, provider: str, group: str, roles: list[Grant], *, actor: str) -> GroupRow:
    """Gives a group these roles and no others."""
    held_roles = next((row.grants for row in list_groups(books) if (row.provider, row.group) == (provider, group)), ())
    lost_roles = [grant for grant in held_roles if grant not in roles]
    row = unmap_group(books, provider, group, lost_roles, actor=actor) if lost_roles else GroupRow(provider, group, held_roles)
    return map_group(books, provider, group, roles, actor=actor) if roles else row


def list_groups(books: Books) -> list[GroupRow]:
    """All groups that have roles, by provider and name."""
    with books.database.session() as session:
        by_group = grants.by_holder(session, "group")
    pairs = [(*holder.partition("/")[::2], roles) for holder, roles in sorted(by_group.items())]
    return [GroupRow(provider, group, roles) for provider, group, roles in pairs]


def _record(session: Session, actor: str, action: str, holder: str, roles: list[Grant]) -> None:
    if roles:
        record(session, actor, action, holder, after={"grants": [str(grant) for grant in roles]})


def _row(session: Session, provider: str, group: str) -> GroupRow:
    holder = f"{provider}/{group}"
    session.flush()
    return GroupRow(provider, group, grants.by_holder(session, "group", holder).get(holder, ()))
