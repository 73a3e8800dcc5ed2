"""Models of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from api.models.base import ResponseModel


class AuditEntry(ResponseModel):
    """One entry of the audit log."""

    sequence: int = Field(description="Number of the entry, without gaps.")
    at: datetime = Field(description="When it was made.")
    actor: str = Field(description="Id of the principal, or what acted in its place: cli, api, attribution, …")
    actor_kind: str = Field(description="principal, token, command, system, anonymous.")
    action: str = Field(description="What was done, e.g. budget.change, or denied: access.denied.")
    object: str = Field(description="What it was done to.")
    before: Any = Field(default=None, description="The object before.")
    after: Any = Field(default=None, description="The object after.")
    personal: dict[str, str | None] = Field(
        default_factory=dict, description="Names and addresses of people; null where they were erased."
    )
    previous_hash: str = Field(description="Hash of the entry before.")
    hash: str = Field(description="SHA-256 over the canonical JSON (RFC 8785) of the entry.")
