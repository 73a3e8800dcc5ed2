"""The audit log: every change and every denial is an entry, and the entries are a chain.

An entry has a sequence without gaps, the hash of the entry before it, and its own: SHA-256 over its canonical JSON (RFC 8785). An entry that
was edited, removed, moved or added later is named by `ledger.audit_verify`. A tail that was cut off or written anew shows only against a head that
was kept elsewhere (`ledger.audit_heads`).

Personal fields, such as the name or the network address of a person, are in an entry as salted hashes; salt and clear value are in a table
beside it. Erasing those leaves the chain as it is.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

import rfc8785
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from ledger.addresses import masked
from ledger.base import Base, UtcDateTime

GENESIS: Final = "0" * 64
"""What the first entry has as the hash of the entry before it."""
CHAINED: Final = "audit.chain"
"""Action of the entry that ends the rows of an older version: they were made a chain when the ledger was upgraded."""
ERASED: Final = "audit.erase"
"""Action of the entry that says in which entries a personal value was erased."""
REDACTED: Final = "audit.redact"
"""Action of the entry that says from the texts of which entries a person was erased: their hashes, and those of what is left of them."""

_PENDING: Final = "audit entries"
_MAX_INTEGER: Final = 2**53 - 1
_KINDS: Final = {
    "cli": "command",
    "api": "token",
    "attribution": "system",
    "repair": "system",
    "retention": "system",
    "schedule": "system",
    "upgrade": "system",
}
_PRINCIPAL: Final = "principal"
_REDACTABLE: Final = ("actor", "subject", "before", "after")

log = logging.getLogger("rootcost.audit")


class Audit(Base):
    """The audit log. Rows are only added, by `record`."""

    __tablename__ = "audit"
    audited: ClassVar = frozenset[str]()

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor: Mapped[str] = mapped_column(sa.String(128))
    actor_kind: Mapped[str] = mapped_column(sa.String(32))
    action: Mapped[str] = mapped_column(sa.String(64))
    subject: Mapped[str] = mapped_column(sa.String(512))
    before: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    after: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    personal: Mapped[dict[str, str] | None] = mapped_column(sa.JSON)
    previous_hash: Mapped[str] = mapped_column(sa.String(64))
    hash: Mapped[str] = mapped_column(sa.String(64))


class AuditHead(Base):
    """The newest entry: one row, which a writer locks while it adds entries."""

    __tablename__ = "audit_head"
    audited: ClassVar = frozenset[str]()

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sequence: Mapped[int]
    hash: Mapped[str] = mapped_column(sa.String(64))


class AuditPersonal(Base):
    """Personal fields of entries in clear, each with the salt of its hash. Rows can be erased."""

    __tablename__ = "audit_personal"
    audited: ClassVar = frozenset[str]()

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    field: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    salt: Mapped[str] = mapped_column(sa.String(32))
    value: Mapped[str] = mapped_column(sa.String(512), index=True)


@dataclass(frozen=True, slots=True)
class Head:
    """Sequence and hash of an entry: what has to be kept elsewhere to find a tail that was cut off."""

    sequence: int
    hash: str


@dataclass(frozen=True, slots=True)
class _Event:
    """What `record` was told, until it is appended."""

    at: datetime
    actor: str
    actor_kind: str
    action: str
    subject: str
    before: Any
    after: Any
    personal: Mapping[str, str] = field(default_factory=dict)


def record(
    session: Session,
    actor: str,
    action: str,
    subject: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    personal: Mapping[str, str] | None = None,
    actor_kind: str | None = None,
) -> None:
    """Adds an entry in the transaction of the change (`ledger.db.Database.session`); it is appended when that is committed.

    `actor` is the id of a principal, or what acted in its place; `subject` is the object of the action. `personal` holds what can be erased
    later: names and addresses of people, which must not be in the other fields.
    """
    event = _Event(
        at=datetime.now(UTC),
        actor=_plain(actor)[:128],
        actor_kind=actor_kind or _KINDS.get(actor) or (actor.partition(":")[0] if ":" in actor else _PRINCIPAL),
        action=action,
        subject=masked(_plain(subject))[:512],
        before=_plain(before),
        after=_plain(after),
        personal={name: _plain(value)[:512] for name, value in (personal or {}).items() if value},
    )
    session.info[_PENDING].append(event)


def begin(session: Session) -> None:
    """Lets a session take entries."""
    session.info[_PENDING] = []


def has_entries(session: Session) -> bool:
    """Whether the transaction has entries that are not appended yet."""
    return bool(session.info[_PENDING])


def append_entries(session: Session) -> Head | None:
    """Appends the entries of a transaction to the chain; returns the new head. Until the transaction ends nobody else appends.

    The row of the head is locked by writing it: on SQLite that locks the database as BEGIN IMMEDIATE does, on PostgreSQL the row. It is the
    last lock that a transaction takes, so that none waits for another in a circle.
    """
    events: list[_Event] = session.info[_PENDING]
    if not events:
        return None
    session.flush()
    sequence, previous_hash = lock_log(session)
    for event in events:
        sequence += 1
        previous_hash = _append(session, event, sequence, previous_hash)
    new_head = sa.update(AuditHead).values(sequence=sequence, hash=previous_hash)
    session.execute(new_head, execution_options={"synchronize_session": False})
    session.flush()
    events.clear()
    return Head(sequence, previous_hash)


def lock_log(session: Session) -> tuple[int, str]:
    """Locks the log until the transaction ends; returns its head. What has no row of its own to be locked is changed under this lock."""
    lock = sa.update(AuditHead).values(sequence=AuditHead.sequence).returning(AuditHead.sequence, AuditHead.hash)
    sequence, head_hash = session.execute(lock, execution_options={"synchronize_session": False}).one()
    return sequence, head_hash


def _append(session: Session, event: _Event, sequence: int, previous_hash: str) -> str:
    hashes: dict[str, str] = {}
    for name, value in sorted(event.personal.items()):
        salt = secrets.token_hex(16)
        hashes[name] = personal_hash(salt, value)
        session.add(AuditPersonal(sequence=sequence, field=name, salt=salt, value=value))
    content = {
        "sequence": sequence,
        "at": event.at,
        "actor": event.actor,
        "actor_kind": event.actor_kind,
        "action": event.action,
        "subject": event.subject,
        "before": event.before,
        "after": event.after,
        "personal": hashes or None,
        "previous_hash": previous_hash,
    }
    digest = entry_hash(content)
    session.add(Audit(**content, hash=digest))
    return digest


def tell(head: Head | None) -> None:
    """Writes a new head to the log: one of the places where it is kept outside of the database."""
    if head is not None:
        log.info("head of the audit log: %d %s", head.sequence, head.hash)


def entry_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of an entry: all its fields but the hash itself. The time is written in UTC with microseconds."""
    at = content["at"].astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(canonical({**content, "at": at})).hexdigest()


