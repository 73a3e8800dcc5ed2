"""Facts that were removed by retention, or by the erasure of a period, and the months that are settled since."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the table."""
    op.create_table(
        "fact_removals",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME, nullable=False),
        sa.Column("sources", sa.JSON, nullable=False),
        sa.Column("tables", sa.JSON, nullable=False),
        sa.Column("months", sa.JSON, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("begun_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.Column("rows", sa.JSON, nullable=False),
    )
