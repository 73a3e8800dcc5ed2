"""Alembic's entry: migrates over the connection that `ledger.db.Database` hands in."""

from alembic import context

from ledger import db as _tables  # noqa: F401 - declares the tables
from ledger.base import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
