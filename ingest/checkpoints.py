"""Checkpoints: how far each source was read. They are saved after the rows are written, so that a crash re-reads and loses nothing."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ingest.source import Batch
from ledger.books import Books
from ledger.db import Checkpoint
from ledger.periods import now


def load(books: Books, source: str) -> dict[str, str]:
    """All checkpoints of a source, by key."""
    with books.database.session() as session:
        return {mark.key: mark.value for mark in session.scalars(sa.select(Checkpoint).where(Checkpoint.source == source))}


def save(books: Books, source: str, batches: Sequence[Batch]) -> None:
    """Moves the checkpoints to the ends of these batches; of several with one key the last one counts."""
    new_values = {key: value for batch in batches for key, value in batch.checkpoints.items()}
    if not new_values:
        return
    with books.database.session() as session:
        for key, value in sorted(new_values.items()):
            session.merge(Checkpoint(source=source, key=key, value=value, at=now()))
