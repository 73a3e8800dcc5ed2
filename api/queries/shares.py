"""Splits cost rows over calls. (MO-1, MO-3)

A cost row refers to a row of `usage_hourly`, which sums calls. The cost is split over all of these calls in a fixed order by running sums,
so the parts sum to the row. Only the requested usage rows are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from api.queries.calls import CALL
from api.queries.gate import WHOLE, ScopedBooks, published, scan_rollups
from ledger import money
from ledger.tables import CALLS, METERS, USAGE_HOURLY

METER_COLUMNS = tuple(m for m in METERS if m in CALLS.schema)
"""Columns of `calls` that hold quantities of a meter."""

_ORDER = ("start_time", *CALL)


def usage_of_calls(calls: pl.DataFrame) -> pl.DataFrame:
    """A row for each call, usage row and meter: trace_key, span_key, start_time, hour, usage_key, meter, quantity.

    A call split over several links has a row for each, with its part of the quantity; a gateway's cache hit has no usage_key. (CA-4)
    """
    about = [*_ORDER, "hour", "usage_key", "shares"]
    quantities = [pl.col(m).cast(money.MONEY) for m in METER_COLUMNS]
    tokens = calls.select(*about, *quantities).unpivot(
        on=METER_COLUMNS, index=about, variable_name="meter", value_name="quantity"
    )
    long = pl.concat([tokens, _other_meters(calls, about)]).filter(pl.col("quantity").is_not_null() & (pl.col("quantity") != 0))
    is_shared = pl.col("shares").is_not_null() & pl.col("usage_key").is_not_null()
    whole = long.filter(~is_shared).drop("shares")
    shared_rows = long.filter(is_shared).with_row_index("__call").drop("usage_key").explode("shares").unnest("shares")
    if not shared_rows.height:
        return whole
    # All shares of a call have the same denominator, so the numerators are the weights.
    shared_rows = money.split(
        shared_rows.lazy(), amounts=["quantity"], weight="numerator", pool="__call", order_by=["usage_key", "numerator"]
    ).collect()
    return pl.concat([whole, shared_rows.group_by([*about[:-1], "meter"]).agg(pl.col("quantity").sum()).select(whole.columns)])


def _other_meters(calls: pl.DataFrame, about: Sequence[str]) -> pl.DataFrame:
    """Meters without a column, from JSON {meter: quantity}; few calls have any."""
    rows_with_usage = calls.filter(pl.col("other_usage").is_not_null())
    rows = [
        {**{name: row[name] for name in about}, "meter": meter, "quantity": money.exact_decimal(str(quantity))}
        for row in rows_with_usage.select(*about, "other_usage").iter_rows(named=True)
        for meter, quantity in json.loads(row["other_usage"], parse_float=str).items()
    ]
    schema = {**{name: rows_with_usage.schema[name] for name in about}, "meter": pl.String(), "quantity": money.MONEY}
    return pl.DataFrame(rows, schema=schema)


def calls_sharing_usage(books: ScopedBooks, quantities: pl.DataFrame) -> pl.DataFrame:
    """All calls that share a usage row with one of `quantities` (rows of `usage_of_calls`), as rows of `usage_of_calls`."""
    keys = quantities["usage_key"].drop_nulls().unique()
    hours: list[datetime] = quantities.filter(pl.col("usage_key").is_not_null())["hour"].unique().sort().to_list()
    if not hours:
        return quantities.clear()
    start, end = hours[0], hours[-1] + timedelta(hours=1)
    is_candidate = pl.col("usage_key").is_in(keys.implode()) | pl.col("shares").is_not_null()
    calls = scan_rollups(books, CALLS, published(books, start, end), WHOLE).filter(
        is_candidate.fill_null(value=False), pl.col("hour").is_between(start, end, closed="left")
    )
    names = [*_ORDER, "hour", "usage_key", "shares", "other_usage", *METER_COLUMNS]
    return usage_of_calls(calls.select(names).collect()).filter(pl.col("usage_key").is_in(keys.implode()))


def usage_totals(books: ScopedBooks, keys: pl.Series, start: datetime, end: datetime) -> pl.DataFrame:
    """Total quantity, calls and list cost of these usage rows by usage_key and meter; `[start, end)` bounds their hours."""
    rows = scan_rollups(books, USAGE_HOURLY, published(books, start, end), WHOLE).filter(
        pl.col("usage_key").is_in(keys.implode()), pl.col("hour").is_between(start, end, closed="left")
    )
    return (
        rows.group_by("usage_key", "meter")
        .agg(
            pl.col("hour").first(),
            pl.col("quantity").sum(),
            pl.col("calls").sum(),
            list_cost=pl.when(pl.col("list_cost").count() > 0).then(pl.col("list_cost").sum()),
        )
        .collect()
    )


def split_over_calls(books: ScopedBooks, costs: pl.DataFrame, quantities: pl.DataFrame) -> pl.DataFrame:
    """Each cost row over the calls of its usage row; returns the parts of `quantities` calls: row, trace_key, span_key, quantity, cost.

    `costs` has row (a number), usage_key, meter and cost (null: unpriced, stays null); `quantities` are rows of `usage_of_calls`. Quantity of a usage row
    beyond its calls keeps its share and is not returned.
    """
    metered_usage = quantities.filter(pl.col("usage_key").is_not_null())
    if not metered_usage.height or not costs.height:
        return _NO_PARTS
    everyone = calls_sharing_usage(books, metered_usage)
    hours: list[datetime] = metered_usage["hour"].unique().sort().to_list()
    whole = usage_totals(books, metered_usage["usage_key"].unique(), hours[0], hours[-1] + timedelta(hours=1))
    logged_by_calls = everyone.group_by("usage_key", "meter").agg(borne=pl.col("quantity").sum())
    short = (
        whole.join(logged_by_calls, on=["usage_key", "meter"])
        .select("usage_key", "meter", quantity=pl.col("quantity") - pl.col("borne"))
        .filter(pl.col("quantity") > _MIN_QUANTITY)
    )
    rows = pl.concat([everyone.drop("hour"), short], how="diagonal")
    cost_rows = costs.select("row", "usage_key", "meter", "cost").join(
        metered_usage.select("usage_key", "meter").unique(), on=["usage_key", "meter"], how="semi"
    )
    rows = cost_rows.join(rows, on=["usage_key", "meter"])
    if not rows.height:
        return _NO_PARTS
    rows = rows.with_columns(__weight=money.weights(rows, "quantity", "row"), __none=pl.col("trace_key").is_null())
    unpriced_rows = rows.filter(pl.col("cost").is_null())
    parts = money.split(
        rows.filter(pl.col("cost").is_not_null()).lazy(),
        amounts=["cost"],
        weight="__weight",
        pool="row",
        order_by=["__none", *_ORDER],
    ).collect()
    call_parts = pl.concat([parts.select(_PARTS), unpriced_rows.select(_PARTS)])
    return call_parts.join(quantities.select(CALL).unique(), on=CALL, how="semi")


_MIN_QUANTITY = pl.lit("0.000001").str.to_decimal(scale=12).cast(money.MONEY)
"""Tolerance for fractions of a token that remain when quantities are split over links."""
_PARTS = ["row", *CALL, "quantity", "cost"]
_NO_PARTS = pl.DataFrame(
    schema={"row": pl.UInt32, "trace_key": pl.Int64, "span_key": pl.Int64, "quantity": money.MONEY, "cost": money.MONEY}
)


def each(parts: pl.DataFrame) -> Iterator[tuple[tuple[int, int], list[dict[str, Any]]]]:
    """Parts by call."""
    for key, rows in parts.group_by(CALL, maintain_order=True):
        yield (int(str(key[0])), int(str(key[1]))), rows.to_dicts()
