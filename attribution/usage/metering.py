"""Metering: converts reported usage to disjoint meters. (CA-4, CA-5)

Emitters count input tokens with or without cached ones, output with or without reasoning. The emitter table says which, as
`input_includes_cache`. Where it has no entry the numbers decide: an input smaller than its cached part, then the equation of the total.
Otherwise the input is taken as inclusive and flagged; pricing may resolve it by the reported cost (`attribution.pricing.readings`).
"""

from __future__ import annotations

import polars as pl

from attribution.factorize import non_null_columns
from ledger.tables import TOKEN_METERS

_PARTS = {
    "input": ("input_video_tokens",),
    "read": ("cache_read_audio_tokens", "cache_read_image_tokens"),
    "write": ("cache_write_audio_tokens", "cache_write_12h_tokens"),
    "output": ("output_video_tokens",),
}
"""Meters too rare for a column: they are in `other_usage`, and are part of these counts."""


def disjoint_meters(calls: pl.LazyFrame) -> pl.LazyFrame:
    """Replaces the usage columns, as reported, by disjoint meters; adds `prompt_tokens` (all input), `usage_flag` and
    ``__lifetime_unknown`` (cache writes of which only the total was reported; they are counted as 5-minute writes).

    A call that reported nothing keeps nulls. Anthropic's 12 uncached, 1000 read, inclusive as a gateway sends it and exclusive
    as the provider does, are the same meters:

    >>> row = dict.fromkeys([*TOKEN_METERS, "cache_write_tokens", "total_tokens"]) | dict(cache_read_tokens=1000, output_tokens=5)
    >>> frame = pl.LazyFrame([row | dict(input_tokens=1012, input_includes_cache=True, output_includes_reasoning=True),
    ...                       row | dict(input_tokens=12, input_includes_cache=False, output_includes_reasoning=True)],
    ...                      schema_overrides={c: pl.Int64 for c in row})
    >>> disjoint_meters(frame).select("input_tokens", "cache_read_tokens", "output_tokens", "prompt_tokens").collect().rows()
    [(12, 1000, 5, 1012), (12, 1000, 5, 1012)]
    """
    zero = {c: pl.col(c).fill_null(0) for c in (*TOKEN_METERS, "cache_write_tokens")}
    rare = _rare_tokens("other_usage" in calls.collect_schema())
    cache_write = pl.max_horizontal(zero["cache_write_tokens"], zero["cache_write_5m_tokens"] + zero["cache_write_1h_tokens"])
    frame = calls.with_columns(
        __read=zero["cache_read_tokens"],
        __write=cache_write,
        __in=pl.col("input_tokens"),
        __out=pl.col("output_tokens"),
        __lifetime_unknown=(zero["cache_write_tokens"] > 0)
        & pl.col("cache_write_5m_tokens").is_null()
        & pl.col("cache_write_1h_tokens").is_null(),
    )
    cached_tokens = pl.col("__read") + pl.col("__write")
    inclusive, is_guess = _includes_cache(cached_tokens)
    frame = frame.with_columns(__incl=inclusive, __guess=is_guess).with_columns(
        __bare=pl.when(pl.col("__incl")).then(pl.col("__in") - cached_tokens).otherwise(pl.col("__in")),
    )
    special_in = zero["input_audio_tokens"] + zero["input_image_tokens"] + rare["input"]
    special_out = zero["output_audio_tokens"] + zero["output_image_tokens"] + rare["output"]
    reasons = zero["reasoning_tokens"]
    reasoning_inside = pl.col("output_includes_reasoning").fill_null(value=True)
    text_out = pl.col("__out") - pl.when(reasoning_inside).then(reasons).otherwise(0) - special_out
    # A part whose whole was not reported is counted as it is.
    fits_in, fits_out = (pl.col("__bare") >= special_in).fill_null(value=True), (text_out >= 0).fill_null(value=True)
    return frame.with_columns(
        prompt_tokens=pl.col("__bare") + cached_tokens,
        input_tokens=pl.when(fits_in).then(pl.col("__bare") - special_in).otherwise(pl.col("__bare")),
        input_audio_tokens=pl.when(fits_in).then(pl.col("input_audio_tokens")),
        input_image_tokens=pl.when(fits_in).then(pl.col("input_image_tokens")),
        cache_read_tokens=pl.when(rare["read"] > 0)
        .then(pl.max_horizontal(pl.col("__read") - rare["read"], 0))
        .otherwise(pl.col("cache_read_tokens")),
        cache_write_5m_tokens=pl.when(pl.col("__write") > 0).then(
            pl.max_horizontal(pl.col("__write") - zero["cache_write_1h_tokens"] - rare["write"], 0)
        ),
        output_tokens=pl.when(fits_out).then(text_out).otherwise(pl.col("__out")),
        reasoning_tokens=pl.when(fits_out).then(pl.col("reasoning_tokens")),
        output_audio_tokens=pl.when(fits_out).then(pl.col("output_audio_tokens")),
        output_image_tokens=pl.when(fits_out).then(pl.col("output_image_tokens")),
        usage_flag=pl.when(pl.col("__guess"))
        .then(pl.lit("input_semantics_unknown"))
        .when(~fits_in | ~fits_out)
        .then(pl.lit("overlapping_details")),
    ).drop("__read", "__write", "__in", "__out", "__incl", "__guess", "__bare", "cache_write_tokens", "total_tokens")


