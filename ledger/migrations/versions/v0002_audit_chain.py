"""The audit log becomes a chain: a sequence, the hash of the entry before, its own; personal fields beside it. Rows that are there are chained."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from ledger.audit import CHAINED, GENESIS, entry_hash

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables, and chains the rows of the old one in their order."""
    connection = op.get_bind()
    rows = [dict(row) for row in connection.execute(sa.select(_old_table()).order_by(sa.text("id"))).mappings()]
    op.drop_table("audit")
    audit = op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", _TIME, nullable=False, index=True),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("actor_kind", sa.String(32), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("personal", sa.JSON),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "audit_personal",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("field", sa.String(64), primary_key=True),
        sa.Column("salt", sa.String(32), nullable=False),
        sa.Column("value", sa.String(512), nullable=False, index=True),
    )
    sequence, digest = 0, GENESIS
    for row in [*rows, *([_marker(len(rows))] if rows else [])]:
        sequence += 1
        entry = _entry(row, sequence, digest)
        digest = entry_hash(entry)
        connection.execute(audit.insert().values(**entry, hash=digest))
    connection.execute(head.insert().values(id=1, sequence=sequence, hash=digest))


def _old_table() -> sa.TableClause:
    texts = (sa.column(name, sa.String) for name in ("actor", "action", "subject"))
    contents = (sa.column(name, sa.JSON) for name in ("before", "after"))
    return sa.table("audit", sa.column("id", sa.Integer), sa.column("at", _TIME), *texts, *contents)


def _marker(count: int) -> dict[str, object]:
    """The entry that says what was chained: nobody can vouch for what happened to those rows before."""
    return {
        "at": datetime.now(UTC),
        "actor": "upgrade",
        "actor_kind": "system",
        "action": CHAINED,
        "subject": "audit",
        "before": None,
        "after": {"entries": count, "note": "rows of an older version, chained at the upgrade"},
    }


def _entry(row: dict, sequence: int, previous_hash: str) -> dict:
    at = row["at"]
    return {
        "sequence": sequence,
        "at": at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC),
        "actor": row["actor"],
        "actor_kind": row.get("actor_kind", ""),
        "action": row["action"],
        "subject": row["subject"],
        "before": row["before"],
        "after": row["after"],
        "personal": None,
        "previous_hash": previous_hash,
    }


def downgrade() -> None:
    """Back to rows without a chain."""
    connection = op.get_bind()
    columns = [sa.column(name) for name in ("at", "actor", "action", "subject", "before", "after")]
    rows = [dict(row) for row in connection.execute(sa.select(*columns).select_from(sa.table("audit", sa.column("sequence"))).order_by("sequence")).mappings()]
    for name in ("audit_personal", "audit_head", "audit"):
        op.drop_table(name)
    audit = op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
    )
    for row in rows:
        connection.execute(audit.insert().values(**row))
