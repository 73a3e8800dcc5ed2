"""The costs of a month: its charges matched with hourly usage, batch by batch, and every remainder given an owner or a reason.

The recipe of `compute_month_costs`, in order; each step is pure, so the same facts give the same rows:

build_charge_groups    charges                → charge groups: like charges summed, and what each of them sells        (RA-1)
bill_names             families of usage      → the names that the bill has for their models and meters               (RA-1)
split_into_batches     groups, usage          → batches that can be matched on their own
match_batches          each batch             → costs of usage, unmatched groups, rates, usage that is not billed yet  (RA-1a, RA-2, RA-3)
  plan_moves           offers, open groups    → usage that is met in the hour of its end: its batches are matched again      (RA-3)
allocate               unmatched groups       → owner, shared, idle, unallocated; then credits and taxes               (RA-4, RA-5)
month_rates            rates of the batches   → rows of `rates`
estimate_open_usage    usage not billed yet   → list price × the share of list price that bills came to                (ES-1)
measure_drift          rates, earlier rates   → how far estimates were from this bill                                  (ES-3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from attribution.classification import names
from attribution.columns import is_call_usage
from attribution.costs import (
    allocation,
    charge_groups,
    drift,
    estimates,
    hour_ends,
    implausible,
    matching,
    running_periods,
    sellers,
)
from attribution.costs.batches import Batch, matched_as, split_into_batches
from attribution.costs.charge_groups import sells_meter, sells_model
from attribution.costs.shared_costs import TeamSpend
from attribution.costs.sink import BatchResult, CostSink, CostTotals, MemorySink
from attribution.pricing import PriceBook
from attribution.usage.reader import FAMILY, Usage
from ledger import code
from ledger.hashing import content_sum, fingerprint
from ledger.names import RegisteredNames
from ledger.periods import month_start
from ledger.settings import AttributionSettings
from ledger.tables import RATES, TOKEN_METERS

BATCH_ROWS = 150_000
"""About how many usage rows are matched at once: memory, and the time to rebuild after a late day, grow with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthCosts:
    """What a month's bill and usage come to, beside the rows of `costs`, which went to the sink."""

    totals: CostTotals
    rates: pl.DataFrame
    groups: pl.DataFrame
    drift: pl.DataFrame
    implausible: pl.DataFrame


def compute_month_costs(
    charges: pl.LazyFrame,
    usage: Usage,
    timeline: pl.DataFrame,
    book: PriceBook,
    settings: AttributionSettings,
    *,
    sink: CostSink,
    run_id: str,
    month: str,
    other_invoices: pl.LazyFrame | None = None,
    past_rates: pl.DataFrame | None = None,
    past_costs: pl.DataFrame | None = None,
) -> MonthCosts:
    """Computes the costs of a month and writes them to the sink.

    `usage` of other months is matched with charges, but not estimated here. `other_invoices` are usage charges of other invoices for this
    month's hours: the usage they pay for is neither estimated nor missing here. `past_rates` and `past_costs`
    (`attribution.costs.prior_months`) are results of earlier months: estimates use the rates, corrections of earlier invoices follow the costs.
    """
    families = usage.families()
    display = names.ModelNames(book.models, families["model"].drop_nulls().unique())
    build_groups = partial(_pool_groups, usage=usage, display=display, book=book, settings=settings, timeline=timeline)
    groups = build_groups(charges)
    other_groups = (
        _other_groups(other_invoices, groups, usage, month, build_groups) if other_invoices is not None else groups.clear()
    )
    results = _match_usage(
        groups, other_groups, usage, families, display, book=book, settings=settings, sink=sink, run_id=run_id, month=month
    )
    totals = [result.totals for result in results]
    allocated_parts = allocation.allocate(
        groups,
        pl.concat([result.unmatched for result in results], how="diagonal_relaxed"),
        sink.batch_costs(),
        _team_spend(totals, usage, month, RegisteredNames.teams(timeline)),
        timeline,
        settings,
        earlier_costs=pl.DataFrame() if past_costs is None else past_costs,
        month_begin=month_start(month),
    )
    totals.append(sink.add(allocation.cost_rows(allocated_parts, run_id=run_id, month=month)))
    rates = _month_rates(results, run_id, month)
    ratios = estimates.paid_to_list_ratios([rates, *([] if past_rates is None else [past_rates])])
    totals += _estimate_open_usage(results, ratios, sink, run_id=run_id, month=month, currency=book.currency)
    return MonthCosts(
        totals=CostTotals.combine(totals),
        rates=rates,
        groups=groups,
        drift=drift.measure_drift(rates, past_rates, currency=book.currency),
        implausible=pl.concat([result.implausible for result in results]),
    )