def _includes_cache(cached_tokens: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Whether the reported input includes cached tokens, and whether that is a guess. (CA-5)"""
    plain_total = pl.col("total_tokens") == pl.col("__in") + pl.col("__out").fill_null(0)
    full_total = pl.col("total_tokens") == pl.col("__in") + pl.col("__out").fill_null(0) + cached_tokens
    inclusive = (
        pl.when(pl.col("__in") < cached_tokens)
        .then(statement=False)
        .when(pl.col("input_includes_cache").is_not_null())
        .then(pl.col("input_includes_cache"))
        .when(plain_total)
        .then(statement=True)
        .when(full_total)
        .then(statement=False)
        .otherwise(statement=True)
    )
    is_guess = (
        pl.col("input_includes_cache").is_null()
        & (cached_tokens > 0)
        & (pl.col("__in") >= cached_tokens)
        & ~plain_total.fill_null(value=False)
        & ~full_total.fill_null(value=False)
    )
    return inclusive, is_guess


def meter_calls(calls: pl.DataFrame) -> pl.DataFrame:
    """`disjoint_meters` of a frame in memory."""
    return disjoint_meters(calls.lazy()).collect(engine="in-memory")


def flag_unpriced(calls: pl.DataFrame) -> pl.DataFrame:
    """Adds `unpriced`: whether a call used something that has no list price. (ES-2)"""
    has_no_price = calls["list_cost"].is_null()
    used_columns = non_null_columns(calls, (*TOKEN_METERS, "__other"))
    if not has_no_price.any() or any(not calls[c].null_count() for c in used_columns):
        return calls.with_columns(unpriced=has_no_price)
    has_usage = pl.any_horizontal(pl.lit(value=False), *(pl.col(c).is_not_null() for c in used_columns))
    return calls.with_columns(unpriced=has_no_price & calls.select(has_usage).to_series())


def _rare_tokens(has_other_usage: bool) -> dict[str, pl.Expr]:
    """The tokens of each count that `other_usage` reports separately."""
    if not has_other_usage:
        return dict.fromkeys(_PARTS, pl.lit(0, dtype=pl.Int64))
    other = pl.col("other_usage").cast(pl.String)
    return {
        whole: pl.sum_horizontal(
            other.str.extract(rf'"{part}"\s*:\s*"?(\d+)').cast(pl.Int64, strict=False).fill_null(0) for part in parts
        )
        for whole, parts in _PARTS.items()
    }
