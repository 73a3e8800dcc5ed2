"""Removal of facts, by retention or by the erasure of a period. The costs of their months stay as they are published, to the last digit.

The months are settled from then on (`ledger.settled_months`): what they were computed from is no longer there, so they are not computed again.
What a month that is not settled is computed from stays: the days around it, the earlier traces that its spans refer to, the bills beside it. A
removal is a row of `fact_removals` before the first fact goes; one that was broken off goes on when it is repeated, or with maintenance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl
import sqlalchemy as sa

from attribution.chains.components import Keys
from attribution.fact_reach import FactReach, partition_values
from attribution.monitoring.late_facts import left_facts
from attribution.run import months_due, months_with_facts
from attribution.usage import origins
from ledger import erased_files, erasure
from ledger.audit import record
from ledger.books import Books
from ledger.db import FactRemoval
from ledger.errors import UsageError
from ledger.metric_points import METRIC_POINTS
from ledger.periods import adjacent_months, month_end, month_of, month_start, now
from ledger.published import runs_in_force
from ledger.settled_months import ERASURE, RETENTION, settled_months
from ledger.table_files import TableFile, remove_rows, table_files
from ledger.tables import CALLS, CHAINS, CHARGES, IMPORT_TOTALS, SPANS, TABLES, Table

SPAN_TABLES: Final = (SPANS, METRIC_POINTS)
CALL_TABLES: Final = (CALLS, CHAINS)
ALL_TABLES: Final = (*SPAN_TABLES, *CALL_TABLES, CHARGES, IMPORT_TOTALS)
AUDIT_ACTION: Final = "facts.remove"


@dataclass(frozen=True, slots=True)
class Period:
    """The facts that are meant: those of these tables and sources (none: all) in ``[start, end)``. Bills by their whole invoice months."""

    start: datetime
    end: datetime
    sources: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ALL_TABLES

    @property
    def months(self) -> list[str]:
        """The months that it touches."""
        months = [month_of(self.start)]
        while month_end(months[-1]) < self.end:
            months.append(month_of(month_end(months[-1])))
        return months

    @property
    def invoice_months(self) -> list[str]:
        """The months that it covers."""
        return [month for month in self.months if month_start(month) >= self.start and month_end(month) <= self.end]

    @property
    def days(self) -> list[str]:
        """The days that it touches."""
        last = (self.end - timedelta(microseconds=1)).date()
        return [str(day) for day in pl.date_range(self.start.date(), last, eager=True)]

    def is_of_source(self) -> pl.Expr:
        """Whether a row is of one of the sources."""
        return _is_any(pl.col("source"), self.sources) if self.sources else pl.lit(value=True)


@dataclass(slots=True)
class RemovalReport:
    """What was removed, or would be: rows by table, copies of bills; the months whose costs stay and are settled; what stays for other months."""

    rows: dict[str, int] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """Days of spans, and invoice months, that stay; the month that is not settled and is computed from each."""
    files: list[str] = field(default_factory=list)
    is_purged: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not any(self.rows.values())


def plan_erasure(books: Books, period: Period) -> RemovalReport:
    """What `erase_period` would do; nothing is changed. Raises `UsageError` where it cannot be done."""
    removal = _erasure_of(books, period)
    report = removal.report()
    report.rows, report.files = dict(removal.remove(dry_run=True)), removal.bill_files()
    return report


def erase_period(books: Books, period: Period, *, actor: str, reason: str = "") -> RemovalReport:
    """Erases a period. The caller holds the locks for backups, for attributing and for writing, and has booked what waits in the spool.

    Raises `UsageError` for a period that is not over, and for months whose published costs are not those of their facts.
    """
    erasure.resume(books)
    resume(books)
    removal = _erasure_of(books, period)
    report = removal.report()
    report.files = removal.bill_files()
    if any(removal.remove(dry_run=True).values()):
        report.rows = _carry_out(books, removal, _begin(books, removal, ERASURE, actor, reason))
        report.is_purged = erasure.purge_when_unread(books)
    return report


def remove_outdated(books: Books, *, dry_run: bool = False) -> RemovalReport:
    """Removes spans, and calls with their chains, of months that ended longer ago than the settings say. Locks as for `erase_period`.

    It ends before the first month whose published costs are not those of its facts: that one is attributed first.
    """
    settings, report = books.settings.maintenance, RemovalReport()
    if not dry_run:
        resume(books)
    for days, tables in ((settings.spans_days, SPAN_TABLES), (settings.calls_days, CALL_TABLES)):
        removal = _outdated(books, days, tables) if days else None
        rows = removal.remove(dry_run=True) if removal is not None else {}
        if removal is None or not rows:
            continue
        report.settled = sorted({*report.settled, *removal.settling})
        report.rows |= rows if dry_run else _carry_out(books, removal, _begin(books, removal, RETENTION, RETENTION, ""))
    return report


def resume(books: Books) -> bool:
    """Finishes removals that were broken off; returns whether there was one."""
    with books.database.session() as session:
        rows = session.scalars(sa.select(FactRemoval).where(FactRemoval.finished_at.is_(None)).order_by(FactRemoval.id)).all()
    for row in rows:
        tables = tuple(TABLES[name] for name in row.tables)
        period = Period(row.start_time, row.end_time, tuple(row.sources), tables)
        _carry_out(books, _Removal(books, period, settling=row.months), row.id)
        if row.cause == ERASURE:
            erasure.purge_when_unread(books)
    return bool(rows)


def _outdated(books: Books, days: int, tables: tuple[Table, ...]) -> _Removal | None:
    """The removal of these tables' rows of months that ended more than so many days ago, up to the first month that is due."""
    before = now() - timedelta(days=days)
    columns = {table: table.partition_by[0] for table in tables}
    months_with_rows = {value[:7] for table, column in columns.items() for value in partition_values(books.store, table, column)}
    months_with_rows = {month for month in months_with_rows if month_end(month) <= before}
    if not months_with_rows:
        return None
    published_months = {month for month in runs_in_force(books.database) if month_end(month) <= before}
    unsettled_months = (months_with_rows | published_months) - settled_months(books.database).keys()
    first_due = min(_due(books, unsettled_months) if unsettled_months else (), default="9999-99")
    ready_months = sorted(month for month in months_with_rows if month < first_due)
    if not ready_months:
        return None
    period = Period(month_start(ready_months[0]), month_end(ready_months[-1]), tables=tables)
    return _Removal(books, period, settling={month for month in published_months if month < first_due})


