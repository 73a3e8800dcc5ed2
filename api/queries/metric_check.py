"""Metrics against calls: what an emitter's counters add up to, beside what its spans and events say. Only the latter are counted."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ledger.money import RATE
from ledger.store import Store
from ledger.tables import METRIC_POINTS, SPANS

BY = ("date", "service_name", "conversation_id", "model", "meter")
_METERS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "reported_cost")


def compare(store: Store, days: Sequence[str] | None = None) -> pl.DataFrame:
    """Per day, service, session, model and meter what metrics and calls say, where metrics say anything; `difference` is the former minus
    the latter. A request near midnight may stand on two days.

    Calls told twice (span and event) count once, by the provider's request id.
    """
    partitions = {"date": list(days)} if days is not None else None
    points = _quantities(store.scan(METRIC_POINTS, partitions).collect())
    spans = store.scan(SPANS, partitions).filter(pl.col("usage_scope") == "leaf", pl.col("channel").str.starts_with("otlp"))
    calls = _calls(spans.collect(), points)
    by = list(BY)
    comparison = points.join(calls, on=by, how="left", nulls_equal=True).with_columns(pl.col("calls_quantity").fill_null(0))
    return comparison.with_columns(difference=pl.col("metrics_quantity") - pl.col("calls_quantity")).sort(by)


def _quantities(points: pl.DataFrame) -> pl.DataFrame:
    """Increments add up; of a counter that runs on, its highest value since it began counts."""
    series_keys = ["series", "start_time", "cumulative", *(c for c in BY if c != "date")]
    by_series = points.group_by(series_keys).agg(
        pl.col("date").max(),
        pl.when(pl.col("cumulative").first())
        .then(pl.col("quantity").max())
        .otherwise(pl.col("quantity").sum())
        .alias("quantity"),
    )
    running = by_series.filter("cumulative").drop("cumulative")
    steps = points.filter(~pl.col("cumulative"))
    quantities = pl.concat([running.select(*BY, "quantity"), steps.select(*BY, "quantity")])
    return quantities.group_by(list(BY)).agg(metrics_quantity=pl.col("quantity").sum())


def _calls(spans: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """What calls of the services with metrics used. A conversation is compared where the metrics name it."""
    own = pl.concat_str("trace_key", "span_key", separator=":")
    unique_calls = (
        spans.with_columns(call=pl.coalesce("provider_request_id", own))
        .sort("channel", descending=True)  # an event names its service and session
        .unique("call", keep="first", maintain_order=True)
        .with_columns(model=pl.coalesce("response_model", "request_model"))
    )
    long = unique_calls.select(
        "date", "service_name", "conversation_id", "model", *(pl.col(meter).cast(RATE) for meter in _METERS)
    ).unpivot(
        list(_METERS), index=["date", "service_name", "conversation_id", "model"], variable_name="meter", value_name="quantity"
    )
    services = points.filter(pl.col("conversation_id").is_not_null()).select("service_name", "model").unique()
    flagged_calls = long.join(
        services.with_columns(named=pl.lit(value=True)), on=["service_name", "model"], how="left", nulls_equal=True
    )
    comparable = flagged_calls.with_columns(pl.when("named").then("conversation_id").alias("conversation_id"))
    return comparable.group_by(list(BY)).agg(calls_quantity=pl.col("quantity").sum())
