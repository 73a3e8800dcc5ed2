"""The first tables: owners, budgets, alerts, runs, rollups, published months, job runs, sources, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables."""
    op.create_table(
        "owners",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(512), nullable=False, index=True),
        sa.Column("agent", sa.String(512)),
        sa.Column("team", sa.String(256)),
        sa.Column("account", sa.String(256)),
        sa.Column("region", sa.String(128)),
        sa.Column("valid_from", _TIME, nullable=False),
        sa.Column("valid_to", _TIME),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.UniqueConstraint("kind", "name", "valid_from", "recorded_at"),
    )
    op.create_table(
        "budgets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(256), nullable=False, index=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("scope_name", sa.String(512), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("view", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.UniqueConstraint("name", "revision"),
    )
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("address", sa.String(1024), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("delivered_at", _TIME),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(40), primary_key=True),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("months", sa.JSON, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("cause", sa.String(256), nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "published",
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("rollup_ids", sa.JSON, nullable=False),
        sa.Column("published_at", _TIME, nullable=False),
    )
    op.create_table(
        "rollups",
        sa.Column("rollup_id", sa.String(40), primary_key=True),
        sa.Column("month", sa.String(7), nullable=False, index=True),
        sa.Column("fingerprint", sa.String(64), nullable=False, index=True),
        sa.Column("made_at", _TIME, nullable=False),
    )
    op.create_table(
        "drawings",
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("rollup_ids", sa.JSON, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job", sa.String(64), nullable=False, index=True),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_table(
        "marks",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(512), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
    )
    _sources()
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
    )


def _sources() -> None:
    op.create_table(
        "sources",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("uris", sa.JSON, nullable=False),
        sa.Column("scope", sa.String(512)),
        sa.Column("cron", sa.String(128), nullable=False),
        sa.Column("every_seconds", sa.Integer, nullable=False),
        sa.Column("lag_seconds", sa.Integer, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("newest_at", _TIME),
        sa.Column("succeeded_at", _TIME),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("due_at", _TIME),
        sa.Column("stale_since", _TIME),
    )
    op.create_table(
        "source_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False, index=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("runner", sa.String(256), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("since", sa.String(10)),
        sa.Column("until", sa.String(10)),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("rows_changed", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("warnings", sa.BigInteger, nullable=False),
        sa.Column("money_in", sa.JSON, nullable=False),
        sa.Column("newest_at", _TIME),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "leaders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("process", sa.String(256), nullable=False),
        sa.Column("address", sa.String(256), nullable=False),
        sa.Column("tables_uri", sa.String(1024), nullable=False),
        sa.Column("since", _TIME, nullable=False),
    )
    # As APScheduler's job store has it: which configured source is due when.
    op.create_table(
        "source_jobs",
        sa.Column("id", sa.Unicode(191), primary_key=True),
        sa.Column("next_run_time", sa.Float(25), index=True),
        sa.Column("job_state", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Back to nothing."""
    for name in ("source_jobs", "leaders", "source_runs", "sources"):
        op.drop_table(name)
    for name in ("audit", "marks", "job_runs", "drawings", "rollups", "published", "runs", "alerts", "budgets", "owners"):
        op.drop_table(name)
