"""Merges the signals of one provider request attempt to one call, whatever channels reported it. (CA-1, CA-3, CA-4)"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from attribution.factorize import non_null_columns
from ledger.tables import USAGE_COLUMNS

_FIELD_GROUPS = (
    ("input_tokens", "input_includes_cache", "total_tokens"),
    ("output_tokens", "output_includes_reasoning"),
)
"""Columns that are only meaningful together: they are taken from one signal, never mixed. Every other column is taken from the
most complete signal that has a value for it."""

CLAIM = ("claimed_agent", "claimed_team", "claim_source")
"""The root agent that baggage, a header or a tag names, and the source of that claim."""

_FLAGS = ("claim_conflict", "absurd_usage")
"""Columns that are true for a call if they are true for any of its signals."""

_CHANNELS = {"litellm": 0, "litellm-callback": 1, "litellm-spend-logs": 2, "otlp": 3}
"""Order of precedence for usage where two signals are equally complete: a gateway has the provider's own answer."""

OTLP = "otlp"
"""The channel whose spans carry parent edges; a merged call takes its place in the chain from there."""

GATEWAYS = ("litellm", "litellm-callback", "litellm-spend-logs")
"""Channels whose rows are a gateway's log of a call rather than a span."""

MAX_TOKENS = 10**12
"""More than any request can have: a larger or negative count is an error of the emitter and is dropped."""


def reports_usage() -> pl.Expr:
    """Whether a signal reports usage."""
    return pl.any_horizontal(pl.col(c).is_not_null() for c in (*USAGE_COLUMNS, "other_usage"))


def drop_absurd_counts(signals: pl.DataFrame) -> pl.DataFrame:
    """Sets token counts outside [0, MAX_TOKENS] to null and flags the row in `absurd_usage`; their sums would overflow."""
    absurd = pl.any_horizontal(~pl.col(c).is_between(0, MAX_TOKENS) for c in USAGE_COLUMNS).fill_null(value=False)
    if not signals.select(absurd.any()).item():
        return signals.with_columns(absurd_usage=pl.lit(value=False))
    return signals.with_columns(
        absurd.alias("absurd_usage"),
        *(pl.when(pl.col(c).is_between(0, MAX_TOKENS)).then(pl.col(c)).alias(c) for c in USAGE_COLUMNS),
    )


def merge_signals(signals: pl.DataFrame, trusted_sources: Sequence[str] = (), spans_are_unique: bool = False) -> pl.DataFrame:
    """One row for each call, merged from its signals.

    Signals are one call if they share the gateway's call id; or the provider's request id and equal usage (the id alone is no
    proof, nor is one that occurs under two gateway ids); or the span, unless `spans_are_unique`.

    The merged row has the position (trace_key, span_key, …) of its innermost OpenTelemetry span in the earliest trace (a replay is later),
    the most complete usage, and every other field from the most complete signal that has it. A claim of the root agent from one of
    `trusted_sources` has precedence (CH-7). Adds `channels`, all of them joined, and `signal_count`.
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
    # A trace that repeats the answer of another started later; within one trace, the innermost span is closest to the request.
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
    """Columns that order otherwise equal deliveries, so that the order of arrival does not matter."""
    return [c for c in ("start_time", *USAGE_COLUMNS, "response_model", "agent_name", "status") if c in signals.columns]


def _components(signals: pl.DataFrame, *, spans_are_unique: bool) -> pl.Series | None:
    """Connected components of signals that share a proof of identity, labelled by their smallest row; None where no two share any."""
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
    """Proofs that signals belong to one call: rows (row, proof) of the proofs that several signals share."""
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
    """Proofs of the provider's request id with equal output and whole prompt, where several signals have them.

    Output includes reasoning. The prompt is the reported input where that includes cached tokens, input plus cached tokens where it does
    not, and both readings are tried where that is unknown.
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
    # An answer under two gateway ids was repeated from a cache: it proves nothing about either call.
    proofs = pl.concat(usage).drop_nulls("proof").unique()
    single_gateway = pl.col("gateway_call_id").drop_nulls().n_unique().over("proof") < 2
    return proofs.filter(single_gateway & pl.col("proof").is_duplicated()).select("row", "proof")
