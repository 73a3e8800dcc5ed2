"""Principals: who asks, and over which teams each permission reaches."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from ledger.access.roles import ROLES, Permission
from ledger.errors import DeniedError, UsageError

Kind = Literal["user", "key", "operator", "machine"]
"""A person, an API key, whoever has a shell at the home folder, or whoever is on this machine before there are people."""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A role over one team, or over the whole ledger (`team` is "")."""

    role: str
    team: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UsageError(f"{self.role!r} is no role", where="role", remedy=f"one of: {', '.join(ROLES)}")

    def __str__(self) -> str:
        return f"{self.role}:{self.team}" if self.team else self.role

    @classmethod
    def parse(cls, text: str) -> Grant:
        """A grant from its text.

        >>> Grant.parse("viewer:Care"), Grant.parse("finance")
        (Grant(role='viewer', team='Care'), Grant(role='finance', team=''))
        """
        role, colon, team = text.partition(":")
        if colon and not team.strip():
            raise UsageError(f"{text!r} names no team", where="role", remedy="write role:team, or the role alone for the whole")
        return cls(role.strip(), team.strip())


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a stable id for the audit log, a name for people, and grants.

    >>> clerk = Principal("user:1", "user", "ada", (Grant("viewer", "Care"), Grant("finance")))
    >>> clerk.teams(Permission.BOOKS_READ) is None, clerk.may(Permission.SOURCES_WRITE)
    (True, False)
    """

    id: str
    kind: Kind
    name: str
    grants: tuple[Grant, ...] = ()

    def teams(self, permission: Permission) -> frozenset[str] | None:
        """The teams over which a permission reaches; None: the whole ledger; empty: nowhere."""
        reaching_grants = [grant for grant in self.grants if permission in ROLES[grant.role]]
        if any(not grant.team for grant in reaching_grants):
            return None
        return frozenset(grant.team for grant in reaching_grants)

    def may(self, permission: Permission) -> bool:
        """Whether the permission reaches anywhere."""
        teams = self.teams(permission)
        return teams is None or bool(teams)

    def need(self, permission: Permission, *, whole: bool = False) -> None:
        """Raises `DeniedError` unless the permission reaches anywhere, or over the whole."""
        teams = self.teams(permission)
        if teams is None or (teams and not whole):
            return
        reach = f" over the whole, and {self.name} has it over {', '.join(sorted(teams))}" if teams else ""
        raise DeniedError(
            f"this needs {permission.value}{reach}",
            where=self.name,
            remedy=f"ask an administrator for a role that has it: {', '.join(r for r, p in ROLES.items() if permission in p)}",
        )

    @property
    def scope_key(self) -> str:
        """Digest of who it is and what it may do, as part of the keys of caches, ETags and cursors."""
        return sha256("\n".join([self.id, *sorted(map(str, self.grants))]).encode()).hexdigest()[:16]


OPERATOR: Final = Principal("cli", "operator", "command line", (Grant("admin"),))
"""Whoever can run commands on the home folder: file permissions have let him in, and he may do everything."""

MACHINE: Final = Principal("machine", "machine", "this machine", (Grant("auditor"),))
"""Whoever reads from this machine while no people are set up."""
