"""Readings: usage that can be read in two ways is read as its reported cost requires. (CA-5)

Emitters count input with or without cached tokens, output with or without reasoning, and cache writes often without their lifetime. The
cost an emitter reports outranks its entry in the emitter table and the equation of its total: of the possible readings, the one whose list
cost is the reported cost. If none is, or two are, the call keeps its reading. A reading unlike the table's is a `count_contradiction`.
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
_REREAD = ("input_tokens", _SHORT, _LONG, "output_tokens", "prompt_tokens", "usage_flag", "count_contradiction")
_READINGS = tuple(product((False, True), (False, True), (False, True)))
"""(cached tokens on the other side of the input, writes for an hour, reasoning on the other side of the output); the usual reading first."""
_INSIDE = ("__cache_inside", "__reasoning_inside")
_ROUNDING, _SHARE = "0.0000005", "0.000001"
"""Emitters round what they report to six decimals, or compute in floating point."""


def resolve_readings(calls: pl.DataFrame, cell_table: Cells, book: PriceBook) -> tuple[pl.DataFrame, Cells]:
    """The calls read as their reported cost requires, and their cells.

    `usage_flag` marks calls whose input is ambiguous, ``__lifetime_unknown`` those whose cache writes are; ``__cache_inside`` and
    ``__reasoning_inside`` say how the others are read. A lifetime only matters where the book has different rates for the two.
    """
    doubtful = (calls["usage_flag"] == INPUT_UNKNOWN).fill_null(value=False).alias("doubtful")
    timeless = _lifetime_matters(calls, cell_table).alias("timeless")
    candidates = doubtful | timeless
    columns = [c for c in _INSIDE if c in calls.columns and calls[c].null_count() < calls.height]
    if columns:
        rereadable = calls.select(pl.any_horizontal(pl.col(c).is_not_null() for c in columns)).to_series()
        at = (rereadable & ~candidates).arg_true()
        if len(at):
            is_reported = _costs_as_reported(calls[at], book)
            candidates = candidates.scatter(at, ~is_reported)
            calls = _proven_readings(calls, at.filter(is_reported))
    at = candidates.arg_true()
    if not len(at):
        return calls.drop(_INSIDE, strict=False), cell_table
    ambiguous_calls = calls[at].with_columns(doubtful.gather(at), timeless.gather(at))
    ambiguous_calls = ambiguous_calls.with_columns(
        pl.lit(None, dtype=pl.Boolean).alias(c) for c in _INSIDE if c not in ambiguous_calls.columns
    ).with_columns(__cache_inside=pl.when("doubtful").then(statement=True).otherwise("__cache_inside"))
    reading_index = _matching_reading(ambiguous_calls, book)
    resolved_columns = _resolved(ambiguous_calls, reading_index)
    calls = calls.with_columns(calls[c].clone().scatter(at, resolved_columns[c]) for c in _REREAD if c in calls.columns)
    calls = _proven_readings(calls, at.filter(reading_index.is_not_null()))
    calls = calls.drop(_INSIDE, strict=False)
    if not any(_READINGS[i][0] for i in reading_index.drop_nulls().unique()):
        return calls, cell_table
    return calls, cells(calls, book)


def _proven_readings(calls: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """The calls, where those of `rows` need no other evidence of how their counts are read: their reported cost proves it."""
    columns = [c for c in ("input_reading", "output_reading") if c in calls.columns and len(rows)]
    return calls.with_columns(calls[c].clone().scatter(rows, None) for c in columns)


def _resolved(calls: pl.DataFrame, reading_index: pl.Series) -> pl.DataFrame:
    """The columns of `_REREAD`, read as the reported cost requires, where one reading does."""
    if "count_contradiction" not in calls.columns:
        calls = calls.with_columns(count_contradiction=pl.lit(value=False))
    columns = calls.select(*_as_integers(_meters_of_reading(*_READINGS[0])), "usage_flag", "count_contradiction")
    for index, reading in enumerate(_READINGS):
        is_chosen = (reading_index == index).fill_null(value=False)
        if is_chosen.any():
            reading_columns = calls.select(
                *_as_integers(_meters_of_reading(*reading)),
                usage_flag=pl.when(pl.col("usage_flag") != INPUT_UNKNOWN).then("usage_flag"),
                count_contradiction=_contradiction(*reading),
            )
            columns = columns.select(
                pl.when(is_chosen).then(reading_columns[c]).otherwise(pl.col(c)).alias(c) for c in columns.columns
            )
    flags = pl.concat_str(
        [pl.col("usage_flag"), pl.when(calls["timeless"]).then(pl.lit("cache_lifetime_unknown"))],
        separator=",",
        ignore_nulls=True,
    ).replace("", None)
    return columns.with_columns(usage_flag=pl.when(reading_index.is_null()).then(flags).otherwise(pl.col("usage_flag")))


def _contradiction(cache: bool, _: bool, reasoning: bool) -> pl.Expr:
    """Whether a reading contradicts the emitter table, of which a null says nothing."""
    cache_inside = pl.col("__cache_inside") ^ pl.lit(cache)
    reasoning_inside = pl.col("__reasoning_inside") ^ pl.lit(reasoning)
    return (
        pl.when(pl.col("__cache_inside").is_null() & pl.col("__reasoning_inside").is_null())
        .then("count_contradiction")
        .otherwise(
            (cache_inside != pl.col("input_includes_cache")).fill_null(value=False)
            | (reasoning_inside != pl.col("output_includes_reasoning")).fill_null(value=False)
        )
    )


def _costs_as_reported(calls: pl.DataFrame, book: PriceBook) -> pl.Series:
    """Whether the list cost of calls, as they are read now, is the reported cost."""
    meters = [m for m in TOKEN_METERS if calls[m].null_count() < calls.height]
    cost = money(total_units(calls, meter_costs(calls, cells(calls, book), meters)))
    return _is_reported(cost, calls["reported_cost"].cast(MONEY))


def _is_reported(cost: pl.Series, reported_cost: pl.Series) -> pl.Series:
    difference = (pl.col("cost") - pl.col("reported")).abs()
    is_near = difference <= pl.col("reported") * pl.lit(_SHARE).cast(MONEY) + pl.lit(_ROUNDING).cast(MONEY)
    frame = pl.DataFrame({"cost": cost, "reported": reported_cost})
    return frame.select(((pl.col("reported") > 0) & is_near).fill_null(value=False)).to_series()


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


def _meters_of_reading(cache: bool, hour: bool, reasoning: bool) -> dict[str, pl.Expr]:
    """The meters of a call according to one reading; see `_READINGS`.

    Cached tokens that were subtracted from the input were never part of it in the other reading, and the reverse; reasoning likewise.
    """
    cached_tokens = pl.sum_horizontal(pl.col(c).fill_null(0) for c in ("cache_read_tokens", _SHORT, _LONG))
    extra_in = _other_side("__cache_inside", cached_tokens) if cache else pl.lit(0)
    extra_out = _other_side("__reasoning_inside", pl.col("reasoning_tokens").fill_null(0)) if reasoning else pl.lit(0)
    hour_writes = pl.when("timeless").then(pl.col(_SHORT)) if hour else pl.lit(None, dtype=pl.Int64)
    return {
        "input_tokens": pl.col("input_tokens") + extra_in,
        "prompt_tokens": pl.col("prompt_tokens") + extra_in,
        "output_tokens": pl.col("output_tokens") + extra_out,
        _SHORT: pl.when(hour_writes.is_null()).then(pl.col(_SHORT)),
        _LONG: pl.when(hour_writes.is_null()).then(pl.col(_LONG)).otherwise(pl.col(_LONG).fill_null(0) + hour_writes),
    }


def _other_side(column: str, part: pl.Expr) -> pl.Expr:
    return pl.when(pl.col(column)).then(part).when(pl.col(column).not_()).then(-part).otherwise(0)


def _as_integers(reading: dict[str, pl.Expr]) -> list[pl.Expr]:
    return [reading[name].cast(pl.Int64).alias(name) for name in _REREAD if name in reading]


def _matching_reading(calls: pl.DataFrame, book: PriceBook) -> pl.Series:
    """Number of the one reading whose list cost is the reported cost; null where there is none or more than one."""
    no_match = pl.repeat(None, calls.height, dtype=pl.Int32, eager=True)
    if "reported_cost" not in calls.columns or calls["reported_cost"].null_count() == calls.height:
        return no_match
    reported_cost = calls["reported_cost"].cast(MONEY)
    meters = [m for m in TOKEN_METERS if calls[m].null_count() < calls.height or m == _LONG]
    is_open = (calls["__cache_inside"].is_not_null(), calls["timeless"], calls["__reasoning_inside"].is_not_null())
    fits: dict[str, pl.Series] = {}
    for index, reading in enumerate(_READINGS):
        conditions = [part for part, is_flipped in zip(is_open, reading, strict=True) if is_flipped]
        if not all(part.any() for part in conditions):
            continue
        reread_calls = calls.with_columns(_as_integers(_meters_of_reading(*reading)))
        cell_table = cells(reread_calls, book)
        cost = money(total_units(reread_calls, meter_costs(reread_calls, cell_table, meters)))
        possible = pl.select(pl.all_horizontal(pl.lit(value=True), *conditions)).to_series()
        fits[str(index)] = _is_reported(cost, reported_cost) & possible
    matches = pl.DataFrame(fits)
    is_unique = matches.select(pl.sum_horizontal(pl.all().cast(pl.Int32)) == 1).to_series()
    reading_number = matches.select(
        pl.coalesce(pl.when(name).then(pl.lit(int(name), dtype=pl.Int32)) for name in matches.columns)
    ).to_series()
    return pl.DataFrame({"one": is_unique, "which": reading_number}).select(pl.when("one").then("which")).to_series()
