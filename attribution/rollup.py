"""The heavy pass, once per span: signals → calls → chains → owners → meters → hourly quantities.

What it leaves behind (`calls`, `chains`, `usage_hourly`) is all that bills and prices need: a restated month never rereads spans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from attribution import chains, identity, names, pricing
from attribution.calls import describes_call, merge, reports_usage
from attribution.metering import disjoint
from attribution.pricing import PriceBook
from ledger import periods
from ledger.money import MONEY
from ledger.settings import Settings
from ledger.store import Store
from ledger.tables import CALLS, CHAINS, SPANS, TOKEN_METERS, USAGE_COLUMNS, USAGE_HOURLY

WHO = ("initiator_agent", "initiator_team", "executor_agent", "executor_team", "method", "workflow", "tenant", "environment")
WHAT = ("provider", "account", "region", "service", "model", "service_tier", "context_above", "resource", "principal")

_CODE = pl.Categorical()

USAGE_KEYS = ("rollup_id", "month", "hour", *WHO, *WHAT, "reason", "source", "unpriced")
"""What tells one row of `usage_hourly` from another, beside the meter. A call without a price never hides among priced ones. (ES-2)"""

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
_WORDS = (
    "channel", "source", "name", "service_name", "agent_id", "agent_name", "claimed_agent", "claimed_team", "conversation_id",
    "credential", "resource_id", "account_id", "region", "provider", "environment", "workflow", "tenant",
)  # fmt: skip
"""Words of a span, few of them distinct: kept as codes, since a month has millions of spans."""
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
    nodes = _nodes(window.filter(~gateway()).select(*_KEYS, *(pl.col(c).cast(_CODE) for c in _WORDS)).collect(), calls)
    forest = chains.link(nodes)
    nodes = nodes.with_columns(agent=identity.span_agents(nodes, registry))
    calls = calls.join(nodes.select("trace_key", "span_key", node="row"), on=["trace_key", "span_key"], maintain_order="left")
    calls = calls.filter(~_covered(calls, forest)).filter(pl.col("usage_scope").is_not_null() | reports_usage())
    calls = identity.attribute(calls, nodes, forest, registry, trusted)
    calls = disjoint(calls.lazy()).collect()
    calls = pricing.add_list_cost(calls, book)
    calls = _dimensions(calls, registry, settings, book)
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
        [_hourly(calls), _resource_hours(nodes, forest, registry, settings, rollup_id, month, trusted)], how="diagonal"
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
        *(c for c in _KEYS if c in calls.columns), *(pl.col(c).cast(_CODE) for c in (*_WORDS, "claim_source"))
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


def _dimensions(calls: pl.DataFrame, registry: pl.DataFrame, settings: Settings, book: PriceBook) -> pl.DataFrame:
    """Canonical names, and what logs leave unsaid filled from the registry and the settings. (RA-1, RA-1a)"""
    providers = names.spelled(calls["provider"], names.provider)
    models = pl.concat([calls["response_model"], calls["request_model"]])
    display = names.ModelNames(book.models, [m for m in models.unique() if m is not None])
    calls = calls.with_columns(
        provider=providers,
        model=pl.coalesce(
            names.spelled(calls["response_model"], display.display), names.spelled(calls["request_model"], display.display)
        ),
        service=pl.lit(None, dtype=pl.String),
        resource=pl.col("resource_id"),
        service_tier=pl.col("service_tier").fill_null("standard"),
    )
    calls = _own_place(calls)
    placed = identity.owner_at(calls, registry, name="credential", at="start_time", kinds=("credential",))
    calls = calls.with_columns(
        account=pl.coalesce("account_id", placed["account"]), region=pl.coalesce("region", placed["region"])
    )
    return fill_defaults(calls, settings)


_PLACES = {
    "AWS": (r"^\d+$", r"^[a-z]{2}(-[a-z]+)+-\d$"),
    "Google Cloud": (r".", r"^([a-z]+(-[a-z]+)+\d+|global|us|eu)$"),
    "Microsoft": (r".", r"^[a-z]+\d*$"),
}
"""What accounts and regions of a cloud look like. A span's resource says where its *caller* runs, which need not be whose bill the call is
on: a name that cannot be the called provider's is the caller's, and no other provider has accounts that a span would know."""


def _own_place(calls: pl.DataFrame) -> pl.DataFrame:
    """Keeps account and region only where they can be the called provider's own."""
    for column, at in (("account_id", 0), ("region", 1)):
        fits = pl.lit(value=False)
        for provider, patterns in _PLACES.items():
            fits = fits | ((pl.col("provider") == provider) & pl.col(column).str.contains(patterns[at]))
        calls = calls.with_columns(pl.when(fits | pl.col("provider").is_null()).then(pl.col(column)).alias(column))
    return calls


