"""Merges the signals of one provider request attempt to one call, whatever channels reported it. (CA-1, CA-3, CA-4)"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from attribution.chains.attempts import GATEWAYS, PROOFS, gateway_proofs
from attribution.chains.components import connected_components
from attribution.chains.request_ids import request_proofs
from attribution.chains.shared_ids import ids_of_other_callers, with_callers, without_repeated_batches
from attribution.factorize import non_null_columns
from ledger.tables import USAGE_COLUMNS

_FIELD_GROUPS = (
    (
        "input_tokens",
        "input_includes_cache",
        "total_tokens",
        "emitter",
        "emitter_version",
        "count_evidence",
        "count_contradiction",
    ),
    ("output_tokens", "output_includes_reasoning"),
)
"""Columns that are only meaningful together: they are taken from one signal, never mixed. Input is that of the most complete signal,
output that of the signal that counts most: a stream that was cut, and a placeholder, count less. Every other column is taken from the most
complete signal that has a value for it. (CA-1a)"""

CLAIM = ("claimed_agent", "claimed_team", "claim_source")
"""The root agent that baggage, a header or a tag names, and the source of that claim."""

_PLACE = ("provider_account", "provider_region")
"""The place as the provider's side states it: its own log knows where it bills, a gateway what it was told. (RA-1d)"""

_FLAGS = ("claim_conflict", "id_conflict", "absurd_usage")
"""Columns that are true for a call if they are true for any of its signals."""

_CHANNELS = {"litellm": 0, "litellm-callback": 1, "litellm-spend-logs": 2, "otlp": 3}
"""Order of precedence for usage where two signals are equally complete: a gateway has the provider's own answer."""

OTLP = "otlp"
"""The channel whose spans carry parent edges; a merged call takes its place in the chain from there."""

MAX_TOKENS = 10**12
"""More than any request can have: a larger or negative count is an error of the emitter and is dropped."""


def reports_usage() -> pl.Expr:
    """Whether a signal reports usage."""
    return pl.any_horizontal(pl.col(c).is_not_null() for c in (*USAGE_COLUMNS, "other_usage"))


WRAPPERS = ("aggregate", "cumulative")