def canonical(value: Any) -> bytes:
    r"""Canonical JSON (RFC 8785). What JSON cannot carry exactly is written as text.

    >>> canonical({"b": [1, True, None], "a": "€", "c": 2**60})
    b'{"a":"\xe2\x82\xac","b":[1,true,null],"c":"1152921504606846976"}'
    """
    return rfc8785.dumps(_plain(value))


def terms_digest(terms: Mapping[str, Any]) -> str:
    """16 hex digits that stand for terms as entries have them: the version that a change was made from is found by it.

    >>> terms_digest({"paused": False, "cron": "@daily"}) == terms_digest({"cron": "@daily", "paused": False})
    True
    """
    return hashlib.sha256(canonical(terms)).hexdigest()[:16]


def personal_hash(salt: str, value: str) -> str:
    """The hash by which a personal field is in an entry."""
    return hashlib.sha256(bytes.fromhex(salt) + value.encode()).hexdigest()


def erase(session: Session, actor: str, value: str, *, actor_kind: str | None = None) -> int:
    """Erases a personal value wherever it is; returns in how many entries it was. The chain stays as it is, and an entry says what was done."""
    return erase_where(session, actor, AuditPersonal.value == _plain(value)[:512], actor_kind=actor_kind)


def erase_where(session: Session, actor: str, is_erased: sa.ColumnElement[bool], *, actor_kind: str | None = None) -> int:
    """Erases the personal values that a condition on `AuditPersonal` selects, as `erase` does."""
    fields: dict[str, list[str]] = {}
    for row in session.scalars(sa.select(AuditPersonal).where(is_erased).order_by(AuditPersonal.sequence)):
        fields.setdefault(str(row.sequence), []).append(row.field)
    if fields:
        session.execute(sa.delete(AuditPersonal).where(is_erased), execution_options={"synchronize_session": False})
        record(session, actor, ERASED, f"{len(fields)} entries", after={"fields": fields}, actor_kind=actor_kind)
    return len(fields)


def redact(session: Session, actor: str, erase_from: Callable[[Any], Any], *, dry_run: bool = False) -> int:
    """Erases a person from the texts of entries, as `erase_from` does it for a value of JSON; returns in how many entries that was.

    Each keeps its hash, by which the next one follows it. An entry says with which hash of its content it is as it should be from now on.
    """
    redactions: dict[str, str] = {}
    for row in session.scalars(sa.select(Audit).order_by(Audit.sequence)):
        texts = {name: getattr(row, name) for name in _REDACTABLE}
        redacted_texts = {name: erase_from(value) for name, value in texts.items()}
        if redacted_texts == texts:
            continue
        content = {column.key: getattr(row, column.key) for column in sa.inspect(Audit).columns if column.key != "hash"}
        redactions[str(row.sequence)] = f"{row.hash}:{entry_hash({**content, **redacted_texts})}"
        if not dry_run:
            session.execute(sa.update(Audit).where(Audit.sequence == row.sequence).values(**redacted_texts))
    if redactions and not dry_run:
        record(session, actor, REDACTED, f"{len(redactions)} entries", after={"entries": redactions})
    return len(redactions)


def _plain(value: Any) -> Any:
    """A value as the database and JSON carry it. Raises `TypeError` for what neither can."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\x00", "�")
    if isinstance(value, int):
        return value if abs(value) <= _MAX_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return [_plain(inner) for inner in value]
    raise TypeError(f"an audit entry cannot hold a {type(value).__name__}")
