"""Batches: a month's charge groups and usage in parts that can be matched independently, one after the other or in parallel.

A charge is matched only with usage of its own hours, provider, model and meter. Charges by the hour or day are therefore matched day by day,
as many days at a time as make a batch. Charges of a longer period (a month, a day of another timezone) are matched in one more batch, all of
their provider, model and meter together, and so are charges that are split by the time and requests of a resource. The shares are the same
however the month is split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from attribution.columns import is_call_usage
from attribution.costs import hour_ends, sellers
from attribution.costs.charge_groups import sells_meter, sells_model
from attribution.pricing import PriceBook
from attribution.pricing.rates import REFINES
from attribution.usage.dimensions import with_inferred_place
from attribution.usage.reader import COUNTED_COLUMNS, FAMILY, Usage, merge_duplicate_keys
from ledger import periods
from ledger.hashing import content_sum
from ledger.settings import Defaults
from ledger.tables import TOKEN_METERS

_REASONING = "reasoning_tokens"
_DAY, _TICK = timedelta(days=1), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is matched together: charge groups, charge groups of other invoices, and usage. `number` orders the batches of a month."""

    number: int
    groups: pl.DataFrame
    other_groups: pl.DataFrame
    usage: pl.LazyFrame
    is_overlapping: bool
    bill_names: pl.DataFrame
    unnamed_providers: Sequence[str | None] = ()
    sold: pl.DataFrame = field(default_factory=sellers.NOTHING_SOLD.clone)
    moved_out: pl.DataFrame = field(default_factory=pl.DataFrame)
    moved_in: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Usage of this batch, and usage met in this batch, that is met in the hour of its end. (RA-3)"""

    @property
    def has_moves(self) -> bool:
        """Whether usage moves out of this batch or into it."""
        return bool(self.moved_out.height or self.moved_in.height)

    def with_moves(self, moved_usage: pl.DataFrame) -> Batch:
        """This batch with its part of the usage that is met in the hour of its end (`attribution.costs.hour_ends.plan_moves`)."""
        numbers = ["from_batch", "into_batch"]
        moved_out, moved_in = (moved_usage.filter(pl.col(c) == self.number).drop(numbers) for c in numbers)
        return replace(self, moved_out=moved_out, moved_in=moved_in)

    def fingerprint(self) -> tuple[int, str]:
        """The number of usage rows, and a sum that changes when any of their counts does; the order of rows does not matter."""
        aggregates = self.usage.select(pl.len(), sum=content_sum(*COUNTED_COLUMNS)).collect(engine="streaming")
        rows, total = aggregates.row(0)
        return int(rows), str(total)

    def usage_rows(self, defaults: Sequence[Defaults] = ()) -> pl.DataFrame:
        """The usage, numbered in `usage_row`, with models and meters under the names they are matched by.

        `own_model` is the model's display name, `own_meter` the meter that was logged. `defaults` are the settings' accounts and regions.
        """
        frame = self.usage.collect()
        if self.is_overlapping:
            frame = merge_duplicate_keys(frame)
        frame = frame.with_columns(own_model="model", own_meter="meter")
        if self.unnamed_providers:
            frame = self._with_inferred_providers(frame, defaults)
        if self.bill_names.height:
            frame = frame.drop("own_model").join(self.bill_names, on=FAMILY, how="left", nulls_equal=True, maintain_order="left")
            frame = frame.with_columns(*_billed_names(), own_model=pl.coalesce("own_model", "model"))
            frame = frame.drop("as_model", "as_meter")
        if self.moved_out.height:
            frame = hour_ends.without_moved(frame, self.moved_out)
        if self.moved_in.height:
            frame = pl.concat([frame, hour_ends.at_its_end(self.moved_in).select(*frame.columns, "met_hour")], how="diagonal")
        return frame.with_columns(usage_row=pl.int_range(pl.len(), dtype=pl.Int64))

    def _with_inferred_providers(self, frame: pl.DataFrame, defaults: Sequence[Defaults]) -> pl.DataFrame:
        """Infers providers by the models' names on the bill, and places by the provider; the logged names of models stay. (RA-1b)"""
        bill_models = self.bill_names.select(*FAMILY, __model="own_model")
        billed_frame = frame.join(bill_models, on=FAMILY, how="left", nulls_equal=True, maintain_order="left")
        billed_frame = billed_frame.with_columns(model=pl.coalesce("__model", "model")).drop("__model")
        usage = sellers.infer_providers(billed_frame, self.unnamed_providers, self.sold).with_columns(frame["model"])
        return with_inferred_place(usage, usage["provider"].ne_missing(frame["provider"]), defaults)


