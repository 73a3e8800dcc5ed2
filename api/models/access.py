"""Models of who asks, and of people, keys, sessions and roles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.models.base import RequestModel, ResponseModel


class GrantRow(ResponseModel):
    """A role over the whole ledger, or over one team."""

    role: str = Field(description="viewer, finance, platform, admin, auditor or ingest.")
    team: str | None = Field(description="The team; null: the whole ledger.")


class Me(ResponseModel):
    """Who asks, and what it may see."""

    principal: str = Field(description="Id, as in the audit log: user:…, key:…, machine.")
    kind: Literal["user", "key", "operator", "machine"] = Field(
        description="A person, an API key, or whoever is on this machine while no people are set up."
    )
    name: str = Field(description="Name for people.")
    role: str = Field(description="Its roles, joined by commas.")
    scope: Literal["whole"] | list[str] = Field(description="whole, or the teams whose costs it sees.")
    grants: list[GrantRow] = Field(description="Every role with what it is over.")
    permissions: dict[str, Literal["whole"] | list[str]] = Field(
        description="Each permission it has, and whether over the whole or over which teams."
    )


GrantText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300, pattern=r"^[a-z]+(:[^\x00-\x1f\x7f]{1,256})?$"),
]
"""A role over the whole (`finance`), or over one team (`viewer:Care`)."""
Grants = Annotated[list[GrantText], Field(max_length=200)]
PrintableName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class RoleRow(ResponseModel):
    """A role: what it may see and change, over the whole or over a team."""

    role: str = Field(description="Its name.")
    description: str = Field(description="What it is for.")
    permissions: list[str] = Field(description="Its permissions, by name.")


class GroupRoles(ResponseModel):
    """A group of a provider of log-in, and its roles."""

    provider: str = Field(description="Name of the provider, from `access.providers`.")
    group: str = Field(description="The group, as the provider sends it.")
    grants: list[str] = Field(description="Its roles: ROLE, or ROLE:TEAM.")
    revision: str = Field(
        description="Digest of its roles. A change sends it as `If-Match`; of a group without any it is that of none."
    )


class GroupRolesChange(RequestModel):
    """All roles of a group from now on."""

    provider: PrintableName = Field(description="Name of the provider, from `access.providers`.")
    group: Annotated[str, StringConstraints(min_length=1, max_length=400)] = Field(
        description="The group, as the provider sends it."
    )
    grants: Grants = Field(description="Its roles: ROLE, or ROLE:TEAM. Empty: none.")


class UserStatus(ResponseModel):
    """A person who may log in."""

    user_id: int = Field(description="Its id; the audit log has user:ID.")
    name: str = Field(description="Name to log in with.")
    email: str | None = Field(default=None, description="Address of the person.")
    issuer: str | None = Field(default=None, description="The provider that it logs in at; null: here, with a password.")
    grants: list[str] = Field(description="Roles of its own: ROLE, or ROLE:TEAM. Those of its groups come with each log-in.")
    state: str = Field(description="active, disabled, or invited: without a password yet.")
    created_at: datetime = Field(description="When it was added.")
    last_login_at: datetime | None = Field(default=None, description="Last log-in.")
    revision: str = Field(description="Digest of its roles and of whether it is disabled. A change sends it as `If-Match`.")


class NewUser(RequestModel):
    """A person to be added."""

    name: PrintableName = Field(description="Name to log in with; an address will do.")
    grants: Grants = Field(min_length=1, description="Roles: ROLE, or ROLE:TEAM.")
    email: Annotated[str, StringConstraints(max_length=320, pattern=r"^[^\x00-\x1f\x7f]*$")] = Field(
        default="", description="Address of the person."
    )


class UserChange(RequestModel):
    """What changes of a person; what is not named stays."""

    grants: Grants | None = Field(default=None, description="All roles of its own from now on.")
    disabled: bool | None = Field(default=None, description="Whether it is kept out; its sessions end.")


class UserLink(ResponseModel):
    """A one-time link by which a person chooses a password. It is shown in this answer only."""

    user: UserStatus = Field(description="The person.")
    link: str = Field(description="Address to hand over; it holds once, for 15 minutes.")
    purpose: str = Field(description="invitation, or reset.")


class KeyStatus(ResponseModel):
    """An API key, without its secret."""

    key_id: str = Field(description="Its id; the audit log has key:ID.")
    name: str = Field(description="What it is for.")
    grants: list[str] = Field(description="Its roles: ROLE, or ROLE:TEAM.")
    state: str = Field(description="active, expired or revoked.")
    created_at: datetime = Field(description="When it was made.")
    created_by: str = Field(description="Who made it.")
    expires_at: datetime | None = Field(default=None, description="When it ends; null: when it is revoked.")
    last_used_at: datetime | None = Field(default=None, description="Last use, to the minute.")


class NewKey(RequestModel):
    """A key to be made."""

    name: PrintableName = Field(description="What it is for, as lists and the audit log show it.")
    grants: Grants = Field(min_length=1, description="Its roles: ROLE, or ROLE:TEAM. `ingest` only sends.")
    days: Annotated[int, Field(ge=1, le=3650)] | None = Field(
        default=None, description="Days until it expires; null: it does not."
    )


class KeyCreated(ResponseModel):
    """A new key. It is shown in this answer only: its hash is stored."""

    key: str = Field(description="The key: send it as `Authorization: Bearer KEY`.")
    status: KeyStatus = Field(description="Its row.")


class SessionStates(ResponseModel):
    """Which of the sessions that were asked for are in force."""

    people: bool = Field(description="Whether people are set up, so that nobody reads without being known.")
    in_force: dict[str, str] = Field(description="Hash of each session in force, and whose it is: user:ID.")


class SessionStatus(ResponseModel):
    """A log-in that is in force."""

    session_id: str = Field(description="Its id.")
    user_id: int = Field(description="The person.")
    name: str = Field(description="Name of the person.")
    provider: str | None = Field(description="Where it logged in; null: here, with a password.")
    current: bool = Field(description="Whether this very request is of it.")
    created_at: datetime = Field(description="Log-in.")
    last_seen_at: datetime = Field(description="Last request, to the minute.")
    expires_at: datetime = Field(description="When it ends at the latest.")
