"""Pools: which hours a charge period stands for, which usage rows fall into a pool, and the exact split of its money. (RA-1, RA-2, MO-1)

A pool holds what is matched with each other: charge groups on one side, rows of `usage_hourly` on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from attribution.columns import VARIANT
from ledger.money import MONEY, split, weights
from ledger.tables import COST_COLUMNS, METERS, TOKEN_METERS

OPTIONAL = (*VARIANT, "account", "region", "resource", "principal")
"""Keys that a log or a bill may lack. Where both sides have one it must agree; where one side lacks it, it is aggregated over."""

MATCHED_COLUMNS = (
    "charge_group", "role", "currency", "provider", "model", "meter", "pool_start", "pool_end", "service_tier", "context_above", *OPTIONAL,
    "resource_id", "owner_agent", "owner_team", "complete_until", "billed_quantity", *COST_COLUMNS,
)  # fmt: skip
"""The columns by which charge groups of meters are matched."""

_ORDER = {meter: place for place, meter in enumerate([*TOKEN_METERS, *(m for m in METERS if m not in TOKEN_METERS)])}
_PLACE = pl.col("own_meter").replace_strict(_ORDER, default=None, return_dtype=pl.Int16).alias("__place")

_HOUR, _HALF, _TICK = timedelta(hours=1), timedelta(minutes=30), timedelta(microseconds=1)
_MAX_LENGTH = timedelta(days=400)


def pool_period(start: str, end: str) -> tuple[pl.Expr, pl.Expr]:
    """The whole hours a charge period is matched by, ``[pool_start, pool_end)``; costs keep the period of their charge. (RA-1)

    Usage is known by the hour, so an hour of it belongs to the period that holds the hour's middle: consecutive periods, at whatever minute
    they begin, divide the hours without gap or overlap. A period shorter than an hour belongs to the hour that holds *its* middle, and all
    the short periods of an hour are one pool: their quantities are added, and each charge is split over the hour's usage.

    Two charges of half an hour, a clock hour, and a day that begins at 18:30 UTC:

    >>> from datetime import datetime
    >>> at = lambda h, m, d=5: datetime(2026, 10, d, h, m)
    >>> periods = [(at(10, 0), at(10, 30)), (at(10, 30), at(11, 0)), (at(10, 0), at(11, 0)), (at(18, 30), at(18, 30, 6))]
    >>> frame = pl.DataFrame(periods, schema={"s": pl.Datetime("us"), "e": pl.Datetime("us")}, orient="row")
    >>> [f"{s:%H}-{e:%d %H}" for s, e in frame.select(*pool_period("s", "e")).iter_rows()]
    ['10-05 11', '10-05 11', '10-05 11', '18-06 18']
    """
    length = pl.col(end) - pl.col(start)
    middle = (pl.col(start) + pl.duration(microseconds=length.dt.total_microseconds() // 2)).dt.truncate("1h")
    short = length < _HOUR
    first, last = ((pl.col(edge) + _HALF - _TICK).dt.truncate("1h") for edge in (start, end))
    return (
        pl.when(short).then(middle).otherwise(first).alias("pool_start"),
        pl.when(short).then(middle + _HOUR).otherwise(last).alias("pool_end"),
    )


def pool_hours(pools: pl.DataFrame) -> pl.DataFrame:
    """Every distinct ``[pool_start, pool_end)`` with each hour in it. One longer than 400 days is no charge period and has none."""
    distinct = pools.select("pool_start", "pool_end").unique().filter(pl.col("pool_end") - pl.col("pool_start") <= _MAX_LENGTH)
    return distinct.with_columns(hour=pl.datetime_ranges("pool_start", "pool_end", "1h", closed="left", time_zone="UTC")).explode(
        "hour"
    )


def assign_usage(usage: pl.DataFrame, pools: pl.DataFrame, pool: list[str]) -> pl.DataFrame:
    """The pool of each usage row: usage_row, pool, usage_key, own_meter, hour, quantity, list_cost."""
    hours = pools.select("pool", *pool).join(pool_hours(pools), on=["pool_start", "pool_end"])
    shared_keys = [k for k in pool if k not in ("currency", "pool_start", "pool_end")]
    assignment = (
        usage.lazy()
        .select("usage_row", "usage_key", "own_meter", "quantity", "list_cost", "hour", *shared_keys)
        .join(
            hours.lazy().select("pool", "hour", "pool_start", "pool_end", *shared_keys),
            on=[*shared_keys, "hour"],
            nulls_equal=True,
        )
        .collect()
    )
    if assignment["usage_row"].n_unique() < assignment.height:
        # A usage row in several overlapping periods belongs to the shortest, the most specific for its hour.
        assignment = assignment.sort(pl.col("pool_end") - pl.col("pool_start"), "pool_start", "pool").unique(
            "usage_row", keep="first", maintain_order=True
        )
    return assignment.select("usage_row", "pool", "usage_key", "own_meter", "hour", "quantity", "list_cost")


def split_over_usage(groups: pl.DataFrame, assignment: pl.DataFrame, amounts: Sequence[str]) -> pl.DataFrame:
    """Each group's amounts split exactly over the usage of its pool, and over a remainder row (usage_row null) that comes last. (MO-1)

    `groups` has charge_group, pool, pool_id, flag, denominator and logged; `assignment` has pool, usage_row, usage_key, own_meter, quantity. Usage is ordered
    by usage_key, and meters of one key (reasoning, billed as output) in a fixed order. Returns charge_group, usage_row, pool_id, flag, quantity and
    the amounts only, so that millions of shares stay small; `with_dimensions` adds the other columns.
    """
    # Most bills have equal amounts in two or three cost columns: equal columns are split once.
    split_as = {c: next(d for d in amounts if groups[d].equals(groups[c])) for c in amounts}
    amount_names, amounts = amounts, list(dict.fromkeys(split_as.values()))
    about = ("charge_group", "pool", *amounts)
    rows = pl.concat(
        [
            groups.select(about).join(assignment.select("pool", "usage_row", "usage_key", _PLACE, "quantity"), on="pool"),
            groups.select(
                *about,
                usage_row=pl.lit(None, dtype=pl.Int64),
                usage_key=pl.lit(None, dtype=pl.Int64),
                __place=pl.lit(None, dtype=pl.Int16),
                quantity=pl.col("denominator") - pl.col("logged"),
            ),
        ],
        how="diagonal_relaxed",
    ).with_columns(pl.col("quantity").cast(MONEY))
    rows = rows.with_columns(__weight=weights(rows, "quantity", "charge_group"), __last=pl.col("usage_row").is_null())
    out = split(
        rows.lazy(), amounts=amounts, weight="__weight", pool="charge_group", order_by=["__last", "usage_key", "__place"]
    ).collect()
    out = out.with_columns(pl.col(split_as[c]).alias(c) for c in amount_names if c not in amounts)
    return out.drop("__weight", "__last", "usage_key", "__place").join(
        groups.select("charge_group", "pool_id", "flag"), on="charge_group", maintain_order="left"
    )


def with_paid_quantity(shares: pl.DataFrame, groups: pl.DataFrame, excess: pl.DataFrame) -> pl.DataFrame:
    """Shares with the quantity they pay for: counted once a usage row, however many groups its pool has, and without what exceeds the bill."""
    first = groups.group_by("pool").agg(pl.col("charge_group").min().alias("__first"))
    out = shares.join(first, on="pool", how="left", maintain_order="left").join(
        excess.select("usage_row", __beyond="quantity"), on="usage_row", how="left", maintain_order="left"
    )
    paid = pl.col("quantity") - pl.col("__beyond").fill_null(0)
    return out.with_columns(quantity=pl.when(pl.col("charge_group") == pl.col("__first")).then(paid)).drop(
        "__first", "__beyond", "pool"
    )


def complete_list_cost() -> pl.Expr:
    """The list cost of a pool's usage, where all of it is priced; else null, since a part would be taken for the whole."""
    return pl.when(pl.col("list_cost").is_not_null().all()).then(pl.col("list_cost").sum())


