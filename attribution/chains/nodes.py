"""The nodes of chains: every span once, and every call without a span. (CA-1)"""

from __future__ import annotations

import polars as pl

from attribution.chains.attempts import GATEWAYS
from attribution.chains.calls import CLAIM, reports_usage
from attribution.chains.forest import NONE, Index
from attribution.chains.span_index import SpanIndex, index_spans

_FILLED = ("agent_id", "agent_name", *CLAIM, "conversation_id", "credential")
"""Columns of a gateway's log row that may fill nulls of the span of the same call."""


def is_gateway() -> pl.Expr:
    """Whether a row is a gateway's log of a call rather than a span."""
    return pl.col("channel").is_in(GATEWAYS)


def build_nodes(
    spans: pl.DataFrame, calls: pl.DataFrame, span_index: SpanIndex, spans_are_unique: bool
) -> tuple[pl.DataFrame, SpanIndex, Index]:
    """The rows that chains are made of, their index, and for each call the row that stands for it.

    They are the spans, each once, and one row for each call without a span, whose parent is the root of its trace where there is exactly
    one. `span_index` is that of `spans`; `spans_are_unique` as `are_unique_spans` gives it.
    """
    nodes = spans if spans_are_unique else _distinct_spans(spans, span_index)
    multi_signal_calls = calls.filter(pl.col("signal_count") > 1)
    if multi_signal_calls.height:
        nodes = _fill_from_calls(nodes, multi_signal_calls)
    if spans_are_unique:
        return nodes, span_index, calls["row"].to_numpy()
    node_index = index_spans(nodes)
    spanless_calls = calls.filter(is_gateway())
    # A gateway row may carry the ids of a span that reports no call itself: then that span stands for the call.
    has_no_span = node_index.find(spanless_calls["trace_key"].to_numpy(), spanless_calls["span_key"].to_numpy()) == NONE
    spanless_calls = spanless_calls.filter(pl.Series(has_no_span))
    if spanless_calls.height:
        nodes = pl.concat([nodes, _attach_to_root(spanless_calls, nodes)], how="diagonal")
        node_index = index_spans(nodes)
    return nodes, node_index, node_index.find(calls["trace_key"].to_numpy(), calls["span_key"].to_numpy())


def place_calls(calls: pl.DataFrame, node_of_call: Index, node_index: SpanIndex) -> pl.DataFrame:
    """Adds `node`, the row of the forest that stands for each call, and `other_nodes`, those of its spans elsewhere; drops signals without
    usage scope or usage.
    """
    placed_calls = calls.with_columns(node=pl.Series(node_of_call, dtype=pl.Int32), other_nodes=_other_nodes(calls, node_index))
    placed_calls = placed_calls.drop("other_spans")
    return placed_calls.filter(pl.col("usage_scope").is_not_null() | reports_usage())


def _other_nodes(calls: pl.DataFrame, node_index: SpanIndex) -> pl.Series:
    """The rows of the spans of each call; null for a call with one signal."""
    if not calls["other_spans"].count():
        return pl.repeat(None, calls.height, dtype=pl.List(pl.Int32), eager=True)
    spans = calls.select("other_spans", call=pl.int_range(pl.len(), dtype=pl.UInt32)).drop_nulls().explode("other_spans")
    spans = spans.unnest("other_spans").drop_nulls()
    node = pl.Series(node_index.find(spans["trace_key"].to_numpy(), spans["span_key"].to_numpy()), dtype=pl.Int32)
    nodes = spans.select("call", node=node).filter(pl.col("node") != NONE).group_by("call", maintain_order=True).agg("node")
    all_calls = pl.select(call=pl.int_range(calls.height, dtype=pl.UInt32))
    return all_calls.join(nodes, on="call", how="left", maintain_order="left")["node"]


def _distinct_spans(rows: pl.DataFrame, span_index: SpanIndex) -> pl.DataFrame:
    """Spans, each once: of contradicting deliveries the one with the earlier start, then the higher rank."""
    spans = rows.filter(~is_gateway())
    if not len(span_index.duplicates):
        return spans
    duplicate_keys = rows[span_index.duplicates].select("trace_key", "span_key").unique()
    duplicates = spans.join(duplicate_keys, on=["trace_key", "span_key"], how="semi")
    order = [c for c in duplicates.columns if c not in ("trace_key", "span_key", "start_time", "rank", "row")]
    distinct_rows = duplicates.sort("trace_key", "span_key", "start_time", -pl.col("rank"), *order).unique(
        ["trace_key", "span_key"], keep="first", maintain_order=True
    )
    return pl.concat([spans.join(duplicate_keys, on=["trace_key", "span_key"], how="anti", maintain_order="left"), distinct_rows])


def _fill_from_calls(spans: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """Fills nulls of spans from the merged call they belong to."""
    call_fields = calls.select("trace_key", "span_key", *_FILLED)
    spans = spans.join(call_fields, on=["trace_key", "span_key"], how="left", suffix="_told", maintain_order="left")
    # The claim of the call was chosen among those of all its signals, including the span. (CH-7)
    has_call_claim = pl.col("claim_source_told").is_not_null()
    filled_columns = {
        c: pl.when(has_call_claim).then(f"{c}_told").otherwise(c) if c in CLAIM else pl.coalesce(c, f"{c}_told") for c in _FILLED
    }
    return spans.with_columns(**filled_columns).drop(f"{c}_told" for c in _FILLED)


def _attach_to_root(calls: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Rows for calls without a span; the parent is the root of their trace where there is exactly one."""
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
