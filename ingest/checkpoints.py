"""How far each source was read: kept only once what was read is in the ledger, so that a crash reads again and loses nothing."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ingest.source import Batch
from ledger.books import Books
from ledger.db import Checkpoint
from ledger.periods import now


def load(books: Books, source: str) -> dict[str, str]:
    """All marks of a source, by key."""
    with books.database.session() as session:
        return {mark.key: mark.value for mark in session.scalars(sa.select(Checkpoint).where(Checkpoint.source == source))}


def save(books: Books, source: str, batches: Sequence[Batch]) -> None:
    """Moves the marks to where these slices end; of several slices the last one told counts."""
    new_values = {key: value for batch in batches for key, value in batch.checkpoints.items()}
    if not new_values:
        return
    with books.database.session() as session:
        for key, value in sorted(new_values.items()):
            session.merge(Checkpoint(source=source, key=key, value=value, at=now()))
