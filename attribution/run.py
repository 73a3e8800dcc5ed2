"""One attribution run: from facts to published conclusions, month by month.

draw      spans → calls, chains, hourly usage        once per span; reused while spans, registry and prices stand
rate      charges × usage → shares, rates, leftovers
place     leftovers → owner, shared, idle, unallocated
follow    credits and taxes → where their charges went
estimate  usage no bill covers yet → list price × what is really paid of it
balance   charges in = costs out, or nothing is published
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from attribution.costs import balance, charge_groups, prior_months, shared_rules, unit_scale
from attribution.costs.month import MonthCosts, compute_month_costs
from attribution.costs.sink import CostSink, MemorySink, StagedSink
from attribution.monitoring import drift_alerts, findings, missing_rates
from attribution.pricing import PriceBook
from attribution.usage.build import Executor, ThreadExecutor, UsageBuilder
from attribution.usage.reader import Usage
from ledger import code, periods, registry, staging
from ledger.books import Books
from ledger.db import Published, Run
from ledger.exchange_rates import Exchange
from ledger.hashing import fingerprint
from ledger.published import inputs_in_force
from ledger.settings import AttributionSettings
from ledger.tables import (
    BALANCE,
    CHARGES,
    COSTS,
    IMPORT_TOTALS,
    LOTS,
    PRICES,
    RATES,
    SPANS,
)

SETTINGS_FORM = "2"
"""Ends the text that the fingerprints of settings are taken of, as it did before runs noted their code: so older runs compare."""

LIVE = "live"
"""Cause of the runs `serve` makes on its own; a superseded one is forgotten, all others stay readable."""

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class RunReport:
    """What a run did. `balance` is empty for months without a bill.

    `other_code` are those of `months` that other code or classification data had concluded; `stale` are later months outside of this run
    that lean on it, and are not what they were drawn from any more. (TI-2)
    """

    run_id: str
    months: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    other_code: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    published: bool = False
    balance: pl.DataFrame = field(default_factory=BALANCE.empty)
    spans_read: int = 0
    rollups_reused: int = 0
    problems: int = 0


def attribute(
    books: Books,
    months: Sequence[str] | None = None,
    *,
    cause: str = "command",
    progress: Progress | None = None,
    force: bool = False,
    executor: Executor | None = None,
) -> RunReport:
    """Draws and publishes the conclusions for `months` (all that hold facts, by default).

    A month whose facts, registry, prices, settings and code (`ledger.code`) are those of its published run is left as it is, unless
    `force`: then its spans are read and all is drawn again. All months of a run are published together or, if one does not balance, not
    at all: raises `BalanceError`, and the last good run stays. `executor` draw the slices: threads of this process unless told otherwise.
    """
    run = _Run(
        books,
        cause,
        progress or (lambda stage, done, total: None),
        executor or ThreadExecutor(books.settings.attribution.workers),
    )
    month_names = list(months) if months is not None else known_months(books)
    return run.go(month_names, force=force)


def rehearse(books: Books, month: str, settings: AttributionSettings) -> pl.DataFrame:
    """The costs a month would come to under other settings of the bill's side (rules, tags, tolerance). Nothing is published."""
    periods.month_start(month)
    run = _Run(books, "rehearsal", lambda stage, done, total: None, ThreadExecutor(books.settings.attribution.workers))
    held = MemorySink()
    run.concluded(month, settings, held)
    return held.costs


def known_months(books: Books) -> list[str]:
    """Every month that holds charges or spans."""
    billed_months = _partitions(books, CHARGES, "billing_month")
    span_months = {day[:7] for day in _partitions(books, SPANS, "date")}
    return sorted(billed_months | span_months)


def _partitions(books: Books, table: object, column: str) -> set[str]:
    from ledger.tables import Table

    assert isinstance(table, Table)
    delta = books.store.delta(table)
    if delta is None:
        return set()
    return {str(partition[column]) for partition in delta.partitions()}


