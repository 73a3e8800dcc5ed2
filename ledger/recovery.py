"""What processes leave behind that ended in the middle: runs that say they are running, and temporary files.

Of a killed process tables need no recovery: what was not committed is not visible, and is done again. Of a power cut: `ledger.table_repair`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ledger.books import Books
from ledger.db import Run
from ledger.locks import ATTRIBUTION, lock_of
from ledger.periods import now
from ledger.plurals import counted
from ledger.scratch import PART_PREFIX, PREFIX, abandoned, remove_abandoned

log = logging.getLogger("rootcost.recovery")

CUT_OFF: Final = "cut off"
"""Status of a run whose process ended before the run did."""


def recover(books: Books) -> list[str]:
    """Closes runs and removes temporary files of processes that are gone; returns a sentence for each kind that there was."""
    report = []
    if run_ids := _close_if_nobody_attributes(books):
        report.append(
            f"{counted(len(run_ids), 'attribution run')} cut off by the end of a process; what is left out is done again"
        )
    if paths := recover_files(books):
        report.append(
            f"{counted(len(paths), 'temporary file or folder', 'temporary files and folders')} of ended processes removed"
        )
    for sentence in report:
        log.info(sentence)
    return report


def recover_files(books: Books) -> list[Path]:
    """Removes temporary files and folders of processes that are gone; returns them."""
    return [path for parent, pattern in scratch_places(books) for path in remove_abandoned(parent, pattern)]


def close_runs(books: Books) -> list[str]:
    """Closes the attribution runs that have no end, and returns their ids. The caller holds the lock for attributing, so that no such run is alive."""
    with books.database.session() as session:
        runs = session.scalars(sa.select(Run).where(Run.status == "running")).all()
        for run in runs:
            run.status, run.error, run.finished_at = CUT_OFF, "its process ended before the run did", now()
        return [run.run_id for run in runs]


def abandoned_files(books: Books) -> list[Path]:
    """Temporary files and folders of processes that are gone."""
    return [path for parent, pattern in scratch_places(books) for path in abandoned(parent, pattern)]


def scratch_places(books: Books) -> Iterator[tuple[Path, str]]:
    """Where temporary files are made: folders, and patterns of names in them."""
    # Of this ledger's user; another ledger's that are in use are locked.
    for work in ("ingest", "fetch", "sort"):
        yield Path(tempfile.gettempdir()), f"{PREFIX}{work}-*"
    yield books.home, f"{PREFIX}backup-*"
    yield books.home / "raw", f"*/{PART_PREFIX}*"
    if "://" not in books.store.root:
        yield Path(books.store.root), f"{PREFIX}part-*"


def _close_if_nobody_attributes(books: Books) -> list[str]:
    lock = lock_of(books, ATTRIBUTION)
    if not lock.acquire():
        return []  # a run may be alive; it is looked at again
    try:
        return close_runs(books)
    finally:
        lock.release()
