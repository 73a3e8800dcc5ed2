"""Readings: usage that can be read in two ways is read as its reported cost requires. (CA-5)

Emitters count input with or without cached tokens, and cache writes often without their lifetime. Where neither the emitter table nor the
total equation decides, the cost the emitter reports does: of the possible readings, the one whose list cost is the reported cost. If none
is, or two are, the call keeps the usual reading and a flag.
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


def resolve_readings(calls: pl.DataFrame, cell_table: Cells, book: PriceBook) -> tuple[pl.DataFrame, Cells]:
    """The calls with ambiguous usage resolved, and their cells.

    `usage_flag` marks calls whose input is ambiguous, ``__lifetime_unknown`` those whose cache writes are. A lifetime only matters where the book
    has different rates for the two.
    """
    flagless = "usage_flag" not in calls.columns or calls["usage_flag"].null_count() == calls.height
    if flagless and not ("__lifetime_unknown" in calls.columns and calls["__lifetime_unknown"].any()):
        return calls, cell_table
    doubtful = (calls["usage_flag"] == INPUT_UNKNOWN).fill_null(value=False).alias("doubtful")
    timeless = _lifetime_matters(calls, cell_table).alias("timeless")
    at = (doubtful | timeless).arg_true()
    if not len(at):
        return calls, cell_table
    ambiguous_calls = calls[at].with_columns(doubtful.gather(at), timeless.gather(at))
    reading_index = _matching_reading(ambiguous_calls, book)
    resolved_columns = ambiguous_calls.select(_as_integers(_meters_of_reading(*_READINGS[0]))).with_columns(
        ambiguous_calls["usage_flag"]
    )
    for index, reading in enumerate(_READINGS):
        chosen = (reading_index == index).fill_null(value=False)
        if chosen.any():
            reading_columns = ambiguous_calls.select(_as_integers(_meters_of_reading(*reading))).with_columns(
                usage_flag=pl.lit(None, dtype=pl.String)
            )
            resolved_columns = resolved_columns.select(
                pl.when(chosen).then(reading_columns[c]).otherwise(pl.col(c)).alias(c) for c in resolved_columns.columns
            )
    open_ = reading_index.is_null()
    flags = pl.concat_str(
        [pl.col("usage_flag"), pl.when(ambiguous_calls["timeless"]).then(pl.lit("cache_lifetime_unknown"))],
        separator=",",
        ignore_nulls=True,
    ).replace("", None)
    resolved_columns = resolved_columns.with_columns(usage_flag=pl.when(open_).then(flags).otherwise(pl.col("usage_flag")))
    calls = calls.with_columns(calls[c].clone().scatter(at, resolved_columns[c]) for c in _REREAD)
    if not (reading_index.fill_null(0) >= 2).any():
        return calls, cell_table
    return calls, cells(calls, book)


def _lifetime_matters(calls: pl.DataFrame, cell_table: Cells) -> pl.Series:
    """Calls whose cache writes have no lifetime although the book sells two at different rates."""
    if "__lifetime_unknown" not in calls.columns or not calls["__lifetime_unknown"].any():
        return pl.repeat(False, calls.height, dtype=pl.Boolean, eager=True)
    unknown = calls["__lifetime_unknown"].fill_null(value=False)
    cell_numbers = set(cell_table.cell_of.filter(unknown).unique())
    matters = [
        i in cell_numbers
        and cell.sold_by.sells(_LONG)
        and cell.sold_by.rate(_SHORT, cell.sale) != cell.sold_by.rate(_LONG, cell.sale)
        for i, cell in enumerate(cell_table.table)
    ]
    return unknown & pl.Series(matters, dtype=pl.Boolean).gather(cell_table.cell_of)


def _meters_of_reading(bare: bool, hour: bool) -> dict[str, pl.Expr]:
    """The meters of a call according to one reading.

    `disjoint` subtracted cached tokens from the input, as is the convention: in the other reading they were never part of it.
    """
    cached_tokens = pl.sum_horizontal(pl.col(c).fill_null(0) for c in ("cache_read_tokens", _SHORT, _LONG))
    extra_tokens = pl.when("doubtful").then(cached_tokens).otherwise(0) if bare else pl.lit(0)
    hour_writes = pl.when("timeless").then(pl.col(_SHORT)) if hour else pl.lit(None, dtype=pl.Int64)
    return {
        "input_tokens": pl.col("input_tokens") + extra_tokens,
        "prompt_tokens": pl.col("prompt_tokens") + extra_tokens,
        _SHORT: pl.when(hour_writes.is_null()).then(pl.col(_SHORT)),
        _LONG: pl.when(hour_writes.is_null()).then(pl.col(_LONG)).otherwise(pl.col(_LONG).fill_null(0) + hour_writes),
    }


def _as_integers(reading: dict[str, pl.Expr]) -> list[pl.Expr]:
    return [reading[name].cast(pl.Int64).alias(name) for name in _REREAD if name in reading]


def _matching_reading(calls: pl.DataFrame, book: PriceBook) -> pl.Series:
    """Number of the one reading whose list cost is the reported cost; null where there is none or more than one."""
    no_match = pl.repeat(None, calls.height, dtype=pl.Int32, eager=True)
    if "reported_cost" not in calls.columns or calls["reported_cost"].null_count() == calls.height:
        return no_match
    reported_cost = calls["reported_cost"].cast(MONEY)
    meters = [m for m in TOKEN_METERS if calls[m].null_count() < calls.height or m == _LONG]
    fits: dict[str, pl.Series] = {}
    for index, (bare, hour) in enumerate(_READINGS):
        if (bare and not calls["doubtful"].any()) or (hour and not calls["timeless"].any()):
            continue
        reread_calls = calls.with_columns(_as_integers(_meters_of_reading(bare, hour)))
        cell_table = cells(reread_calls, book)
        cost = money(total_units(reread_calls, meter_costs(reread_calls, cell_table, meters)))
        frame = pl.DataFrame(
            {"cost": cost, "reported": reported_cost, "doubtful": calls["doubtful"], "timeless": calls["timeless"]}
        )
        difference = (pl.col("cost") - pl.col("reported")).abs()
        is_near = difference <= pl.col("reported") * pl.lit(_SHARE).cast(MONEY) + pl.lit(_ROUNDING).cast(MONEY)
        possible = (pl.col("doubtful") if bare else pl.lit(value=True)) & (pl.col("timeless") if hour else pl.lit(value=True))
        fits[str(index)] = frame.select(((pl.col("reported") > 0) & is_near & possible).fill_null(value=False)).to_series()
    matches = pl.DataFrame(fits)
    is_unique = matches.select(pl.sum_horizontal(pl.all().cast(pl.Int32)) == 1).to_series()
    reading_number = matches.select(
        pl.coalesce(pl.when(name).then(pl.lit(int(name), dtype=pl.Int32)) for name in matches.columns)
    ).to_series()
    return pl.DataFrame({"one": is_unique, "which": reading_number}).select(pl.when("one").then("which")).to_series()