def _match_usage(
    groups: pl.DataFrame,
    other_groups: pl.DataFrame,
    usage: Usage,
    families: pl.DataFrame,
    display: names.ModelNames,
    *,
    book: PriceBook,
    settings: AttributionSettings,
    sink: CostSink,
    run_id: str,
    month: str,
) -> list[BatchResult]:
    """Matches charge groups with usage, batch by batch; usage without a provider under the one that sells its model. (RA-1b)"""
    all_groups = pl.concat([groups, other_groups], how="diagonal_relaxed")
    unnamed_providers = sellers.unnamed_providers(families, all_groups, book)
    seller_hours = sellers.seller_hours([groups, other_groups]) if unnamed_providers else sellers.NOTHING_SOLD
    families = sellers.with_sellers(families, unnamed_providers, seller_hours)
    bill_names = matched_as(families, _billed_families(groups, other_groups), display.display, book)
    matcher = _BatchMatcher(
        run_id=run_id,
        month=month,
        groups=groups,
        coverage=estimates.coverage(all_groups, month),
        billed_hours=hour_ends.billed_hours(all_groups),
        settings=settings,
        currency=book.currency,
        sink=sink,
    )
    return matcher.match_batches(
        split_into_batches(
            groups,
            other_groups,
            usage,
            families,
            bill_names,
            month_begin=month_start(month),
            max_usage_rows=BATCH_ROWS,
            unnamed_providers=unnamed_providers,
            seller_hours=seller_hours,
        )
    )


def _estimate_open_usage(
    results: Sequence[BatchResult], ratios: pl.DataFrame, sink: CostSink, *, run_id: str, month: str, currency: str
) -> list[CostTotals]:
    """Estimates the usage that no bill covers yet, batch by batch, and writes it to the sink; the totals of what was written. (ES-1)"""
    estimated_batches = (
        estimates.estimate_costs(result.open_usage.collect(), ratios, run_id=run_id, month=month, currency=currency)
        for result in results
    )
    return [sink.add(costs) for costs in estimated_batches if costs.height]


def compute_in_memory(*facts: Any, **options: Any) -> pl.DataFrame:
    """The cost rows themselves, in memory; takes the arguments of `compute_month_costs` but the sink."""
    sink = MemorySink()
    compute_month_costs(*facts, sink=sink, **options)
    return sink.costs


def _pool_groups(
    charges: pl.LazyFrame,
    *,
    usage: Usage,
    display: names.ModelNames,
    book: PriceBook,
    settings: AttributionSettings,
    timeline: pl.DataFrame,
) -> pl.DataFrame:
    """Charges as charge groups under the keys that pools are matched by, with their owners."""
    groups = matching.with_pool_keys(
        charge_groups.build_charge_groups(
            charges,
            display=display,
            own_rules=settings.skus,
            book=book,
            profiles=lambda: charge_groups.single_model_resources(usage.whole),
        )
    )
    return allocation.with_owners(groups, timeline, settings)


def _other_groups(
    charges: pl.LazyFrame, groups: pl.DataFrame, usage: Usage, month: str, build_groups: Callable[[pl.LazyFrame], pl.DataFrame]
) -> pl.DataFrame:
    """Charge groups of other invoices that may pay for the same usage, and `invoice_order`: below 0 for an earlier invoice, above for a later. (RA-2a)"""
    billing_months = charges.select(pl.col("billing_month").unique()).collect()["billing_month"].sort().to_list()
    first = sum(billing_month < month for billing_month in billing_months)
    parts = [groups.clear().with_columns(invoice_order=pl.lit(0))]
    for number, billing_month in enumerate(billing_months):
        invoice_groups = build_groups(charges.filter(pl.col("billing_month") == billing_month))
        if billing_month < month:
            invoice_groups = _paying_for_late_hours(invoice_groups, groups, usage, month_start(month))
        parts.append(invoice_groups.with_columns(invoice_order=pl.lit(number - first if number < first else number - first + 1)))
    return pl.concat(parts, how="diagonal_relaxed").with_columns(charge_group=pl.int_range(pl.len(), dtype=pl.Int64))


