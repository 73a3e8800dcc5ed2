"""API keys: ``rc_<key id>_<secret>``. The secret is shown once; its SHA-256 is stored, since 256 random bits need no slow hash."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

import sqlalchemy as sa

from ledger.access import grants
from ledger.access.principals import Grant, Principal
from ledger.access_tables import ApiKey
from ledger.audit import record
from ledger.books import Books
from ledger.errors import ObjectMissingError, UsageError
from ledger.periods import now

_KEY: Final = re.compile(r"rc_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_USE_NOTED_EVERY: Final = timedelta(minutes=1)
"""How often the time of last use is written, at most."""

FIRST_KEY: Final = Principal("key:first", "key", "first key", (Grant("admin"),))
"""The key of the first start: the token in HOME/token."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as lists show it; `state` is active, expired or revoked."""

    key_id: str
    name: str
    grants: tuple[Grant, ...]
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


def create_key(
    books: Books, name: str, roles: list[Grant], *, actor: str, expires_at: datetime | None = None
) -> tuple[KeyRow, str]:
    """Makes a key; returns its row and the key itself, which is stored nowhere."""
    if not name.strip() or len(name) > 256:
        raise UsageError("a key needs a name of at most 256 characters", where="name", remedy="say who uses it, as ci-exporter")
    if not roles:
        raise UsageError("a key needs a role", where="role", remedy="for senders of telemetry: --role ingest")
    at = now()
    if expires_at is not None and expires_at <= at:
        raise UsageError("the key would have expired already", where="expires", remedy="give a time to come, or none")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey(
        key_id=key_id, name=name.strip(), secret_hash=_hash(secret), created_at=at, created_by=actor, expires_at=expires_at
    )
    with books.database.session() as session:
        session.add(key)
        grants.add(session, "key", key_id, roles, actor=actor, at=at)
        after = {
            "name": key.name,
            "grants": [str(g) for g in roles],
            "expires_at": expires_at.isoformat() if expires_at else None,
        }
        record(session, actor, "key.create", key_id, after=after)
    return _row(key, tuple(roles), at), f"rc_{key_id}_{secret}"


def list_keys(books: Books) -> list[KeyRow]:
    """All keys, newest first, revoked ones too."""
    at = now()
    with books.database.session() as session:
        by_key = grants.by_holder(session, "key")
        keys = session.scalars(sa.select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.key_id)).all()
        return [_row(key, by_key.get(key.key_id, ()), at) for key in keys]


def revoke_key(books: Books, key_id: str, *, actor: str) -> KeyRow:
    """Ends a key at once; its row stays. Raises `ObjectMissingError` for an unknown id."""
    key_id = match[1] if (match := _KEY.fullmatch(key_id)) else key_id  # somebody may paste the whole key
    at = now()
    with books.database.session() as session:
        key = session.get(ApiKey, key_id)
        if key is None:
            raise ObjectMissingError("no key has that id", where=key_id, remedy="`rootcost keys list` shows the ids")
        if key.revoked_at is None:
            key.revoked_at = at
            record(session, actor, "key.revoke", key_id, before={"name": key.name})
        return _row(key, grants.by_holder(session, "key").get(key_id, ()), at)


def principal_of_key(books: Books, text: str) -> Principal | None:
    """Whose key it is; None for a wrong, expired or revoked one. Notes the use, at most once a minute."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    at = now()
    with books.database.session() as session:
        key = session.get(ApiKey, match[1])
        # Compared also where there is no such key, so that timing does not tell which ids there are.
        is_right = hmac.compare_digest(_hash(match[2]), key.secret_hash if key else _hash(""))
        if key is None or not is_right or _state(key, at) != "active":
            return None
        if key.last_used_at is None or at - key.last_used_at >= _USE_NOTED_EVERY:
            key.last_used_at = at
        return Principal(f"key:{key.key_id}", "key", key.name, grants.by_holder(session, "key").get(key.key_id, ()))


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _state(key: ApiKey, at: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= at else "active"


def _row(key: ApiKey, roles: tuple[Grant, ...], at: datetime) -> KeyRow:
    return KeyRow(
        key_id=key.key_id,
        name=key.name,
        grants=roles,
        state=_state(key, at),
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
    )
