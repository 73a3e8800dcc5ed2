"""Stretches: a month's bill and usage in parts that can be rated alone, one after the other or side by side.

A charge meets the usage of its own hours, provider, model and meter, and no other. So charges by the hour or day are rated day by day, in
as many days at a time as make a stretch; what is charged over longer (a month, a day of another timezone) is rated in a stretch of its own, all of its
provider, model and meter together; and so is what is split by the time and requests of a resource. Cut or not, the shares are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from attribution.pricing import PriceBook
from attribution.pricing.rates import REFINES
from ledger import periods
from ledger.money import MONEY
from ledger.tables import TOKEN_METERS, USAGE_HOURLY

FAMILY = ("provider", "model", "meter")
"""What charges and usage that can meet always have in common."""

_THINKING = "reasoning_tokens"
_DRIVERS = ("seconds", "requests")
_DAY, _TICK = timedelta(days=1), timedelta(microseconds=1)
_COUNTED = ("usage_key", "meter", "quantity", "calls", "list_cost")


@dataclass(frozen=True, slots=True)
class UsageFile:
    """A file of `usage_hourly`, and the hours it holds; None: not known."""

    path: str
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Hourly usage that a bill may pay for, read stretch by stretch.

    `rows` is how many there are; `read` gives those of ``[start, end)``, `whole` all of them, lazily. Where `parted`, several passes
    may tell of the same hour and owner: such rows are added up.
    """

    rows: int
    whole: pl.LazyFrame
    read: Callable[[datetime, datetime], pl.LazyFrame]
    parted: bool = False

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Usage:
        """Usage that lies in memory."""
        at = pl.col("hour")
        return cls(frame.height, frame.lazy(), lambda start, end: frame.lazy().filter((at >= start) & (at < end)))

    @classmethod
    def stored(cls, files: Sequence[UsageFile], rows: int, *, storage_options: dict[str, str] | None) -> Usage:
        """Usage in files, of which only those are opened that hold the hours asked for."""
        at = pl.col("hour")

        def scan(some: Sequence[UsageFile]) -> pl.LazyFrame:
            columns = [name for name in USAGE_HOURLY.schema if name != "rollup_id"]
            if not some:
                return USAGE_HOURLY.empty().select(columns).lazy()
            found = pl.scan_parquet([f.path for f in some], storage_options=storage_options, hive_partitioning=False)
            return found.with_columns(month=at.dt.strftime("%Y-%m")).select(columns)

        def read(start: datetime, end: datetime) -> pl.LazyFrame:
            near = [f for f in files if (f.last is None or f.last >= start) and (f.first is None or f.first < end)]
            return scan(near).filter((at >= start) & (at < end))

        return cls(rows, scan(files), read, parted=len(files) > 1)

    def families(self) -> pl.DataFrame:
        """Provider, model and meter of all of it, each once, as written."""
        return self.whole.select(FAMILY).unique().collect(engine="streaming")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is rated together: lots, lots of invoices beside, and usage. Its number orders the stretches of a month."""

    number: int
    lots: pl.DataFrame
    beside: pl.DataFrame
    usage: pl.LazyFrame
    parted: bool
    matched_as: pl.DataFrame

    def fingerprint(self) -> tuple[int, str]:
        """How many rows of usage it has, and a sum that changes when any of their counts does; the order of rows is no matter."""
        told = self.usage.select(pl.len(), sum=pl.struct(_COUNTED).hash(seed=727).cast(pl.Decimal(38, 0)).sum()).collect(
            engine="streaming"
        )
        rows, total = told.row(0)
        return int(rows), str(total)

    def uses(self) -> pl.DataFrame:
        """Its usage, numbered in `use`, models and meters under the names they are matched by; `own_meter` is what was logged."""
        frame = self.usage.collect()
        if self.parted:
            frame = added_up(frame)
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
            if coarser is not None and (meter == _THINKING or not book.sold_as(provider, None, model).sells(meter)):
                told = coarser
        if (shown, told) != (model, meter):
            out.append((provider, model, meter, shown, told))
    return pl.DataFrame(out, schema=dict.fromkeys((*FAMILY, "as_model", "as_meter"), pl.String), orient="row")


def cut(
    lots: pl.DataFrame,
    beside: pl.DataFrame,
    usage: Usage,
    families: pl.DataFrame,
    names: pl.DataFrame,
    *,
    opens: datetime,
    most_uses: int,
) -> list[Stretch]:
    """The stretches of a month that opens at `opens`; one that holds everything where there is little.

    `families` are those of `usage` (`Usage.families`), `names` what they are matched as (`matched_as`). How many days a stretch has follows from the number of
    rows of usage, about `most_uses` to a stretch, so that the same month is cut the same way again.
    """
    days, pieces = 32, 1
    while days > 1 and usage.rows > most_uses * pieces:
        days, pieces = days // 2, pieces * 2
    if pieces == 1:
        return [Stretch(0, lots, beside, usage.whole, usage.parted, names)]
    step = timedelta(days=days)
    placed, placed_beside = (_placed(frame, opens, step) for frame in (lots, beside))
    rated = pl.concat([f.filter("__rated").select(*FAMILY, "__first", "__last") for f in (placed, placed_beside)])
    long = rated.filter(pl.col("__first") != pl.col("__last")).select(FAMILY).unique()
    by_day = pl.col("__rated") & ~_among(long)
    # Usage of the month itself is estimated where no bill speaks of it; that of other months only meets charges.
    month = range((periods.month_end(periods.month_of(opens)) - opens - _TICK) // step + 1)
    numbers = sorted({*month, *rated.filter(pl.col("__first") == pl.col("__last"))["__first"]})
    tokens = pl.col("meter").is_in(TOKEN_METERS)
    long_as_written = _as_written(long, families, names)
    out = []
    for number in numbers:
        own = usage.read(opens + number * step, opens + (number + 1) * step).filter(tokens)
        if long_as_written.height:
            own = own.join(long_as_written.lazy(), on=FAMILY, how="anti", nulls_equal=True)
        mine, theirs = (
            f.filter(by_day, pl.col("__first") == number).drop("__rated", "__first", "__last") for f in (placed, placed_beside)
        )
        out.append(Stretch(number, mine, theirs, own, usage.parted, names))
    rest, rest_beside = (f.filter(~by_day).drop("__rated", "__first", "__last") for f in (placed, placed_beside))
    parts = [usage.read(opens, opens)]
    if (resources := rest["resource"].drop_nulls().unique()).len():
        parts.append(usage.whole.filter(pl.col("meter").is_in(_DRIVERS) & pl.col("resource").is_in(resources.implode())))
    if long_as_written.height:
        parts.append(usage.whole.filter(tokens).join(long_as_written.lazy(), on=FAMILY, how="semi", nulls_equal=True))
    return [*out, Stretch(numbers[-1] + 1, rest, rest_beside, pl.concat(parts), usage.parted, names)]


def _placed(lots: pl.DataFrame, opens: datetime, step: timedelta) -> pl.DataFrame:
    """Lots with whether they are held against tokens, and the first and last stretch their hours lie in."""
    tokens = pl.col("meter").is_in(TOKEN_METERS) & pl.col("role").is_in(["tokens", "driver"])
    at = [pl.col("pool_start"), pl.max_horizontal(pl.col("pool_start"), pl.col("pool_end") - _TICK)]
    first, last = ((t - pl.lit(opens)).dt.total_microseconds() // (step // _TICK) for t in at)
    return lots.with_columns(__rated=tokens.fill_null(value=False), __first=first, __last=last)


def _among(families: pl.DataFrame) -> pl.Expr:
    one = pl.struct(pl.col(c) for c in FAMILY)
    return one.is_in(families.select(one).to_series().implode()) if families.height else pl.lit(value=False)


def _as_written(families: pl.DataFrame, logged: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """Families of the bill, under every name that their usage was logged by."""
    told = logged.join(names, on=FAMILY, how="left", nulls_equal=True).with_columns(
        as_model=pl.coalesce("as_model", "model"), as_meter=pl.coalesce("as_meter", "meter")
    )
    on = {"provider": "provider", "as_model": "model", "as_meter": "meter"}
    return told.join(families, left_on=list(on), right_on=list(on.values()), how="semi", nulls_equal=True).select(FAMILY)


def added_up(usage: pl.DataFrame) -> pl.DataFrame:
    """Usage of several passes as if it had been drawn at once: what has one key is one row."""
    if not usage.height:
        return usage
    order = {meter: place for place, meter in enumerate(usage["meter"].unique().sort())}
    place = pl.col("meter").replace_strict(order, return_dtype=pl.Int64)
    # One number for both: where two pairs share it by chance, both are merely grouped once more.
    twice = usage.select((pl.col("usage_key") ^ (place * 0x9E3779B97F4A7C1)).is_duplicated()).to_series()
    if not twice.any():
        return usage
    double = usage.filter(twice)
    summed = ("quantity", "calls", "list_cost")
    once = double.group_by("usage_key", "meter").agg(
        *(pl.col(c).first() for c in usage.columns if c not in (*summed, "usage_key", "meter")),
        pl.col("quantity").sum(),
        pl.col("calls").sum(),
        pl.when(pl.col("list_cost").is_not_null().any()).then(pl.col("list_cost").sum().cast(MONEY)).alias("list_cost"),
    )
    return pl.concat([usage.filter(~twice), once.select(usage.columns)])
