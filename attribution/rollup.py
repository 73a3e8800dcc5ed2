"""The heavy pass, once per span: signals → calls → chains → owners → meters → hourly quantities.

What it leaves behind (`calls`, `chains`, `usage_hourly`) is all that bills and prices need: a restated month never rereads spans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from attribution import chains, dimensions, held, identity, pricing
from attribution.calls import describes_call, merge, reports_usage
from attribution.dimensions import USAGE_KEYS, WORDS, usage_key
from attribution.metering import disjoint
from attribution.pricing import PriceBook
from ledger import periods
from ledger.money import MONEY
from ledger.settings import Settings
from ledger.store import Store
from ledger.tables import CALLS, CHAINS, SPANS, TOKEN_METERS, USAGE_COLUMNS, USAGE_HOURLY

_CODE = pl.Categorical()

_KEYS = (
    "trace_key",
    "span_key",
    "parent_key",
    "link_trace_key",
    "link_span_key",
    "links",
    "trace_id",
    "span_id",
    "start_time",
    "end_time",
)
_CALL = (
    "channel", "source", "trace_key", "span_key", "trace_id", "span_id", "start_time", "end_time", "service_name", "name", "usage_scope", "status",
    "agent_id", "agent_name", "claimed_agent", "claimed_team", "conversation_id", "credential", "credential_team", "principal",
    "tenant", "environment", "workflow", "gateway_call_id", "provider_request_id", "provider", "request_model", "response_model",
    "account_id", "region", "service_tier", "resource_id", "input_includes_cache", "output_includes_reasoning",
    "cache_hit", "reported_cost", "attempt", "rank", *USAGE_COLUMNS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a pass over the spans of a month drew."""

    calls: pl.DataFrame
    chains: pl.DataFrame
    usage: pl.DataFrame
    spans_read: int


Progress = Callable[[str], None]


def draw(store: Store, month: str, registry: pl.DataFrame, book: PriceBook, settings: Settings, *, rollup_id: str) -> Drawn:
    """Draws calls, chains and hourly usage of the calls that started in `month` (UTC).

    Spans of the `lookback_days` on either side are read too: they may be ancestors, or what a wrapper repeats. `registry` is a `ledger.registry.timeline`.
    """
    start, end = periods.month_start(month), periods.month_end(month)
    first = start - timedelta(days=settings.attribution.lookback_days)
    last = end + timedelta(days=settings.attribution.lookback_days)
    window = store.scan(SPANS).filter(pl.col("date").is_between(first.date(), last.date()))
    return draw_from(window, month, registry, book, settings, rollup_id=rollup_id)


def draw_from(
    window: pl.LazyFrame, month: str, registry: pl.DataFrame, book: PriceBook, settings: Settings, *, rollup_id: str
) -> Drawn:
    """The same from any frame of spans."""
    trusted = settings.ingest.trusted_sources
    signals = _believable(window.filter(describes_call() | gateway()).select(_CALL).collect())
    calls = merge(identity.refuse_conflicting_claims(signals, registry, trusted))
    del signals
    nodes = _nodes(window.filter(~gateway()).select(*_KEYS, *(pl.col(c).cast(_CODE) for c in WORDS)).collect(), calls)
    forest = chains.link(nodes)
    nodes = nodes.with_columns(agent=identity.span_agents(nodes, registry))
    calls = calls.join(nodes.select("trace_key", "span_key", node="row"), on=["trace_key", "span_key"], maintain_order="left")
    calls = calls.filter(~_covered(calls, forest)).filter(pl.col("usage_scope").is_not_null() | reports_usage())
    calls = identity.attribute(calls, nodes, forest, registry, trusted)
    calls = disjoint(calls.lazy()).collect()
    calls = pricing.add_list_cost(calls, book)
    calls = dimensions.named(calls, registry, settings, book)
    calls = calls.with_columns(
        rollup_id=pl.lit(rollup_id),
        month=pl.lit(month),
        hour=pl.col("start_time").dt.truncate("1h"),
        chain_id=_chain_ids(nodes, forest, calls["node"]),
        reason=_reasons(calls, forest),
    )
    calls = calls.with_columns(unpriced=_unpriced()).with_columns(
        usage_key=pl.when(~pl.col("cache_hit").fill_null(value=False)).then(usage_key())
    )
    inside = pl.col("start_time").is_between(periods.month_start(month), periods.month_end(month), closed="left")
    everything, calls = calls, calls.filter(inside)
    usage = pl.concat(
        [_hourly(calls), held.resource_hours(nodes, forest, registry, settings, rollup_id, month, trusted)], how="diagonal"
    )
    told = pl.concat_str("reason", pl.when("unpriced").then(pl.lit("unpriced")), separator=",", ignore_nulls=True).replace(
        "", None
    )
    calls = calls.with_columns(reason=told)
    return Drawn(
        calls=CALLS.conform(calls.select(c for c in CALLS.schema if c in calls.columns)),
        chains=CHAINS.conform(_chains(nodes, forest, everything, rollup_id, month)),
        usage=USAGE_HOURLY.conform(usage.select(c for c in USAGE_HOURLY.schema if c in usage.columns)),
        spans_read=nodes.height,
    )


