"""Models of who asks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.models.base import ResponseModel


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
