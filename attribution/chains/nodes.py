"""Places: every span once, and every call that no span stands for. (CA-1)"""

from __future__ import annotations

import polars as pl

from attribution.chains.calls import CLAIM, GATEWAYS
from attribution.chains.forest import NONE, Index
from attribution.chains.span_index import SpanIndex

_FILLED = ("agent_id", "agent_name", *CLAIM, "conversation_id", "credential")
"""What a gateway's log may know of a span that the span does not say itself."""


def is_gateway() -> pl.Expr:
    """Whether a row is a gateway's log of a call rather than a span."""
    return pl.col("channel").is_in(GATEWAYS)


def build_nodes(
    facts: pl.DataFrame, calls: pl.DataFrame, span_index: SpanIndex, *, plain: bool
) -> tuple[pl.DataFrame, SpanIndex, Index]:
    """The rows that chains are made of, their keys, and which of them each call stands on.

    A call without a span hangs on the one root of its trace, if it has one. `span_index` are the keys of facts, `plain` says that facts are
    spans only, each once.
    """
    spans = facts if plain else _distinct_spans(facts, span_index)
    multi_signal_calls = calls.filter(pl.col("signal_count") > 1)
    if multi_signal_calls.height:
        spans = _fill_from_calls(spans, multi_signal_calls)
    if plain:
        return spans, span_index, calls["row"].to_numpy()
    node_index = SpanIndex(spans["trace_key"].to_numpy(), spans["span_key"].to_numpy())
    spanless_calls = calls.filter(is_gateway())
    # A gateway row may carry the very ids of a span that is no call itself: then that span is its place.
    has_no_span = node_index.find(spanless_calls["trace_key"].to_numpy(), spanless_calls["span_key"].to_numpy()) == NONE
    spanless_calls = spanless_calls.filter(pl.Series(has_no_span))
    if spanless_calls.height:
        spans = pl.concat([spans, _attach_to_root(spanless_calls, spans)], how="diagonal")
        node_index = SpanIndex(spans["trace_key"].to_numpy(), spans["span_key"].to_numpy())
    return spans, node_index, node_index.find(calls["trace_key"].to_numpy(), calls["span_key"].to_numpy())


def _distinct_spans(facts: pl.DataFrame, span_index: SpanIndex) -> pl.DataFrame:
    """Spans, each once: of two deliveries that contradict each other the earlier start, then the fuller row."""
    spans = facts.filter(~is_gateway())
    if not len(span_index.duplicates):
        return spans
    duplicate_keys = facts[span_index.duplicates].select("trace_key", "span_key").unique()
    duplicates = spans.join(duplicate_keys, on=["trace_key", "span_key"], how="semi")
    order = [c for c in duplicates.columns if c not in ("trace_key", "span_key", "start_time", "rank", "row")]
    distinct_rows = duplicates.sort("trace_key", "span_key", "start_time", -pl.col("rank"), *order).unique(
        ["trace_key", "span_key"], keep="first", maintain_order=True
    )
    return pl.concat([spans.join(duplicate_keys, on=["trace_key", "span_key"], how="anti", maintain_order="left"), distinct_rows])


def _fill_from_calls(spans: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """Spans that say of themselves what other signals of their call say."""
    call_fields = calls.select("trace_key", "span_key", *_FILLED)
    spans = spans.join(call_fields, on=["trace_key", "span_key"], how="left", suffix="_told", maintain_order="left")
    # The call's claim was chosen among those of all its signals, the span's own included. (CH-7)
    has_call_claim = pl.col("claim_source_told").is_not_null()
    filled_columns = {
        c: pl.when(has_call_claim).then(f"{c}_told").otherwise(c) if c in CLAIM else pl.coalesce(c, f"{c}_told") for c in _FILLED
    }
    return spans.with_columns(**filled_columns).drop(f"{c}_told" for c in _FILLED)


def _attach_to_root(calls: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Calls without a span as spans: under the root of their trace where there is exactly one."""
    roots = (
        spans.filter(pl.col("parent_key").is_null())
        .join(calls.select("trace_key").unique(), on="trace_key", how="semi")
        .group_by("trace_key")
        .agg(pl.col("span_key").first().alias("__root"), pl.len().alias("__n"))
        .filter(pl.col("__n") == 1)
    )
    calls = calls.select(c for c in calls.columns if c in spans.columns and c not in ("parent_key", "row"))
    attached_calls = calls.join(roots.select("trace_key", parent_key="__root"), on="trace_key", how="left", maintain_order="left")
    return attached_calls.with_columns(
        pl.lit(None, dtype=spans.schema[c]).alias(c) for c in ("link_trace_key", "link_span_key", "links")
    )
