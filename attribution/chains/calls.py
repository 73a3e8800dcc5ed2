"""Calls: one provider request attempt, counted once, however many channels told of it. (CA-1, CA-3, CA-4)"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from attribution.factorize import non_null_columns
from ledger.tables import USAGE_COLUMNS

_FIELD_GROUPS = (
    ("input_tokens", "input_includes_cache", "total_tokens"),
    ("output_tokens", "output_includes_reasoning"),
)
"""Columns that only mean something together: they are taken from one signal, never mixed. The others are taken each from the
most telling signal that has it."""

CLAIM = ("claimed_agent", "claimed_team", "claim_source")
"""The root agent that baggage, a header or a tag names, and whose word that is."""

_FLAGS = ("claim_conflict", "absurd_usage")
"""What is true of a call if it is true of any signal of it."""

_CHANNELS = {"litellm": 0, "litellm-callback": 1, "litellm-spend-logs": 2, "otlp": 3}
"""Whose word on usage counts first where two signals are equally complete: the gateway saw the provider's own answer."""

OTLP = "otlp"
"""The channel whose spans carry parent edges; a merged call takes its place in the chain from there."""

GATEWAYS = ("litellm", "litellm-callback", "litellm-spend-logs")
"""Channels whose rows are a gateway's log of a call rather than a span."""

MAX_TOKENS = 10**12
"""More than any request can hold: a count beyond it, or below 0, is a fault of its sender and is not believed."""


def reports_usage() -> pl.Expr:
    """Whether a signal says how much was used."""
    return pl.any_horizontal(pl.col(c).is_not_null() for c in (*USAGE_COLUMNS, "other_usage"))


def drop_absurd_counts(signals: pl.DataFrame) -> pl.DataFrame:
    """Absurd token counts become absent, flagged; summed they would wrap."""
    absurd = pl.any_horizontal(~pl.col(c).is_between(0, MAX_TOKENS) for c in USAGE_COLUMNS).fill_null(value=False)
    if not signals.select(absurd.any()).item():
        return signals.with_columns(absurd_usage=pl.lit(value=False))
    return signals.with_columns(
        absurd.alias("absurd_usage"),
        *(pl.when(pl.col(c).is_between(0, MAX_TOKENS)).then(pl.col(c)).alias(c) for c in USAGE_COLUMNS),
    )


def merge_signals(signals: pl.DataFrame, *, trusted: Sequence[str] = (), spans_are_unique: bool = False) -> pl.DataFrame:
    """One row a call, out of all signals of it.

    Signals are one call if they share the gateway's call id; or the provider's request id and equal usage (the id alone is no
    proof, and an id that comes under two gateway ids is none either); or the span, unless `spans_are_unique`.

    The merged row keeps the place in the chain (trace_key, span_key, …) of its innermost OpenTelemetry span in the trace that came first
    (a replay comes later), the most complete usage, and every other field from the most telling signal that has it; a claim of the
    root agent from a `trusted` source before any other (CH-7). `channels` names them all.
    """
    call = _components(signals, spans_are_unique=spans_are_unique)
    shared = pl.Series([], dtype=pl.Boolean) if call is None else call.is_duplicated()
    if call is None or not shared.any():
        return signals.with_columns(channels=pl.col("channel"), signal_count=pl.lit(1, dtype=pl.UInt32))
    single = signals.filter(~shared).with_columns(channels=pl.col("channel"), signal_count=pl.lit(1, dtype=pl.UInt32))
    several = signals.filter(shared).with_columns(
        call.filter(shared).alias("__call"),
        __told=pl.sum_horizontal(pl.col(c).is_not_null().cast(pl.Int32) for c in USAGE_COLUMNS),
        __channel=pl.col("channel").replace_strict(_CHANNELS, default=9, return_dtype=pl.Int32),
    )
    return pl.concat([single, _merge_fields(several, trusted).select(single.columns)])


_POSITION = ("row", "trace_key", "span_key", "trace_id", "span_id", "start_time", "end_time", "channel")


def _merge_fields(several: pl.DataFrame, trusted: Sequence[str]) -> pl.DataFrame:
    # A trace that repeats another's answer started later; within one trace, the innermost span stands next to the request.
    spans = pl.col("channel") == OTLP
    began = pl.when(spans).then("start_time").min().over("__call", "trace_key")
    inner = (
        several.sort(
            ~spans,
            pl.col("usage_scope").fill_null("zz") != "leaf",
            began,
            "trace_key",
            -pl.col("start_time").to_physical(),
            "span_key",
            *_tie_breakers(several),
        )
        .group_by("__call", maintain_order=True)
        .agg(*(pl.col(c).first() for c in _POSITION), leaf=(pl.col("usage_scope") == "leaf").any())
    )
    telling = several.sort(
        -pl.col("__told"), "__channel", -pl.col("rank"), "trace_key", "span_key", *_tie_breakers(several), nulls_last=True
    )
    blocked = {*CLAIM, *(c for block in _FIELD_GROUPS for c in block)}
    claims = pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()
    believed = claims & pl.col("claim_source").is_in(list(trusted))
    plain = [c for c in several.columns if c not in blocked and c not in _POSITION and not c.startswith("__")]
    merged = telling.group_by("__call", maintain_order=True).agg(
        *(pl.col(c).drop_nulls().first() for c in plain if c not in _FLAGS),
        *(pl.col(c).any() for c in several.columns if c in _FLAGS),
        *(pl.col(c).filter(pl.col(block[0]).is_not_null()).first() for block in _FIELD_GROUPS for c in block),
        *(
            pl.when(believed.any()).then(pl.col(c).filter(believed).first()).otherwise(pl.col(c).filter(claims).first()).alias(c)
            for c in CLAIM
        ),
        pl.col("channel").unique().sort().str.join("+").alias("channels"),
        pl.len().alias("signal_count"),
    )
    joined = inner.join(merged, on="__call", maintain_order="left")
    return joined.with_columns(usage_scope=pl.when("leaf").then(pl.lit("leaf")).otherwise("usage_scope")).drop("leaf", "__call")


