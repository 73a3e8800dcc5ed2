"""The heavy pass, once per span: signals → calls → chains → owners → meters → hourly quantities.

What it leaves behind (`calls`, `chains`, `usage_hourly`) is all that bills and prices need: a restated month never rereads spans.
Nothing is concluded from anything but the spans given: a slice that holds whole chains can be drawn alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

import polars as pl

from attribution import pricing
from attribution.as_of import AsOfIndex
from attribution.chains import ancestry, chain_rows, identity, wrappers
from attribution.chains import forest as chain_forest
from attribution.chains import nodes as chain_nodes
from attribution.chains.calls import OTLP, drop_absurd_counts, merge_signals, reports_usage
from attribution.chains.span_index import SpanIndex
from attribution.factorize import non_null_columns
from attribution.pricing import PriceBook
from attribution.usage import call_rows, dimensions, hourly, resource_time
from attribution.usage.flags import call_reasons
from attribution.usage.metering import disjoint_meters
from ledger import periods
from ledger.settings import Settings
from ledger.tables import CALLS, CHAINS, SPANS, TOKEN_METERS, USAGE_COLUMNS, USAGE_HOURLY

_READ = (
    "channel", "source", "trace_key", "span_key", "parent_key", "link_trace_key", "link_span_key", "links", "trace_id", "span_id",
    "start_time", "end_time", "service_name", "name", "usage_scope", "status", "agent_id", "agent_name", "claimed_agent", "claimed_team",
    "conversation_id", "credential", "credential_team", "principal", "tenant", "environment", "workflow", "gateway_call_id",
    "provider_request_id", "provider", "request_model", "response_model", "account_id", "region", "service_tier", "resource_id",
    "input_includes_cache", "output_includes_reasoning", "cache_hit", "reported_cost", "attempt", "phase", "rank", "other_usage", *USAGE_COLUMNS,
)  # fmt: skip
"""The columns of `spans` that conclusions are drawn from."""

_ALWAYS = {
    "channel", "source", "trace_key", "span_key", "parent_key", "trace_id", "span_id", "start_time", "end_time", "service_name", "name",
    "usage_scope", "status", "agent_name", "provider", "request_model", "response_model", "input_tokens", "output_tokens",
    "input_includes_cache", "rank",
}  # fmt: skip
_SELDOM = tuple(c for c in _READ if c not in _ALWAYS)
"""Columns that nobody may have filled."""


@dataclass(frozen=True, slots=True)
class RollupRows:
    """What a pass over spans drew."""

    calls: pl.DataFrame
    chains: pl.DataFrame
    usage: pl.DataFrame
    spans_read: int


def build_rollup(
    window: pl.LazyFrame, month: str | None, registry: pl.DataFrame, book: PriceBook, settings: Settings, *, rollup_id: str
) -> RollupRows:
    """Draws calls, chains and hourly usage of the calls that started in `month` (UTC) from a frame of spans.

    Without a month everything in it is drawn, each row in the UTC month of its own start. `registry` is a `ledger.registry.timeline`.
    """
    trusted = settings.ingest.trusted_sources
    facts = _facts(window)
    moments = AsOfIndex(registry, facts["start_time"])
    keys = SpanIndex(facts["trace_key"].to_numpy(), facts["span_key"].to_numpy())
    plain = bool((facts["channel"] == OTLP).all()) and not len(keys.duplicates)
    signals = _signals(facts, plain=plain)
    calls = merge_signals(
        identity.drop_conflicting_claims(signals, moments, trusted), trusted_sources=trusted, spans_are_unique=plain
    )
    nodes, keys, stands_on = chain_nodes.build_nodes(facts, calls, keys, plain=plain)
    forest = chain_forest.build_forest(nodes, keys)
    calls = calls.with_columns(node=pl.Series(stands_on, dtype=pl.Int32))
    calls = calls.filter(pl.col("usage_scope").is_not_null() | reports_usage())
    calls = disjoint_meters(wrappers.drop_outer_duplicates(calls, forest.container).lazy()).collect(engine="in-memory")
    calls = pricing.add_list_cost(wrappers.keep_residuals(calls, forest.container), book)
    calls = calls.with_columns(unpriced=_unpriced(calls))

    agents = identity.span_agents(nodes, moments)
    seen = ancestry.resolve_ancestry(nodes, forest, agents, trusted, by_service="service" in moments.kinds)
    ways, owners = identity.resolve_owners(calls, seen.paths(calls["node"].to_numpy()), seen, moments)
    kinds = dimensions.call_dimensions(calls, moments, settings, book)
    cells = hourly.assign_cells(calls, ways, owners, kinds, call_reasons(calls, ways, owners))
    shown = call_rows.first_paths(ways, calls.height)
    chain_frame, chain_of = chain_rows.build_chain_rows(nodes, forest, calls, owners, owners.code[shown])
    call_frame = call_rows.build_call_rows(calls, ways, owners, cells, shown).with_columns(
        chain_frame["chain_id"].gather(chain_of)
    )

    within = None if month is None else (periods.month_start(month), periods.month_end(month))
    usage = pl.concat(
        [hourly.sum_cells(calls, ways, cells, within), resource_time.resource_hours(seen, moments, settings, within)],
        how="diagonal",
    )
    stamp = partial(_stamped, within=within, rollup_id=rollup_id)
    return RollupRows(
        calls=CALLS.conform(stamp(call_frame, "start_time")),
        chains=CHAINS.conform(stamp(chain_frame, "start_time")),
        usage=USAGE_HOURLY.conform(stamp(usage, "hour")),
        spans_read=nodes.height,
    )


def _facts(window: pl.LazyFrame) -> pl.DataFrame:
    """The spans, numbered by `row`. A column that says nothing is one null, not a million, and costs nothing from here on."""
    known = set(window.collect_schema().names())
    # Counting what most emitters leave out is far cheaper than holding a million times nothing; a window without some has been looked through.
    told: dict[str, int] = {}
    if known.issuperset(_SELDOM):
        told = window.select(pl.col(c).count() for c in _SELDOM).collect(engine="streaming").row(0, named=True)
    # In one piece: numpy reads it so, and columns in unlike pieces would be aligned again at every step.
    frame = window.select(c for c in _READ if c in known and told.get(c, 1)).collect().rechunk()
    frame = frame.with_columns(pl.lit(None, dtype=SPANS.schema[c]).alias(c) for c in _READ if c not in frame.columns)
    claims = pl.col("claimed_agent").is_not_null() | pl.col("claimed_team").is_not_null()
    claimed = frame["claimed_agent"].count() or frame["claimed_team"].count()
    source = pl.when(claims).then("source") if claimed else pl.lit(None, dtype=pl.String)
    return frame.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int32), claim_source=source)


def _signals(facts: pl.DataFrame, *, plain: bool) -> pl.DataFrame:
    """What was told of calls, without what only chains need."""
    told = non_null_columns(facts, (*USAGE_COLUMNS, "other_usage", "usage_scope"))
    wanted = pl.any_horizontal(pl.col(c).is_not_null() for c in told) if told else pl.lit(value=False)
    kept = facts.drop("parent_key", "link_trace_key", "link_span_key", "links", *(["name"] if plain else []))
    return drop_absurd_counts(kept.filter(wanted if plain else wanted | chain_nodes.is_gateway()).rechunk())


def _stamped(frame: pl.DataFrame, at: str, *, within: tuple[datetime, datetime] | None, rollup_id: str) -> pl.DataFrame:
    """The rows that start within the month, if one is asked for, each with its own UTC month."""
    if within is not None:
        inside = frame[at].is_between(*within, closed="left")
        frame = (frame if inside.all() else frame.filter(inside)).with_columns(month=pl.lit(f"{within[0]:%Y-%m}"))
    else:
        frame = frame.with_columns(month=_months(frame[at]))
    return frame.with_columns(rollup_id=pl.lit(rollup_id))


def _months(instants: pl.Series) -> pl.Series:
    """The UTC month of each instant, written once a month and not once a row."""
    number = instants.dt.year().cast(pl.Int32) * 12 + instants.dt.month() - 1
    first, last = number.min(), number.max()
    if not isinstance(first, int) or not isinstance(last, int):
        return pl.Series([], dtype=pl.String)
    names = pl.Series([f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(first, last + 1)])
    return names.gather(number - first)


def _unpriced(calls: pl.DataFrame) -> pl.Series:
    """Which calls used something that has no list price. (ES-2)"""
    priceless = calls["list_cost"].is_null()
    used = non_null_columns(calls, (*TOKEN_METERS, "__other"))
    if not priceless.any() or any(not calls[c].null_count() for c in used):
        return priceless
    return priceless & calls.select(pl.any_horizontal(pl.lit(value=False), *(pl.col(c).is_not_null() for c in used))).to_series()
