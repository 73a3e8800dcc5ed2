"""Grants of roles to users, keys and groups, as the database holds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access.principals import Grant
from ledger.access_tables import RoleGrant
from ledger.audit import Audit, terms_digest

_GIVING: Final = frozenset({"user.add", "user.grant", "role.map"})
_TAKING: Final = frozenset({"user.revoke", "role.unmap"})
_DISABLING: Final[Mapping[str, bool]] = {"user.disable": True, "user.enable": False}

HolderKind = Literal["user", "key", "group"]


def add(session: Session, kind: HolderKind, holder: str, roles: Iterable[Grant], *, actor: str, at: datetime) -> list[Grant]:
    """Adds what the holder does not have yet; returns that."""
    held_roles = set(by_holder(session, kind, holder).get(holder, ()))
    new_roles = [grant for grant in dict.fromkeys(roles) if grant not in held_roles]
    for grant in new_roles:
        session.add(RoleGrant(holder_kind=kind, holder=holder, role=grant.role, team=grant.team, granted_at=at, granted_by=actor))
    return new_roles


def remove(session: Session, kind: HolderKind, holder: str, roles: Iterable[Grant]) -> list[Grant]:
    """Removes what the holder has of these; returns that."""
    removed_roles = []
    for grant in dict.fromkeys(roles):
        row = session.scalars(
            sa.select(RoleGrant).where(
                RoleGrant.holder_kind == kind,
                RoleGrant.holder == holder,
                RoleGrant.role == grant.role,
                RoleGrant.team == grant.team,
            )
        ).first()
        if row is not None:
            session.delete(row)
            removed_roles.append(grant)
    return removed_roles


def by_holder(session: Session, kind: HolderKind, holder: str | None = None) -> Mapping[str, tuple[Grant, ...]]:
    """Grants of each holder of a kind, or of one, in order of role and team."""
    rows = sa.select(RoleGrant).where(RoleGrant.holder_kind == kind).order_by(RoleGrant.role, RoleGrant.team)
    if holder is not None:
        rows = rows.where(RoleGrant.holder == holder)
    grants: dict[str, list[Grant]] = defaultdict(list)
    for row in session.scalars(rows):
        grants[row.holder].append(Grant(row.role, row.team))
    return {name: tuple(roles) for name, roles in grants.items()}


def terms_of(roles: Iterable[Grant | str], *, is_disabled: bool = False) -> dict[str, Any]:
    """What a change of a holder may change, in the form whose digest is its revision.

    >>> terms_of([Grant("viewer", "Care"), Grant("finance")])
    {'grants': ['finance', 'viewer:Care'], 'disabled': False}
    """
    return {"grants": sorted(map(str, roles)), "disabled": is_disabled}


def earlier_terms(session: Session, subject: str, revisions: Collection[str]) -> dict[str, Any] | None:
    """The newest terms that a holder ever had whose digest is one of these; None if there are none. They follow from the audit log."""
    roles: set[str] = set()
    is_disabled, matching_terms = False, None
    if terms_digest(terms_of(roles)) in revisions:
        matching_terms = terms_of(roles)
    entries = sa.select(Audit.action, Audit.after).where(Audit.subject == subject).order_by(Audit.sequence)
    for action, after in session.execute(entries):
        if action in _GIVING:
            roles |= set((after or {}).get("grants", ()))
        elif action in _TAKING:
            roles -= set((after or {}).get("grants", ()))
        elif action in _DISABLING:
            is_disabled = _DISABLING[action]
        else:
            continue
        terms = terms_of(roles, is_disabled=is_disabled)
        matching_terms = terms if terms_digest(terms) in revisions else matching_terms
    return matching_terms