def is_wrapper() -> pl.Expr:
    """Whether the usage of a row is marked as a sum over other calls."""
    return pl.col("usage_scope").is_in(WRAPPERS).fill_null(value=False)


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

    Signals are one call if they share an attempt under the gateway's call id; or an id of the request, and do not contradict each other on
    model and prompt (the id alone is no proof, nor is one that occurs under two gateway ids); or the span, unless `spans_are_unique`.

    The merged row has the position (trace_key, span_key, …) of its innermost OpenTelemetry span in the earliest trace (a replay is later),
    the most complete usage, and every other field from the most complete signal that has it. A claim of the root agent from one of
    `trusted_sources` has precedence, and among those the claim of the span at that position (CH-7). Adds `channels`, all of them joined,
    `signal_count`, and `other_spans`, the keys of its spans elsewhere: wrappers above them report its usage, too (CA-2); and
    `id_conflict`, whether another caller's record bears an id of it.
    """
    signals = without_repeated_batches(signals)
    shared_ids = ids_of_other_callers(signals.with_columns(row=_positions()))
    if shared_ids.height:
        is_shared_id = _positions().is_in(shared_ids["row"].implode())
        signals = signals.with_columns(id_conflict=pl.col("id_conflict") | is_shared_id)
    call = _components(signals, shared_ids, spans_are_unique=spans_are_unique)
    is_shared = pl.Series([], dtype=pl.Boolean) if call is None else call.is_duplicated()
    if call is None or not is_shared.any():
        return signals.with_columns(_SINGLE)
    single = signals.filter(~is_shared).with_columns(_SINGLE)
    multi_signal = signals.filter(is_shared).with_columns(
        call.filter(is_shared).alias("__call"),
        __told=pl.sum_horizontal(pl.col(c).is_not_null().cast(pl.Int32) for c in USAGE_COLUMNS),
        __channel=pl.col("channel").replace_strict(_CHANNELS, default=9, return_dtype=pl.Int32),
    )
    return pl.concat([single, _merge_fields(multi_signal, trusted_sources).select(single.columns)])


_SPAN_KEYS = pl.List(pl.Struct({"trace_key": pl.Int64, "span_key": pl.Int64}))
_SINGLE = (
    pl.col("channel").alias("channels"),
    pl.lit(1, dtype=pl.UInt32).alias("signal_count"),
    pl.lit(None, dtype=_SPAN_KEYS).alias("other_spans"),
)
"""The columns that merging adds, of a call with one signal."""

_POSITION = ("row", "trace_key", "span_key", "trace_id", "span_id", "start_time", "end_time", "channel")


def _merge_fields(multi_signal: pl.DataFrame, trusted_sources: Sequence[str]) -> pl.DataFrame:
    # A trace that repeats the answer of another started later; within one trace, the innermost span is closest to the request.
    spans = pl.col("channel") == OTLP
    trace_start = pl.col("start_time").min().over("__call", "trace_key", spans)
    positions = (
        multi_signal.sort(
            ~spans,
            _is_detached(),
            pl.col("channel").is_in(GATEWAYS),
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
    place = positions.select("__call", place=pl.struct("trace_key", "span_key"))
    is_elsewhere = pl.struct("trace_key", "span_key") != pl.col("place")
    multi_signal = (
        multi_signal.join(place, on="__call", maintain_order="left").with_columns(__elsewhere=is_elsewhere).drop("place")
    )
    by_completeness = multi_signal.sort(
        -pl.col("__told"), "__channel", -pl.col("rank"), "trace_key", "span_key", *_tie_breakers(multi_signal), nulls_last=True
    )
    grouped_columns = {*CLAIM, *_PLACE, *(c for block in _FIELD_GROUPS for c in block)}
    claims = pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()
    trusted_claims = claims & pl.col("claim_source").is_in(list(trusted_sources))
    plain_columns = [
        c for c in multi_signal.columns if c not in grouped_columns and c not in _POSITION and not c.startswith("__")
    ]
    fields = by_completeness.group_by("__call", maintain_order=True).agg(
        *(pl.col(c).drop_nulls().first() for c in plain_columns if c not in _FLAGS),
        *(pl.col(c).any() for c in multi_signal.columns if c in _FLAGS),
        *(
            pl.coalesce(pl.col(c).filter(_is_provider_log()).drop_nulls().first(), pl.col(c).drop_nulls().first())
            for c in _PLACE
            if c in multi_signal.columns
        ),
        *(pl.col(c).filter(pl.col("input_tokens").is_not_null()).first() for c in _FIELD_GROUPS[0]),
        *(pl.col(c).filter(_has_largest_output()).first() for c in _FIELD_GROUPS[1]),
        pl.col("output_tokens").filter(pl.col("input_tokens").is_not_null()).first().alias("__output_of_total"),
        *(pl.when(trusted_claims.any()).then(_nearest(c, trusted_claims)).otherwise(_nearest(c, claims)).alias(c) for c in CLAIM),
        pl.col("channel").unique().sort().str.join("+").alias("channels"),
        pl.len().alias("signal_count"),
        pl.struct("trace_key", "span_key").filter(~pl.col("channel").is_in(GATEWAYS)).unique().sort().alias("other_spans"),
    )
    # A total beside a smaller output is the total of an unfinished answer.
    is_whole = pl.col("__output_of_total").eq_missing(pl.col("output_tokens"))
    fields = fields.with_columns(total_tokens=pl.when(is_whole).then("total_tokens")).drop("__output_of_total")
    rows = positions.join(fields, on="__call", maintain_order="left")
    return rows.with_columns(usage_scope=pl.when("leaf").then(pl.lit("leaf")).otherwise("usage_scope")).drop("leaf", "__call")


def _nearest(column: str, among: pl.Expr) -> pl.Expr:
    """The value of the signal at the call's own place, else of the most complete signal."""
    return pl.col(column).filter(among).sort_by(pl.col("__elsewhere").filter(among), maintain_order=True).first()


def _is_detached() -> pl.Expr:
    """Whether a row is in no chain but its own: a provider's log of requests, or a gateway's row without a trace."""
    return pl.col("trace_id").eq_missing(pl.col("span_id"))


def _is_provider_log() -> pl.Expr:
    """Whether a signal is the provider's own log of a request."""
    return ~pl.col("channel").is_in([*GATEWAYS, OTLP, "otlp-events"])


def _has_largest_output() -> pl.Expr:
    """Whether a signal counts the most output, reasoning included, of those of its call."""
    is_reasoning_excluded = pl.col("output_includes_reasoning").eq_missing(other=False)
    output = pl.col("output_tokens") + pl.when(is_reasoning_excluded).then(pl.col("reasoning_tokens").fill_null(0)).otherwise(0)
    return (output == output.max()).fill_null(value=False)