def _due(books: Books, months: Collection[str]) -> set[str]:
    """Those of `months` that are not published, or were computed from other facts."""
    return {month for month in months if month not in runs_in_force(books.database)} | set(months_due(books)) & set(months)


def _erasure_of(books: Books, period: Period) -> _Removal:
    if period.end > month_start(month_of(now())):
        raise UsageError(
            "the period is not over: costs of this month are still being computed",
            where="--to",
            remedy=f"name a day up to {month_of(now())}-01",
        )
    removal = _Removal(books, period, settling=())
    removal = _Removal(books, period, settling={*removal.months_with_rows(), *removal.months_in_need()})
    if due_months := _due(books, removal.settling):
        raise UsageError(
            f"the published costs of {', '.join(sorted(due_months))} are not those of the facts that there are, and could not be computed any more",
            where="--from, --to",
            remedy="run rootcost attribute first; facts that should not be there are taken out with rootcost facts retract",
        )
    return removal


def _begin(books: Books, removal: _Removal, cause: str, actor: str, reason: str) -> int:
    """Makes the months settled: from now on none of them is computed again. Returns the id of the removal."""
    period = removal.period
    months = {month: removal.state_of(month) for month in removal.settled()}
    terms = {"cause": cause, "sources": list(period.sources), "tables": [table.name for table in period.tables]}
    with books.database.session() as session:
        row = FactRemoval(
            **terms,
            start_time=period.start,
            end_time=period.end,
            months=months,
            actor=actor,
            reason=reason,
            begun_at=now(),
            rows={},
        )
        session.add(row)
        subject = f"{period.start:%Y-%m-%d} to {period.end:%Y-%m-%d}"
        record(session, actor, AUDIT_ACTION, subject, after={**terms, "months": sorted(months), "reason": reason})
        session.flush()
        return row.id


def _carry_out(books: Books, removal: _Removal, removal_id: int) -> dict[str, int]:
    """Removes what is meant; done again without harm where it was broken off. Returns the rows by table."""
    file_names = removal.bill_files()
    erased_files.remove_copies(books, file_names)
    counts = removal.remove(dry_run=False)
    erased_files.forget_cached(books, removal.period.days, removal.settled())
    books.store.sync()
    with books.database.session() as session:
        row = session.get_one(FactRemoval, removal_id)
        # What came for other tables meanwhile is late as before.
        names = {name for table, names in _LEFT_OF.items() if table in removal.period.tables for name in names}
        for month, state in row.months.items():
            month_facts = left_facts(books.store, month)
            row.months = {
                **row.months,
                month: {**state, "left": {**state["left"], **{name: month_facts[name] for name in names}}},
            }
        row.rows, row.finished_at = counts, now()
        subject = f"{row.start_time:%Y-%m-%d} to {row.end_time:%Y-%m-%d}"
        record(
            session, row.actor, f"{AUDIT_ACTION}d", subject, after={"cause": row.cause, "rows": counts, "files": len(file_names)}
        )
    return counts


