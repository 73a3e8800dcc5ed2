"""From a bill and hourly usage to costs: the recipe of a month, stretch by stretch. Pure, the same rows from the same facts.

each stretch   charges × usage → shares, rates, leftovers, usage no bill speaks of
the month      leftovers → owner, shared, idle, unallocated;  credits and taxes → where their charges went
each stretch   usage no bill covers yet → list price × what is really paid of it
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import polars as pl

from attribution.classification import names
from attribution.costs import allocation, charge_groups, drift, estimates, matching
from attribution.costs.batches import Batch, matched_as, split_into_batches
from attribution.costs.shared_costs import TeamSpend
from attribution.costs.sink import BatchResult, CostSink, CostTotals, MemorySink
from attribution.pricing import PriceBook
from attribution.usage.reader import FAMILY, Usage
from ledger import code
from ledger.hashing import content_sum
from ledger.periods import month_start
from ledger.settings import AttributionSettings
from ledger.tables import RATES, TOKEN_METERS

BATCH_ROWS = 150_000
"""Rows of usage that are rated at once, about; memory and the time of a late day go with it."""


@dataclass(frozen=True, slots=True)
class MonthCosts:
    """What a bill and a month's usage come to, beside the costs, which the keeper has."""

    told: CostTotals
    rates: pl.DataFrame
    lots: pl.DataFrame
    drift: pl.DataFrame


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
    """Draws the costs of a month and hands them to the keeper.

    `usage` of other months only meets charges, it is not estimated here. `other_invoices` are usage charges of other invoices for this month's
    hours: what they pay for is neither estimated nor missing here. `past_rates` and `past_costs` (`attribution.costs.prior_months`) are what earlier
    months came to: estimates lean on the one, corrections of earlier invoices follow the other.
    """
    families = usage.families()
    display = names.ModelNames(book.models, families["model"].drop_nulls().unique())
    sold = partial(
        charge_groups.build_charge_groups,
        display=display,
        own_rules=settings.skus,
        book=book,
        profiles=lambda: charge_groups.single_model_resources(usage.whole),
    )
    lots = matching.with_pool_keys(sold(charges))
    beside = matching.with_pool_keys(sold(other_invoices)) if other_invoices is not None else lots.clear()
    opens = month_start(month)
    usage_sold = pl.col("role").is_in(["tokens", "driver"])
    sells = pl.concat([frame.filter(usage_sold).select(FAMILY).unique() for frame in (lots, beside)])
    known_as = matched_as(families, sells, display.display, book)
    month_of = _BatchMatcher(
        run_id,
        month,
        lots,
        estimates.coverage(pl.concat([lots, beside], how="diagonal_relaxed"), month),
        settings,
        book.currency,
        sink,
    )
    stretches = split_into_batches(lots, beside, usage, families, known_as, month_begin=opens, max_usage_rows=BATCH_ROWS)
    rated = month_of.rate(stretches)
    told = [r.told for r in rated]
    sums = pl.concat([t.sums for t in told])
    spent = TeamSpend(sums.filter(pl.col("cost_class") == "metered"), usage.whole.filter(pl.col("month") == month))
    settled = allocation.allocate(
        lots,
        pl.concat([r.left for r in rated], how="diagonal_relaxed"),
        sink.of_stretches(),
        spent,
        timeline,
        settings,
        earlier_costs=pl.DataFrame() if past_costs is None else past_costs,
        month_begin=opens,
    )
    told.append(sink.keep(allocation.cost_rows(settled, run_id=run_id, month=month)))
    rates = _rate_rows(
        pl.concat([r.rates for r in rated if r.rates.height] or [pl.DataFrame()], how="diagonal_relaxed"), run_id, month
    )
    paid = estimates.paid_to_list_ratios([rates, *([] if past_rates is None else [past_rates])])
    for stretch in rated:
        estimated = estimates.estimate_costs(
            stretch.open_uses.collect(), paid, run_id=run_id, month=month, currency=book.currency
        )
        if estimated.height:
            told.append(sink.keep(estimated))
    return MonthCosts(CostTotals.together(told), rates, lots, drift.measure_drift(rates, past_rates, currency=book.currency))


def compute_in_memory(*facts: Any, **said: Any) -> pl.DataFrame:
    """The costs themselves, in memory; takes what `compute_month_costs` takes but the keeper."""
    held = MemorySink()
    compute_month_costs(*facts, sink=held, **said)
    return held.costs


@dataclass(frozen=True, slots=True)
class _BatchMatcher:
    """What all stretches of a month are rated by."""

    run_id: str
    month: str
    lots: pl.DataFrame
    covered: pl.DataFrame
    settings: AttributionSettings
    currency: str
    keeper: CostSink

    def rate(self, batches: list[Batch]) -> list[BatchResult]:
        """All stretches, `settings.workers` side by side, told in their order."""
        if len(batches) == 1:
            return [self._rated(batches[0])]
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="stretch") as pool:
            return list(pool.map(self._rated, batches))

    def _rated(self, batch: Batch) -> BatchResult:
        name = self._name(batch) if self.keeper.remembers else ""
        cached_result = self.keeper.known(name)
        if cached_result is not None:
            return cached_result
        usage_rows = batch.uses()
        match = matching.match_usage(batch.lots, usage_rows, self.settings.tolerance)
        matched_rows = [match.used]
        if batch.beside.height:
            matched_rows.append(matching.match_usage(batch.beside, usage_rows, self.settings.tolerance).used)
        shares = allocation.metered_shares(matching.with_dimensions(match.shares, self.lots, usage_rows))
        tokens = pl.col("meter").is_in(TOKEN_METERS)
        logged_rows = usage_rows.with_columns(meter="own_meter")
        unbilled_rows = logged_rows.filter(
            (pl.col("month") == self.month) & ~pl.col("use").is_in(pl.concat(matched_rows).implode()) & tokens
        )
        is_covered = estimates.is_covered(unbilled_rows, self.covered)
        costs = pl.concat(
            [
                allocation.cost_rows([shares], run_id=self.run_id, month=self.month),
                estimates.not_on_bill(
                    unbilled_rows.filter(is_covered), run_id=self.run_id, month=self.month, currency=self.currency
                ),
            ]
        )
        result = BatchResult(CostTotals.of(costs), match.left, match.rates, unbilled_rows.filter(~is_covered).lazy())
        return self.keeper.keep_stretch(name, costs, result)

    def _name(self, batch: Batch) -> str:
        """Says all that the stretch's costs come from: the same name, the same costs."""
        frame_hashes = [_content(frame) for frame in (batch.lots, batch.beside, self.covered, batch.matched_as)]
        parts = (
            code.digest(),
            batch.number,
            *batch.fingerprint(),
            *frame_hashes,
            self.settings.tolerance,
            self.currency,
            self.month,
        )
        return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _content(frame: pl.DataFrame) -> str:
    if not frame.height:
        return "0"
    return f"{frame.height}:{frame.select(content_sum()).item()}"


def _rate_rows(rates: pl.DataFrame, run_id: str, month: str) -> pl.DataFrame:
    if not rates.height:
        return RATES.empty()
    frame = rates.rename({"billed": "billed_quantity", "logged": "logged_quantity"}).with_columns(
        run_id=pl.lit(run_id), month=pl.lit(month)
    )
    return RATES.conform(frame.select(c for c in RATES.schema if c in frame.columns))
