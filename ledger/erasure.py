"""Erasure of a person: identifiers go from tables, database and files; the money stays with the agent and team that spent it.

Each identifier is replaced by a random pseudonym, the same everywhere and noted nowhere. Rows that belonged together still do, so that every
figure stays as it is to the last digit, also those of published months, and no month has to be attributed again. Prompts and other attributes of
the person's traces go. At last earlier versions of the tables are purged. A file in the home says what is being erased, so that it goes on
where it was broken off, with the same pseudonyms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl
import sqlalchemy as sa

from ledger import access_tables, audit, file_sets, source_secrets
from ledger.backup import addresses_in_use
from ledger.books import Books
from ledger.db import Base, Published
from ledger.erased_files import FileErasure, erase_files
from ledger.filesystem import sync_folder
from ledger.identifiers import Identifier, Identifiers, may_name_people
from ledger.locks import is_served
from ledger.periods import now
from ledger.published import rollups_in_force
from ledger.purge import purge
from ledger.table_files import replacement, scan_file, table_files
from ledger.tables import CALLS, CHARGES, SPANS, TABLES, Table

AUDIT_ACTION: Final = "person.erase"
JOURNAL: Final = "erasure.json"
"""A file in the home: the identifiers that are being erased; after that, since when earlier versions wait to be purged."""
_AUDIT_TABLES: Final = frozenset({"audit", "audit_head", "audit_personal"})
_CONTENT: Final = "attributes"


@dataclass(slots=True)
class ErasureReport:
    """What was erased, or would be: rows by table, the money that they are about (which stays), files, and where the person still is."""

    rows: dict[str, int] = field(default_factory=dict)
    spans_with_content: int = 0
    calls: int = 0
    list_cost: Decimal | None = None
    billed_cost: dict[str, Decimal] = field(default_factory=dict)
    audit_entries: int = 0
    files: FileErasure = field(default_factory=FileErasure)
    partitions: list[str] = field(default_factory=list)
    """Partitions of tables whose own name has an identifier: a dataset or a source that is called so. They stay."""
    backups: dict[str, list[str]] = field(default_factory=dict)
    is_purged: bool = False
    """Whether earlier versions are gone from the disk; where the home is served, they go with its maintenance after the retention."""

    @property
    def is_empty(self) -> bool:
        """Whether the person is named nowhere."""
        return not (self.rows or self.spans_with_content or self.audit_entries or self.files.removed or self.files.blotted)


def plan_erasure(books: Books, person: Identifiers) -> ErasureReport:
    """What `erase_person` would do; nothing is changed."""
    return _Erasure(books, person, dry_run=True).go()


def erase_person(books: Books, person: Identifiers, *, actor: str, reason: str = "") -> ErasureReport:
    """Erases a person. The caller holds the locks for backups, for attributing and for writing, and has booked what waits in the spool."""
    resume(books)
    _write_journal(books.home, {"identifiers": {m.value: m.pseudonym for m in person.members}, "actor": actor, "reason": reason})
    return _erase(books, person, actor, reason)


def resume(books: Books) -> bool:
    """Finishes an erasure that was broken off, or purges what waits for it; returns whether there was one. Locks as for `erase_person`."""
    try:
        journal = json.loads((books.home / JOURNAL).read_text("utf-8"))
    except FileNotFoundError:
        return False
    if "identifiers" in journal:
        members = tuple(Identifier(value, pseudonym) for value, pseudonym in journal["identifiers"].items())
        _erase(books, Identifiers(members), journal["actor"], journal["reason"])
    else:
        _purge_when_unread(books, datetime.fromisoformat(journal["erased_at"]))
    return True


def _erase(books: Books, person: Identifiers, actor: str, reason: str) -> ErasureReport:
    report = _Erasure(books, person, dry_run=False, actor=actor, reason=reason).go()
    report.is_purged = purge_when_unread(books)
    return report


def purge_when_unread(books: Books) -> bool:
    """Purges earlier versions of what was erased, or notes that maintenance is to do it; returns whether they are gone."""
    erased_at = now()
    books.store.sync()
    _write_journal(books.home, {"erased_at": erased_at.isoformat()})
    return _purge_when_unread(books, erased_at)


def _purge_when_unread(books: Books, erased_at: datetime) -> bool:
    """Purges earlier versions unless a server may still be reading them; returns whether it did."""
    retention = timedelta(minutes=books.settings.maintenance.retention_minutes)
    has_other_servers = books.settings.database_url.startswith("postgresql")
    if (has_other_servers or is_served(books.home)) and now() < erased_at + retention:
        return False
    purge(books)
    (books.home / JOURNAL).unlink(missing_ok=True)
    sync_folder(books.home)
    return True


def _write_journal(home: Path, content: Mapping[str, Any]) -> None:
    """Overwrites the journal so that it is on disk, and that nothing is left of what it said before."""
    path = home / JOURNAL
    handle = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    path.with_suffix(".new").replace(path)
    sync_folder(home)


class _Erasure:
    """One erasure, or with `dry_run` the plan of one."""

    def __init__(self, books: Books, person: Identifiers, *, dry_run: bool, actor: str = "", reason: str = "") -> None:
        self.books, self.store, self.person = books, books.store, person
        self.dry_run, self.actor, self.reason = dry_run, actor, reason
        self.report = ErasureReport(backups=addresses_in_use(books))
        self.traces = pl.DataFrame(schema={"trace_key": pl.Int64})

    def go(self) -> ErasureReport:
        """Erases tables, then the database, then files: what is named last is what the others are found by."""
        self.traces = self._own_traces()
        self._sum_money()
        for table in TABLES.values():
            self._erase_rows(table)
        self._erase_database()
        self.report.files = erase_files(
            self.books, self.person, own_names=frozenset({JOURNAL, "token", source_secrets.FOLDER}), dry_run=self.dry_run
        )
        return self.report

    def _names_person(self, table: Table) -> pl.Expr:
        columns = {name: dtype for name, dtype in table.schema.items() if may_name_people(dtype)}
        return pl.any_horizontal(*(self.person.are_in_column(name, dtype) for name, dtype in columns.items()))

    def _own_traces(self) -> pl.DataFrame:
        """The traces in which a span names the person, with those of the same conversations."""
        spans = self.store.scan(SPANS)
        own_spans = spans.filter(self._names_person(SPANS)).select("trace_key", "conversation_id").unique().collect()
        conversations = own_spans["conversation_id"].drop_nulls().unique()
        is_in_conversation = pl.col("conversation_id").is_in(conversations.implode())
        conversation_traces = spans.filter(is_in_conversation).select("trace_key").collect()
        return pl.concat([own_spans.select("trace_key"), conversation_traces]).unique().sort("trace_key")

    def _sum_money(self) -> None:
        in_force = pl.Series(sorted(rollups_in_force(self.books.database)), dtype=pl.String).implode()
        calls = self.store.scan(CALLS).filter(pl.col("rollup_id").is_in(in_force))
        totals = calls.join(self.traces.lazy(), on="trace_key", how="semi").select(pl.len(), pl.col("list_cost").sum()).collect()
        self.report.calls, self.report.list_cost = int(totals["len"][0]), totals["list_cost"][0]
        billed_groups = self.store.scan(CHARGES).filter(self._names_person(CHARGES)).group_by("billing_currency")
        totals = billed_groups.agg(pl.col("billed_cost").sum()).sort("billing_currency").collect()
        self.report.billed_cost = dict(totals.iter_rows())

    def _erase_rows(self, table: Table) -> None:
        """Writes the files of a table anew that name the person, in one commit. Each keeps its identity: no month becomes due by it."""
        columns = {n: d for n, d in table.schema.items() if may_name_people(d) and n not in table.partition_by}
        is_named = pl.any_horizontal(*(self.person.are_in_column(name, dtype) for name, dtype in columns.items()))
        is_own = pl.col("trace_key").is_in(self.traces["trace_key"].implode()) if table is SPANS else pl.lit(value=False)
        holds_content = is_own & pl.col(_CONTENT).is_not_null() if table is SPANS else pl.lit(value=False)
        changes: list[Any] = []
        for file in table_files(self.store, table):
            if self.person.is_in("/".join(value for _, value in file.partition)):
                self.report.partitions.append(f"{table.name}: {', '.join(f'{k} {v}' for k, v in file.partition)}")
            rows = scan_file(self.store, table, file)
            counts = rows.select(named=is_named.sum(), content=holds_content.sum()).collect().row(0, named=True)
            if not any(counts.values()):
                continue
            self.report.rows[table.name] = self.report.rows.get(table.name, 0) + int(counts["named"])
            self.report.spans_with_content += int(counts["content"])
            if self.dry_run:
                continue
            new_rows = rows.with_columns(pl.when(~is_own).then(_CONTENT).alias(_CONTENT)) if table is SPANS else rows
            new_rows = new_rows.with_columns(self.person.replaced_column(name, dtype) for name, dtype in columns.items())
            new_name = file_sets.rewritten_name(file.name)
            changes += replacement(self.store, table, [file], new_rows.collect(), new_name, changes_rows=True)
        if changes:
            self.store.replace_actions(table, changes, note="a person was erased")
        self.report.partitions = sorted(set(self.report.partitions))

    def _erase_database(self) -> None:
        with self.books.database.session() as session:
            for table in Base.metadata.sorted_tables:
                changes = list(self._changed_rows(session, table)) if table.name not in _AUDIT_TABLES else []
                if changes:
                    self.report.rows[table.name] = len(changes)
                for is_row, values in changes if not self.dry_run else ():
                    session.execute(sa.update(table).where(is_row).values(values))
            all_values = session.scalars(sa.select(audit.AuditPersonal.value).distinct())
            personal_values = [value for value in all_values if self.person.is_in(value)]
            is_value = audit.AuditPersonal.value.in_(personal_values)
            query = sa.select(sa.func.count(audit.AuditPersonal.sequence.distinct())).where(is_value)
            self.report.audit_entries = session.scalar(query) or 0
            for value in personal_values if not self.dry_run else ():
                audit.erase(session, self.actor, value)
            self.report.audit_entries += audit.redact(session, self.actor, self.person.replaced, dry_run=self.dry_run)
            if not self.dry_run:
                # What was published before has other names now: whoever keeps an answer must ask again.
                session.execute(sa.update(Published).values(published_at=now()))
                counts = {"rows": self.report.rows, "content": self.report.spans_with_content}
                audit.record(session, self.actor, AUDIT_ACTION, "a person", before=counts, after={"reason": self.reason})

    def _changed_rows(self, session: Any, table: sa.Table) -> Iterator[tuple[sa.ColumnElement[bool], dict[str, Any]]]:
        """The rows of a table of the database that name the person: how to find each, and what to put in."""
        columns = [c for c in table.columns if isinstance(c.type, sa.String | sa.JSON)]
        for row in session.execute(sa.select(table)).mappings():
            values = {c.name: value for c in columns if (value := self.person.replaced(row[c.name])) != row[c.name]}
            if not values:
                continue
            if table.name == access_tables.User.__tablename__:
                values["disabled_at"] = row["disabled_at"] or now()
            yield sa.and_(*(key == row[key.name] for key in table.primary_key.columns)), values