def _tie_breakers(signals: pl.DataFrame) -> list[str]:
    """Columns that order otherwise equal deliveries, so that the order of arrival does not matter."""
    return [c for c in ("start_time", *USAGE_COLUMNS, "response_model", "agent_name", "status") if c in signals.columns]


def _positions() -> pl.Expr:
    """The position of each signal, by which proofs name it."""
    return pl.int_range(pl.len(), dtype=pl.Int64)


def _components(signals: pl.DataFrame, shared_ids: pl.DataFrame, *, spans_are_unique: bool) -> pl.Series | None:
    """Connected components of signals that share a proof of identity, labelled by their smallest row; None where no two share any.

    A component with attempts of several gateway call ids was joined by a signal that names the ids of both: its proofs by request id
    are dropped. (CA-1a)
    """
    proofs = _proofs(signals, shared_ids, spans_are_unique=spans_are_unique)
    if not proofs.height:
        return None
    labels = _connect(proofs)
    contradictory = _contradictory_rows(labels, proofs, signals)
    if len(contradictory):
        by_request = pl.col("proof").str.starts_with("request|") & pl.col("row").is_in(contradictory.implode())
        proofs = proofs.filter(~by_request)
        if not proofs.height:
            return None
        labels = _connect(proofs)
    return pl.int_range(signals.height, dtype=pl.Int64, eager=True).scatter(labels["row"], labels["label"])


def _connect(proofs: pl.DataFrame) -> pl.DataFrame:
    """The smallest row that each row is connected to: row, label."""
    first_rows = proofs.select(pl.col("row").min().over("proof")).to_series()
    rows, component = connected_components(first_rows.to_numpy(), proofs["row"].to_numpy())
    return pl.DataFrame({"row": rows, "label": rows[component]})


def _contradictory_rows(labels: pl.DataFrame, proofs: pl.DataFrame, signals: pl.DataFrame) -> pl.Series:
    """The rows of components that hold several attempts: of one gateway call id, or of several."""
    if signals["gateway_call_id"].null_count() == signals.height or not proofs["proof"].str.starts_with("request|").any():
        return pl.Series([], dtype=pl.Int64)
    is_attempt = pl.col("proof").str.starts_with("attempt|") | pl.col("proof").str.starts_with("other|")
    attempts = proofs.filter(is_attempt).select("row", attempt="proof")
    gateway_ids = signals["gateway_call_id"].gather(labels["row"])
    members = labels.with_columns(gateway_call_id=gateway_ids).join(attempts, on="row", how="left")
    ids = pl.concat_str("gateway_call_id", pl.col("attempt").fill_null("")).drop_nulls()
    contradictory_labels = members.group_by("label").agg(ids.n_unique().alias("attempts")).filter(pl.col("attempts") > 1)
    return labels.join(contradictory_labels, on="label", how="semi")["row"]


def _proofs(signals: pl.DataFrame, shared_ids: pl.DataFrame, *, spans_are_unique: bool) -> pl.DataFrame:
    """Proofs that signals belong to one call: rows (row, proof) of the proofs that several signals share."""
    signals = signals.with_columns(row=_positions())
    proof_parts: list[pl.DataFrame] = []
    if not spans_are_unique:
        place = pl.struct("trace_key", "span_key")
        shared_places = signals.select("row", proof=place).filter(pl.col("proof").is_duplicated())
        place_text = pl.concat_str(
            pl.lit("span|"),
            pl.concat_str(pl.col("proof").struct.field("trace_key"), pl.col("proof").struct.field("span_key"), separator=":"),
        )
        proof_parts.append(shared_places.select("row", proof=place_text))
    ids = non_null_columns(signals, ("gateway_call_id", "provider_request_id", "request_ids"))
    if "gateway_call_id" in ids:
        signals_by_caller = with_callers(signals.rename({"gateway_call_id": "id"}), shared_ids).rename({"id": "gateway_call_id"})
        proof_parts.append(gateway_proofs(signals_by_caller))
    if "provider_request_id" in ids or "request_ids" in ids:
        proof_parts.append(request_proofs(signals, shared_ids))
    non_empty = [part for part in proof_parts if part.height]
    return pl.concat(non_empty) if non_empty else pl.DataFrame(schema=PROOFS)
