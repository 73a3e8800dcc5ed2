"""Whether the audit log is the chain that was written: every entry that was edited, removed, moved or cut off is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ledger.audit import ERASED, GENESIS, REDACTED, Audit, AuditHead, AuditPersonal, Head, entry_hash, personal_hash
from ledger.db import Database

_BATCH: Final = 1_000
_JSON_COLUMNS: Final = ("before", "after", "personal")
_MISSING: Final = "is missing"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with an entry, or with each of a range of entries."""

    first: int
    last: int
    reason: str

    @property
    def place(self) -> str:
        """The entries, in words."""
        return f"entry {self.first}" if self.first == self.last else f"entries {self.first} to {self.last}"


@dataclass(slots=True)
class AuditReport:
    """How many entries there are, how many of them are proven to be as they were written, and what is wrong."""

    entries: int = 0
    verified: int = 0
    head: Head = field(default_factory=lambda: Head(0, GENESIS))
    damages: list[Damage] = field(default_factory=list)

    @property
    def first_bad(self) -> int | None:
        """The first entry that is not as it was written."""
        return min((damage.first for damage in self.damages), default=None)


@dataclass(slots=True)
class _Chain:
    """The walk along the entries: what is known of those before."""

    last_sequence: int = 0
    last_hash: str = GENESIS
    is_last_whole: bool = True
    hashes: dict[int, str] = field(default_factory=dict)
    personal: dict[tuple[int, str], str] = field(default_factory=dict)
    erased: set[tuple[int, str]] = field(default_factory=set)
    changed: dict[int, str] = field(default_factory=dict)
    """Entries whose content is not what was written, with both hashes: a later entry may say that a person was erased from them."""
    followed: dict[int, Damage] = field(default_factory=dict)
    """Of entries in `changed`, those that do not follow the one before; it is damage if nothing else is wrong with them."""


def verify_audit(database: Database, heads: Sequence[Head] = ()) -> AuditReport:
    """Reads the whole log once. `heads` were kept elsewhere: without one, a tail that was cut off or written anew with its head is not seen."""
    report, chain = AuditReport(), _Chain()
    wanted_sequences = {head.sequence for head in heads}
    with database.session() as session:
        for row in _rows(session):
            report.entries += 1
            report.damages += _entry_damages(row, chain)
            if row["sequence"] in wanted_sequences:
                chain.hashes[row["sequence"]] = str(row["hash"])
        report.head = Head(chain.last_sequence, chain.last_hash)
        report.damages += _tail_damages(session.scalars(sa.select(AuditHead)).all(), heads, chain)
        report.damages += _personal_damages(session, chain)
    report.damages += [Damage(sequence, sequence, "is not as it was written: its hash differs") for sequence in chain.changed]
    report.damages += [damage for sequence, damage in chain.followed.items() if sequence not in chain.changed]
    report.damages = sorted(set(report.damages), key=lambda damage: (damage.first, damage.last, damage.reason))
    missing = _sequences(report, is_missing=True)
    report.verified = report.entries - len({n for n in _sequences(report) if n <= chain.last_sequence} - missing)
    return report


def read_head(session: Session) -> Head:
    """The newest entry as the database has it."""
    row = session.scalars(sa.select(AuditHead)).first()
    return Head(0, GENESIS) if row is None else Head(row.sequence, row.hash)


def _sequences(report: AuditReport, *, is_missing: bool = False) -> set[int]:
    damages = [damage for damage in report.damages if (damage.reason == _MISSING) == is_missing]
    return {sequence for damage in damages for sequence in range(damage.first, damage.last + 1)}


def _rows(session: Session) -> Iterator[Mapping[str, Any]]:
    """The entries as text, so that one that cannot be parsed is named, and does not end the walk."""
    texts = [sa.cast(sa.column(name), sa.Text).label(name) for name in ("at", *_JSON_COLUMNS)]
    plain: list[sa.ColumnElement[Any]] = [
        sa.column(name) for name in ("sequence", "actor", "actor_kind", "action", "subject", "previous_hash", "hash")
    ]
    query = sa.select(*plain, *texts).select_from(Audit.__table__).order_by(sa.column("sequence"))
    for row in session.execute(query, execution_options={"yield_per": _BATCH}):
        yield row._asdict()


