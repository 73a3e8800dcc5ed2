"""Grants of roles to users, keys and groups, as the database holds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.access.principals import Grant
from ledger.access_tables import RoleGrant

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