_LEFT_OF: Final[Mapping[Table, tuple[str, ...]]] = {SPANS: ("span_rows",), CHARGES: ("charges", "charge_sums")}
"""What a removal of rows of a table changes of what is left of a month."""


class _Removal:
    """The removal of a period from books in which the months `settling` are settled by it."""

    def __init__(self, books: Books, period: Period, *, settling: Collection[str]) -> None:
        self.books, self.store, self.period = books, books.store, period
        self.reach = FactReach(books)
        self.settling = set(settling) - self.reach.settled.keys()
        self.needed = _Needed.of(books, self.reach, self._unsettled() - self.settling, period)

    def _unsettled(self) -> set[str]:
        """Months that are computed from facts, or will be: also the running one and its neighbours."""
        coming_months = {month_of(now()), *adjacent_months(month_of(now()))}
        known_months = {*months_with_facts(self.books), *runs_in_force(self.books.database)}
        return (known_months | {m for m in coming_months if month_end(m) > now()}) - self.reach.settled.keys()

    def settled(self) -> list[str]:
        """The months that the removal settles, and those it finds settled."""
        return sorted(self.settling | set(self.period.months) & self.reach.settled.keys())

    def state_of(self, month: str) -> dict[str, Any]:
        """What stands of a month that is settled: the spans it was computed from, and what is left."""
        with self.books.database.session() as session:
            rows = session.scalars(sa.select(FactRemoval).order_by(FactRemoval.id.desc())).all()
        earlier = next((row.months[month] for row in rows if month in row.months), None)
        spans = self.reach.spans_of(month) if month in self.reach.usage_months(month) else ""
        return earlier or {"spans": spans, "left": left_facts(self.store, month)}

    def months_with_rows(self) -> set[str]:
        """The months of the rows that are meant, whether they can go or not."""
        months = set()
        for table in self.period.tables:
            column = table.partition_by[0]
            groups = self._meant(table).select(pl.col(column).cast(pl.String).str.head(7).unique()).collect()
            months |= set(groups[column])
        return months

    def months_in_need(self) -> set[str]:
        """Months that are over and are computed from rows that are meant."""
        days = {str(day) for day in self._meant(SPANS).select(pl.col("date").unique()).collect()["date"]}
        invoice_months = set(self._meant(CHARGES).select(pl.col("billing_month").unique()).collect()["billing_month"])
        needing = self.needed.months_by_day(days) | {
            month for m in invoice_months for month in self.needed.billing_months.get(m, set())
        }
        return {month for month in needing if month_end(month) <= now()}

    def report(self) -> RemovalReport:
        """The months that it settles, and what stays of the period because other months are computed from it."""
        present_days = set(self.period.days) & set(self.reach.span_days) if SPANS in self.period.tables else set()
        kept_facts = {day: min(months) for day, months in self.needed.days.items() if day in present_days}
        invoice_months = self.period.invoice_months if CHARGES in self.period.tables else ()
        kept_facts |= {
            month: min(self.needed.billing_months[month]) for month in invoice_months if month in self.needed.billing_months
        }
        return RemovalReport(settled=sorted(self.settling), kept=dict(sorted(kept_facts.items())))

    def remove(self, *, dry_run: bool) -> dict[str, int]:
        """Removes the rows that are meant and that no other month needs; returns how many by table."""
        counts: dict[str, int] = {}
        note = f"facts of {self.period.start:%Y-%m-%d} to {self.period.end:%Y-%m-%d} removed"
        # Chains before spans: by spans it is told which of them have some of another source. Totals of bills before charges likewise.
        for table in (CHAINS, CALLS, IMPORT_TOTALS, CHARGES, METRIC_POINTS, SPANS):
            if table in self.period.tables and self.store.delta(table) is not None:
                count = remove_rows(self.store, table, self._is_removed(table), self._files(table), note=note, dry_run=dry_run)
                counts |= {table.name: count} if count else {}
        return counts

    def bill_files(self) -> list[str]:
        """Copies of fetched bills of which no charge stays."""
        if CHARGES not in self.period.tables:
            return []
        charges = self.store.scan(CHARGES).group_by("raw_id").agg(goes=self._is_removed(CHARGES).all())
        raw_ids = charges.filter(pl.col("goes"), pl.col("raw_id").is_not_null()).select("raw_id").collect()["raw_id"]
        return erased_files.copies_of(self.books, set(raw_ids))

    def _meant(self, table: Table) -> pl.LazyFrame:
        return self.store.scan(table).filter(self._is_meant(table)) if table in self.period.tables else table.empty().lazy()

    def _is_meant(self, table: Table) -> pl.Expr:
        period = self.period
        if table is IMPORT_TOTALS:
            return _is_any(pl.concat_str("billing_month", "scope", separator="\x1f"), self._withdrawn_bills())
        if table is CHARGES:
            return _is_any(pl.col("billing_month"), period.invoice_months) & period.is_of_source()
        is_within = pl.col("start_time").is_between(period.start, period.end, closed="left")
        if table is CHAINS:
            return is_within & ~self._has_other_spans() if period.sources else is_within
        return is_within & period.is_of_source()

    def _is_removed(self, table: Table) -> pl.Expr:
        is_meant = self._is_meant(table)
        if table is SPANS:
            is_meant &= ~self.needed.is_needed_span()
        elif table in (CHARGES, IMPORT_TOTALS):
            is_meant &= ~_is_any(pl.col("billing_month"), self.needed.billing_months)
        return is_meant.fill_null(value=False)

    def _withdrawn_bills(self) -> list[str]:
        """Month and dataset of bills of which no charge stays."""
        groups = self.store.scan(CHARGES).group_by("billing_month", "scope").agg(goes=self._is_removed(CHARGES).all())
        rows = groups.filter("goes").select("billing_month", "scope").collect()
        return [f"{month}\x1f{scope}" for month, scope in rows.iter_rows()]

    def _has_other_spans(self) -> pl.Expr:
        """Whether a chain has a trace with spans of a source that is not meant."""
        other_spans = self.store.scan(SPANS, {"date": self.period.days}).filter(~self.period.is_of_source())
        trace_ids = other_spans.select(pl.col("trace_id").unique()).collect()["trace_id"]
        return pl.col("trace_ids").list.eval(pl.element().is_in(trace_ids.implode())).list.any()

    def _files(self, table: Table) -> Iterator[TableFile]:
        """The files that rows of the period may be in."""
        days, months = set(self.period.days), set(self.period.months)
        for file in table_files(self.store, table):
            if file.partition[0][1] in (days if table.partition_by[0] == "date" else months):
                yield file