def _entry_damages(row: Mapping[str, Any], chain: _Chain) -> Iterator[Damage]:
    sequence = row["sequence"]
    is_next = sequence == chain.last_sequence + 1
    if sequence > chain.last_sequence + 1:
        yield Damage(chain.last_sequence + 1, sequence - 1, _MISSING)
    reason = _own_damage(row, chain)
    is_changed = sequence in chain.changed
    if reason is not None:
        yield Damage(sequence, sequence, reason)
    elif is_next and row["previous_hash"] != chain.last_hash and chain.is_last_whole:
        # This entry is as it was written, and names another one as the one before.
        reason_of_last = "is not the entry that the next one follows: it was written anew"
        damage = Damage(chain.last_sequence, chain.last_sequence, reason_of_last)
        if is_changed:
            chain.followed[sequence] = damage
        else:
            yield damage
    chain.last_sequence, chain.last_hash = sequence, str(row["hash"])
    chain.is_last_whole = reason is None and not is_changed


def _own_damage(row: Mapping[str, Any], chain: _Chain) -> str | None:
    if row["sequence"] < 1:
        return "has no place in the chain: it was added"
    try:
        content: dict[str, Any] = dict(row)
        content["at"] = _instant(row["at"])
        for name in _JSON_COLUMNS:
            content[name] = None if row[name] is None else json.loads(row[name])
        del content["hash"]
        digest = entry_hash(content)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "cannot be read: it was changed"
    for name, value_hash in (content["personal"] or {}).items():
        chain.personal[row["sequence"], name] = value_hash
    if digest != row["hash"]:
        chain.changed[row["sequence"]] = f"{row['hash']}:{digest}"
        return None
    if content["action"] == REDACTED:
        for sequence, hashes in ((content["after"] or {}).get("entries") or {}).items():
            if chain.changed.get(int(sequence)) == hashes:
                del chain.changed[int(sequence)]
    if content["action"] == ERASED:
        fields = (content["after"] or {}).get("fields", {})
        chain.erased.update((int(sequence), name) for sequence, names in fields.items() for name in names)
    return None


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _tail_damages(stored_heads: Sequence[AuditHead], heads: Sequence[Head], chain: _Chain) -> Iterator[Damage]:
    last_sequence, last_hash = chain.last_sequence, chain.last_hash
    if len(stored_heads) != 1:
        yield Damage(last_sequence + 1, last_sequence + 1, "cannot be told: the head of the chain is not in the database")
    for head in stored_heads[:1]:
        if head.sequence > last_sequence:
            yield Damage(last_sequence + 1, head.sequence, _MISSING)
        elif head.sequence < last_sequence:
            yield Damage(head.sequence + 1, last_sequence, "has no place in the chain: it was added after the head")
        elif head.hash != last_hash:
            yield Damage(last_sequence, last_sequence, "is not the head of the chain: it, or the head, was written anew")
    for outside_head in heads:
        if outside_head.sequence > last_sequence:
            yield Damage(last_sequence + 1, outside_head.sequence, _MISSING)
        elif outside_head.sequence in chain.hashes and chain.hashes[outside_head.sequence] != outside_head.hash:
            yield Damage(
                outside_head.sequence, outside_head.sequence, "differs from the head that was kept elsewhere: it was written anew"
            )


def _personal_damages(session: Session, chain: _Chain) -> Iterator[Damage]:
    """Clear values that are not those of the entries, and values that were erased without an entry that says so."""
    remaining = dict(chain.personal)
    for row in session.scalars(sa.select(AuditPersonal), execution_options={"yield_per": _BATCH}):
        value_hash = remaining.pop((row.sequence, row.field), None)
        if not _is_hash_of(row, value_hash):
            yield Damage(row.sequence, row.sequence, f"has another {row.field} beside it than was written")
    for sequence, name in remaining:
        if (sequence, name) not in chain.erased:
            yield Damage(sequence, sequence, f"has lost its {name}, and no entry says that it was erased")


def _is_hash_of(row: AuditPersonal, value_hash: str | None) -> bool:
    try:
        return personal_hash(row.salt, row.value) == value_hash
    except (ValueError, TypeError, AttributeError):
        return False