def _paying_for_late_hours(
    earlier_groups: pl.DataFrame, groups: pl.DataFrame, usage: Usage, month_begin: datetime
) -> pl.DataFrame:
    """Groups of an earlier invoice that reach into this month, or that may take usage of hours which this invoice bills late.

    A group that shares an hour with a late one takes usage of all its own hours, which other groups of that invoice take from as well: so the
    hours in question begin where the first of these groups begins, or where usage started that ended in such an hour (RA-3). All groups of
    the model count, whoever sells it: usage without a provider belongs to the only seller of an hour. (RA-1b)
    """
    reaches_into_month = pl.col("period_end") > month_begin
    late_groups = groups.filter(
        pl.col("pool_start") < month_begin, pl.col("role").is_in(["tokens", "driver"]), sells_meter() | sells_model()
    )
    if not late_groups.height:
        return earlier_groups.filter(reaches_into_month)
    reach = hour_ends.longest_reach(usage.whole)
    since = late_groups.group_by("model").agg(since=pl.col("pool_start").min() - reach)
    model_groups = earlier_groups.join(since, on="model", how="left", nulls_equal=True, maintain_order="left")
    while True:
        first = pl.col("pool_start").filter(pl.col("pool_end") > pl.col("since")).min().over("model")
        next_groups = model_groups.with_columns(
            since=pl.min_horizontal("since", pl.when(pl.col("since").is_not_null()).then(first))
        )
        if next_groups.equals(model_groups):
            return next_groups.filter(reaches_into_month | (pl.col("pool_end") > pl.col("since"))).drop("since")
        model_groups = next_groups


def _billed_families(*all_groups: pl.DataFrame) -> pl.DataFrame:
    """Provider, model and meter of every charge group that pays for usage."""
    pays_for_usage = pl.col("role").is_in(["tokens", "driver"]) & sells_meter()
    return pl.concat([groups.filter(pays_for_usage).select(FAMILY).unique() for groups in all_groups])