class _Run:
    def __init__(self, books: Books, cause: str, progress: Progress, executor: Executor) -> None:
        self.books, self.store, self.settings = books, books.store, books.settings
        self.cause, self.progress = cause, progress
        self.run_id = f"{periods.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self.report = RunReport(self.run_id)
        rows = registry.rows(books)
        self.timeline = registry.timeline(rows)
        self.book = PriceBook(self.store.scan(PRICES).collect())
        self.standing = {
            "registry": registry.revision(rows),
            "prices": self.store.fingerprint(PRICES),
            "reading": fingerprint(
                self.settings.ingest.model_dump_json() + shared_rules.usage_settings(self.settings.attribution) + SETTINGS_FORM
            ),
        }
        standing = (*self.standing.values(), code.digest())
        self.drawings = UsageBuilder(books, self.timeline, self.book, standing, executor=executor, progress=progress)
        self.reach: dict[str, list[str]] = {}
        self.earlier = prior_months.PriorMonths(books, self.run_id)
        self.drift: dict[str, pl.DataFrame] = {}
        self.force = False
        self.rules = fingerprint(shared_rules.cost_settings(self.settings.attribution) + SETTINGS_FORM)

    def go(self, months: Sequence[str], *, force: bool) -> RunReport:
        started, self.force = periods.now(), force
        months = sorted(set(months))
        for month in months:
            periods.month_start(month)  # a month that is none is told before anything is drawn
        inputs: dict[str, dict[str, str]] = {}
        for month in months:  # oldest first: a month leans on those before it
            inputs[month] = self._inputs(month, inputs)
        in_force = inputs_in_force(self.books.database)
        due = [month for month in months if force or in_force.get(month) != inputs[month]]
        self.report.unchanged = [m for m in months if m not in due]
        self.report.months = due
        self.report.other_code = [m for m in due if m in in_force and in_force[m].get("code") != inputs[m]["code"]]
        if not due:
            self.report.published = True
            return self.report
        self.drawings.rebuild_months = frozenset(due if force else ())
        shared_rules.record_versions(self.books, self.settings.attribution, self.rules)
        self._note(Run(run_id=self.run_id, started_at=started, status="running", months=due, inputs=inputs, cause=self.cause))
        try:
            balances = []
            for done, month in enumerate(due):
                self.progress(month, done, len(due))
                balances.append(self._month(month))
            self.report.balance = pl.concat(balances)
            self.report.spans_read, self.report.rollups_reused = self.drawings.spans_read, self.drawings.rollups_reused
            balance.require_balanced(self.report.balance)
        except Exception as fault:
            self._finish("refused", str(fault))
            raise
        self._publish(due)
        self.report.stale = self._stale(due, inputs, in_force)
        for month, measured in self.drift.items():
            drift_alerts.raise_alerts(self.books, month, measured, self.settings.attribution.drift_tolerance)
        self.progress("published", len(due), len(due))
        return self.report

    def concluded(self, month: str, settings: AttributionSettings, keeper: CostSink) -> MonthCosts:
        """What the facts of a month come to under these settings; nothing is published."""
        return compute_month_costs(
            self.store.scan(CHARGES, {"billing_month": [month]}),
            self._uses(month),
            self.timeline,
            self.book,
            settings,
            sink=keeper,
            run_id=self.run_id,
            month=month,
            other_invoices=self._elsewhere(month),
            past_rates=self.earlier.rates(month),
            past_costs=self.earlier.costs(month),
        )

    def _month(self, month: str) -> pl.DataFrame:
        charges = self.store.scan(CHARGES, {"billing_month": [month]})
        memory = self.books.home / "cache" / "stretches" / month
        if self.force:
            shutil.rmtree(memory, ignore_errors=True)
        keeper = StagedSink(self.store, memory, month=month, run_id=self.run_id)
        drawn = self.concluded(month, self.settings.attribution, keeper)
        self.earlier.drawn.add(month)
        self.drift[month] = drawn.drift
        costs = drawn.told
        totals = balance.control_totals(
            charges, costs.sums, self.store.scan(IMPORT_TOTALS, {"billing_month": [month]}), run_id=self.run_id, month=month
        )
        note = f"run {self.run_id}"
        keeper.commit(note=note)
        noted = charge_groups.table_rows(drawn.lots, run_id=self.run_id, month=month)
        for table, rows in ((BALANCE, totals), (RATES, drawn.rates), (LOTS, noted)):
            staging.commit(self.store, table, staging.stage(self.store, table, rows), note=note)
        filed = findings.findings_uri(month)
        told = [
            *shared_rules.check(
                self.settings.attribution.shared, shared_rules.known_teams(self.timeline, costs.sums), uri=filed, month=month
            ),
            *drift_alerts.problems(drawn.drift, self.settings.attribution.drift_tolerance, uri=filed),
            *unit_scale.problems(drawn.lots, uri=filed),
            *findings.foreign_rates(self.book.foreign, self.book.currency, uri=filed),
            *missing_rates.missing_exchange_rates(costs.days, self.settings.report.currency, Exchange.of(self.books), uri=filed),
        ]
        self.report.problems += findings.publish_findings(self.store, month, self.run_id, costs, drawn.lots, told)
        return totals

    def _elsewhere(self, month: str) -> pl.LazyFrame:
        """Usage charges for this month's hours on the invoices of the months beside it: what they pay for is not open here. (TI-1)"""
        start, end = periods.month_start(month), periods.month_end(month)
        beside = self.store.scan(CHARGES, {"billing_month": periods.adjacent_months(month)})
        overlaps = (pl.col("charge_period_start") < end) & (pl.col("charge_period_end") > start)
        return beside.filter((pl.col("charge_category") == "Usage") & overlaps)

    def _usage_months(self, month: str) -> list[str]:
        """The months whose calls this invoice may pay for: its own, and those its usage charges reach into."""
        if month not in self.reach:
            usage = self.store.scan(CHARGES, {"billing_month": [month]}).filter(pl.col("charge_category") == "Usage")
            edges = (
                usage.select(first=pl.col("charge_period_start").min(), last=pl.col("charge_period_end").max()).collect().row(0)
            )
            asked = {month} | set(periods.months_between(*edges) if edges[0] is not None else ())
            self.reach[month] = sorted(asked & {day[:7] for day in _partitions(self.books, SPANS, "date")})
        return self.reach[month]

    def _uses(self, month: str) -> Usage:
        return self.drawings.usage({m: self._spans_of(m) for m in self._usage_months(month)})

    def _inputs(self, month: str, before: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """What a month's conclusions are drawn from, each part by a fingerprint: two runs that differ, differ in one of these.

        `before` are the inputs of the earlier months that this run looks at.
        """
        return {
            "code": self.earlier.code(month, before),
            "earlier": self.earlier.fingerprint(month, before),
            "charges": self.store.fingerprint(CHARGES, {"billing_month": [month]}),
            "beside": self.store.fingerprint(CHARGES, {"billing_month": periods.adjacent_months(month)}),
            "spans": "|".join(self._spans_of(m) for m in self._usage_months(month)),
            **self.standing,
            "rules": self.rules,
        }

    def _spans_of(self, month: str) -> str:
        window = periods.month_start(month), periods.month_end(month)
        days = {
            day for day in _partitions(self.books, SPANS, "date") if _near(day, window, self.settings.attribution.lookback_days)
        }
        return self.store.fingerprint(SPANS, {"date": sorted(days)}) if days else "none"

    def _stale(
        self, due: Sequence[str], inputs: Mapping[str, dict[str, str]], in_force: Mapping[str, dict[str, str]]
    ) -> list[str]:
        """Published months after the first of `due` that this run was not asked for, and whose inputs have changed."""
        known, found = dict(inputs), []
        for month in sorted(m for m in in_force if m > due[0] and m not in inputs):
            known[month] = self._inputs(month, {m: of for m, of in known.items() if m < month})
            if known[month] != in_force[month]:
                found.append(month)
        return found

    def _note(self, row: object) -> None:
        with self.books.database.session() as session:
            session.add(row)

    def _finish(self, status: str, error: str | None) -> None:
        with self.books.database.session() as session:
            run = session.get_one(Run, self.run_id)
            run.status, run.error, run.finished_at = status, error, periods.now()

    def _publish(self, months: Iterable[str]) -> None:
        """One transaction puts the run in force for all its months."""
        superseded: list[tuple[str, str, list[str]]] = []
        with self.books.database.session() as session:
            for month in months:
                held = session.get(Published, month)
                drawn = self.drawings.rollups(month, self._spans_of(month)) if month in self._usage_months(month) else []
                at: datetime = periods.now()
                if held is None:
                    session.add(Published(month=month, run_id=self.run_id, rollup_ids=drawn, published_at=at))
                else:
                    superseded.append((month, held.run_id, sorted(set(held.rollup_ids) - set(drawn))))
                    held.run_id, held.rollup_ids, held.published_at = self.run_id, drawn, at
            run = session.get_one(Run, self.run_id)
            run.status, run.finished_at = "published", periods.now()
        self.report.published = True
        self._forget(superseded)
        self.drawings.forget_replaced()

    def _forget(self, superseded: list[tuple[str, str, list[str]]]) -> None:
        """Lets go of what a live run left that nothing shows any more; the costs that other code had concluded stay, to be compared."""
        with self.books.database.session() as session:
            live = {run_id for _, run_id, _ in superseded if (run := session.get(Run, run_id)) is not None and run.cause == LIVE}
        for month, run_id, rollup_ids in superseded:
            if run_id not in live:
                continue
            if month not in self.report.other_code:
                for table, column in ((COSTS, "month"), (LOTS, "month"), (RATES, "month"), (BALANCE, "invoice_month")):
                    self.store.replace(table, table.empty(), {column: month, "run_id": run_id})
            self.drawings.forget(month, rollup_ids)


def _near(day: str, window: tuple[datetime, datetime], lookback_days: int) -> bool:
    at = periods.parse_instant(day)
    return (window[0] - at).days <= lookback_days and (at - window[1]).days <= lookback_days
