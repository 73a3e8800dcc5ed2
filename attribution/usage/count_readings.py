"""Readings of counts: whether input includes cached tokens, output reasoning tokens, and what says so. (CA-5)

Evidence decides in this order: the provider's own usage (decided when the record was read); the cost the emitter reports (decided when
the call is priced, `attribution.pricing.readings`); a total beyond input + output, if the equation of its parts holds for one reading
only; the emitter table. A total of just input + output is weak: where nothing else is known, input is taken as inclusive and flagged.
What the record does not prove itself stands on the emitter table or on an assumption (`weak_readings`).
"""

from __future__ import annotations

from itertools import product

import polars as pl

_OUTSIDE = ("__eq_read", "__eq_write", "__eq_reasoning")
"""Whether reads, writes and reasoning lie beside the count, by the equation of the total; null where it does not decide."""
_PURE = tuple((cache, cache, reasoning) for cache, reasoning in product((False, True), (False, True)))
_MIXED = tuple(r for r in product((False, True), (False, True), (False, True)) if r[0] != r[1])
"""Reads and writes counted unlike each other: tried where no other reading is exact."""
TABLE, ASSUMPTION = "table", "assumption"
"""Values of `input_reading` and `output_reading`: the emitter table decided, or nothing did."""


def with_equations(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Adds what the equation of the total says: ``__eq_read``, ``__eq_write`` and ``__eq_reasoning``, all null where it says nothing.

    `frame` has `total_tokens`, `count_evidence` and the parts ``__in``, ``__out``, ``__read``, ``__write`` and ``__reasoning``. Grok's 12 in, 1 out,
    97 of reasoning and a total of 110: reasoning lies beside the output. Of 100 in, 50 cached, 50 out, 50 of reasoning and 200 either
    may be beside:

    >>> rows = pl.LazyFrame({"__in": [12, 100], "__out": [1, 50], "__read": [0, 50], "__write": [0, 0], "__reasoning": [97, 50],
    ...                      "total_tokens": [110, 200], "count_evidence": pl.Series([None, None], dtype=pl.String)})
    >>> with_equations(rows).select("__eq_read", "__eq_reasoning").collect().rows()
    [(False, True), (None, None)]
    """
    out = pl.col("__out").fill_null(0)
    surplus = pl.col("total_tokens") - pl.col("__in") - out
    has_surplus = (surplus > 0) & pl.col("count_evidence").is_null()
    parts = [pl.col("__read"), pl.col("__write"), pl.col("__reasoning")]
    pure, split = _exact(_PURE, parts, surplus), _exact(_MIXED, parts, surplus)
    chosen = {_number(r): r for r in (*_PURE, *_MIXED)}
    number = (
        pl.when(has_surplus & (_count(pure) == 1))
        .then(_first(pure))
        .when(has_surplus & (_count(pure) == 0) & (_count(split) == 1))
        .then(_first(split))
    )
    frame = frame.with_columns(__eq=number)
    return frame.with_columns(
        pl.col("__eq").replace_strict({n: r[k] for n, r in chosen.items()}, default=None, return_dtype=pl.Boolean).alias(name)
        for k, name in enumerate(_OUTSIDE)
    ).drop("__eq")


def without_equations(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The columns of `with_equations`, null, where no total says anything."""
    return frame.with_columns(pl.lit(None, dtype=pl.Boolean).alias(name) for name in _OUTSIDE)


def weak_readings(
    cached_tokens: pl.Expr, *, is_too_small: pl.Expr, is_full_total: pl.Expr, is_beside_output: pl.Expr
) -> dict[str, pl.Expr]:
    """`input_reading` and `output_reading`: what decided how the counts are read, null where the record proves it or there is nothing to read.

    A count without cached or reasoning tokens can be read in one way only.
    """
    evidence = pl.col("count_evidence").fill_null("")
    has_provider_input, has_provider_output = (evidence.is_in(["provider", f"provider_{side}"]) for side in ("input", "output"))
    is_open = pl.col("__in").is_not_null() & (cached_tokens > 0) & pl.col("__eq_read").is_null() & ~has_provider_input
    is_open &= ~is_too_small.fill_null(value=False)
    has_reasoning = pl.col("__out").is_not_null() & (pl.col("__reasoning") > 0)
    output_is_open = has_reasoning & pl.col("__eq_reasoning").is_null() & ~has_provider_output
    has_table_input, has_table_output = (pl.col(c).is_not_null() for c in ("input_includes_cache", "output_includes_reasoning"))
    return {
        "input_reading": pl.when(is_open & has_table_input)
        .then(pl.lit(TABLE))
        .when(is_open & ~is_full_total.fill_null(value=False))
        .then(pl.lit(ASSUMPTION)),
        "output_reading": pl.when(output_is_open & has_table_output)
        .then(pl.lit(TABLE))
        .when(output_is_open & ~is_beside_output.fill_null(value=False))
        .then(pl.lit(ASSUMPTION)),
    }


def _number(reading: tuple[bool, bool, bool]) -> int:
    return sum(1 << k for k, is_outside in enumerate(reading) if is_outside)


def _exact(readings: tuple[tuple[bool, bool, bool], ...], parts: list[pl.Expr], surplus: pl.Expr) -> dict[int, pl.Expr]:
    """Whether each reading explains the total exactly, and what it counts as inside fits the counts. A part of 0 is inside."""
    cached_tokens = parts[0] + parts[1]
    exact = {}
    for reading in readings:
        read_out, write_out, reasoning_out = reading
        zero = pl.lit(0, dtype=pl.Int64)
        sum_outside = pl.sum_horizontal(zero, *(p for p, is_outside in zip(parts, reading, strict=True) if is_outside))
        sum_inside = pl.sum_horizontal(zero, *(p for p, is_outside in zip(parts[:2], reading[:2], strict=True) if not is_outside))
        fits = [sum_outside == surplus]
        if not (read_out and write_out):
            fits.append(sum_inside <= pl.col("__in"))
        if read_out or write_out:
            fits.append(cached_tokens > 0 if read_out == write_out else (parts[0] > 0) & (parts[1] > 0))
        fits.append(parts[2] > 0 if reasoning_out else (parts[2] <= pl.col("__out").fill_null(0)) | (parts[2] == 0))
        exact[_number(reading)] = pl.all_horizontal(fits).fill_null(value=False)
    return exact


def _count(exact: dict[int, pl.Expr]) -> pl.Expr:
    return pl.sum_horizontal(e.cast(pl.Int32) for e in exact.values())


def _first(exact: dict[int, pl.Expr]) -> pl.Expr:
    return pl.coalesce(pl.when(e).then(pl.lit(number, dtype=pl.Int32)) for number, e in exact.items())
