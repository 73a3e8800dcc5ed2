"""Attempts under one gateway call id: a fallback, a retry that was billed, and ids that a client chose twice. (CA-1a)

A gateway's id is shared by all attempts of an operation, and a client may choose it. Its log rows are different attempts where they differ
in status, deployment, model or prompt, or did not start together. A signal of another channel belongs to the attempt it agrees with.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from attribution.classification.names import map_distinct, signature
from ledger.tables import USAGE_COLUMNS

GATEWAYS = ("litellm", "litellm-callback", "litellm-spend-logs", "apim", "apim-llm", "portkey", "helicone")
"""Channels whose rows are a gateway's log of a call rather than a span."""

_SAME_START = timedelta(seconds=1)
"""Rows of one attempt start within this time: the channels of a gateway round its start differently."""

_GATEWAY_ATTEMPT = ("failed", "deployment_id", "request_model", "input_tokens")
_SPAN_ATTEMPT = ("model", "prompt")
PROOFS = {"row": pl.Int64, "proof": pl.String}


def model_signatures(signals: pl.DataFrame) -> pl.Series:
    """What all spellings of a signal's model have in common; null where it names none."""
    return map_distinct(signals.select(model=pl.coalesce("response_model", "request_model"))["model"], signature)


def prompt_readings(signals: pl.DataFrame) -> pl.Series:
    """The possible sizes of the whole prompt: input as reported, input plus cached tokens, or both where
    the emitter does not say which; null where no input is reported.

    >>> signals = pl.DataFrame({"input_tokens": [1000, 100], "cache_read_tokens": [400, 900], "input_includes_cache": [None, False]},
    ...     schema_overrides={"input_includes_cache": pl.Boolean})
    >>> columns = ("cache_write_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
    >>> prompt_readings(signals.with_columns(pl.lit(None, dtype=pl.Int64).alias(c) for c in columns)).to_list()
    [[1000, 1400], [1000]]
    """
    cache_write = pl.max_horizontal(
        pl.col("cache_write_tokens").fill_null(0),
        pl.col("cache_write_5m_tokens").fill_null(0) + pl.col("cache_write_1h_tokens").fill_null(0),
    )
    input_tokens = pl.col("input_tokens")
    with_cache = input_tokens + pl.col("cache_read_tokens").fill_null(0) + cache_write
    inclusive = pl.col("input_includes_cache")
    readings = pl.concat_list(
        pl.when(inclusive.ne_missing(other=False)).then(input_tokens), pl.when(inclusive.ne_missing(other=True)).then(with_cache)
    )
    distinct_readings = readings.list.drop_nulls().list.unique().list.sort()
    return signals.select(readings=pl.when(input_tokens.is_not_null()).then(distinct_readings))["readings"]


def gateway_proofs(signals: pl.DataFrame) -> pl.DataFrame:
    """Proofs (row, proof) that signals with one gateway call id are one attempt; `signals` has `row`."""
    signals_of_shared_ids = signals.filter(pl.col("gateway_call_id").is_not_null() & pl.col("gateway_call_id").is_duplicated())
    if not signals_of_shared_ids.height:
        return pl.DataFrame(schema=PROOFS)
    signals_of_shared_ids = _evidence(signals_of_shared_ids)
    contested_signals = signals_of_shared_ids.filter(_is_contested())
    proof = pl.concat_str(pl.lit("gateway|"), "gateway_call_id").alias("proof")
    agreed_proofs = signals_of_shared_ids.filter(~_is_contested()).select("row", proof)
    return agreed_proofs if not contested_signals.height else pl.concat([agreed_proofs, _attempt_proofs(contested_signals)])


def _evidence(signals: pl.DataFrame) -> pl.DataFrame:
    """What tells attempts apart, by signal; `decides` marks the signals that do: the gateway's own rows with usage, else any with usage."""
    has_usage = pl.any_horizontal(pl.col(c).is_not_null() for c in USAGE_COLUMNS)
    signals = signals.select(
        "row",
        "gateway_call_id",
        "start_time",
        "provider_request_id",
        "deployment_id",
        "request_model",
        "input_tokens",
        failed=pl.col("status").eq_missing("error"),
        is_log=pl.col("channel").is_in(GATEWAYS),
        has_usage=has_usage,
        model=model_signatures(signals),
        prompts=prompt_readings(signals),
    ).with_columns(prompt=pl.col("prompts").list.last())
    is_own_row = pl.col("is_log") & pl.col("has_usage")
    return signals.with_columns(
        decides=pl.when(is_own_row.any().over("gateway_call_id")).then(is_own_row).otherwise("has_usage"),
        has_log=is_own_row.any().over("gateway_call_id"),
    )


