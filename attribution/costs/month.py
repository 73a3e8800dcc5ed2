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
from attribution.costs.batches import Stretch, cut, matched_as
from attribution.costs.shared_costs import Spent
from attribution.costs.sink import Held, Keeper, Rating, Told
from attribution.pricing import PriceBook
from attribution.usage.reader import FAMILY, Usage
from ledger import code
from ledger.hashing import content_sum
from ledger.periods import month_start
from ledger.settings import AttributionSettings
from ledger.tables import RATES, TOKEN_METERS

STRETCH_ROWS = 150_000
"""Rows of usage that are rated at once, about; memory and the time of a late day go with it."""


@dataclass(frozen=True, slots=True)
class Conclusions:
    """What a bill and a month's usage come to, beside the costs, which the keeper has."""

    told: Told
    rates: pl.DataFrame
    lots: pl.DataFrame
    drift: pl.DataFrame


def conclude(
    charges: pl.LazyFrame,
    usage: Usage,
    timeline: pl.DataFrame,
    book: PriceBook,
    settings: AttributionSettings,
    *,
    keeper: Keeper,
    run_id: str,
    month: str,
    elsewhere: pl.LazyFrame | None = None,
    past_rates: pl.DataFrame | None = None,
    past_costs: pl.DataFrame | None = None,
) -> Conclusions:
    """Draws the costs of a month and hands them to the keeper.

    `usage` of other months only meets charges, it is not estimated here. `elsewhere` are usage charges of other invoices for this month's
    hours: what they pay for is neither estimated nor missing here. `past_rates` and `past_costs` (`attribution.costs.prior_months`) are what earlier
    months came to: estimates lean on the one, corrections of earlier invoices follow the other.
    """
    families = usage.families()
    display = names.ModelNames(book.models, families["model"].drop_nulls().unique())
    sold = partial(
        charge_groups.lots, display=display, own=settings.skus, book=book, profiles=lambda: charge_groups.behind(usage.whole)
    )
    lots = matching.prepare(sold(charges))
    beside = matching.prepare(sold(elsewhere)) if elsewhere is not None else lots.clear()
    opens = month_start(month)
    usage_sold = pl.col("role").is_in(["tokens", "driver"])
    sells = pl.concat([frame.filter(usage_sold).select(FAMILY).unique() for frame in (lots, beside)])
    known_as = matched_as(families, sells, display.display, book)
    month_of = _Month(
        run_id,
        month,
        lots,
        estimates.coverage(pl.concat([lots, beside], how="diagonal_relaxed"), month),
        settings,
        book.currency,
        keeper,
    )
    stretches = cut(lots, beside, usage, families, known_as, opens=opens, most_uses=STRETCH_ROWS)
    rated = month_of.rate(stretches)
    told = [r.told for r in rated]
    sums = pl.concat([t.sums for t in told])
    spent = Spent(sums.filter(pl.col("cost_class") == "metered"), usage.whole.filter(pl.col("month") == month))
    settled = allocation.settle(
        lots,
        pl.concat([r.left for r in rated], how="diagonal_relaxed"),
        keeper.of_stretches(),
        spent,
        timeline,
        settings,
        earlier=pl.DataFrame() if past_costs is None else past_costs,
        opens=opens,
    )
    told.append(keeper.keep(allocation.as_costs(settled, run_id=run_id, month=month)))
    rates = _rates(
        pl.concat([r.rates for r in rated if r.rates.height] or [pl.DataFrame()], how="diagonal_relaxed"), run_id, month
    )
    paid = estimates.paid_of_list([rates, *([] if past_rates is None else [past_rates])])
    for stretch in rated:
        estimated = estimates.estimate(stretch.open_uses.collect(), paid, run_id=run_id, month=month, currency=book.currency)
        if estimated.height:
            told.append(keeper.keep(estimated))
    return Conclusions(Told.together(told), rates, lots, drift.measured(rates, past_rates, currency=book.currency))


def costs_of(*facts: Any, **said: Any) -> pl.DataFrame:
    """The costs themselves, in memory; takes what `conclude` takes but the keeper."""
    held = Held()
    conclude(*facts, keeper=held, **said)
    return held.costs


@dataclass(frozen=True, slots=True)
class _Month:
    """What all stretches of a month are rated by."""

    run_id: str
    month: str
    lots: pl.DataFrame
    covered: pl.DataFrame
    settings: AttributionSettings
    currency: str
    keeper: Keeper

    def rate(self, stretches: list[Stretch]) -> list[Rating]:
        """All stretches, `settings.workers` side by side, told in their order."""
        if len(stretches) == 1:
            return [self._rated(stretches[0])]
        with ThreadPoolExecutor(self.settings.workers, thread_name_prefix="stretch") as pool:
            return list(pool.map(self._rated, stretches))

    def _rated(self, stretch: Stretch) -> Rating:
        name = self._name(stretch) if self.keeper.remembers else ""
        held = self.keeper.known(name)
        if held is not None:
            return held
        uses = stretch.uses()
        found = matching.rate(stretch.lots, uses, self.settings.tolerance)
        taken = [found.used]
        if stretch.beside.height:
            taken.append(matching.rate(stretch.beside, uses, self.settings.tolerance).used)
        shares = allocation.metered(matching.described(found.shares, self.lots, uses))
        tokens = pl.col("meter").is_in(TOKEN_METERS)
        logged = uses.with_columns(meter="own_meter")
        free = logged.filter((pl.col("month") == self.month) & ~pl.col("use").is_in(pl.concat(taken).implode()) & tokens)
        covered = estimates.is_covered(free, self.covered)
        costs = pl.concat(
            [
                allocation.as_costs([shares], run_id=self.run_id, month=self.month),
                estimates.not_on_bill(free.filter(covered), run_id=self.run_id, month=self.month, currency=self.currency),
            ]
        )
        rest = Rating(Told.of(costs), found.left, found.rates, free.filter(~covered).lazy())
        return self.keeper.keep_stretch(name, costs, rest)

    def _name(self, stretch: Stretch) -> str:
        """Says all that the stretch's costs come from: the same name, the same costs."""
        charged = [_content(frame) for frame in (stretch.lots, stretch.beside, self.covered, stretch.matched_as)]
        told = (
            code.digest(),
            stretch.number,
            *stretch.fingerprint(),
            *charged,
            self.settings.tolerance,
            self.currency,
            self.month,
        )
        return blake2b(repr(told).encode(), digest_size=16).hexdigest()


def _content(frame: pl.DataFrame) -> str:
    if not frame.height:
        return "0"
    return f"{frame.height}:{frame.select(content_sum()).item()}"


def _rates(rates: pl.DataFrame, run_id: str, month: str) -> pl.DataFrame:
    if not rates.height:
        return RATES.empty()
    frame = rates.rename({"billed": "billed_quantity", "logged": "logged_quantity"}).with_columns(
        run_id=pl.lit(run_id), month=pl.lit(month)
    )
    return RATES.conform(frame.select(c for c in RATES.schema if c in frame.columns))
