"""Reservations: money that calls under way hold of budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables."""
    op.create_table(
        "reservations",
        sa.Column("reservation_id", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("team", sa.String(256), nullable=False, index=True),
        sa.Column("chain_id", sa.String(128), nullable=False),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("cost", sa.String(64)),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("deadline", _TIME, nullable=False, index=True),
        sa.Column("finished_at", _TIME),
    )
    op.create_table(
        "reservation_levels",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("reservation_id", sa.String(64), sa.ForeignKey("reservations.reservation_id"), nullable=False, index=True),
        sa.Column("budget_id", sa.String(40), nullable=False),
        sa.Column("window_start", _TIME, nullable=False),
        sa.Column("window_end", _TIME, nullable=False),
        sa.Column("chain_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked_nanos", sa.BigInteger, nullable=False),
        sa.Column("nanos", sa.BigInteger, nullable=False),
        sa.Column("finished_at", _TIME),
    )
    op.create_index("ix_reservation_levels_window", "reservation_levels", ["budget_id", "window_start", "chain_id", "state"])
