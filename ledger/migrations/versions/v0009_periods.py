"""Periods: months that were closed, and the documents that were booked of them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables."""
    op.create_table(
        "periods",
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("closed_by", sa.String(128), nullable=False),
        sa.Column("closed_at", _TIME),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked_by", sa.String(128), nullable=False),
        sa.Column("asked_at", _TIME),
        sa.Column("asked_reason", sa.Text, nullable=False),
    )
    op.create_table(
        "period_documents",
        sa.Column("number", sa.String(32), primary_key=True),
        sa.Column("month", sa.String(7), nullable=False, index=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("adjusts", sa.String(32)),
        sa.Column("made_by", sa.String(128), nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.UniqueConstraint("month", "sequence"),
    )
    op.create_table(
        "period_lines",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", sa.String(32), sa.ForeignKey("period_documents.number"), nullable=False, index=True),
        sa.Column("cause", sa.String(256), nullable=False),
        sa.Column("currency", sa.String(16), nullable=False),
        sa.Column("provider", sa.String(256)),
        sa.Column("invoice_id", sa.String(512)),
        sa.Column("team", sa.String(256)),
        sa.Column("cost_class", sa.String(16), nullable=False),
        sa.Column("basis", sa.String(16), nullable=False),
        sa.Column("billed_cost", sa.String(64)),
        sa.Column("effective_cost", sa.String(64)),
    )
