"""Retention of what no figure needs: content of spans, problems, copies of bills, names and addresses in the audit log.

How long each stays is set under `[maintenance]`; 0 is for good. Spans and calls have a retention as well, after which their months are settled
(`attribution.removal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl
import sqlalchemy as sa

from ledger import audit, erased_files
from ledger.audit import Audit, AuditPersonal
from ledger.books import Books
from ledger.file_sets import rewritten_name
from ledger.periods import now
from ledger.settled_months import RETENTION
from ledger.table_files import remove_rows, replacement, scan_file, table_files
from ledger.tables import PROBLEMS, SPANS

CONTENT: Final = "attributes"
"""The column of `spans` that may hold prompts."""


@dataclass(slots=True)
class RetentionReport:
    """What was removed, or would be."""

    spans_with_content: int = 0
    problems: int = 0
    raw_files: int = 0
    audit_entries: int = 0


def remove_outdated(books: Books, *, dry_run: bool = False) -> RetentionReport:
    """Removes what is older than the settings say. The caller holds the locks for attributing and for writing."""
    settings = books.settings.maintenance
    return RetentionReport(
        spans_with_content=_remove_content(books, settings.content_days, dry_run=dry_run) if settings.content_days else 0,
        problems=_remove_problems(books, settings.problems_days, dry_run=dry_run) if settings.problems_days else 0,
        raw_files=_remove_copies(books, settings.raw_days, dry_run=dry_run) if settings.raw_days else 0,
        audit_entries=_remove_personal(books, settings.personal_days, dry_run=dry_run) if settings.personal_days else 0,
    )


def _remove_content(books: Books, days: int, *, dry_run: bool) -> int:
    """Empties the attributes of spans of earlier days. Their files keep their identity: no month is due by it."""
    first_day = str((now() - timedelta(days=days)).date())
    span_count, actions = 0, []
    for file in table_files(books.store, SPANS):
        if file.partition[0][1] >= first_day:
            continue
        rows = scan_file(books.store, SPANS, file)
        count = int(rows.select(pl.col(CONTENT).count()).collect().item())
        span_count += count
        if count and not dry_run:
            emptied_rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(CONTENT)).collect()
            actions += replacement(books.store, SPANS, [file], emptied_rows, rewritten_name(file.name), changes_rows=True)
    if actions:
        books.store.replace_actions(SPANS, actions, note="retention: content")
    return span_count


def _remove_problems(books: Books, days: int, *, dry_run: bool) -> int:
    is_old = pl.col("seen_at") < now() - timedelta(days=days)
    return remove_rows(
        books.store, PROBLEMS, is_old, table_files(books.store, PROBLEMS), note="retention: problems", dry_run=dry_run
    )


def _remove_copies(books: Books, days: int, *, dry_run: bool) -> int:
    names = erased_files.copies_older_than(books, timedelta(days=days))
    if not dry_run:
        erased_files.remove_copies(books, names)
    return len(names)


def _remove_personal(books: Books, days: int, *, dry_run: bool) -> int:
    is_old = Audit.at < now() - timedelta(days=days)
    with books.database.session() as session:
        sequences = sa.select(Audit.sequence).where(is_old)
        is_meant = AuditPersonal.sequence.in_(sequences)
        if dry_run:
            return session.scalar(sa.select(sa.func.count(AuditPersonal.sequence.distinct())).where(is_meant)) or 0
        return audit.erase_where(session, RETENTION, is_meant)
