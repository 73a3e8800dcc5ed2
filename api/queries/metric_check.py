"""Counters against calls: what an emitter's metrics sum up, compared with its spans and events. Only the latter are counted as usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from ledger.money import RATE
from ledger.store import Store
from ledger.tables import METRIC_POINTS, SPANS

BY = ("date", "service_name", "conversation_id", "model", "meter")
_METERS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "reported_cost")
_SPAN_COLUMNS = (
    "date",
    "channel",
    "trace_key",
    "span_key",
    "provider_request_id",
    "service_name",
    "conversation_id",
    "response_model",
    "request_model",
    *_METERS,
)


def compare(store: Store, start: datetime | None = None, end: datetime | None = None) -> pl.DataFrame:
    """Quantities of metrics and of calls by day, service, session, model and meter, for the UTC days that ``[start, end)`` touches.

    Only what metrics report is compared. `difference` is `metrics_quantity` minus `calls_quantity`. A request near midnight may fall on
    two days. A call that was reported by a span and by an event counts once, by the provider's request id.
    """
    in_range = pl.lit(value=True)
    if start is not None:
        in_range &= pl.col("date") >= start.astimezone(UTC).date()
    if end is not None:
        in_range &= pl.col("date") <= (end.astimezone(UTC) - timedelta(microseconds=1)).date()
    points = _quantities(store.scan(METRIC_POINTS).filter(in_range).collect())
    days = [day.isoformat() for day in points["date"].unique()]
    spans = store.scan(SPANS, {"date": days}).filter(pl.col("usage_scope") == "leaf", pl.col("channel").str.starts_with("otlp"))
    calls = _calls(spans.select(_SPAN_COLUMNS).collect(), points)
    by = list(BY)
    comparison = points.join(calls, on=by, how="left", nulls_equal=True).with_columns(pl.col("calls_quantity").fill_null(0))
    return comparison.with_columns(difference=pl.col("metrics_quantity") - pl.col("calls_quantity")).sort(by)


def _quantities(points: pl.DataFrame) -> pl.DataFrame:
    """Sums by day: increments are added up; of a cumulative counter the highest value since its start is taken."""
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
    """Usage of calls by day. The conversation is kept only where the metrics of the same service and model name one."""
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
