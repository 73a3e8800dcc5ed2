"""Calls: one provider request attempt, counted once, however many channels told of it. (CA-1, CA-3, CA-4)"""

from __future__ import annotations

import polars as pl

from ledger.tables import USAGE_COLUMNS

_BLOCKS = (
    ("input_tokens", "input_includes_cache", "total_tokens"),
    ("output_tokens", "output_includes_reasoning"),
)
"""Columns that only mean something together: they are taken from one signal, never mixed. The others are taken each from the
most telling signal that has it."""

_FLAGS = ("claim_conflict", "absurd_usage")
"""What is true of a call if it is true of any signal of it."""

_CHANNELS = {"litellm": 0, "litellm-spend-logs": 1, "otlp": 2}
"""Whose word on usage counts first where two signals are equally complete: the gateway saw the provider's own answer."""

OPEN = "otlp"
"""The channel whose spans carry parent edges; a merged call takes its place in the chain from there."""


def reports_usage() -> pl.Expr:
    """Whether a signal says how much was used."""
    return pl.any_horizontal(pl.col(c).is_not_null() for c in USAGE_COLUMNS)


def describes_call() -> pl.Expr:
    """Whether a span describes a provider request at all, with or without usage."""
    return pl.col("usage_scope").is_not_null() | reports_usage()


def merge(signals: pl.DataFrame) -> pl.DataFrame:
    """One row a call, out of all signals of it.

    Signals are one call if they share the gateway's call id; or the provider's request id and equal usage (the id alone is no
    proof, and an id that comes under two gateway ids is none either); or the span.

    The merged row keeps the place in the chain (trace_key, span_key, …) of its innermost OpenTelemetry span, the most complete
    usage, and every other field from the most telling signal that has it. `channels` names them all.
    """
    rows = signals.with_columns(
        __told=pl.sum_horizontal(pl.col(c).is_not_null().cast(pl.Int32) for c in USAGE_COLUMNS),
        __channel=pl.col("channel").replace_strict(_CHANNELS, default=9, return_dtype=pl.Int32),
        __call=_components(signals),
    )
    shared = pl.len().over("__call") > 1
    single = rows.filter(~shared).with_columns(channels=pl.col("channel"), signal_count=pl.lit(1, dtype=pl.UInt32))
    several = rows.filter(shared)
    if not several.height:
        return single.drop("__told", "__channel", "__call")
    return pl.concat([single, _merged(several)], how="diagonal").drop("__told", "__channel", "__call")


def _merged(several: pl.DataFrame) -> pl.DataFrame:
    place = ("trace_key", "span_key", "trace_id", "span_id", "start_time", "channel")
    inner = (
        several.sort(
            pl.col("channel") != OPEN,
            pl.col("usage_scope").fill_null("zz") != "leaf",
            -pl.col("start_time").to_physical(),
            "span_key",
            *_last_resort(several),
        )
        .group_by("__call", maintain_order=True)
        .agg(*(pl.col(c).first() for c in place))
    )
    telling = several.sort(
        -pl.col("__told"), "__channel", -pl.col("rank"), "trace_key", "span_key", *_last_resort(several), nulls_last=True
    )
    blocked = {c for block in _BLOCKS for c in block}
    plain = [c for c in several.columns if c not in blocked and c not in place and not c.startswith("__")]
    merged = telling.group_by("__call", maintain_order=True).agg(
        *(pl.col(c).drop_nulls().first() for c in plain if c not in _FLAGS),
        *(pl.col(c).any() for c in several.columns if c in _FLAGS),
        *(pl.col(c).filter(pl.col(block[0]).is_not_null()).first() for block in _BLOCKS for c in block),
        pl.col("channel").unique().sort().str.join("+").alias("channels"),
        pl.len().alias("signal_count"),
    )
    return inner.join(merged, on="__call", maintain_order="left")


def _last_resort(signals: pl.DataFrame) -> list[str]:
    """What tells two otherwise equal deliveries apart, so that the order they came in does not."""
    return [c for c in ("start_time", *USAGE_COLUMNS, "response_model", "agent_name", "status") if c in signals.columns]


def _components(signals: pl.DataFrame) -> pl.Series:
    """A label a call: the smallest row among all signals it is connected to by any proof of identity."""
    labels = pl.int_range(pl.len(), dtype=pl.Int64).alias("label")
    proof = pl.when(pl.col("output_tokens").is_not_null()).then(
        pl.struct("provider_request_id", "output_tokens", pl.col("cache_hit").fill_null(value=False))
    )
    # A provider's id under two gateway ids is an answer repeated out of a cache: it proves nothing about either call.
    repeated = (
        signals.select("provider_request_id", "gateway_call_id")
        .drop_nulls()
        .unique()
        .group_by("provider_request_id")
        .len()
        .filter(pl.col("len") > 1)
    )
    proof = pl.when(~pl.col("provider_request_id").is_in(repeated["provider_request_id"].implode())).then(proof)
    keyed = signals.select(
        labels,
        pl.col("gateway_call_id").alias("gateway"),
        pl.when(pl.col("provider_request_id").is_not_null()).then(proof).alias("request"),
        pl.struct("trace_key", "span_key").alias("span"),
    )
    # Most signals are the only one of their call: those that share no key with any other keep their own row as label.
    hashed = keyed.select(
        pl.when(pl.col(k).is_not_null()).then(pl.col(k).hash(seed=1)).alias(k) for k in ("gateway", "request", "span")
    )
    doubled = pl.Series([False]).extend_constant(value=False, n=max(keyed.height - 1, 0)).head(keyed.height)
    for key in hashed.columns:
        if hashed[key].drop_nulls().n_unique() < keyed.height - hashed[key].null_count():
            doubled = doubled | (hashed[key].is_duplicated() & hashed[key].is_not_null())
    everything, keyed = keyed["label"], keyed.filter(doubled)
    while True:
        before = keyed["label"]
        for key in ("gateway", "request", "span"):
            shared = keyed.filter(pl.col(key).is_not_null() & (pl.len().over(key) > 1)).select(key, "label")
            if shared.height:
                least = shared.group_by(key).agg(pl.col("label").min().alias("least"))
                keyed = (
                    keyed.join(least, on=key, how="left", maintain_order="left")
                    .with_columns(label=pl.min_horizontal("label", "least"))
                    .drop("least")
                )
        if keyed["label"].equals(before):
            break
    if not keyed.height:
        return everything
    return (
        pl.select(pl.when(doubled).then(pl.lit(None, dtype=pl.Int64)).otherwise(everything))
        .to_series()
        .scatter(doubled.arg_true(), keyed["label"])
    )
