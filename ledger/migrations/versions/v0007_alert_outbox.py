"""Alerts as incidents with a history, the outbox of their messages, receivers and mutes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Widens `alerts`, builds the other tables, and puts alerts that were not delivered yet into the outbox."""
    for column in (
        sa.Column("state", sa.String(16), nullable=False, server_default="open"),
        sa.Column("team", sa.String(256)),
        sa.Column("month", sa.String(7)),
        sa.Column("run_id", sa.String(40)),
        sa.Column("figure", sa.String(128), nullable=False, server_default=""),
        sa.Column("limit_text", sa.String(128), nullable=False, server_default=""),
        sa.Column("next_step", sa.Text, nullable=False, server_default=""),
        sa.Column("chain_id", sa.String(128)),
        sa.Column("channels", sa.JSON),
        sa.Column("changed_at", _TIME),
        sa.Column("snoozed_until", _TIME),
    ):
        op.add_column("alerts", column)
    op.create_table(
        "alert_events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("alert_id", sa.String(40), sa.ForeignKey("alerts.alert_id"), nullable=False, index=True),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("incident", sa.JSON, nullable=False),
        sa.Column("routed_at", _TIME, index=True),
        sa.UniqueConstraint("alert_id", "step", "number"),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("delivery_id", sa.String(40), primary_key=True),
        sa.Column("alert_id", sa.String(40), sa.ForeignKey("alerts.alert_id"), nullable=False, index=True),
        sa.Column("event_id", sa.Integer, sa.ForeignKey("alert_events.id"), nullable=False),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("message", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("lease", sa.String(40)),
        sa.Column("leased_until", _TIME),
        sa.Column("batch_id", sa.String(40), index=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("sent_at", _TIME),
        sa.UniqueConstraint("alert_id", "channel", "step", "number"),
    )
    op.create_index("ix_alert_deliveries_due", "alert_deliveries", ["state", "due_at"])
    op.create_table(
        "alert_channels",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.Column("succeeded_at", _TIME),
        sa.Column("failed_at", _TIME),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "alert_mutes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("team", sa.String(256), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
    )
    op.execute(
        sa.text(
            "INSERT INTO alert_events (alert_id, step, number, at, actor, text, incident) "
            "SELECT alert_id, 'opened', 1, created_at, 'upgrade', '', '{}' FROM alerts WHERE delivered_at IS NULL"
        )
    )
