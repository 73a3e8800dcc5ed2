"""Application state in a relational database: registry, budgets, alerts, runs, sources, audit.

SQLite in the home folder by default, PostgreSQL by URL. The schema is built by Alembic migrations only (`ledger/migrations`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column

from ledger import access_tables as access_tables  # so that every table is known wherever the database is opened
from ledger import audit, disk
from ledger.alert_tables import Alert as Alert
from ledger.audit import Audit as Audit
from ledger.base import ALL_COLUMNS, UtcDateTime
from ledger.base import Base as Base
from ledger.budget_tables import Budget as Budget
from ledger.budget_tables import BudgetRequest as BudgetRequest
from ledger.budget_tables import BudgetRevision as BudgetRevision
from ledger.errors import StoreUnreachable
from ledger.filesystem import make_folder
from ledger.period_tables import AccountingPeriod as AccountingPeriod
from ledger.period_tables import PeriodDocument as PeriodDocument
from ledger.period_tables import PeriodLine as PeriodLine
from ledger.reservation_tables import Reservation as Reservation
from ledger.reservation_tables import ReservationLevel as ReservationLevel
from ledger.revisions import revisions_of
from ledger.upgrade import upgrade

T = TypeVar("T")

_MAX_ATTEMPTS = 5
"""How often a change is made again after another one came before it."""


class Owner(Base):
    """One row of the registry: the owner of a name for an interval. (ID-1)

    `kind` says what `name` is: agent, alias (another name of `agent`), credential, principal, service, resource, conversation.
    A row applies to ``[valid_from, valid_to)``; of two overlapping rows, the later recorded one wins.
    """

    __tablename__ = "owners"
    audited: ClassVar = ALL_COLUMNS

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(32))
    name: Mapped[str] = mapped_column(sa.String(512), index=True)
    agent: Mapped[str | None] = mapped_column(sa.String(512))
    team: Mapped[str | None] = mapped_column(sa.String(256))
    account: Mapped[str | None] = mapped_column(sa.String(256))
    region: Mapped[str | None] = mapped_column(sa.String(128))
    valid_from: Mapped[datetime] = mapped_column(UtcDateTime)
    valid_to: Mapped[datetime | None] = mapped_column(UtcDateTime)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
    __table_args__ = (sa.UniqueConstraint("kind", "name", "valid_from", "recorded_at"),)


class StoredRule(Base):
    """A shared-cost rule that is set in the ledger, with the keys of [[attribution.shared]]; the newest revision applies. (RA-4)"""

    __tablename__ = "rules"
    audited: ClassVar = ALL_COLUMNS

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(256), index=True)
    revision: Mapped[int]
    terms: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted: Mapped[bool] = mapped_column(default=False)
    __table_args__ = (sa.UniqueConstraint("name", "revision"),)


class Run(Base):
    """One attribution run: what it covered, from which facts, and whether it was published. (MO-2)"""

    __tablename__ = "runs"
    audited: ClassVar = frozenset[str]()

    run_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(sa.String(16))
    months: Mapped[list[str]] = mapped_column(sa.JSON)
    inputs: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    cause: Mapped[str] = mapped_column(sa.String(256), default="")
    error: Mapped[str | None] = mapped_column(sa.Text)


class Published(Base):
    """The published run of a month. One row a month; publishing a run updates it."""

    __tablename__ = "published"
    audited: ClassVar = frozenset[str]()

    month: Mapped[str] = mapped_column(sa.String(7), primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.String(40))
    rollup_ids: Mapped[list[str]] = mapped_column(sa.JSON)
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Rollup(Base):
    """One pass over a partition of a month's spans, with the fingerprint of its inputs; equal inputs are not processed again."""

    __tablename__ = "rollups"
    audited: ClassVar = frozenset[str]()

    rollup_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    month: Mapped[str] = mapped_column(sa.String(7), index=True)
    fingerprint: Mapped[str] = mapped_column(sa.String(64), index=True)
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Drawing(Base):
    """The rollups of a whole month, with the fingerprint of its inputs; an unchanged month is not partitioned again."""

    __tablename__ = "drawings"
    audited: ClassVar = frozenset[str]()

    month: Mapped[str] = mapped_column(sa.String(7), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    rollup_ids: Mapped[list[str]] = mapped_column(sa.JSON)
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FactRemoval(Base):
    """Facts that were removed, by `retention` or by the `erasure` of a period: those of these tables and sources (none: all) in ``[start_time, end_time)``.

    The months of their costs are settled since: they are not rebuilt. `months` maps each of them to what stood then (`ledger.settled_months`).
    `finished_at` is empty until all of it is gone; `rows` counts what went, by table.
    """

    __tablename__ = "fact_removals"
    audited: ClassVar = frozenset[str]()

    id: Mapped[int] = mapped_column(primary_key=True)
    cause: Mapped[str] = mapped_column(sa.String(16))
    start_time: Mapped[datetime] = mapped_column(UtcDateTime)
    end_time: Mapped[datetime] = mapped_column(UtcDateTime)
    sources: Mapped[list[str]] = mapped_column(sa.JSON)
    tables: Mapped[list[str]] = mapped_column(sa.JSON)
    months: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    actor: Mapped[str] = mapped_column(sa.String(128))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    rows: Mapped[dict[str, int]] = mapped_column(sa.JSON)


class JobRun(Base):
    """One run of a scheduled job."""

    __tablename__ = "job_runs"
    audited: ClassVar = frozenset[str]()

    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(sa.String(64), index=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(sa.String(16))
    detail: Mapped[dict[str, Any]] = mapped_column(sa.JSON)


class Checkpoint(Base):
    """Checkpoint of a source: a time, a key or a token up to which it was read. Updated after the rows are committed."""

    __tablename__ = "marks"
    audited: ClassVar = frozenset[str]()

    source: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(512), primary_key=True)
    value: Mapped[str] = mapped_column(sa.Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ConfiguredSource(Base):
    """A configured source: its kind, addresses, schedule and state. One row per name.

    Without `uris` nothing is read: only the freshness of received telemetry is monitored. `newest_at` is the time of its newest row,
    `due_at` when the scheduler reads it next; `every_seconds` is the longest interval of the schedule.
    """

    __tablename__ = "sources"
    audited: ClassVar = frozenset({"source", "kind", "uris", "scope", "cron", "every_seconds", "lag_seconds", "paused"})

    name: Mapped[str] = mapped_column(sa.String(128), primary_key=True)
    source: Mapped[str] = mapped_column(sa.String(64))
    kind: Mapped[str] = mapped_column(sa.String(8))
    uris: Mapped[list[str]] = mapped_column(sa.JSON)
    scope: Mapped[str | None] = mapped_column(sa.String(512))
    cron: Mapped[str] = mapped_column(sa.String(128))
    every_seconds: Mapped[int]
    lag_seconds: Mapped[int]
    paused: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    newest_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    succeeded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failures: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    stale_since: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SourceRun(Base):
    """One run of a configured source: cause, process and result. Amounts are exact decimals as text."""

    __tablename__ = "source_runs"
    audited: ClassVar = frozenset[str]()

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(128), index=True)
    source: Mapped[str] = mapped_column(sa.String(64))
    cause: Mapped[str] = mapped_column(sa.String(16))
    runner: Mapped[str] = mapped_column(sa.String(256))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(sa.String(16))
    since: Mapped[str | None] = mapped_column(sa.String(10))
    until: Mapped[str | None] = mapped_column(sa.String(10))
    files: Mapped[int] = mapped_column(default=0)
    rows: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    rows_changed: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    errors: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    warnings: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    money_in: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    newest_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(sa.Text)


class Leader(Base):
    """Elected leaders that run the schedule. Rows are only added; the newest row is the current or last leader."""

    __tablename__ = "leaders"
    audited: ClassVar = frozenset[str]()

    id: Mapped[int] = mapped_column(primary_key=True)
    process: Mapped[str] = mapped_column(sa.String(256))
    address: Mapped[str] = mapped_column(sa.String(256))
    tables_uri: Mapped[str] = mapped_column(sa.String(1024))
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class Database:
    """The application database, migrated to the newest schema when opened."""

    def __init__(self, url: str, *, before_commit: Callable[[], None] | None = None) -> None:
        """Opens the database. `before_commit` is called before every transaction that writes is committed."""
        self.url = url
        self._before_commit = before_commit
        try:
            if url.startswith("sqlite:///"):
                make_folder(Path(url.removeprefix("sqlite:///")).parent)
            self.engine = sa.create_engine(url, pool_pre_ping=True)
            if self.engine.dialect.name == "sqlite":
                sa.event.listen(self.engine, "connect", _set_pragmas)
            upgrade(self.engine, Base.metadata.tables)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise self._unreachable(error) from error
        self._revisions = revisions_of(self.engine)
        self._readings: dict[str, tuple[str, Any]] = {}

    def unless_changed(self, name: str, query: Callable[[Session], T], *, still_holds: Callable[[T], bool] | None = None) -> T:
        """What a query reads; from before, under its name, if no process has committed anything since.

        `still_holds` says so of what changes with time.
        """
        revision = self._revisions.current()  # asked first: what is committed meanwhile is another revision
        reading = self._readings.get(name)
        if reading is not None and reading[0] == revision and (still_holds is None or still_holds(reading[1])):
            value: T = reading[1]
            return value
        with self.session() as session:
            value = query(session)
        if revision is not None:
            self._readings[name] = revision, value
        return value

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back on an exception. Raises `StoreUnreachable` if the database does not answer."""
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                audit.begin(session)
                sa.event.listen(session, "before_flush", _note_changes)
                sa.event.listen(session, "do_orm_execute", _note_statement)
                yield session
                if self._before_commit is not None and _writes(session):
                    self._before_commit()
                session.flush()
                _require_entry(session)
                head = audit.append_entries(session)
            audit.tell(head)
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            raise self._unreachable(error) from error

    def change(self, change: Callable[[Session], T]) -> T:
        """Makes a change in one transaction. One that takes a key which another transaction took meanwhile is made again, on what that one left."""
        for attempt in range(_MAX_ATTEMPTS):
            try:
                with self.session() as session:
                    return change(session)
            except sa.exc.IntegrityError:
                if attempt == _MAX_ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, error: Exception) -> StoreUnreachable:
        """The error of a database that does not answer, or whose disk is full."""
        safe_url = sa.make_url(self.url).render_as_string(hide_password=True)
        return disk.error_of(error, safe_url) or StoreUnreachable(
            str(error).splitlines()[0], where=safe_url, remedy="check store.database_url, and that the server answers"
        )

    def close(self) -> None:
        """Closes the connections."""
        self._revisions.close()
        self.engine.dispose()


def lock_row(session: Session, model: type[Base], key: object) -> None:
    """Locks a row until the transaction ends, before it is read: what a change is decided on stays as it is until it is made.

    It is written as it is, which locks it on PostgreSQL, and the database on SQLite. That is no change that needs an audit entry.
    """
    table = sa.inspect(model).local_table
    assert isinstance(table, sa.Table)
    (column,) = table.primary_key.columns
    session.connection().execute(sa.update(table).where(column == key).values({column.name: column}))


class UnauditedChangeError(Exception):
    """A change that must be audited was made without an audit entry (a defect of RootCost); it is not committed."""


_WRITES = "writes"
_UNAUDITED = "changes that need an audit entry"


def _writes(session: Session) -> bool:
    """Whether the transaction changes something."""
    has_changes = session.new or session.dirty or session.deleted or session.info.get(_WRITES)
    return bool(has_changes) or audit.has_entries(session)


def _note_changes(session: Session, _context: object, _instances: object) -> None:
    session.info[_WRITES] = True
    changes = session.info.setdefault(_UNAUDITED, set())
    for row in (*session.new, *session.deleted):
        if isinstance(row, Base) and row.audited:
            changes.add(row.__tablename__)
    for row in session.dirty:
        if isinstance(row, Base) and row.audited and _has_audited_change(row):
            changes.add(row.__tablename__)


def _has_audited_change(row: Base) -> bool:
    changed_columns = {attribute.key for attribute in sa.inspect(row).attrs if attribute.history.has_changes()}
    return bool(changed_columns if row.audited == ALL_COLUMNS else changed_columns & row.audited)


def _note_statement(state: ORMExecuteState) -> None:
    if state.is_select:
        return
    state.session.info[_WRITES] = True
    table = state.bind_mapper.class_ if state.bind_mapper is not None else None
    if table is not None and issubclass(table, Base) and table.audited:
        state.session.info.setdefault(_UNAUDITED, set()).add(table.__tablename__)


def _require_entry(session: Session) -> None:
    changes = session.info.get(_UNAUDITED)
    if changes and not audit.has_entries(session):
        raise UnauditedChangeError(f"a change of {', '.join(sorted(changes))} has no audit entry: call ledger.audit.record")


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
