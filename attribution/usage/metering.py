"""Metering: converts reported usage to disjoint meters. (CA-4, CA-5)

Emitters count input tokens with or without cached ones, output with or without reasoning. The provider's own usage or the emitter table
says which, as `input_includes_cache` and `output_includes_reasoning`. A total that counts more than input and output outranks the table
(`attribution.usage.count_readings`), and so does the reported cost, in pricing (`attribution.pricing.readings`). Where nothing says it, an
input smaller than its cached part does not include it; any other is taken as inclusive and flagged.
"""

from __future__ import annotations

import polars as pl

from attribution.factorize import non_null_columns
from attribution.usage.count_readings import weak_readings, with_equations, without_equations
from ledger.money import RATE
from ledger.tables import TOKEN_METERS

_PARTS = {
    "input": ("input_video_tokens",),
    "read": ("cache_read_audio_tokens", "cache_read_image_tokens"),
    "write": ("cache_write_audio_tokens", "cache_write_12h_tokens"),
    "output": ("output_video_tokens",),
}
"""Meters too rare for a column: they are in `other_usage`, and are part of these counts."""
_PARTS_OF_COUNTS = (
    *("cache_read_tokens", "cache_write_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"),
    "reasoning_tokens",
)


def disjoint_meters(calls: pl.LazyFrame, *, equations: bool = True) -> pl.LazyFrame:
    """Replaces the usage columns, as reported, by disjoint meters; adds `prompt_tokens` (all input), `usage_flag` and
    ``__lifetime_unknown`` (cache writes of which only the total was reported; they are counted as 5-minute writes), `count_contradiction`,
    `input_reading` and `output_reading` (`attribution.usage.count_readings`), and ``__cache_inside`` and ``__reasoning_inside``: whether they are
    part of the counts, null where the reported cost has no say in it.
    Without `equations` totals are not asked: no call has both a total and a part.

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
    columns = calls.collect_schema()
    rare = _rare_tokens("other_usage" in columns)
    cache_write = pl.max_horizontal(zero["cache_write_tokens"], zero["cache_write_5m_tokens"] + zero["cache_write_1h_tokens"])
    missing: dict[str, pl.DataType | type[pl.DataType]] = {
        "count_evidence": pl.String,
        "count_contradiction": pl.Boolean,
        "reported_cost": RATE,
    }
    frame = calls.with_columns(pl.lit(None, dtype=dtype).alias(c) for c, dtype in missing.items() if c not in columns)
    frame = frame.with_columns(
        __read=zero["cache_read_tokens"],
        __write=cache_write,
        __reasoning=zero["reasoning_tokens"],
        __in=pl.col("input_tokens"),
        __out=pl.col("output_tokens"),
        __lifetime_unknown=(zero["cache_write_tokens"] > 0)
        & pl.col("cache_write_5m_tokens").is_null()
        & pl.col("cache_write_1h_tokens").is_null(),
    )
    frame = _with_readings(with_equations(frame) if equations else without_equations(frame))
    special_in = zero["input_audio_tokens"] + zero["input_image_tokens"] + rare["input"]
    special_out = zero["output_audio_tokens"] + zero["output_image_tokens"] + rare["output"]
    text_out = pl.col("__out") - pl.when("__reasoning_in").then(pl.col("__reasoning")).otherwise(0) - special_out
    # A part whose whole was not reported is counted as it is.
    fits_in, fits_out = (pl.col("__bare") >= special_in).fill_null(value=True), (text_out >= 0).fill_null(value=True)
    cached_tokens = pl.col("__read") + pl.col("__write")
    open_to_cost = (pl.col("reported_cost") > 0) & pl.col("count_evidence").is_null()
    cache_open = (
        (cached_tokens > 0) & (pl.col("__read_in") == pl.col("__write_in")) & (pl.col("__in") >= cached_tokens + special_in)
    )
    reasoning_open = (pl.col("__reasoning") > 0) & (pl.col("__out") >= pl.col("__reasoning") + special_out)
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
        __cache_inside=pl.when(open_to_cost & cache_open).then(pl.col("__read_in")),
        __reasoning_inside=pl.when(open_to_cost & reasoning_open & fits_out).then(pl.col("__reasoning_in")),
    ).drop(
        *("__read", "__write", "__reasoning", "__in", "__out", "__read_in", "__write_in", "__reasoning_in", "__guess", "__bare"),
        *("__eq_read", "__eq_write", "__eq_reasoning", "cache_write_tokens", "count_evidence"),
    )


def _with_readings(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Adds whether reads, writes and reasoning are part of the counts, whether that is a guess, and `count_contradiction`. (CA-5)"""
    read_tokens, write_tokens = pl.col("__read"), pl.col("__write")
    cached_tokens = read_tokens + write_tokens
    table_input, table_output = pl.col("input_includes_cache"), pl.col("output_includes_reasoning")
    too_small = pl.col("__in") < cached_tokens
    full_total = pl.col("total_tokens") == pl.col("__in") + pl.col("__out").fill_null(0) + cached_tokens
    table_reading = pl.when(too_small).then(statement=False).when(table_input.is_not_null()).then(table_input)
    usual_reading = table_reading.when(full_total).then(statement=False).otherwise(statement=True)
    is_beside_output = table_output.is_null() & (pl.col("__reasoning") > pl.col("__out"))
    read_in, write_in = (pl.coalesce(~pl.col(c), usual_reading) for c in ("__eq_read", "__eq_write"))
    reasoning_in = pl.coalesce(~pl.col("__eq_reasoning"), table_output, ~is_beside_output, pl.lit(value=True))
    contradicts = (
        (table_input.is_not_null() & (read_tokens > 0) & (read_in != table_input) & pl.col("__eq_read").is_not_null())
        | (table_input.is_not_null() & (write_tokens > 0) & (write_in != table_input) & pl.col("__eq_write").is_not_null())
        | (table_output.is_not_null() & (pl.col("__reasoning") > 0) & (reasoning_in != table_output))
    )
    bare_tokens = (
        pl.col("__in")
        - pl.when("__read_in").then(read_tokens).otherwise(0)
        - pl.when("__write_in").then(write_tokens).otherwise(0)
    )
    return frame.with_columns(
        __read_in=read_in,
        __write_in=write_in,
        __reasoning_in=reasoning_in,
        **weak_readings(cached_tokens, is_too_small=too_small, is_full_total=full_total, is_beside_output=is_beside_output),
        count_contradiction=pl.col("count_contradiction").fill_null(value=False) | contradicts.fill_null(value=False),
        __guess=(
            table_input.is_null()
            & pl.col("__eq_read").is_null()
            & (cached_tokens > 0)
            & (pl.col("__in") >= cached_tokens)
            & ~full_total.fill_null(value=False)
        ),
    ).with_columns(__bare=bare_tokens)


def meter_calls(calls: pl.DataFrame) -> pl.DataFrame:
    """`disjoint_meters` of a frame in memory."""
    has_totals = bool(non_null_columns(calls, ("total_tokens",)))
    has_parts = bool(non_null_columns(calls, _PARTS_OF_COUNTS))
    return disjoint_meters(calls.lazy(), equations=has_totals and has_parts).collect(engine="in-memory")


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
