"""One attribution run: from facts to published conclusions, month by month.

build     spans → calls, chains, hourly usage        once per span; reused while spans, registry, prices and code are the same
match     charges × usage → costs of usage, rates, unmatched charge groups
allocate  unmatched charge groups → owner, shared, idle, unallocated; credits and taxes → the owners of what they follow
estimate  usage that no bill covers yet → list price × the share of list price that bills came to
balance   charges in = costs out, or nothing is published
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from attribution.costs import balance, charge_groups, prior_months, settling, shared_rules, unit_scale
from attribution.costs.month import MonthCosts, compute_month_costs
from attribution.costs.sink import CostSink, MemorySink, StagedSink
from attribution.fact_reach import FactReach, partition_values
from attribution.monitoring import adjustments, count_findings, drift_alerts, findings, late_facts, missing_rates, similar_names
from attribution.pricing import PriceBook
from attribution.usage.build import Executor, ThreadExecutor, UsageBuilder
from attribution.usage.reader import Usage
from ledger import code, periods, recovery, registry, rule_store, staging
from ledger.books import Books
from ledger.closing.documents import frozen_runs
from ledger.db import Published, Run
from ledger.errors import UsageError
from ledger.exchange_rates import Exchange
from ledger.hashing import fingerprint
from ledger.problems import Problem
from ledger.published import inputs_in_force
from ledger.settings import AttributionSettings
from ledger.settled_months import settled_months
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
"""Suffix of the text whose fingerprint stands for the settings. It is part of stored fingerprints: runs of older versions compare."""

LIVE = "live"
"""Cause of the runs that `serve` starts itself. Once superseded, their rows are deleted; those of all other runs stay readable."""

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class RunReport:
    """The result of a run. `balance` has no rows for months without a bill.

    `other_code` are those of `months` whose published run was computed by other code or classification data; `stale` are later published
    months outside this run whose inputs it changed. (TI-2) `settled` are months that were asked for and are not rebuilt, since their facts
    were removed (`ledger.settled_months`).
    """

    run_id: str
    months: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
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
    """Computes and publishes the costs of `months`, by default all months with facts.

    A month whose facts, registry, prices, settings and code (`ledger.code`) are those of its published run is skipped, unless `force`:
    then its spans are read and everything is computed again. All months of a run are published together. If one does not balance, none
    is: `BalanceError` is raised and the last published run stays in force. `executor` builds the partitions, by default in threads.
    """
    run = _Run(
        books.snapshot(),
        cause,
        progress or _ignore_progress,
        executor or ThreadExecutor(books.settings.attribution.workers),
    )
    all_months = {*months_with_facts(books), *run.reach.settled} if months is None else months
    return run.go(list(all_months), force=force)


def preview(books: Books, month: str, settings: AttributionSettings) -> pl.DataFrame:
    """The costs of a month under other cost settings (rules, tags, tolerance). Nothing is published."""
    periods.month_start(month)
    if (settled_month := settled_months(books.database).get(month)) is not None:
        raise UsageError(f"{month} cannot be computed again: {settled_month}", where="month", remedy="name a later month")
    run = _Run(books.snapshot(), "preview", _ignore_progress, ThreadExecutor(books.settings.attribution.workers))
    sink = MemorySink()
    run.compute_costs(month, settings, sink)
    return sink.costs


def months_due(books: Books) -> list[str]:
    """The months with facts whose published costs, if any, were not computed from what there is now; settled months are never due."""
    run = _Run(books.snapshot(), "check", _ignore_progress, ThreadExecutor(1))
    inputs, in_force = run.inputs_of(months_with_facts(books)), inputs_in_force(books.database)
    return [month for month, of_month in inputs.items() if in_force.get(month) != of_month]


def months_with_facts(books: Books) -> list[str]:
    """Every month that has charges or spans, in order."""
    billed_months = partition_values(books.store, CHARGES, "billing_month")
    span_months = {day[:7] for day in partition_values(books.store, SPANS, "date")}
    return sorted(billed_months | span_months)


def _ignore_progress(stage: str, done_count: int, total: int) -> None:
    """For callers without a progress display."""


class _Run:
    def __init__(self, books: Books, cause: str, progress: Progress, executor: Executor) -> None:
        self.books, self.store, self.settings = books, books.store, rule_store.settings_in_force(books)
        self.cause, self.progress = cause, progress
        self.run_id = f"{periods.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self.report, self.reach = RunReport(self.run_id), FactReach(books)
        rows = registry.rows(books)
        self.timeline = registry.timeline(rows)
        self.book = PriceBook(self.store.scan(PRICES).collect())
        self.common_inputs = {
            "registry": registry.revision(rows),
            "prices": self.store.fingerprint(PRICES),
            "reading": fingerprint(
                self.settings.ingest.model_dump_json() + shared_rules.usage_settings(self.settings.attribution) + SETTINGS_FORM
            ),
        }
        input_fingerprints = (*self.common_inputs.values(), code.digest())
        self.usage_builder = UsageBuilder(
            books,
            self.timeline,
            self.book,
            input_fingerprints,
            settled_months=self.reach.settled,
            executor=executor,
            progress=progress,
        )
        self.prior = prior_months.PriorMonths(books, self.run_id)
        self.drift: dict[str, pl.DataFrame] = {}
        self.adjusted_months: dict[str, pl.DataFrame] = {}
        self.force = False
        self.rules = fingerprint(shared_rules.cost_settings(self.settings.attribution) + SETTINGS_FORM)

    def go(self, months: Sequence[str], *, force: bool) -> RunReport:
        started_at, self.force = periods.now(), force
        for month in months:
            periods.month_start(month)  # raises for a malformed month before any work is done
        self.report.settled = sorted(set(months) & self.reach.settled.keys())
        self.report.problems += late_facts.renew_problems(self.books, [self.reach.settled[m] for m in self.report.settled])
        inputs = self.inputs_of(months)
        months = list(inputs)
        in_force = inputs_in_force(self.books.database)
        due_months = [month for month in months if force or in_force.get(month) != inputs[month]]
        self.report.unchanged = [m for m in months if m not in due_months]
        self.report.months = due_months
        self.report.other_code = [m for m in due_months if m in in_force and in_force[m].get("code") != inputs[m]["code"]]
        if not due_months:
            self.report.published = True
            return self.report
        self.usage_builder.rebuild_months = frozenset(due_months if force else ())
        recovery.close_runs(self.books)
        shared_rules.record_versions(self.books, self.settings.attribution, self.rules)
        self._note(
            Run(run_id=self.run_id, started_at=started_at, status="running", months=due_months, inputs=inputs, cause=self.cause)
        )
        try:
            balances = []
            for done_count, month in enumerate(due_months):
                self.progress(month, done_count, len(due_months))
                balances.append(self._month(month))
            self.report.balance = pl.concat(balances)
            self.report.spans_read, self.report.rollups_reused = self.usage_builder.spans_read, self.usage_builder.rollups_reused
            balance.require_balanced(self.report.balance)
            self.adjusted_months = adjustments.adjustments(self.books, due_months, self.run_id)
        except Exception as error:
            self._finish("refused", str(error))
            raise
        self._publish(due_months)
        self.report.stale = self._stale(due_months, inputs, in_force)
        for month, month_drift in self.drift.items():
            drift_alerts.raise_alerts(self.books, month, month_drift, self.settings.attribution.drift_tolerance)
        self.progress("published", len(due_months), len(due_months))
        return self.report

    def inputs_of(self, months: Iterable[str]) -> dict[str, dict[str, str]]:
        """The inputs of months that are not settled, oldest first: those of a month include those of prior months."""
        inputs: dict[str, dict[str, str]] = {}
        for month in sorted(set(months) - self.reach.settled.keys()):
            inputs[month] = self._inputs(month, inputs)
        return inputs

    def compute_costs(self, month: str, settings: AttributionSettings, sink: CostSink) -> MonthCosts:
        """Writes the costs of a month under these settings to `sink`; nothing is published."""
        return compute_month_costs(
            self._with_read_times(self.store.scan(CHARGES, {"billing_month": [month]})),
            self._usage(month),
            self.timeline,
            self.book,
            settings,
            sink=sink,
            run_id=self.run_id,
            month=month,
            other_invoices=self._other_invoices(month),
            past_rates=self.prior.rates(month),
            past_costs=self.prior.costs(month),
        )

    def _month(self, month: str) -> pl.DataFrame:
        """Computes and stages a month; returns its control totals."""
        charges = self.store.scan(CHARGES, {"billing_month": [month]})
        cache_dir = self.books.home / "cache" / "stretches" / month
        if self.force:
            shutil.rmtree(cache_dir, ignore_errors=True)
        sink = StagedSink(self.store, cache_dir, month=month, run_id=self.run_id)
        month_costs = self.compute_costs(month, self.settings.attribution, sink)
        self.prior.computed.add(month)
        self.drift[month] = month_costs.drift
        control_totals = balance.control_totals(
            charges,
            month_costs.totals.sums,
            self.store.scan(IMPORT_TOTALS, {"billing_month": [month]}),
            run_id=self.run_id,
            month=month,
        )
        note = f"run {self.run_id}"
        sink.commit(note=note)
        groups = charge_groups.table_rows(month_costs.groups, run_id=self.run_id, month=month)
        for table, rows in ((BALANCE, control_totals), (RATES, month_costs.rates), (LOTS, groups)):
            staging.commit(self.store, table, staging.stage(self.store, table, rows), note=note)
        self.report.problems += findings.publish_findings(
            self.store, month, self.run_id, month_costs.totals, month_costs.groups, self._problems(month, month_costs)
        )
        return control_totals

    def _problems(self, month: str, month_costs: MonthCosts) -> list[Problem]:
        """Problems of the rules, drift, units and rates of a month, filed under its findings."""
        settings, uri = self.settings.attribution, findings.findings_uri(month)
        totals = month_costs.totals
        return [
            *shared_rules.check(
                settings.shared,
                shared_rules.known_teams(self.timeline, totals.sums),
                uri=uri,
                month=month,
                registered_teams=self.timeline["team"].drop_nulls().unique(),
            ),
            *similar_names.problems(
                self.store,
                month,
                self.run_id,
                self.timeline,
                month_costs.groups,
                settings,
                rollup_ids=self._rollup_ids(month),
                currency=self.book.currency,
                uri=uri,
            ),
            *drift_alerts.problems(month_costs.drift, settings.drift_tolerance, uri=uri),
            *unit_scale.problems(month_costs.groups, uri=uri),
            *findings.foreign_rates(self.book.foreign, self.book.currency, uri=uri),
            *count_findings.problems(
                self.store, month, self._rollup_ids(month), month_costs.implausible, currency=self.book.currency, uri=uri
            ),
            *missing_rates.missing_exchange_rates(totals.days, self.settings.report.currency, Exchange.of(self.books), uri=uri),
        ]

    def _rollup_ids(self, month: str) -> list[str]:
        """The rollups of the calls that started in a month."""
        return self.usage_builder.rollups(month, self.reach.spans_of(month)) if month in self.reach.usage_months(month) else []

    def _other_invoices(self, month: str) -> pl.LazyFrame:
        """Usage charges on other invoices, for hours that this invoice bills or that lie in this month. (TI-1, RA-2a)

        An invoice with late rows of earlier hours needs the invoices before it, to know what those took of these hours.
        """
        start, end = periods.month_start(month), periods.month_end(month)
        charges = self.store.scan(CHARGES, {"billing_month": self.reach.billing_months(month)})
        overlaps = (pl.col("charge_period_start") < end) & (pl.col("charge_period_end") > start)
        if self.reach.usage_months(month)[:1] < [month]:
            overlaps |= pl.col("billing_month") < month
        return self._with_read_times(charges.filter((pl.col("charge_category") == "Usage") & overlaps))

    def _with_read_times(self, charges: pl.LazyFrame) -> pl.LazyFrame:
        """Charges with the moment up to which their file can hold usage. (ES-1a)"""
        sources = charges.select(pl.col("source").unique()).collect(engine="streaming")["source"]
        return settling.with_read_times(charges, settling.read_times(self.store, sources.to_list(), periods.now()))

    def _usage(self, month: str) -> Usage:
        return self.usage_builder.usage({m: self.reach.spans_of(m) for m in self.reach.usage_months(month)})

    def _inputs(self, month: str, before: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """A fingerprint of each input of a month: where two runs differ, one of these does.

        code      attribution's code and classification data, that of the months it depends on included
        earlier   inputs of the prior months whose rates and costs it uses
        charges   its bill; `beside`: the bills of the other months whose invoices may bill its hours
        spans     the days in reach of its usage
        reading   settings that change calls and usage; `rules`: settings that change costs

        `registry`, `prices` and `reading` are the same for all months. `before` are the inputs of the earlier months of this run.
        """
        return {
            "code": self.prior.code(month, before),
            "earlier": self.prior.fingerprint(month, before),
            "charges": self.store.fingerprint(CHARGES, {"billing_month": [month]}),
            "beside": self.store.fingerprint(CHARGES, {"billing_month": self.reach.billing_months(month)}),
            "spans": "|".join(self.reach.spans_of(m) for m in self.reach.usage_months(month)),
            **self.common_inputs,
            "rules": self.rules,
        }

    def _stale(
        self, due_months: Sequence[str], inputs: Mapping[str, dict[str, str]], in_force: Mapping[str, dict[str, str]]
    ) -> list[str]:
        """Published months after the first of `due_months` that are not part of this run and whose inputs have changed."""
        inputs_by_month = dict(inputs)
        stale_months = []
        for month in sorted(m for m in in_force if m > due_months[0] and m not in inputs and m not in self.reach.settled):
            inputs_by_month[month] = self._inputs(month, {m: parts for m, parts in inputs_by_month.items() if m < month})
            if inputs_by_month[month] != in_force[month]:
                stale_months.append(month)
        return stale_months

    def _note(self, row: object) -> None:
        with self.books.database.session() as session:
            session.add(row)

    def _finish(self, status: str, error: str | None) -> None:
        with self.books.database.session() as session:
            run = session.get_one(Run, self.run_id)
            run.status, run.error, run.finished_at = status, error, periods.now()

    def _publish(self, months: Iterable[str]) -> None:
        """Puts the run in force for all its months, in one transaction."""
        superseded_runs: list[tuple[str, str, list[str]]] = []
        with self.books.database.session() as session:
            for month in months:
                published_month = session.get(Published, month)
                has_usage = month in self.reach.usage_months(month)
                rollup_ids = self.usage_builder.rollups(month, self.reach.spans_of(month)) if has_usage else []
                published_at: datetime = periods.now()
                if published_month is None:
                    session.add(Published(month=month, run_id=self.run_id, rollup_ids=rollup_ids, published_at=published_at))
                else:
                    superseded_runs.append(
                        (month, published_month.run_id, sorted(set(published_month.rollup_ids) - set(rollup_ids)))
                    )
                    published_month.run_id, published_month.rollup_ids, published_month.published_at = (
                        self.run_id,
                        rollup_ids,
                        published_at,
                    )
            run = session.get_one(Run, self.run_id)
            run.status, run.finished_at = "published", periods.now()
            adjustments.book(session, self.run_id, self.adjusted_months)
        self.report.published = True
        self._forget(superseded_runs)
        self.usage_builder.forget_replaced()

    def _forget(self, superseded_runs: list[tuple[str, str, list[str]]]) -> None:
        """Deletes the rows of superseded live runs of open months. Costs that other code had computed stay, so that they can be compared."""
        with self.books.database.session() as session:
            superseded_ids = [run_id for _, run_id, _ in superseded_runs]
            is_live = Run.run_id.in_(superseded_ids) & (Run.cause == LIVE) & Run.run_id.not_in(frozen_runs())
            live_ids = set(session.scalars(sa.select(Run.run_id).where(is_live)))
        for month, run_id, rollup_ids in superseded_runs:
            if run_id not in live_ids:
                continue
            if month not in self.report.other_code:
                for table, column in ((COSTS, "month"), (LOTS, "month"), (RATES, "month"), (BALANCE, "invoice_month")):
                    self.store.replace(table, table.empty(), {column: month, "run_id": run_id})
            self.usage_builder.forget(month, rollup_ids)