def gateway() -> pl.Expr:
    """Whether a row is a gateway's log of a call rather than a span."""
    return pl.col("channel").is_in(["litellm", "litellm-spend-logs"])


def _nodes(spans: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """Every span once, and every call no span stands for; the latter hang on the one root of their trace, if it has one."""
    spans = spans.with_columns(
        claim_source=pl.when(pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()).then("source")
    )
    if spans.select("trace_key", "span_key").unique().height < spans.height:
        spans = spans.sort("trace_key", "span_key", "start_time").unique(["trace_key", "span_key"], keep="first")
    identity_columns = (
        "agent_id",
        "agent_name",
        "claimed_agent",
        "claimed_team",
        "claim_source",
        "conversation_id",
        "credential",
    )
    told = calls.filter(pl.col("signal_count") > 1).select(
        "trace_key", "span_key", *(pl.col(c).cast(_CODE) for c in identity_columns)
    )
    if told.height:
        spans = spans.join(told, on=["trace_key", "span_key"], how="left", suffix="_told", maintain_order="left")
        spans = spans.with_columns(pl.coalesce(c, f"{c}_told").alias(c) for c in identity_columns).drop(
            f"{c}_told" for c in identity_columns
        )
    alone = calls.filter(gateway()).select(
        *(c for c in _KEYS if c in calls.columns), *(pl.col(c).cast(_CODE) for c in (*WORDS, "claim_source"))
    )
    # A gateway row may carry the very ids of a span that is no call itself: then that span is its place.
    alone = alone.join(spans.select("trace_key", "span_key"), on=["trace_key", "span_key"], how="anti")
    if alone.height and spans.height:
        roots = (
            spans.filter(pl.col("parent_key").is_null())
            .group_by("trace_key")
            .agg(pl.col("span_key").first().alias("__root"), pl.len().alias("__n"))
        )
        alone = (
            alone.join(roots.filter(pl.col("__n") == 1), on="trace_key", how="left", maintain_order="left")
            .rename({"__root": "parent_key"})
            .drop("__n")
        )
    return pl.concat([spans, alone], how="diagonal").with_columns(row=pl.int_range(pl.len(), dtype=pl.Int32))


def _covered(calls: pl.DataFrame, forest: chains.Forest) -> pl.Series:
    """Which calls repeat what a descendant reports: wrappers, cumulative counters, and the outer of two nested instrumentations.

    An outer leaf with a provider request id of its own is a call of its own. (CA-2)
    """
    told = calls.select(reports_usage()).to_series()
    at = calls["node"].to_numpy()
    flag = np.zeros(len(forest.parent), dtype=bool)
    flag[at[told.to_numpy()]] = True
    over = chains.above(forest, flag)[at]
    pairs = calls.select(
        inner_id=pl.coalesce("provider_request_id", "gateway_call_id"),
        over=pl.Series(over),
        told=told,
    ).filter(pl.col("told") & (pl.col("over") != chains.NONE))
    outer = calls.select(over="node", outer_id=pl.coalesce("provider_request_id", "gateway_call_id"), scope="usage_scope")
    hidden = (
        pairs.join(outer, on="over")
        .filter(
            (pl.col("scope") != "leaf").fill_null(value=True)
            | pl.col("inner_id").is_null()
            | pl.col("outer_id").is_null()
            | (pl.col("inner_id") == pl.col("outer_id"))
        )
        .select(pl.col("over").unique())
    )
    return calls["node"].is_in(hidden["over"].implode())


def _reasons(calls: pl.DataFrame, forest: chains.Forest) -> pl.Series:
    root = forest.root[calls["node"].to_numpy()]
    node = calls["node"].to_numpy()
    flags = [
        pl.col("identity_reason"),
        pl.when(pl.Series(forest.cycle[root])).then(pl.lit("cycle")),
        pl.when(pl.Series(forest.multi_link[root] | forest.multi_link[node])).then(pl.lit("multi_link")),
        pl.when(pl.col("claim_conflict")).then(pl.lit("claim_conflict")),
        pl.col("usage_flag"),
        pl.when("absurd_usage").then(pl.lit("absurd_usage")),
        pl.when(pl.col("usage_scope").is_in(["aggregate", "cumulative"])).then(pl.lit("aggregate_only")),
        pl.when(pl.col("cache_hit")).then(pl.lit("cache_hit")),
        pl.when(~pl.any_horizontal(pl.col(m).is_not_null() for m in TOKEN_METERS)).then(pl.lit("usage_absent")),
        pl.when(pl.col("attempt") > 0).then(pl.lit("retry")),
    ]
    joined = calls.select(pl.concat_str(flags, separator=",", ignore_nulls=True)).to_series()
    return joined.replace("", None)


def _chain_ids(nodes: pl.DataFrame, forest: chains.Forest, rows: pl.Series) -> pl.Series:
    root = pl.Series(forest.root).gather(rows)
    trace = nodes["trace_id"].fill_null("?")
    span = nodes["span_id"].fill_null("?")
    return (
        pl.DataFrame({"t": trace.gather(root), "s": span.gather(root)})
        .select(pl.concat_str(["t", "s"], separator=":"))
        .to_series()
    )


MOST_TOKENS = 10**12
"""More than any request can hold: a count beyond it, or below 0, is a fault of its sender and is not believed."""


def _believable(signals: pl.DataFrame) -> pl.DataFrame:
    """Absurd token counts become absent, flagged; summed they would wrap."""
    absurd = pl.any_horizontal(~pl.col(c).is_between(0, MOST_TOKENS) for c in USAGE_COLUMNS).fill_null(value=False)
    signals = signals.with_columns(absurd_usage=absurd)
    if not signals["absurd_usage"].any():
        return signals
    return signals.with_columns(pl.when(pl.col(c).is_between(0, MOST_TOKENS)).then(pl.col(c)).alias(c) for c in USAGE_COLUMNS)


def _unpriced() -> pl.Expr:
    return pl.col("list_cost").is_null() & pl.any_horizontal(pl.col(m).is_not_null() for m in TOKEN_METERS)


def _hourly(calls: pl.DataFrame) -> pl.DataFrame:
    """Meters summed by hour and every dimension. A gateway cache hit used nothing at the provider. (CA-4)"""
    keys = [*USAGE_KEYS, "usage_key"]
    used = calls.filter(~pl.col("cache_hit").fill_null(value=False))
    summed = used.group_by(keys).agg(
        *(pl.when(pl.col(m).is_not_null().any()).then(pl.col(m).sum()).alias(m) for m in TOKEN_METERS),
        *(
            pl.when(pl.col(f"__cost_{m}").is_not_null().any()).then(pl.col(f"__cost_{m}").sum()).alias(f"__cost_{m}")
            for m in TOKEN_METERS
        ),
        *(pl.col(m).is_not_null().sum().alias(f"__n_{m}") for m in TOKEN_METERS),
    )
    long = [
        summed.filter(pl.col(m) != 0).select(
            *keys,
            pl.lit(m).alias("meter"),
            pl.col(m).cast(MONEY).alias("quantity"),
            pl.col(f"__n_{m}").cast(pl.Int64).alias("calls"),
            pl.col(f"__cost_{m}").alias("list_cost"),
        )
        for m in TOKEN_METERS
    ]
    return pl.concat(long)


def _chains(nodes: pl.DataFrame, forest: chains.Forest, calls: pl.DataFrame, rollup_id: str, month: str) -> pl.DataFrame:
    """One row a chain that started in the month and holds a call or an agent."""
    rows = nodes.select(
        "trace_key",
        "start_time",
        "end_time",
        root=pl.Series(forest.root),
        missing_parent=pl.Series(forest.missing_parent),
        cycle=pl.Series(forest.cycle),
        multi_link=pl.Series(forest.multi_link),
        row="row",
    )
    flags = ("missing_parent", "cycle", "multi_link")
    rows = rows.join(calls.select(root=pl.Series(forest.root).gather(calls["node"])).unique(), on="root", how="semi")
    spans = (
        rows.lazy()
        .group_by("root")
        .agg(
            pl.col("start_time").min(),
            pl.col("end_time").max(),
            pl.len().cast(pl.Int64).alias("spans"),
            pl.col("trace_key").min().alias("first_trace"),
            pl.col("trace_key").max().alias("last_trace"),
            *(pl.col(f).any() for f in flags),
        )
        .with_columns(reason=pl.concat_str([pl.when(pl.col(f)).then(pl.lit(f)) for f in flags], separator=",", ignore_nulls=True))
        .drop(*flags)
        .collect()
    )
    # Most chains stay in one trace; only the others need their traces listed.
    own = nodes["trace_id"].gather(spans["root"])
    crossing = spans.filter(pl.col("first_trace") != pl.col("last_trace")).select("root")
    traces = (
        rows.join(crossing, on="root", how="semi")
        .group_by("root", "trace_key")
        .agg(pl.col("row").min())
        .sort("root", "trace_key")
    )
    traces = (
        traces.with_columns(trace_id=nodes["trace_id"].gather(traces["row"]))
        .group_by("root")
        .agg(trace_ids=pl.col("trace_id").drop_nulls())
    )
    spans = (
        spans.with_columns(own=own)
        .join(traces, on="root", how="left")
        .with_columns(trace_ids=pl.coalesce("trace_ids", pl.concat_list("own").list.drop_nulls()))
        .drop("own", "first_trace", "last_trace")
    )
    tokens = pl.sum_horizontal(pl.col(m).fill_null(0) for m in TOKEN_METERS)
    made = (
        calls.select(
            "initiator_agent",
            "initiator_team",
            "method",
            "list_cost",
            "start_time",
            "span_key",
            root=pl.Series(forest.root).gather(calls["node"]),
            tokens=tokens,
        )
        .sort(pl.col("list_cost").fill_null(0), "start_time", "span_key", descending=[True, False, False])
        .group_by("root", maintain_order=True)
        .agg(
            pl.col("initiator_agent").first(),
            pl.col("initiator_team").first(),
            pl.col("method").first(),
            pl.len().cast(pl.Int64).alias("calls"),
            pl.col("tokens").sum(),
            pl.when(pl.col("list_cost").is_not_null().any()).then(pl.col("list_cost").sum()).alias("list_cost"),
        )
    )
    out = spans.join(made, on="root").filter(
        pl.col("start_time").is_between(periods.month_start(month), periods.month_end(month), closed="left")
    )
    return out.with_columns(
        rollup_id=pl.lit(rollup_id),
        month=pl.lit(month),
        chain_id=_chain_ids(nodes, forest, out["root"]),
        root_name=nodes["name"].gather(out["root"]).cast(pl.String),
        reason=pl.col("reason").replace("", None),
    ).drop("root")