def fill_defaults(frame: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Account and region of a provider's calls, where only the settings know."""
    for default in settings.attribution.defaults:
        mine = pl.col("provider") == names.provider(default.provider)
        frame = frame.with_columns(
            account=pl.when(mine & pl.col("account").is_null() & pl.lit(bool(default.account)))
            .then(pl.lit(default.account))
            .otherwise("account"),
            region=pl.when(mine & pl.col("region").is_null() & pl.lit(bool(default.region)))
            .then(pl.lit(default.region))
            .otherwise("region"),
        )
    return frame


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


def usage_key() -> pl.Expr:
    """All of USAGE_KEYS in 64 bits."""
    return pl.struct(USAGE_KEYS).hash(seed=727).reinterpret(signed=True)


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


def _resource_hours(
    nodes: pl.DataFrame,
    forest: chains.Forest,
    registry: pl.DataFrame,
    settings: Settings,
    rollup_id: str,
    month: str,
    trusted: list[str],
) -> pl.DataFrame:
    """Seconds and requests on resources that are not sold by the token: nodes, runtimes, databases. (RA-3)

    Only the outermost span of a path on one resource counts: what it calls on the same resource runs within its time.
    """
    named = nodes["resource_id"]
    above = named.gather(pl.Series(forest.parent))
    is_root = forest.parent == np.arange(len(forest.parent))
    outermost = named.is_not_null() & (pl.Series(is_root) | above.is_null() | (named != above).fill_null(value=True))
    start, end = periods.month_start(month), periods.month_end(month)
    until = pl.coalesce("end_time", "start_time")
    frame = nodes.filter(outermost & (pl.col("start_time") < end) & (until >= start))
    if not frame.height:
        return USAGE_HOURLY.empty()
    frame = frame.with_columns(pl.col(c).cast(pl.String) for c in _WORDS).with_columns(
        node=pl.col("row"), principal=pl.lit(None, dtype=pl.String), credential_team=pl.lit(None, dtype=pl.String)
    )
    frame = identity.attribute(frame, nodes, forest, registry, trusted)
    frame = _over_hours(frame).filter(pl.col("hour").is_between(start, end, closed="left"))
    frame = frame.with_columns(
        rollup_id=pl.lit(rollup_id),
        month=pl.lit(month),
        provider=names.spelled(frame["provider"], names.provider),
        account=pl.col("account_id"),
        service=pl.lit(None, dtype=pl.String),
        model=pl.lit(None, dtype=pl.String),
        service_tier=pl.lit("standard"),
        context_above=pl.lit(0, dtype=pl.Int64),
        resource=pl.col("resource_id"),
        reason=pl.col("identity_reason"),
        unpriced=pl.lit(value=False),
    )
    frame = fill_defaults(frame, settings).with_columns(usage_key=usage_key())
    keys = [*USAGE_KEYS, "usage_key"]
    summed = frame.group_by(keys).agg(
        seconds=pl.col("seconds").sum(), requests=pl.col("starts").sum().cast(pl.Int64).cast(MONEY), calls=pl.len().cast(pl.Int64)
    )
    return pl.concat(
        [
            summed.select(
                *keys,
                pl.lit(m).alias("meter"),
                pl.col(m).cast(MONEY).alias("quantity"),
                "calls",
                pl.lit(None, dtype=MONEY).alias("list_cost"),
            )
            for m in ("seconds", "requests")
        ]
    )


_LONGEST = timedelta(days=31)


def _over_hours(spans: pl.DataFrame) -> pl.DataFrame:
    """Each span once for every hour it touches, with the `seconds` it held of it; `starts` is true in its first hour. (RA-3)

    A clock that ends a span before it starts, or weeks after, is not believed: it held nothing, or 31 days at most.
    """
    first = pl.col("start_time").dt.truncate("1h")
    ends = pl.min_horizontal(pl.coalesce("end_time", "start_time"), pl.col("start_time") + _LONGEST)
    ends = pl.max_horizontal(ends, "start_time")
    hours = pl.datetime_ranges(
        first, pl.max_horizontal(ends, first + timedelta(microseconds=1)), "1h", closed="left", time_zone="UTC"
    )
    out = spans.with_columns(__ends=ends, hour=hours).explode("hour")
    held = pl.min_horizontal("__ends", pl.col("hour") + timedelta(hours=1)) - pl.max_horizontal("start_time", "hour")
    micros = held.dt.total_microseconds().clip(0).cast(pl.Decimal(38, 0))
    return out.with_columns(
        seconds=micros * pl.lit("0.000001").str.to_decimal(scale=6).cast(MONEY), starts=pl.col("hour") == first
    ).drop("__ends")


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
