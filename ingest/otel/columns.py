"""Columns of spans that are computed for a whole batch: ids, keys, times, fields of an ARN, and the rank."""

from __future__ import annotations

import polars as pl

from ledger.tables import SPANS

_UNINFORMATIVE = frozenset({"date", "channel", "source", "raw_id", "trace_key", "span_key", "rank"})
Ids = tuple[list[bytes], list[bytes], list[bytes | None]]
"""Trace, span and parent of each span."""
Times = tuple[list[int], list[int | None]]
"""Start and end of each span, in nanoseconds."""


SPANS_CHANNEL, EVENTS_CHANNEL = "otlp", "otlp-events"
"""The channels: spans, and log records that report one request."""


def with_derived_columns(
    frame: pl.DataFrame, ids: Ids | tuple[pl.Series, ...], times: Times | tuple[pl.Series, ...], source: str
) -> pl.DataFrame:
    """The frame with ids, keys, times and rank, and with corrections that need several columns.

    Ids that are not OpenTelemetry ids are in `trace_text`, `span_text` and `parent_text`; their bytes in `ids` are already the keys.
    """
    trace, span, parent = (
        pl.Series(ids[0], dtype=pl.Binary),
        pl.Series(ids[1], dtype=pl.Binary),
        pl.Series(ids[2], dtype=pl.Binary),
    )
    start, end = pl.Series(times[0], dtype=pl.Int64), pl.Series(times[1], dtype=pl.Int64)
    moment = pl.Datetime("us", "UTC")
    frame = frame.with_columns(
        trace_id=trace.bin.encode("hex"),
        span_id=span.bin.encode("hex"),
        parent_span_id=parent.bin.encode("hex"),
        trace_key=_low_bits(trace, 8),
        span_key=_low_bits(span, 0),
        parent_key=_low_bits(parent, 0),
        start_time=(start // 1000).cast(moment),
        end_time=(end // 1000).cast(moment),
        source=pl.lit(source),
        channel=pl.col("channel").fill_null(SPANS_CHANNEL) if "channel" in frame.columns else pl.lit(SPANS_CHANNEL),
    ).with_columns(date=pl.col("start_time").dt.date())
    for column, text_column in (("trace_id", "trace_text"), ("span_id", "span_text"), ("parent_span_id", "parent_text")):
        if text_column in frame.columns:
            frame = frame.with_columns(pl.coalesce(text_column, column).alias(column)).drop(text_column)
    if "link_trace" in frame.columns:
        frame = frame.with_columns(
            link_trace_key=_low_bits(frame["link_trace"], 8), link_span_key=_low_bits(frame["link_span"], 0)
        ).drop("link_trace", "link_span")
    if {"gateway_call_id", "provider_request_id"} <= set(frame.columns):
        # Where a provider gave no id, LiteLLM repeats its own, which identifies no provider request.
        is_provider_id = (pl.col("provider_request_id") != pl.col("gateway_call_id")) | pl.col("gateway_call_id").is_null()
        frame = frame.with_columns(provider_request_id=pl.when(is_provider_id).then(pl.col("provider_request_id")))
    frame = _from_arn(frame)
    informative_columns = [c for c in SPANS.schema if c in frame.columns and c not in _UNINFORMATIVE]
    rank = pl.sum_horizontal(pl.col(c).is_not_null().cast(pl.Int32) for c in informative_columns)
    return SPANS.conform(frame.with_columns(rank=rank.cast(pl.Int32)))


def _low_bits(ids: pl.Series, skip: int) -> pl.Series:
    """The keys of `ledger.ids` for whole columns of binary ids: the last eight bytes as a signed integer."""
    return (ids.bin.slice(skip, 8) if skip else ids).bin.reinterpret(dtype=pl.Int64, endianness="big")


def _from_arn(frame: pl.DataFrame) -> pl.DataFrame:
    """Where the requested model is an ARN (an inference profile), it is the resource and gives region and account."""
    if "request_model" not in frame.columns:
        return frame
    parts = pl.col("request_model").str.split_exact(":", 5).struct
    is_arn = parts.field("field_0") == "arn"
    arn_columns = {"resource_id": pl.col("request_model"), "region": parts.field("field_3"), "account_id": parts.field("field_4")}
    if not frame.select(is_arn.fill_null(False).any()).item():
        return frame
    return frame.with_columns(
        pl.coalesce(
            *([pl.when(is_arn).then(value)] if name == "resource_id" else [pl.when(is_arn & (value != "")).then(value)]),
            *([pl.col(name)] if name in frame.columns else []),
        ).alias(name)
        for name, value in arn_columns.items()
    )