def _tie_breakers(signals: pl.DataFrame) -> list[str]:
    """What tells two otherwise equal deliveries apart, so that the order they came in does not."""
    return [c for c in ("start_time", *USAGE_COLUMNS, "response_model", "agent_name", "status") if c in signals.columns]


def _components(signals: pl.DataFrame, *, spans_are_unique: bool) -> pl.Series | None:
    """A label a call: the smallest row among all signals it is connected to by any proof of identity; None where all are apart."""
    proofs = _proofs(signals, spans_are_unique=spans_are_unique)
    if not proofs.height:
        return None
    labels = proofs.select("row", label="row").unique()
    while True:
        told = proofs.join(labels, on="row")
        least = told.group_by("proof").agg(least=pl.col("label").min())
        further = told.join(least, on="proof").group_by("row").agg(label=pl.col("least").min())
        if further["label"].sum() == labels["label"].sum():
            break
        labels = further
    return pl.int_range(signals.height, dtype=pl.Int64, eager=True).scatter(labels["row"], labels["label"])


def _proofs(signals: pl.DataFrame, *, spans_are_unique: bool) -> pl.DataFrame:
    """What shows that a signal is one with another: rows (row, proof) of proofs that several signals have."""
    rows = pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
    found: list[pl.DataFrame] = []
    if not spans_are_unique:
        place = pl.struct("trace_key", "span_key")
        found.append(
            signals.select(rows, proof=place).filter(pl.col("proof").is_duplicated()).with_columns(_proof_text("span", "proof"))
        )
    ids = non_null_columns(signals, ("gateway_call_id", "provider_request_id"))
    if "gateway_call_id" in ids:
        told = signals.select(rows, proof="gateway_call_id").drop_nulls()
        found.append(told.filter(pl.col("proof").is_duplicated()).with_columns(_proof_text("gateway", "proof")))
    if "provider_request_id" in ids:
        found.append(_request_proofs(signals.with_columns(rows)))
    several = [part for part in found if part.height]
    return pl.concat(several) if several else pl.DataFrame(schema={"row": pl.Int64, "proof": pl.String})


def _proof_text(kind: str, column: str) -> pl.Expr:
    told = pl.col(column)
    words = (
        pl.concat_str(told.struct.field("trace_key"), told.struct.field("span_key"), separator=":") if kind == "span" else told
    )
    return pl.concat_str(pl.lit(f"{kind}|"), words).alias("proof")


def _request_proofs(signals: pl.DataFrame) -> pl.DataFrame:
    """The provider's request id with the usage it came with, output and whole prompt, where several signals tell the same.

    The output is told with its reasoning. The prompt is the input as told where that has the cached tokens in it, with them where it has
    not, and either where nobody knows.
    """
    told = signals.filter(pl.col("provider_request_id").is_not_null())
    told = told.filter(pl.col("provider_request_id").is_duplicated())
    if not told.height:
        return pl.DataFrame(schema={"row": pl.Int64, "proof": pl.String})
    written = pl.max_horizontal(
        pl.col("cache_write_tokens").fill_null(0),
        pl.col("cache_write_5m_tokens").fill_null(0) + pl.col("cache_write_1h_tokens").fill_null(0),
    )
    apart = pl.col("output_includes_reasoning").eq_missing(other=False)
    output = pl.col("output_tokens") + pl.when(apart).then(pl.col("reasoning_tokens").fill_null(0)).otherwise(0)
    bare, full = pl.col("input_tokens"), pl.col("input_tokens") + pl.col("cache_read_tokens").fill_null(0) + written
    inclusive = pl.col("input_includes_cache")
    readings = (pl.when(inclusive.ne_missing(other=False)).then(bare), pl.when(inclusive.ne_missing(other=True)).then(full))
    usage = [
        told.select(
            "row",
            "gateway_call_id",
            proof=pl.when(reading.is_not_null() | (bare.is_null() & pl.col("output_tokens").is_not_null())).then(
                pl.concat_str(
                    pl.lit("request"),
                    pl.col("cache_hit").fill_null(value=False),
                    output.cast(pl.String).fill_null(""),
                    reading.cast(pl.String).fill_null(""),
                    "provider_request_id",
                    separator="|",
                )
            ),
        )
        for reading in readings
    ]
    # An answer that came under two gateway ids was repeated out of a cache: it proves nothing about either call.
    both = pl.concat(usage).drop_nulls("proof").unique()
    once = pl.col("gateway_call_id").drop_nulls().n_unique().over("proof") < 2
    return both.filter(once & pl.col("proof").is_duplicated()).select("row", "proof")
