"""Budgets get an id that survives renames, and any combination of scopes, periods and terms; each former row becomes a revision."""

from hashlib import blake2b

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables and moves the rows of the former one."""
    connection = op.get_bind()
    former = sa.table(
        "budgets",
        *(
            sa.column(name)
            for name in ("name", "scope", "scope_name", "amount", "currency", "view", "period", "revision")
        ),
        sa.column("recorded_at", _TIME),
        sa.column("deleted", sa.Boolean),
    )
    rows = connection.execute(sa.select(former).order_by(former.c.name, former.c.revision)).mappings().all()
    op.drop_table("budgets")
    _create_tables()
    _move(rows)


def _create_tables() -> None:
    op.create_table(
        "budgets",
        sa.Column("budget_id", sa.String(40), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
    )
    in_force = sa.text("ended_at IS NULL")
    op.create_index("uq_budgets_name_in_force", "budgets", ["name"], unique=True, sqlite_where=in_force, postgresql_where=in_force)
    op.create_table(
        "budget_revisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("budget_id", sa.String(40), sa.ForeignKey("budgets.budget_id"), nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("view", sa.String(16), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("range_start", _TIME),
        sa.Column("range_end", _TIME),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("raised_amount", sa.String(64)),
        sa.Column("raised_until", _TIME),
        sa.Column("basis", sa.String(16), nullable=False),
        sa.Column("infrastructure", sa.Boolean, nullable=False),
        sa.Column("shared", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("enforcement", sa.String(16), nullable=False),
        sa.Column("on_outage", sa.String(16), nullable=False),
        sa.Column("parent_id", sa.String(40)),
        sa.Column("exceeds_parent", sa.Boolean, nullable=False),
        sa.Column("thresholds", sa.JSON, nullable=False),
        sa.Column("recipients", sa.JSON, nullable=False),
        sa.Column("valid_from", _TIME),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("recorded_by", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.UniqueConstraint("budget_id", "revision"),
    )
    op.create_table(
        "budget_requests",
        sa.Column("request_id", sa.String(40), primary_key=True),
        sa.Column("budget_id", sa.String(40), sa.ForeignKey("budgets.budget_id"), nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("terms", sa.JSON, nullable=False),
        sa.Column("asked_by", sa.String(128), nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("decided_by", sa.String(128), nullable=False),
        sa.Column("decided_at", _TIME),
    )


def _move(rows: list) -> None:
    """The first revision of a budget holds for all time before it, too, as it did; who recorded them is in the audit log."""
    budgets: dict[str, dict] = {}
    revisions = []
    for row in rows:
        budget_id = f"bud-{blake2b(row['name'].encode(), digest_size=8).hexdigest()}"
        budget = budgets.setdefault(row["name"], {"budget_id": budget_id, "name": row["name"], "created_at": row["recorded_at"]})
        is_first = "revision" not in budget
        budget |= {"revision": row["revision"], "ended_at": row["recorded_at"] if row["deleted"] else None}
        revisions.append(
            {name: row[name] for name in ("name", "view", "period", "amount", "currency", "revision", "recorded_at")}
            | {"budget_id": budget_id, "scopes": {row["scope"]: row["scope_name"]}, "ended": row["deleted"]}
            | {"valid_from": None if is_first else row["recorded_at"]}
            | {"basis": "effective", "infrastructure": True, "shared": True, "owner": "", "enforcement": "none"}
            | {"on_outage": "open", "exceeds_parent": False, "thresholds": [], "recipients": [], "recorded_by": "", "reason": "", "origin": ""}
        )
    if budgets:
        metadata = sa.MetaData()
        connection = op.get_bind()
        tables = {name: sa.Table(name, metadata, autoload_with=connection) for name in ("budgets", "budget_revisions")}
        op.bulk_insert(tables["budgets"], list(budgets.values()))
        op.bulk_insert(tables["budget_revisions"], revisions)
