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


def merge_signals(signals: pl.DataFrame, trusted_sources: Sequence[str] = (), spans_are_unique: bool = False) -> pl.DataFrame:
    """One row a call, out of all signals of it.

    Signals are one call if they share the gateway's call id; or the provider's request id and equal usage (the id alone is no
    proof, and an id that comes under two gateway ids is none either); or the span, unless `spans_are_unique`.

    The merged row keeps the place in the chain (trace_key, span_key, …) of its innermost OpenTelemetry span in the trace that came first
    (a replay comes later), the most complete usage, and every other field from the most telling signal that has it; a claim of the
    root agent from a `trusted_sources` source before any other (CH-7). `channels` names them all.
    """
    call = _components(signals, spans_are_unique=spans_are_unique)
    is_shared = pl.Series([], dtype=pl.Boolean) if call is None else call.is_duplicated()
    if call is None or not is_shared.any():
        return signals.with_columns(channels=pl.col("channel"), signal_count=pl.lit(1, dtype=pl.UInt32))
    single = signals.filter(~is_shared).with_columns(channels=pl.col("channel"), signal_count=pl.lit(1, dtype=pl.UInt32))
    multi_signal = signals.filter(is_shared).with_columns(
        call.filter(is_shared).alias("__call"),
        __told=pl.sum_horizontal(pl.col(c).is_not_null().cast(pl.Int32) for c in USAGE_COLUMNS),
        __channel=pl.col("channel").replace_strict(_CHANNELS, default=9, return_dtype=pl.Int32),
    )
    return pl.concat([single, _merge_fields(multi_signal, trusted_sources).select(single.columns)])


_POSITION = ("row", "trace_key", "span_key", "trace_id", "span_id", "start_time", "end_time", "channel")


def _merge_fields(multi_signal: pl.DataFrame, trusted_sources: Sequence[str]) -> pl.DataFrame:
    # A trace that repeats another's answer started later; within one trace, the innermost span stands next to the request.
    spans = pl.col("channel") == OTLP
    trace_start = pl.when(spans).then("start_time").min().over("__call", "trace_key")
    positions = (
        multi_signal.sort(
            ~spans,
            pl.col("usage_scope").fill_null("zz") != "leaf",
            trace_start,
            "trace_key",
            -pl.col("start_time").to_physical(),
            "span_key",
            *_tie_breakers(multi_signal),
        )
        .group_by("__call", maintain_order=True)
        .agg(*(pl.col(c).first() for c in _POSITION), leaf=(pl.col("usage_scope") == "leaf").any())
    )
    by_completeness = multi_signal.sort(
        -pl.col("__told"), "__channel", -pl.col("rank"), "trace_key", "span_key", *_tie_breakers(multi_signal), nulls_last=True
    )
    grouped_columns = {*CLAIM, *(c for block in _FIELD_GROUPS for c in block)}
    claims = pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()
    trusted_claims = claims & pl.col("claim_source").is_in(list(trusted_sources))
    plain_columns = [
        c for c in multi_signal.columns if c not in grouped_columns and c not in _POSITION and not c.startswith("__")
    ]
    fields = by_completeness.group_by("__call", maintain_order=True).agg(
        *(pl.col(c).drop_nulls().first() for c in plain_columns if c not in _FLAGS),
        *(pl.col(c).any() for c in multi_signal.columns if c in _FLAGS),
        *(pl.col(c).filter(pl.col(block[0]).is_not_null()).first() for block in _FIELD_GROUPS for c in block),
        *(
            pl.when(trusted_claims.any())
            .then(pl.col(c).filter(trusted_claims).first())
            .otherwise(pl.col(c).filter(claims).first())
            .alias(c)
            for c in CLAIM
        ),
        pl.col("channel").unique().sort().str.join("+").alias("channels"),
        pl.len().alias("signal_count"),
    )
    rows = positions.join(fields, on="__call", maintain_order="left")
    return rows.with_columns(usage_scope=pl.when("leaf").then(pl.lit("leaf")).otherwise("usage_scope")).drop("leaf", "__call")


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
        labelled_proofs = proofs.join(labels, on="row")
        proof_labels = labelled_proofs.group_by("proof").agg(least=pl.col("label").min())
        row_labels = labelled_proofs.join(proof_labels, on="proof").group_by("row").agg(label=pl.col("least").min())
        if row_labels["label"].sum() == labels["label"].sum():
            break
        labels = row_labels
    return pl.int_range(signals.height, dtype=pl.Int64, eager=True).scatter(labels["row"], labels["label"])