def combine(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The non-empty frames, concatenated."""
    nonempty_frames = [f for f in frames if f.height]
    return pl.concat(nonempty_frames, how="diagonal_relaxed") if nonempty_frames else pl.DataFrame()


def excess_usage(assignment: pl.DataFrame, pools: pl.DataFrame) -> pl.DataFrame:
    """How much of each usage row, and of its list cost, lies beyond what its pool bills; none where logs and bill agree within the tolerance."""
    overlogged_rows = assignment.select("usage_row", "quantity", "list_cost", "pool").join(
        pools.filter(pl.col("flag").str.contains("overlogged")).select("pool", "billed", "logged"), on="pool"
    )
    if not overlogged_rows.height:
        return pl.DataFrame(schema={"usage_row": pl.Int64, "quantity": MONEY, "list_cost": MONEY})
    halves = [
        overlogged_rows.select("usage_row", "quantity", "list_cost", rest=pl.lit(value=is_rest), part=part.cast(MONEY))
        for is_rest, part in ((False, pl.col("billed")), (True, pl.col("logged") - pl.col("billed")))
    ]
    parts = pl.concat(halves)
    parts = parts.with_columns(__weight=weights(parts, "part", "usage_row"))
    out = split(parts.lazy(), amounts=["quantity", "list_cost"], weight="__weight", pool="usage_row", order_by=["rest"])
    return out.filter("rest").select("usage_row", "quantity", "list_cost").filter(pl.col("quantity") > 0).collect()


def unlogged_quantity(groups: pl.DataFrame) -> pl.DataFrame:
    """How much of each group's quantity was not logged: its share of what the pool's bill has beyond the logs."""
    halves = [
        groups.select("charge_group", "billed_quantity", rest=pl.lit(value=is_rest), part=part)
        for is_rest, part in ((False, pl.col("logged")), (True, pl.col("denominator") - pl.col("logged")))
    ]
    parts = pl.concat(halves).with_columns(pl.col("part").cast(MONEY))
    parts = parts.with_columns(__weight=weights(parts, "part", "charge_group"))
    out = split(parts.lazy(), amounts=["billed_quantity"], weight="__weight", pool="charge_group", order_by=["rest"]).filter(
        "rest"
    )
    return out.select("charge_group", "billed_quantity").collect()
