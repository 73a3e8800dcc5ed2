"""Stretches: a month's bill and usage in parts that can be rated alone, one after the other or side by side.

A charge meets the usage of its own hours, provider, model and meter, and no other. So charges by the hour or day are rated day by day, in
as many days at a time as make a stretch; what is charged over longer (a month, a day of another timezone) is rated in a stretch of its own, all of its
provider, model and meter together; and so is what is split by the time and requests of a resource. Cut or not, the shares are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from attribution.pricing import PriceBook
from attribution.pricing.rates import REFINES
from attribution.usage.reader import COUNTED_COLUMNS, FAMILY, Usage, merge_duplicate_keys
from ledger import periods
from ledger.hashing import content_sum
from ledger.tables import TOKEN_METERS

_REASONING = "reasoning_tokens"
_DRIVERS = ("seconds", "requests")
_DAY, _TICK = timedelta(days=1), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is rated together: lots, lots of invoices beside, and usage. Its number orders the stretches of a month."""

    number: int
    lots: pl.DataFrame
    beside: pl.DataFrame
    usage: pl.LazyFrame
    parted: bool
    matched_as: pl.DataFrame

    def fingerprint(self) -> tuple[int, str]:
        """How many rows of usage it has, and a sum that changes when any of their counts does; the order of rows is no matter."""
        told = self.usage.select(pl.len(), sum=content_sum(*COUNTED_COLUMNS)).collect(engine="streaming")
        rows, total = told.row(0)
        return int(rows), str(total)

    def uses(self) -> pl.DataFrame:
        """Its usage, numbered in `use`, models and meters under the names they are matched by; `own_meter` is what was logged."""
        frame = self.usage.collect()
        if self.parted:
            frame = merge_duplicate_keys(frame)
        frame = frame.with_columns(own_meter="meter", use=pl.int_range(pl.len(), dtype=pl.Int64))
        if self.matched_as.height:
            known = self.matched_as.rename({"as_model": "__model", "as_meter": "__meter"})
            frame = frame.join(known, on=FAMILY, how="left", nulls_equal=True, maintain_order="left")
            frame = frame.with_columns(model=pl.coalesce("__model", "model"), meter=pl.coalesce("__meter", "meter"))
            frame = frame.drop("__model", "__meter")
        return frame


def matched_as(
    families: pl.DataFrame, sold: pl.DataFrame, display: Callable[[str | None], str | None], book: PriceBook
) -> pl.DataFrame:
    """Families of usage that the bill has under another name: provider, model, meter as logged, and as_model, as_meter.

    A model goes by its display name. A meter the bill does not sell of a model is within the one it refines, if the bill sells that:
    thinking is billed as output nearly everywhere. But what the book has a price of its own for (cached tokens) is expected on a line of its own.
    """
    sells = set(sold.select(FAMILY).unique().iter_rows())
    out = []
    for provider, model, meter in families.sort(FAMILY).iter_rows():
        shown, told = display(model), meter
        if (provider, shown, meter) not in sells:
            coarser = REFINES.get(meter)
            while coarser is not None and (provider, shown, coarser) not in sells:
                coarser = REFINES.get(coarser)
            if coarser is not None and (meter == _REASONING or not book.sold_as(provider, None, model).sells(meter)):
                told = coarser
        if (shown, told) != (model, meter):
            out.append((provider, model, meter, shown, told))
    return pl.DataFrame(out, schema=dict.fromkeys((*FAMILY, "as_model", "as_meter"), pl.String), orient="row")


