"""Tables of people, API keys, sessions and grants in the application database. Secrets are stored as hashes only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ledger.base import ALL_COLUMNS, Base, UtcDateTime


class User(Base):
    """A person. `password_hash` is argon2id; people of an OIDC provider have none and are known by issuer and subject."""

    __tablename__ = "users"
    audited: ClassVar = frozenset({"name", "email", "password_hash", "issuer", "subject", "disabled_at"})
    __table_args__ = (sa.UniqueConstraint("issuer", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(256), unique=True)
    email: Mapped[str | None] = mapped_column(sa.String(320))
    password_hash: Mapped[str | None] = mapped_column(sa.String(256))
    issuer: Mapped[str | None] = mapped_column(sa.String(512))
    subject: Mapped[str | None] = mapped_column(sa.String(256))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RoleGrant(Base):
    """A role over one team (or "": the whole) for a holder: a user (its id), a key (its id) or a group of a provider (provider/group)."""

    __tablename__ = "role_grants"
    audited: ClassVar = ALL_COLUMNS
    __table_args__ = (sa.UniqueConstraint("holder_kind", "holder", "role", "team"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    holder_kind: Mapped[str] = mapped_column(sa.String(16))
    holder: Mapped[str] = mapped_column(sa.String(512), index=True)
    role: Mapped[str] = mapped_column(sa.String(32))
    team: Mapped[str] = mapped_column(sa.String(256), default="")
    granted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    granted_by: Mapped[str] = mapped_column(sa.String(128))


class ApiKey(Base):
    """An API key ``rc_<key_id>_<secret>``; `secret_hash` is the SHA-256 of 256 random bits."""

    __tablename__ = "api_keys"
    audited: ClassVar = frozenset({"key_id", "name", "secret_hash", "created_by", "expires_at", "revoked_at"})

    key_id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(256))
    secret_hash: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(sa.String(128))
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UserSession(Base):
    """A log-in. The cookie holds 256 random bits, of which the SHA-256 is stored; `provider` and `groups` are those of an OIDC log-in."""

    __tablename__ = "user_sessions"
    audited: ClassVar = frozenset[str]()

    session_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    provider: Mapped[str] = mapped_column(sa.String(64), default="")
    groups: Mapped[list[str]] = mapped_column(sa.JSON, default=list)


class LoginLink(Base):
    """A one-time link: the first administrator, an invitation, or a new password. The SHA-256 of its token is stored."""

    __tablename__ = "login_links"
    audited: ClassVar = frozenset[str]()

    token_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(sa.String(16))
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PendingLogin(Base):
    """A log-in on its way to an OIDC provider and back: the hash of its state, and what the return is checked against."""

    __tablename__ = "pending_logins"
    audited: ClassVar = frozenset[str]()

    state_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    provider: Mapped[str] = mapped_column(sa.String(64))
    nonce: Mapped[str] = mapped_column(sa.String(64))
    verifier: Mapped[str] = mapped_column(sa.String(128))
    return_to: Mapped[str] = mapped_column(sa.String(2048))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotentRequest(Base):
    """The stored answer of a change that a client may send twice, by principal, route and `Idempotency-Key`. Kept for a day."""

    __tablename__ = "idempotent_requests"
    audited: ClassVar = frozenset[str]()
    __table_args__ = (sa.UniqueConstraint("principal", "route", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    principal: Mapped[str] = mapped_column(sa.String(128))
    route: Mapped[str] = mapped_column(sa.String(512))
    key: Mapped[str] = mapped_column(sa.String(256))
    fingerprint: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[int | None] = mapped_column(sa.Integer)
    headers: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    body: Mapped[str | None] = mapped_column(sa.Text)