@dataclass(frozen=True, slots=True)
class _Needed:
    """What months that are not settled are computed from: whole days, traces of other days, invoice months; each with these months."""

    days: Mapping[str, set[str]]
    traces: Mapping[str, dict[str, Keys]]
    billing_months: Mapping[str, set[str]]

    @classmethod
    def of(cls, books: Books, reach: FactReach, months: Collection[str], period: Period) -> _Needed:
        """What these months need of a period."""
        days: dict[str, set[str]] = {}
        traces: dict[str, dict[str, Keys]] = {}
        billing_months: dict[str, set[str]] = {}
        period_days = set(period.days)
        for month in sorted(months):
            if SPANS in period.tables:
                for day in period_days & set(reach.window(month)):
                    days.setdefault(day, set()).add(month)
                for day, keys in origins.find_origins(books.store, month, books.settings).traces.items():
                    if day in period_days:
                        traces.setdefault(day, {})[month] = keys
            if CHARGES in period.tables:
                for billing_month in {month, *reach.billing_months(month)} & set(period.invoice_months):
                    billing_months.setdefault(billing_month, set()).add(month)
        return cls(days, traces, billing_months)

    def months_by_day(self, days: Collection[str]) -> set[str]:
        """The months that need spans of these days."""
        return {month for day in days for month in (*self.days.get(day, ()), *self.traces.get(day, ()))}

    def is_needed_span(self) -> pl.Expr:
        """Whether a span is needed."""
        is_needed = _is_any(pl.col("date").cast(pl.String), self.days)
        for day, by_month in self.traces.items():
            keys = pl.Series(np.unique(np.concatenate([*by_month.values()])), dtype=pl.Int64)
            is_needed |= (pl.col("date").cast(pl.String) == day) & pl.col("trace_key").is_in(keys.implode())
        return is_needed


def _is_any(text: pl.Expr, values: Collection[str]) -> pl.Expr:
    """Whether a text is one of these."""
    return text.is_in(pl.Series(sorted(values), dtype=pl.String).implode())
