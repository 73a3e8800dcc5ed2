"""What metrics say was used: repeated, added up, by the same programs whose calls are in `spans`."""

from __future__ import annotations

import polars as pl

from ledger.money import RATE
from ledger.schema import Column, Table

_TIME = pl.Datetime("us", "UTC")

METRIC_POINTS = Table(
    "metric_points",
    "fact",
    "Usage as emitters' metrics sum it up: it repeats what spans and events say, so it is compared with them and never counted.",
    key=("date", "series", "start_time", "time"),
    partition_by=("date",),
    columns=(
        Column("date", pl.Date, "UTC date of the point; the partition", required=True),
        Column("source", pl.String, "the ingestor", required=True),
        Column("raw_id", pl.String, "the request or file it came in"),
        Column("series", pl.String, "names metric, resource and attributes together", required=True),
        Column("name", pl.String, "the metric: claude_code.token.usage, …", required=True),
        Column("emitter", pl.String, "which library spoke; a row of the emitter table"),
        Column("service_name", pl.String, "OTel service.name"),
        Column("conversation_id", pl.String, "session or conversation, where the metric tells it"),
        Column("provider", pl.String, "as emitted"),
        Column("model", pl.String, "model that answered, or was asked for"),
        Column("meter", pl.String, "what it sums: a column of `spans` (input_tokens, …, reported_cost)", required=True),
        Column("start_time", _TIME, "start of what it sums", required=True),
        Column("time", _TIME, "end of what it sums", required=True),
        Column("cumulative", pl.Boolean, "whether later points of the series contain this one", required=True),
        Column("quantity", RATE, "the sum", required=True),
    ),
)