def matched_as(
    families: pl.DataFrame, billed_families: pl.DataFrame, display: Callable[[str | None], str | None], book: PriceBook
) -> pl.DataFrame:
    """Families of usage that the bill has under another name: provider, model, meter as logged, and own_model, as_model, as_meter.

    A model goes by its display name, `own_model`; a meter that the bill sells for whatever model (searches of the web) by none. A meter the bill
    does not sell of a model is part of the one it refines, if the bill sells that: reasoning is billed as output nearly everywhere. But a
    meter with a price of its own in the book (cached tokens) is expected on a line of its own.
    """
    billed_set = set(billed_families.select(FAMILY).unique().iter_rows())
    out = []
    for provider, model, meter in families.sort(FAMILY).iter_rows():
        display_name, billed_meter = display(model), meter
        if (provider, display_name, meter) not in billed_set:
            coarser = REFINES.get(meter)
            while coarser is not None and (provider, display_name, coarser) not in billed_set:
                coarser = REFINES.get(coarser)
            is_optional = meter == _REASONING or meter not in TOKEN_METERS
            if coarser is not None and (is_optional or not book.tariffs(provider, None, model).sells(meter)):
                billed_meter = coarser
        is_of_any_model = {(provider, display_name, billed_meter), (provider, None, billed_meter)} & billed_set == {
            (provider, None, billed_meter)
        }
        billed_model = None if is_of_any_model else display_name
        if (billed_model, billed_meter) != (model, meter):
            out.append((provider, model, meter, display_name, billed_model, billed_meter))
    schema = dict.fromkeys((*FAMILY, "own_model", "as_model", "as_meter"), pl.String)
    return pl.DataFrame(out, schema=schema, orient="row")


def _billed_names() -> tuple[pl.Expr, pl.Expr]:
    """Model and meter of usage that was joined with `bill_names`, as it is matched. A family that has another name has a meter in it."""
    is_renamed = pl.col("as_meter").is_not_null()
    return pl.when(is_renamed).then("as_model").otherwise("model").alias("model"), pl.coalesce("as_meter", "meter").alias("meter")


