"""Roles of the groups of a provider: who is in a group at log-in has its roles, besides those of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ledger.access import grants
from ledger.access.principals import Grant
from ledger.audit import lock_log, record, terms_digest
from ledger.books import Books
from ledger.errors import UsageError
from ledger.periods import now

MAX_GROUP_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of a provider, and its roles; `revision` stands for them."""

    provider: str
    group: str
    grants: tuple[Grant, ...]

    @property
    def revision(self) -> str:
        """Digest of the roles."""
        return terms_digest(grants.terms_of(self.grants))


Check = Callable[[Session, GroupRow], None]
"""Raises where the roles of a group are not those that a change was made from."""


def accept_any(_session: Session, _group: GroupRow) -> None:
    """For changes of whatever is there."""


def map_group(books: Books, provider: str, group: str, roles: list[Grant], *, actor: str) -> GroupRow:
    """Gives a group roles. Raises `UsageError` for a provider that is not set up, or for no group."""
    _require_group(books, provider, group)
    with books.database.session() as session:
        row = _locked(session, provider, group)
        return _change(session, row, [*row.grants, *roles], actor)


def unmap_group(books: Books, provider: str, group: str, roles: list[Grant], *, actor: str) -> GroupRow:
    """Takes roles from a group, or all of them if none is named. What it does not have is no error."""
    with books.database.session() as session:
        row = _locked(session, provider, group)
        return _change(session, row, [grant for grant in row.grants if roles and grant not in roles], actor)


def set_group(books: Books, provider: str, group: str, roles: list[Grant], *, actor: str, check: Check = accept_any) -> GroupRow:
    """Gives a group these roles and no others; none takes them all. Raises `UsageError` as `map_group` does."""
    if roles:
        _require_group(books, provider, group)
    with books.database.session() as session:
        row = _locked(session, provider, group)
        check(session, row)
        return _change(session, row, roles, actor)


def _require_group(books: Books, provider: str, group: str) -> None:
    names = [entry.name for entry in books.settings.access.providers]
    if provider not in names:
        remedy = f"one of: {', '.join(names)}" if names else "set it up in rootcost.toml first: [[access.providers]]"
        raise UsageError(f"{provider!r} is no provider", where="provider", remedy=remedy)
    if not group.strip() or len(group) > MAX_GROUP_CHARACTERS or not group.isprintable():
        limit = f"a group needs a name of at most {MAX_GROUP_CHARACTERS} printable characters"
        raise UsageError(limit, where="group", remedy="as the provider sends it, for Entra the object id")


def _locked(session: Session, provider: str, group: str) -> GroupRow:
    """The group as it is until the transaction ends. It has no row of its own: the log is locked, first, wherever groups are changed."""
    lock_log(session)
    return _row(session, provider, group)


def _change(session: Session, row: GroupRow, roles: Sequence[Grant], actor: str) -> GroupRow:
    holder = f"{row.provider}/{row.group}"
    lost_roles = grants.remove(session, "group", holder, [grant for grant in row.grants if grant not in roles])
    _record(session, actor, "role.unmap", holder, lost_roles)
    _record(session, actor, "role.map", holder, grants.add(session, "group", holder, roles, actor=actor, at=now()))
    return _row(session, row.provider, row.group)


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