def _is_contested() -> pl.Expr:
    """Whether the signals of a gateway call id tell of more than one attempt."""

    def several(column: str, condition: pl.Expr) -> pl.Expr:
        return (pl.col(column).filter(condition).drop_nulls().n_unique() > 1).over("gateway_call_id")

    decides = pl.col("decides")
    starts = pl.col("start_time").filter(decides)
    starts_apart = (starts.max() - starts.min() > _SAME_START).over("gateway_call_id").fill_null(value=False)
    answers = several("provider_request_id", decides) & (starts.n_unique() > 1).over("gateway_call_id")
    log_differs = pl.any_horizontal(several(c, decides) for c in _GATEWAY_ATTEMPT) | starts_apart | answers
    model_and_prompt_differ = several("model", pl.col("has_usage")) & several("prompt", pl.col("has_usage"))
    return (pl.col("has_log") & log_differs) | model_and_prompt_differ


def _attempt_proofs(signals: pl.DataFrame) -> pl.DataFrame:
    """Each decisive signal proves its own attempt; every other one the nearest attempt that it agrees with."""
    decisive = _number_attempts(signals.filter("decides"))
    other_signals = signals.filter(~pl.col("decides"))
    silent, reporting = other_signals.filter(~pl.col("has_usage")), other_signals.filter("has_usage")
    answered_attempts = decisive.filter(~pl.col("failed"))
    match_parts = [_nearest(silent, answered_attempts, []), _nearest(silent, decisive, [])]
    by_prompt = reporting.explode("prompts").drop("prompt").rename({"prompts": "prompt"})
    for pool in (answered_attempts, decisive):
        match_parts += [_nearest(by_prompt, pool, keys) for keys in (["prompt", "model"], ["prompt"])]
    match_parts += [_nearest(reporting, pool, ["model"]) for pool in (answered_attempts, decisive)]
    matches = pl.concat(match_parts).unique("row", keep="first", maintain_order=True)
    unmatched_proofs = reporting.join(matches, on="row", how="anti").select(
        "row",
        proof=pl.concat_str(
            pl.lit("other|"), "gateway_call_id", pl.col("model").fill_null(""), pl.col("prompt").fill_null(-1), separator="|"
        ),
    )
    return pl.concat([decisive.select("row", "proof"), matches, unmatched_proofs])


def _number_attempts(decisive: pl.DataFrame) -> pl.DataFrame:
    """Adds `proof`, the attempt of each decisive signal: equal evidence, and started together or with one answer's id."""
    evidence = [pl.when("has_log").then(pl.col(c)).alias(f"by_{c}") for c in _GATEWAY_ATTEMPT]
    evidence += [pl.when(~pl.col("has_log")).then(pl.col(c)).alias(f"by_{c}") for c in _SPAN_ATTEMPT]
    keys = ["gateway_call_id", *(f"by_{c}" for c in (*_GATEWAY_ATTEMPT, *_SPAN_ATTEMPT))]
    decisive = decisive.with_columns(evidence).sort(*keys, "start_time", "provider_request_id", "row", nulls_last=True)
    answer = pl.col("provider_request_id")
    gap = pl.col("start_time").diff().over(keys)
    other_answer = (answer != answer.shift(1).over(keys)).fill_null(value=False)
    same_answer = (answer == answer.shift(1).over(keys)).fill_null(value=False)
    is_next = ((gap > _SAME_START) & ~same_answer) | (other_answer & (gap > timedelta(0)))
    number = (is_next.fill_null(value=False) & pl.col("has_log")).cast(pl.Int32).cum_sum().over(keys)
    attempt = pl.struct(*keys, number.alias("number"))
    return decisive.with_columns(attempt.rank("dense").alias("attempt")).with_columns(
        proof=pl.concat_str(pl.lit("attempt|"), "gateway_call_id", pl.col("attempt").cast(pl.String), separator="|")
    )


def _nearest(signals: pl.DataFrame, attempts: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The attempt of the same gateway call id, and equal in `keys`, that started nearest to each signal: rows (row, proof)."""
    by = ["gateway_call_id", *keys]
    if not signals.height or not attempts.height:
        return pl.DataFrame(schema=PROOFS)
    signals_in_order = signals.drop_nulls(by).sort("start_time", "row")
    attempts_in_order = attempts.drop_nulls(by).select(*by, "start_time", "proof").sort("start_time", "proof")
    if not signals_in_order.height or not attempts_in_order.height:
        return pl.DataFrame(schema=PROOFS)
    matches = signals_in_order.select("row", *by, "start_time").join_asof(
        attempts_in_order, on="start_time", by=by, strategy="nearest", check_sortedness=False
    )
    return matches.filter(pl.col("proof").is_not_null()).select("row", "proof")
