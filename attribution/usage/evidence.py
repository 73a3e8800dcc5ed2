"""How emitters count, summed: calls, money, contradictions, and reported costs beside list costs. (CA-5, CA-6)"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from attribution import factorize
from attribution.usage.count_readings import TABLE
from attribution.usage.dimensions import EncodedRows
from ledger.tables import COUNT_EVIDENCE, TOKEN_METERS


def count_evidence(calls: pl.DataFrame, dimensions: EncodedRows, period: tuple[datetime, datetime] | None) -> pl.DataFrame:
    """Rows of `count_evidence` without rollup and month, of the calls that started within `period`; `start_time` is that of the first call.

    A cost is compared where the emitter reports one above 0 and the book has a list cost. A gateway cache hit used nothing.
    """
    is_counted = ~pl.col("cache_hit").fill_null(value=False)
    if period is not None:
        is_counted &= pl.col("start_time").is_between(*period, closed="left")
    month = calls.select(pl.col("start_time").dt.strftime("%Y-%m") if period is None else pl.lit(None, dtype=pl.String))
    emitters = calls.select("emitter", "emitter_version", "source")
    parts = [factorize.Codes(dimensions.code, dimensions.table.height)]
    parts += factorize.encode_columns(emitters, emitters.columns)
    parts += [factorize.encode(month.to_series())] if period is None and calls.height else []
    code, first = factorize.combine(calls.height, parts)
    is_compared = (pl.col("reported_cost") > 0) & pl.col("list_cost").is_not_null()
    contradicts = pl.col("count_contradiction").fill_null(value=False)
    is_unknown = (pl.col("usage_flag") == "input_semantics_unknown").fill_null(value=False)
    has_usage = pl.any_horizontal(pl.col(meter).is_not_null() for meter in (*TOKEN_METERS, "__other"))
    is_absent = ~has_usage & (pl.col("status") != "error").fill_null(value=True)
    tokens = pl.sum_horizontal(pl.col(meter).fill_null(0) for meter in TOKEN_METERS)
    # A sum over several calls, and tokens of meters without a column, are no parts of this call's total.
    has_total = pl.col("total_tokens").is_not_null() & pl.col("__other").is_null() & pl.col("standing").is_null()
    stands_on_table = pl.any_horizontal((pl.col(c) == TABLE).fill_null(value=False) for c in ("input_reading", "output_reading"))
    sums = (
        calls.lazy()
        .with_columns(code=pl.Series(code))
        .filter(is_counted)
        .group_by("code")
        .agg(
            calls=pl.len().cast(pl.Int64),
            start_time=pl.col("start_time").min(),
            tokens=tokens.sum().cast(pl.Int64),
            table_calls=stands_on_table.sum().cast(pl.Int64),
            total_calls=has_total.sum().cast(pl.Int64),
            agreeing_total_calls=(has_total & (pl.col("total_tokens") == tokens)).sum().cast(pl.Int64),
            list_cost=_sum(pl.col("list_cost")),
            contradicted_calls=contradicts.sum().cast(pl.Int64),
            contradicted_cost=_sum(pl.col("list_cost").filter(contradicts)),
            assumed_calls=is_unknown.sum().cast(pl.Int64),
            assumed_cost=_sum(pl.col("list_cost").filter(is_unknown)),
            compared_calls=is_compared.sum().cast(pl.Int64),
            compared_cost=_sum(pl.col("list_cost").filter(is_compared)),
            reported_cost=_sum(pl.col("reported_cost").filter(is_compared)),
            absent_calls=is_absent.sum().cast(pl.Int64),
            absent_reported_cost=_sum(pl.col("reported_cost").filter(is_absent)),
        )
        .sort("code")
        .collect()
    )
    row = first[sums["code"].to_numpy().astype(np.int64)]
    names = dimensions.table.select("provider", "model")[dimensions.code[row]]
    keys = emitters[row].with_columns(emitter=pl.coalesce("emitter", "source"))
    frame = pl.concat([keys, names, sums.drop("code")], how="horizontal")
    return (
        frame
        if frame.height
        else COUNT_EVIDENCE.empty().drop("rollup_id", "month").with_columns(start_time=calls["start_time"].head(0))
    )


def _sum(amounts: pl.Expr) -> pl.Expr:
    """The sum; null where there is no amount."""
    return pl.when(amounts.is_not_null().any()).then(amounts.sum())