def _team_spend(totals: Sequence[CostTotals], usage: Usage, month: str, teams: RegisteredNames) -> TeamSpend:
    """What teams spent and used in the month, as weights of shared costs."""
    sums = pl.concat([t.sums for t in totals])
    return TeamSpend(sums.filter(pl.col("cost_class") == "metered"), usage.whole.filter(pl.col("month") == month), teams)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BatchMatcher:
    """Matches batches; holds what all batches of a month share."""

    run_id: str
    month: str
    groups: pl.DataFrame
    coverage: pl.DataFrame
    billed_hours: pl.DataFrame
    settings: AttributionSettings
    currency: str
    sink: CostSink

    def match_batches(self, batches: list[Batch]) -> list[BatchResult]:
        """The result of each batch, in the order of the batches, whose cost rows are in the sink.

        Usage that is met in the hour of its end moves between batches or within one: these are matched a second time. (RA-3)
        """
        results = self._match_in_parallel(batches)
        moved_usage = hour_ends.plan_moves(
            {batch.number: (result.offers, result.open_groups) for batch, result in zip(batches, results, strict=True)},
            partial(matching.match_offers, tolerance=self.settings.tolerance, defaults=self.settings.defaults),
        )
        results_by_number = dict(zip((batch.number for batch in batches), results, strict=True))
        affected_batches = [batch for batch in (batch.with_moves(moved_usage) for batch in batches) if batch.has_moves]
        results_by_number |= zip(
            (batch.number for batch in affected_batches), self._match_in_parallel(affected_batches), strict=True
        )
        results = list(results_by_number.values())
        self.sink.add_batches([result.name for result in results])
        return results

    def _match_in_parallel(self, batches: list[Batch]) -> list[BatchResult]:
        """The result of each batch; `settings.workers` are matched at a time."""
        if len(batches) <= 1:
            return [self._match(batch) for batch in batches]
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="batch") as pool:
            return list(pool.map(self._match, batches))

    def _match(self, batch: Batch) -> BatchResult:
        name = self._cache_key(batch) if self.sink.caches else f"{batch.number}/{batch.has_moves}"
        cached_result = self.sink.cached(name)
        if cached_result is not None:
            return cached_result
        usage_rows = batch.usage_rows(self.settings.defaults)
        match = matching.match_usage(
            batch.groups, usage_rows, self.settings.tolerance, self.settings.defaults, batch.other_groups
        )
        shares = allocation.metered_shares(matching.with_dimensions(match.shares, self.groups, usage_rows))
        logged_rows = usage_rows.with_columns(model="own_model", meter="own_meter")
        month_rows = logged_rows.filter(pl.col("month") == self.month, is_call_usage())
        is_implausible = pl.col("usage_row").is_in(match.implausible_usage.implode())
        implausible_usage, month_rows = month_rows.filter(is_implausible), month_rows.filter(~is_implausible)
        unbilled_rows = running_periods.unbilled_usage(month_rows, match.matched_usage, match.late_usage)
        # Pictures or seconds that a model sells by the token cost nothing of their own.
        unbilled_rows = unbilled_rows.filter(pl.col("meter").is_in(TOKEN_METERS) | pl.col("list_cost").ne_missing(0))
        unbilled_rows = estimates.with_coverage(unbilled_rows, self.coverage, self.settings.defaults)
        is_covered, is_late = unbilled_rows["covered"], unbilled_rows["late"]
        unbilled_rows = unbilled_rows.drop("covered", "late")
        if batch.unnamed_providers:
            is_covered |= sellers.is_beside_uncaptured(unbilled_rows, match.uncaptured)
        is_covered &= ~is_late
        costs = pl.concat(
            [
                allocation.cost_rows([shares], run_id=self.run_id, month=self.month),
                estimates.not_on_bill(
                    unbilled_rows.filter(is_covered), run_id=self.run_id, month=self.month, currency=self.currency
                ),
                estimates.not_on_bill(
                    implausible_usage, run_id=self.run_id, month=self.month, currency=self.currency, is_implausible=True
                ),
            ]
        )
        result = BatchResult(
            name=name,
            totals=CostTotals.of(costs),
            unmatched=match.unmatched,
            rates=match.rates,
            open_usage=unbilled_rows.filter(~is_covered).lazy(),
            implausible=implausible.summarise(implausible_usage, match.implausible_shares, batch.groups),
            offers=hour_ends.within_bill(match.offers, self.billed_hours),
            open_groups=match.open_groups,
        )
        return self.sink.keep_batch(costs, result)

    def _cache_key(self, batch: Batch) -> str:
        """A hash of everything that the batch's costs are computed from: equal keys, equal costs."""
        frame_hashes = [
            _content(frame)
            for frame in (
                *(batch.groups, batch.other_groups, self.coverage, batch.bill_names, batch.sold),
                *(self.billed_hours, batch.moved_out, batch.moved_in),
            )
        ]
        parts = (
            code.digest(),
            batch.number,
            batch.unnamed_providers,
            *batch.fingerprint(),
            *frame_hashes,
            self.settings.tolerance,
            self.settings.defaults,
            self.currency,
            self.month,
        )
        return fingerprint(repr(parts))


def _content(frame: pl.DataFrame) -> str:
    if not frame.height:
        return "0"
    return f"{frame.height}:{frame.select(content_sum()).item()}"


def _month_rates(results: Sequence[BatchResult], run_id: str, month: str) -> pl.DataFrame:
    """The rates of all batches as rows of `rates`."""
    frames = [result.rates for result in results if result.rates.height]
    if not frames:
        return RATES.empty()
    rates = pl.concat(frames, how="diagonal_relaxed").rename({"billed": "billed_quantity", "logged": "logged_quantity"})
    rates = rates.with_columns(run_id=pl.lit(run_id), month=pl.lit(month))
    return RATES.conform(rates.select(c for c in RATES.schema if c in rates.columns))