def _proofs(signals: pl.DataFrame, *, spans_are_unique: bool) -> pl.DataFrame:
    """What shows that a signal is one with another: rows (row, proof) of proofs that several signals have."""
    rows = pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
    proof_parts: list[pl.DataFrame] = []
    if not spans_are_unique:
        place = pl.struct("trace_key", "span_key")
        proof_parts.append(
            signals.select(rows, proof=place).filter(pl.col("proof").is_duplicated()).with_columns(_proof_text("span", "proof"))
        )
    ids = non_null_columns(signals, ("gateway_call_id", "provider_request_id"))
    if "gateway_call_id" in ids:
        gateway_ids = signals.select(rows, proof="gateway_call_id").drop_nulls()
        proof_parts.append(gateway_ids.filter(pl.col("proof").is_duplicated()).with_columns(_proof_text("gateway", "proof")))
    if "provider_request_id" in ids:
        proof_parts.append(_request_proofs(signals.with_columns(rows)))
    non_empty = [part for part in proof_parts if part.height]
    return pl.concat(non_empty) if non_empty else pl.DataFrame(schema={"row": pl.Int64, "proof": pl.String})


def _proof_text(kind: str, column: str) -> pl.Expr:
    proof = pl.col(column)
    text = (
        pl.concat_str(proof.struct.field("trace_key"), proof.struct.field("span_key"), separator=":") if kind == "span" else proof
    )
    return pl.concat_str(pl.lit(f"{kind}|"), text).alias("proof")


def _request_proofs(signals: pl.DataFrame) -> pl.DataFrame:
    """The provider's request id with the usage it came with, output and whole prompt, where several signals tell the same.

    The output is told with its reasoning. The prompt is the input as told where that has the cached tokens in it, with them where it has
    not, and either where nobody knows.
    """
    answers = signals.filter(pl.col("provider_request_id").is_not_null())
    answers = answers.filter(pl.col("provider_request_id").is_duplicated())
    if not answers.height:
        return pl.DataFrame(schema={"row": pl.Int64, "proof": pl.String})
    cache_write = pl.max_horizontal(
        pl.col("cache_write_tokens").fill_null(0),
        pl.col("cache_write_5m_tokens").fill_null(0) + pl.col("cache_write_1h_tokens").fill_null(0),
    )
    reasoning_excluded = pl.col("output_includes_reasoning").eq_missing(other=False)
    output = pl.col("output_tokens") + pl.when(reasoning_excluded).then(pl.col("reasoning_tokens").fill_null(0)).otherwise(0)
    exclusive_prompt, full_prompt = (
        pl.col("input_tokens"),
        pl.col("input_tokens") + pl.col("cache_read_tokens").fill_null(0) + cache_write,
    )
    inclusive = pl.col("input_includes_cache")
    readings = (
        pl.when(inclusive.ne_missing(other=False)).then(exclusive_prompt),
        pl.when(inclusive.ne_missing(other=True)).then(full_prompt),
    )
    usage = [
        answers.select(
            "row",
            "gateway_call_id",
            proof=pl.when(reading.is_not_null() | (exclusive_prompt.is_null() & pl.col("output_tokens").is_not_null())).then(
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
    proofs = pl.concat(usage).drop_nulls("proof").unique()
    single_gateway = pl.col("gateway_call_id").drop_nulls().n_unique().over("proof") < 2
    return proofs.filter(single_gateway & pl.col("proof").is_duplicated()).select("row", "proof")
