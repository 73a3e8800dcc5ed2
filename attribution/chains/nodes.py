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
    facts: pl.DataFrame, calls: pl.DataFrame, known: SpanIndex, *, plain: bool
) -> tuple[pl.DataFrame, SpanIndex, Index]:
    """The rows that chains are made of, their keys, and which of them each call stands on.

    A call without a span hangs on the one root of its trace, if it has one. `known` are the keys of facts, `plain` says that facts are
    spans only, each once.
    """
    spans = facts if plain else _distinct_spans(facts, known)
    told = calls.filter(pl.col("signal_count") > 1)
    if told.height:
        spans = _fill_from_calls(spans, told)
    if plain:
        return spans, known, calls["row"].to_numpy()
    rows = SpanIndex(spans["trace_key"].to_numpy(), spans["span_key"].to_numpy())
    alone = calls.filter(is_gateway())
    # A gateway row may carry the very ids of a span that is no call itself: then that span is its place.
    free = rows.find(alone["trace_key"].to_numpy(), alone["span_key"].to_numpy()) == NONE
    alone = alone.filter(pl.Series(free))
    if alone.height:
        spans = pl.concat([spans, _attach_to_root(alone, spans)], how="diagonal")
        rows = SpanIndex(spans["trace_key"].to_numpy(), spans["span_key"].to_numpy())
    return spans, rows, rows.find(calls["trace_key"].to_numpy(), calls["span_key"].to_numpy())


def _distinct_spans(facts: pl.DataFrame, known: SpanIndex) -> pl.DataFrame:
    """Spans, each once: of two deliveries that contradict each other the earlier start, then the fuller row."""
    spans = facts.filter(~is_gateway())
    if not len(known.doubles):
        return spans
    twice = facts[known.doubles].select("trace_key", "span_key").unique()
    double = spans.join(twice, on=["trace_key", "span_key"], how="semi")
    order = [c for c in double.columns if c not in ("trace_key", "span_key", "start_time", "rank", "row")]
    kept = double.sort("trace_key", "span_key", "start_time", -pl.col("rank"), *order).unique(
        ["trace_key", "span_key"], keep="first", maintain_order=True
    )
    return pl.concat([spans.join(twice, on=["trace_key", "span_key"], how="anti", maintain_order="left"), kept])


def _fill_from_calls(spans: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Spans that say of themselves what other signals of their call say."""
    said = told.select("trace_key", "span_key", *_FILLED)
    spans = spans.join(said, on=["trace_key", "span_key"], how="left", suffix="_told", maintain_order="left")
    # The call's claim was chosen among those of all its signals, the span's own included. (CH-7)
    claims = pl.col("claim_source_told").is_not_null()
    chosen = {c: pl.when(claims).then(f"{c}_told").otherwise(c) if c in CLAIM else pl.coalesce(c, f"{c}_told") for c in _FILLED}
    return spans.with_columns(**chosen).drop(f"{c}_told" for c in _FILLED)


def _attach_to_root(alone: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Calls without a span as spans: under the root of their trace where there is exactly one."""
    roots = (
        spans.filter(pl.col("parent_key").is_null())
        .join(alone.select("trace_key").unique(), on="trace_key", how="semi")
        .group_by("trace_key")
        .agg(pl.col("span_key").first().alias("__root"), pl.len().alias("__n"))
        .filter(pl.col("__n") == 1)
    )
    alone = alone.select(c for c in alone.columns if c in spans.columns and c not in ("parent_key", "row"))
    hung = alone.join(roots.select("trace_key", parent_key="__root"), on="trace_key", how="left", maintain_order="left")
    return hung.with_columns(pl.lit(None, dtype=spans.schema[c]).alias(c) for c in ("link_trace_key", "link_span_key", "links"))
