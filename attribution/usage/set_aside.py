"""Usage that is set aside because calls below report it, summed and priced: echoes and wrappers. (CA-2b)"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from attribution.as_of import AsOfIndex
from attribution.pricing import PriceBook, add_list_cost
from attribution.usage.dimensions import call_dimensions
from ledger.settings import Settings
from ledger.tables import COUNT_EVIDENCE, TOKEN_METERS

REASONS = ("echo", "wrapper", "wrapper_excess")
_KEYS = ("emitter", "emitter_version", "source", "provider", "model")
_ALIKE = (
    "emitter", "emitter_version", "source", "provider", "request_model", "response_model", "api_base", "account_id", "region",
    "provider_account", "provider_region", "service_tier", "resource_id", "principal", "credential", "day", "set_aside",
)  # fmt: skip
"""Spans that are alike in these columns are priced as one."""


def add_set_aside(
    evidence: pl.DataFrame,
    set_aside: pl.DataFrame,
    as_of: AsOfIndex,
    book: PriceBook,
    settings: Settings,
    period: tuple[datetime, datetime] | None,
) -> pl.DataFrame:
    """Rows of `count_evidence` with the spans and the list cost of what is set aside, of spans that started within `period`."""
    if period is not None:
        set_aside = set_aside.filter(pl.col("start_time").is_between(*period, closed="left"))
    if not set_aside.height:
        return evidence
    sums = (
        set_aside.with_columns(day=pl.col("start_time").dt.date())
        .group_by(_ALIKE)
        .agg(
            pl.col("start_time").min(),
            *(pl.when(pl.col(m).is_not_null().any()).then(pl.col(m).sum()).alias(m) for m in TOKEN_METERS),
            spans=pl.len().cast(pl.Int64),
        )
        .sort(*_ALIKE, nulls_last=True)
        .with_columns(
            cache_hit=pl.lit(value=False),
            prompt_tokens=pl.lit(None, dtype=pl.Int64),
            usage_flag=pl.lit(None, dtype=pl.String),
            count_contradiction=pl.lit(value=False),
            **dict.fromkeys(("workflow", "tenant", "environment"), pl.lit(None, dtype=pl.String)),
        )
    )
    cost_rows = add_list_cost(sums, book)
    dimensions = call_dimensions(cost_rows, as_of, settings, book)
    names = dimensions.table.select("provider", "model")[dimensions.code]
    rows = pl.concat(
        [cost_rows.select("emitter", "emitter_version", "source", "start_time", "spans", "list_cost", "set_aside"), names],
        how="horizontal",
    )
    counts = rows.with_columns(
        pl.coalesce("emitter", "source").alias("emitter"),
        *(pl.when(pl.col("set_aside") == reason).then("spans").alias(f"{reason}_spans") for reason in REASONS),
        *(pl.when(pl.col("set_aside") == reason).then("list_cost").alias(f"{reason}_cost") for reason in REASONS),
    ).drop("spans", "list_cost", "set_aside")
    return _summed(pl.concat([evidence, counts], how="diagonal_relaxed"))


def _summed(rows: pl.DataFrame) -> pl.DataFrame:
    """One row for each emitter, version, source, provider, model and UTC month; absent sums stay null, required ones are 0."""
    counts = {column.name for column in COUNT_EVIDENCE.columns if column.required}
    figures = [c for c in rows.columns if c not in (*_KEYS, "start_time", "month")]
    sums = [pl.when(pl.col(c).is_not_null().any()).then(pl.col(c).sum()).alias(c) for c in figures]
    frame = (
        rows.group_by(*_KEYS, month=pl.col("start_time").dt.strftime("%Y-%m"))
        .agg(pl.col("start_time").min(), *sums)
        .sort(*_KEYS, "month", nulls_last=True)
        .drop("month")
    )
    return frame.with_columns(pl.col(c).fill_null(0) for c in figures if c in counts)