def split_into_batches(
    groups: pl.DataFrame,
    other_groups: pl.DataFrame,
    usage: Usage,
    families: pl.DataFrame,
    bill_names: pl.DataFrame,
    *,
    month_begin: datetime,
    max_usage_rows: int,
    unnamed_providers: Sequence[str | None] = (),
    seller_hours: pl.DataFrame = sellers.NOTHING_SOLD,
) -> list[Batch]:
    """The batches of the month that begins at `month_begin`; a single one where there is little usage.

    `families` are those of `usage` (`Usage.families`), `bill_names` the names they are matched by. How many days a batch has follows from
    the number of usage rows, about `max_usage_rows` to a batch, so that the same month is always split the same way.
    """
    days, pieces = 32, 1
    while days > 1 and usage.rows > max_usage_rows * pieces:
        days, pieces = days // 2, pieces * 2
    build_batch = partial(
        Batch, is_overlapping=usage.overlapping, bill_names=bill_names, unnamed_providers=unnamed_providers, sold=seller_hours
    )
    if pieces == 1:
        return [build_batch(number=0, groups=groups, other_groups=other_groups, usage=usage.whole)]
    step = timedelta(days=days)
    numbered_groups, numbered_others = (_with_batch_numbers(frame, month_begin, step) for frame in (groups, other_groups))
    token_families = pl.concat(
        [f.filter("__rated").select(*FAMILY, "__first", "__last") for f in (numbered_groups, numbered_others)]
    )
    long_families = token_families.filter(pl.col("__first") != pl.col("__last")).select(FAMILY).unique()
    long_families = _with_whole_models(long_families, token_families, _matched_families(families, bill_names))
    if unnamed_providers:
        unnamed_families = _matched_families(families.filter(sellers.is_unnamed(unnamed_providers)), bill_names)
        long_families = _with_unnamed_families(long_families, token_families, unnamed_families)
    numbered_groups, numbered_others = (_with_by_day(frame, long_families) for frame in (numbered_groups, numbered_others))
    # Usage of the month itself is estimated where no bill covers it; usage of other months is only matched.
    month = range((periods.month_end(periods.month_of(month_begin)) - month_begin - _TICK) // step + 1)
    numbers = sorted({*month, *token_families.filter(pl.col("__first") == pl.col("__last"))["__first"]})
    long_logged_families = _logged_families(long_families, families, bill_names)
    out = []
    for number in numbers:
        batch_usage = usage.read(month_begin + number * step, month_begin + (number + 1) * step).filter(is_call_usage())
        if long_logged_families.height:
            batch_usage = batch_usage.join(long_logged_families.lazy(), on=FAMILY, how="anti", nulls_equal=True)
        batch_groups, batch_others = (
            f.filter("__by_day", pl.col("__first") == number).drop("__by_day", "__first", "__last")
            for f in (numbered_groups, numbered_others)
        )
        out.append(build_batch(number=number, groups=batch_groups, other_groups=batch_others, usage=batch_usage))
    remaining_groups, remaining_others = (
        f.filter(~pl.col("__by_day")).drop("__by_day", "__first", "__last") for f in (numbered_groups, numbered_others)
    )
    parts = [usage.read(month_begin, month_begin)]
    if (resources := remaining_groups["resource"].drop_nulls().unique()).len():
        parts.append(usage.whole.filter(~is_call_usage() & pl.col("resource").is_in(resources.implode())))
    if long_logged_families.height:
        parts.append(
            usage.whole.filter(is_call_usage()).join(long_logged_families.lazy(), on=FAMILY, how="semi", nulls_equal=True)
        )
    last = build_batch(number=numbers[-1] + 1, groups=remaining_groups, other_groups=remaining_others, usage=pl.concat(parts))
    return [*out, last]


def _with_batch_numbers(groups: pl.DataFrame, month_begin: datetime, step: timedelta) -> pl.DataFrame:
    """Charge groups with whether they are matched with usage of calls, and the numbers of the first and last batch that their hours lie in."""
    tokens = (sells_meter() | sells_model()) & pl.col("role").is_in(["tokens", "driver"])
    instants = [pl.col("pool_start"), pl.max_horizontal(pl.col("pool_start"), pl.col("pool_end") - _TICK)]
    first, last = ((t - pl.lit(month_begin)).dt.total_microseconds() // (step // _TICK) for t in instants)
    return groups.with_columns(__rated=tokens.fill_null(value=False), __first=first, __last=last)


def _with_unnamed_families(
    long_families: pl.DataFrame, token_families: pl.DataFrame, unnamed_families: pl.DataFrame
) -> pl.DataFrame:
    """Families of long charges, and all families of their models that calls without a provider use: any seller's charge may pay. (RA-1b)"""
    unnamed_families = unnamed_families.join(long_families.select("model").unique(), on="model", how="semi")
    shared_families = token_families.select(FAMILY).join(unnamed_families.select("model").unique(), on="model", how="semi")
    return pl.concat([long_families, shared_families, unnamed_families]).unique()


def _matched_families(families: pl.DataFrame, bill_names: pl.DataFrame) -> pl.DataFrame:
    """Families of usage under the model and meter that they are matched by."""
    named_families = families.join(bill_names, on=FAMILY, how="left", nulls_equal=True)
    return named_families.select("provider", *_billed_names()).unique()


def _with_by_day(groups: pl.DataFrame, long_families: pl.DataFrame) -> pl.DataFrame:
    """Charge groups with `__by_day`: whether they are matched in the batch of their day."""
    is_long = long_families.with_columns(__long=pl.lit(value=True))
    frame = groups.join(is_long, on=FAMILY, how="left", nulls_equal=True, maintain_order="left")
    return frame.with_columns(__by_day=pl.col("__rated") & pl.col("__long").is_null()).drop("__rated", "__long")


def _with_whole_models(long_families: pl.DataFrame, token_families: pl.DataFrame, logged_families: pl.DataFrame) -> pl.DataFrame:
    """Families of long charges, and all families of their models where a charge is split over all that a model's calls used."""
    whole_models = token_families.filter(pl.col("meter").is_null()).select("provider", "model").unique()
    long_models = long_families.select("provider", "model").unique().join(whole_models, on=["provider", "model"], how="semi")
    all_families = pl.concat([token_families.select(FAMILY), logged_families])
    return pl.concat([long_families, all_families.join(long_models, on=["provider", "model"], how="semi")]).unique()


def _logged_families(families: pl.DataFrame, usage_families: pl.DataFrame, bill_names: pl.DataFrame) -> pl.DataFrame:
    """Families of the bill, under every name that their usage was logged by."""
    renamed_families = usage_families.join(bill_names, on=FAMILY, how="left", nulls_equal=True).with_columns(
        expr.alias(f"as_{expr.meta.output_name()}") for expr in _billed_names()
    )
    on = {"provider": "provider", "as_model": "model", "as_meter": "meter"}
    return renamed_families.join(families, left_on=list(on), right_on=list(on.values()), how="semi", nulls_equal=True).select(
        FAMILY
    )