def split_into_batches(
    lots: pl.DataFrame,
    beside: pl.DataFrame,
    usage: Usage,
    families: pl.DataFrame,
    names: pl.DataFrame,
    *,
    opens: datetime,
    most_uses: int,
) -> list[Batch]:
    """The stretches of a month that opens at `opens`; one that holds everything where there is little.

    `families` are those of `usage` (`Usage.families`), `names` what they are matched as (`matched_as`). How many days a stretch has follows from the number of
    rows of usage, about `most_uses` to a stretch, so that the same month is cut the same way again.
    """
    days, pieces = 32, 1
    while days > 1 and usage.rows > most_uses * pieces:
        days, pieces = days // 2, pieces * 2
    if pieces == 1:
        return [Batch(0, lots, beside, usage.whole, usage.parted, names)]
    step = timedelta(days=days)
    placed, placed_beside = (_with_batch_numbers(frame, opens, step) for frame in (lots, beside))
    rated = pl.concat([f.filter("__rated").select(*FAMILY, "__first", "__last") for f in (placed, placed_beside)])
    long = rated.filter(pl.col("__first") != pl.col("__last")).select(FAMILY).unique()
    by_day = pl.col("__rated") & ~_in_families(long)
    # Usage of the month itself is estimated where no bill speaks of it; that of other months only meets charges.
    month = range((periods.month_end(periods.month_of(opens)) - opens - _TICK) // step + 1)
    numbers = sorted({*month, *rated.filter(pl.col("__first") == pl.col("__last"))["__first"]})
    tokens = pl.col("meter").is_in(TOKEN_METERS)
    long_as_written = _logged_families(long, families, names)
    out = []
    for number in numbers:
        own = usage.read(opens + number * step, opens + (number + 1) * step).filter(tokens)
        if long_as_written.height:
            own = own.join(long_as_written.lazy(), on=FAMILY, how="anti", nulls_equal=True)
        mine, theirs = (
            f.filter(by_day, pl.col("__first") == number).drop("__rated", "__first", "__last") for f in (placed, placed_beside)
        )
        out.append(Batch(number, mine, theirs, own, usage.parted, names))
    rest, rest_beside = (f.filter(~by_day).drop("__rated", "__first", "__last") for f in (placed, placed_beside))
    parts = [usage.read(opens, opens)]
    if (resources := rest["resource"].drop_nulls().unique()).len():
        parts.append(usage.whole.filter(pl.col("meter").is_in(_DRIVERS) & pl.col("resource").is_in(resources.implode())))
    if long_as_written.height:
        parts.append(usage.whole.filter(tokens).join(long_as_written.lazy(), on=FAMILY, how="semi", nulls_equal=True))
    return [*out, Batch(numbers[-1] + 1, rest, rest_beside, pl.concat(parts), usage.parted, names)]


def _with_batch_numbers(lots: pl.DataFrame, opens: datetime, step: timedelta) -> pl.DataFrame:
    """Lots with whether they are held against tokens, and the first and last stretch their hours lie in."""
    tokens = pl.col("meter").is_in(TOKEN_METERS) & pl.col("role").is_in(["tokens", "driver"])
    at = [pl.col("pool_start"), pl.max_horizontal(pl.col("pool_start"), pl.col("pool_end") - _TICK)]
    first, last = ((t - pl.lit(opens)).dt.total_microseconds() // (step // _TICK) for t in at)
    return lots.with_columns(__rated=tokens.fill_null(value=False), __first=first, __last=last)


def _in_families(families: pl.DataFrame) -> pl.Expr:
    one = pl.struct(pl.col(c) for c in FAMILY)
    return one.is_in(families.select(one).to_series().implode()) if families.height else pl.lit(value=False)


def _logged_families(families: pl.DataFrame, logged: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """Families of the bill, under every name that their usage was logged by."""
    told = logged.join(names, on=FAMILY, how="left", nulls_equal=True).with_columns(
        as_model=pl.coalesce("as_model", "model"), as_meter=pl.coalesce("as_meter", "meter")
    )
    on = {"provider": "provider", "as_model": "model", "as_meter": "meter"}
    return told.join(families, left_on=list(on), right_on=list(on.values()), how="semi", nulls_equal=True).select(FAMILY)
