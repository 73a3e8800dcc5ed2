"""The table of OpenTelemetry metric points with usage: it repeats the usage of `spans` and is compared with it."""

from __future__ import annotations

import polars as pl

from ledger.money import RATE
from ledger.schema import Column, Table

_TIME = pl.Datetime("us", "UTC")

METRIC_POINTS = Table(
    "metric_points",
    "fact",
    "Usage summed by emitters in metrics. It repeats the usage of spans and events, so it is compared with them and never counted.",
    key=("date", "series", "start_time", "time"),
    partition_by=("date",),
    columns=(
        Column("date", pl.Date, "UTC date of the point; the partition", required=True),
        Column("source", pl.String, "the ingestor", required=True),
        Column("raw_id", pl.String, "SHA-256 of the request or file it was read from"),
        Column("series", pl.String, "hash of metric, resource and attributes", required=True),
        Column("name", pl.String, "the metric: claude_code.token.usage, …", required=True),
        Column("emitter", pl.String, "instrumentation library that emitted it; a row of the emitter table"),
        Column("service_name", pl.String, "OTel service.name"),
        Column("conversation_id", pl.String, "session or conversation, where the metric has it"),
        Column("provider", pl.String, "as emitted"),
        Column("model", pl.String, "OTel gen_ai.response.model, else gen_ai.request.model"),
        Column("meter", pl.String, "quantity it sums: a column of `spans` (input_tokens, …, reported_cost)", required=True),
        Column("start_time", _TIME, "start of the interval it sums", required=True),
        Column("time", _TIME, "end of the interval it sums", required=True),
        Column("cumulative", pl.Boolean, "whether later points of the series include this one", required=True),
        Column("quantity", RATE, "the sum", required=True),
    ),
)
