"""Hour ends: usage of a call that crosses an hour's border may be met in the hour of its end. (RA-3)

Providers bill a call in the hour in which it started or ended, and hourly usage has both (`hour`, `end_hour`). Charges meet the usage of its
start first. Of what is logged then beyond what is billed, calls that ended in a later hour of the month offer as much as they have there; they
move to the end hour as far as its charges have anything left over for them, under the same conditions (`attribution.costs.matching.match_offers`).
With the usage that moved, both hours are matched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import polars as pl

from attribution.usage.reader import FAMILY
from ledger.money import MONEY, split, weights
from ledger.tables import TIME

HOUR_END_REASON = "hour_end"
"""Reason of usage that is met in the hour of its end."""

ENDS = ("end_hour", "met_hour")
"""Columns of usage: the hour of its end, where that is a later one; the hour in which it is met, where that is not the hour of its start."""

_AMOUNTS = ("quantity", "list_cost")
_KEY = ("usage_key", "own_meter")
"""What identifies a row of usage in a month, whatever its number in a batch."""


def with_ends(usage: pl.DataFrame) -> pl.DataFrame:
    """Usage with the columns `ENDS`."""
    return usage.with_columns(pl.lit(None, dtype=TIME).alias(c) for c in ENDS if c not in usage.columns)


def matching_hour() -> pl.Expr:
    """The hour in which a usage row meets charges."""
    return pl.coalesce("met_hour", "hour").alias("hour")


def last_hour() -> pl.Expr:
    """The last hour in which a usage row may be met: of its end, if that is in the same month. (RA-3)"""
    return pl.when(_is_crossing()).then("end_hour").otherwise("hour")


def _is_crossing() -> pl.Expr:
    """Whether a row may be met at its end. Months are matched each with its own usage, so that a row is met in the month of its start."""
    return (
        (pl.col("end_hour") > pl.col("hour")) & (pl.col("end_hour").dt.truncate("1mo") == pl.col("hour").dt.truncate("1mo"))
    ).fill_null(value=False)


def longest_reach(usage: pl.LazyFrame) -> timedelta:
    """How long before the hour in which it may be met usage started at most."""
    reach = usage.filter(_is_crossing()).select((pl.col("end_hour") - pl.col("hour")).max()).collect(engine="streaming").item()
    return reach if isinstance(reach, timedelta) else timedelta(0)


def offer_surplus(
    usage: pl.DataFrame, surplus_usage: pl.DataFrame, overlogged_steps: Iterable[tuple[pl.DataFrame, pl.DataFrame]]
) -> pl.DataFrame:
    """Usage rows that end in a later hour of their month, with the quantity and list cost that they offer to the charges of that hour.

    A row that no charge took offers itself. Where a pool has more logged than billed, its rows that end later offer what of all its rows is
    left, in proportion, but no more than they have: whoever else used the pool has no other hour to be met in. `overlogged_steps` are those of
    matching in which more was logged than billed: usage_row and pool of each row, and the pools.

    A pool in which 1000 tokens are billed, 900 and 600 are logged, and the calls of the 600 ended in the next hour:

    >>> from datetime import UTC, datetime
    >>> ten, eleven = (datetime(2026, 11, 30, h, tzinfo=UTC) for h in (10, 11))
    >>> columns = {"usage_row": [0, 1], "usage_key": [7, 8], "own_meter": "input_tokens", "hour": ten, "end_hour": [None, eleven]}
    >>> rows = pl.DataFrame(columns | {"quantity": [900, 600], "list_cost": [9, 6]}, schema_overrides=dict.fromkeys(_AMOUNTS, MONEY))
    >>> surplus = pl.DataFrame({"usage_row": [0, 1], "quantity": [300, 200]}, schema_overrides={"quantity": MONEY})
    >>> pool = pl.DataFrame({"usage_row": [0, 1], "pool": [0, 0]}), pl.DataFrame({"pool": [0]})
    >>> [(row, int(quantity), int(cost)) for row, quantity, cost in offer_surplus(rows, surplus, [pool]).iter_rows()]
    [(1, 500, 5)]
    """
    rows = usage.filter(_is_crossing()).join(surplus_usage.filter(pl.col("quantity") > 0), on="usage_row", how="semi")
    offers = rows.select("usage_row", *_KEY, *_AMOUNTS, offered="quantity")
    if not offers.height:
        return offers.select("usage_row", *_AMOUNTS)
    for members, pools in overlogged_steps:
        pool_rows = members.join(pools.select("pool"), on="pool", how="semi")
        if not pool_rows.join(offers, on="usage_row", how="semi").height:
            continue
        limits = pool_rows.join(surplus_usage, on="usage_row").group_by("pool").agg(limit=pl.col("quantity").sum())
        offers = _limit_offers(offers, pool_rows.join(limits, on="pool"))
    return _split_rows(offers, "offered").filter(pl.col("quantity") > 0)


def _limit_offers(offers: pl.DataFrame, pool_rows: pl.DataFrame) -> pl.DataFrame:
    """Offers of which those of one pool are no more than its limit, in proportion."""
    rows = offers.join(pool_rows.select("usage_row", "pool", "limit"), on="usage_row")
    rows = rows.filter(pl.col("offered").sum().over("pool") > pl.col("limit"))
    if not rows.height:
        return offers
    weighted_rows = (
        rows.drop("offered").rename({"limit": "offered"}).with_columns(__weight=weights(rows, "offered", "pool")).lazy()
    )
    limited_offers = split(weighted_rows, amounts=["offered"], weight="__weight", pool="pool", order_by=list(_KEY)).collect()
    other_offers = offers.join(rows, on="usage_row", how="anti")
    return pl.concat([other_offers, limited_offers.select(offers.columns)])


def _split_rows(rows: pl.DataFrame, part: str) -> pl.DataFrame:
    """The part of each row: usage_row, quantity, list_cost. What is not priced stays so."""
    halves = [
        rows.select("usage_row", "list_cost", quantity=amount.cast(MONEY), is_rest=pl.lit(value=is_rest))
        for is_rest, amount in ((False, pl.col(part)), (True, pl.col("quantity") - pl.col(part)))
    ]
    parts = pl.concat(halves)
    parts = parts.with_columns(__weight=weights(parts, "quantity", "usage_row"))
    out = split(parts.lazy(), amounts=["list_cost"], weight="__weight", pool="usage_row", order_by=["is_rest"]).collect()
    return out.filter(~pl.col("is_rest")).select("usage_row", *_AMOUNTS)


def billed_hours(groups: pl.DataFrame) -> pl.DataFrame:
    """The first and the last hour of each provider, model and meter that charges have."""
    hours = groups.group_by(FAMILY).agg(first_hour=pl.col("pool_start").min(), last_hour=pl.col("pool_end").max())
    return hours.sort(FAMILY)


def within_bill(offers: pl.DataFrame, hours: pl.DataFrame) -> pl.DataFrame:
    """Offers to hours that charges of their provider, model and meter can have, as from `billed_hours`."""
    if not offers.height:
        return offers
    rows = offers.join(hours, on=FAMILY, nulls_equal=True, maintain_order="left")
    return rows.filter(pl.col("end_hour") >= pl.col("first_hour"), pl.col("end_hour") < pl.col("last_hour")).select(
        offers.columns
    )


def plan_moves(
    open_batches: Mapping[int, tuple[pl.DataFrame, pl.DataFrame]],
    match_offers: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame],
) -> pl.DataFrame:
    """Usage that is met in the hour of its end, with `from_batch` and `into_batch`: of that of its start, and of that of the charges.

    `open_batches` has by number of batch what usage offers, and the charge groups that have anything left over.
    """
    numbers = {"from_batch": pl.Int64, "into_batch": pl.Int64}
    frames = [
        offers.with_columns(from_batch=pl.lit(n, dtype=pl.Int64)) for n, (offers, _) in open_batches.items() if offers.height
    ]
    if not frames:
        return pl.DataFrame(schema=numbers)
    offers = pl.concat(frames, how="diagonal_relaxed").sort(*_KEY)
    offers = offers.with_columns(usage_row=pl.int_range(pl.len(), dtype=pl.Int64))
    open_groups = pl.concat(
        [groups.with_columns(batch=pl.lit(n, dtype=pl.Int64)) for n, (_, groups) in open_batches.items()], how="diagonal_relaxed"
    ).join(offers.select(FAMILY), on=FAMILY, how="semi", nulls_equal=True)
    if not open_groups.height:
        return pl.DataFrame(schema=numbers)
    return match_offers(open_groups, offers)


def without_moved(usage: pl.DataFrame, moved_usage: pl.DataFrame) -> pl.DataFrame:
    """Usage without what of it is met at its end."""
    amounts = moved_usage.select(*_KEY, *(pl.col(c).alias(f"__moved_{c}") for c in _AMOUNTS))
    frame = usage.join(amounts, on=_KEY, how="left", maintain_order="left")
    remainders = [pl.col(c) - pl.col(f"__moved_{c}").fill_null(0) for c in _AMOUNTS]
    return (
        frame.with_columns(remainders)
        .filter((pl.col("quantity") > 0) | pl.col("__moved_quantity").is_null())
        .select(usage.columns)
    )


def at_its_end(moved_usage: pl.DataFrame) -> pl.DataFrame:
    """Usage that is met in the hour of its end, with the reason."""
    return moved_usage.with_columns(
        met_hour="end_hour",
        end_hour=pl.lit(None, dtype=TIME),
        reason=pl.concat_str(pl.lit(HOUR_END_REASON), "reason", separator=",", ignore_nulls=True),
    )
