"""Usage that can be read in two ways is read as its reported cost says: the price equation. (CA-5)

Emitters count input with or without what the cache served, and cache writes often without their lifetime. Where neither the emitter
table nor the total equation decides, the cost the emitter reports does: of the readings that are possible, the one whose price at the
book is the reported cost. If none is, or two are, the call keeps the usual reading and a flag.
"""

from __future__ import annotations

from itertools import product

import polars as pl

from attribution.pricing.book import PriceBook
from attribution.pricing.cells import Cells, cells
from attribution.pricing.costs import meter_costs, money, total_units
from ledger.money import MONEY
from ledger.tables import TOKEN_METERS

INPUT_UNKNOWN = "input_semantics_unknown"
_SHORT, _LONG = "cache_write_5m_tokens", "cache_write_1h_tokens"
_REREAD = ("input_tokens", _SHORT, _LONG, "prompt_tokens", "usage_flag")
_READINGS = tuple(product((False, True), (False, True)))
"""(input without cached tokens, writes for an hour); the usual reading first."""
_ROUNDING, _SHARE = "0.0000005", "0.000001"
"""Emitters round what they report to six decimals, or compute in floating point."""


def resolve_readings(calls: pl.DataFrame, found: Cells, book: PriceBook) -> tuple[pl.DataFrame, Cells]:
    """The calls with ambiguous usage read as it was meant, and the cells that go with them.

    `usage_flag` tells whose input is ambiguous, ``__lifetime_unknown`` whose cache writes. A lifetime only
    matters where the book has different rates for the two.
    """
    flagless = "usage_flag" not in calls.columns or calls["usage_flag"].null_count() == calls.height
    if flagless and not ("__lifetime_unknown" in calls.columns and calls["__lifetime_unknown"].any()):
        return calls, found
    doubtful = (calls["usage_flag"] == INPUT_UNKNOWN).fill_null(value=False).alias("doubtful")
    timeless = _lifetime_matters(calls, found).alias("timeless")
    at = (doubtful | timeless).arg_true()
    if not len(at):
        return calls, found
    told = calls[at].with_columns(doubtful.gather(at), timeless.gather(at))
    meant = _matching_reading(told, book)
    changed = told.select(_as_integers(_meters_of_reading(*_READINGS[0]))).with_columns(told["usage_flag"])
    for index, reading in enumerate(_READINGS):
        chosen = (meant == index).fill_null(value=False)
        if chosen.any():
            read = told.select(_as_integers(_meters_of_reading(*reading))).with_columns(usage_flag=pl.lit(None, dtype=pl.String))
            changed = changed.select(pl.when(chosen).then(read[c]).otherwise(pl.col(c)).alias(c) for c in changed.columns)
    open_ = meant.is_null()
    flags = pl.concat_str(
        [pl.col("usage_flag"), pl.when(told["timeless"]).then(pl.lit("cache_lifetime_unknown"))], separator=",", ignore_nulls=True
    ).replace("", None)
    changed = changed.with_columns(usage_flag=pl.when(open_).then(flags).otherwise(pl.col("usage_flag")))
    calls = calls.with_columns(calls[c].clone().scatter(at, changed[c]) for c in _REREAD)
    if not (meant.fill_null(0) >= 2).any():
        return calls, found
    return calls, cells(calls, book)


def _lifetime_matters(calls: pl.DataFrame, found: Cells) -> pl.Series:
    """Whose cache writes have no lifetime although the book sells two at different rates."""
    if "__lifetime_unknown" not in calls.columns or not calls["__lifetime_unknown"].any():
        return pl.repeat(False, calls.height, dtype=pl.Boolean, eager=True)
    unknown = calls["__lifetime_unknown"].fill_null(value=False)
    asked = set(found.of.filter(unknown).unique())
    matters = [
        i in asked and cell.sold_by.sells(_LONG) and cell.sold_by.rate(_SHORT, cell.sale) != cell.sold_by.rate(_LONG, cell.sale)
        for i, cell in enumerate(found.table)
    ]
    return unknown & pl.Series(matters, dtype=pl.Boolean).gather(found.of)


def _meters_of_reading(bare: bool, hour: bool) -> dict[str, pl.Expr]:
    """The meters of a call as one reading has them.

    `disjoint` took cached tokens out of the input, as the convention is: read the other way they were never in it.
    """
    cached = pl.sum_horizontal(pl.col(c).fill_null(0) for c in ("cache_read_tokens", _SHORT, _LONG))
    more = pl.when("doubtful").then(cached).otherwise(0) if bare else pl.lit(0)
    moved = pl.when("timeless").then(pl.col(_SHORT)) if hour else pl.lit(None, dtype=pl.Int64)
    return {
        "input_tokens": pl.col("input_tokens") + more,
        "prompt_tokens": pl.col("prompt_tokens") + more,
        _SHORT: pl.when(moved.is_null()).then(pl.col(_SHORT)),
        _LONG: pl.when(moved.is_null()).then(pl.col(_LONG)).otherwise(pl.col(_LONG).fill_null(0) + moved),
    }


def _as_integers(reading: dict[str, pl.Expr]) -> list[pl.Expr]:
    return [reading[name].cast(pl.Int64).alias(name) for name in _REREAD if name in reading]


def _matching_reading(told: pl.DataFrame, book: PriceBook) -> pl.Series:
    """Number of the one reading whose price is the reported cost; null where there is none or more than one."""
    nothing = pl.repeat(None, told.height, dtype=pl.Int32, eager=True)
    if "reported_cost" not in told.columns or told["reported_cost"].null_count() == told.height:
        return nothing
    reported = told["reported_cost"].cast(MONEY)
    meters = [m for m in TOKEN_METERS if told[m].null_count() < told.height or m == _LONG]
    fits: dict[str, pl.Series] = {}
    for index, (bare, hour) in enumerate(_READINGS):
        if (bare and not told["doubtful"].any()) or (hour and not told["timeless"].any()):
            continue
        read = told.with_columns(_as_integers(_meters_of_reading(bare, hour)))
        found = cells(read, book)
        cost = money(total_units(read, meter_costs(read, found, meters)))
        frame = pl.DataFrame({"cost": cost, "reported": reported, "doubtful": told["doubtful"], "timeless": told["timeless"]})
        off = (pl.col("cost") - pl.col("reported")).abs()
        near = off <= pl.col("reported") * pl.lit(_SHARE).cast(MONEY) + pl.lit(_ROUNDING).cast(MONEY)
        possible = (pl.col("doubtful") if bare else pl.lit(value=True)) & (pl.col("timeless") if hour else pl.lit(value=True))
        fits[str(index)] = frame.select(((pl.col("reported") > 0) & near & possible).fill_null(value=False)).to_series()
    matches = pl.DataFrame(fits)
    one = matches.select(pl.sum_horizontal(pl.all().cast(pl.Int32)) == 1).to_series()
    which = matches.select(
        pl.coalesce(pl.when(name).then(pl.lit(int(name), dtype=pl.Int32)) for name in matches.columns)
    ).to_series()
    return pl.DataFrame({"one": one, "which": which}).select(pl.when("one").then("which")).to_series()
