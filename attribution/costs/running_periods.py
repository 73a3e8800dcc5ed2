"""Running periods: charges whose file was read before all usage of their period had arrived meet calls in order of time. (ES-1a)"""

from __future__ import annotations

import polars as pl

from ledger.money import MONEY, split, weights


def is_running() -> pl.Expr:
    """Whether usage of a charge group's period may have come after its file was read."""
    return (pl.col("complete_until") < pl.col("pool_end")).fill_null(value=False)


def in_order_of_time(assignment: pl.DataFrame, pools: pl.DataFrame, tolerance: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The usage that the charges of running pools can be for, and the later usage, which they cannot: usage_row, quantity, list_cost.

    Where more is logged than a running pool bills, beyond the tolerance, its hours are met one after the other up to the billed quantity; the
    usage of the hour in which that is reached is met in part, in equal proportion. Other pools keep all their usage.

    `assignment` is as from `pools.assign_usage`, `pools` has pool, billed and running.

    A bucket of 1000 tokens that was read while its day ran, and calls of 700, 600 and 500 tokens at one, two and three o'clock:

    >>> from datetime import UTC, datetime
    >>> from ledger.money import MONEY
    >>> columns = {"usage_row": [0, 1, 2], "usage_key": [7, 8, 9], "own_meter": ["input_tokens"] * 3, "pool": [0] * 3}
    >>> columns |= {"hour": [datetime(2026, 11, 30, h, tzinfo=UTC) for h in (1, 2, 3)], "quantity": [700, 600, 500], "list_cost": [7, 6, 5]}
    >>> rows = pl.DataFrame(columns, schema_overrides={"quantity": MONEY, "list_cost": MONEY})
    >>> pools = pl.DataFrame({"pool": [0], "billed": [1000], "running": [True]}, schema_overrides={"billed": MONEY})
    >>> met, late = in_order_of_time(rows, pools, pl.lit(0, dtype=MONEY))
    >>> [int(q) for q in met["quantity"]], [(row, int(q), int(c)) for row, q, c in late.sort("usage_row").iter_rows()]
    ([700, 300], [(1, 300, 3), (2, 500, 5)])
    """
    rows = assignment.join(pools.filter("running").select("pool", "billed"), on="pool")
    rows = rows.filter(pl.col("quantity").sum().over("pool") - pl.col("billed") > pl.col("billed") * tolerance)
    hours = rows.group_by("pool", "hour").agg(pl.col("billed").first(), logged=pl.col("quantity").sum()).sort("pool", "hour")
    quantity_before = pl.col("logged").cum_sum().over("pool") - pl.col("logged")
    met_quantity = pl.max_horizontal(pl.min_horizontal(pl.col("billed") - quantity_before, "logged"), pl.lit(0, dtype=MONEY))
    hours = hours.select("pool", "hour", "logged", met=met_quantity.cast(MONEY)).with_row_index("number")
    rows = rows.join(hours.filter(pl.col("met") < pl.col("logged")), on=["pool", "hour"])
    if not rows.height:
        return assignment, rows.select("usage_row", "quantity", "list_cost")
    rows = _split(rows, "met", "quantity", pool="number", order_by=["usage_key", "own_meter"])
    halves = [
        rows.with_columns(part=part, is_late=pl.lit(value=is_late))
        for is_late, part in ((False, pl.col("met")), (True, pl.col("quantity") - pl.col("met")))
    ]
    late_costs = _split(pl.concat(halves), "list_cost", "part", pool="usage_row", order_by=["is_late"]).filter("is_late")
    late_usage = late_costs.filter(pl.col("part") > 0).select("usage_row", "list_cost", quantity="part")
    late_columns = late_usage.rename({"quantity": "late_quantity", "list_cost": "late_list_cost"})
    met_usage = assignment.join(late_columns, on="usage_row", how="left", maintain_order="left").with_columns(
        pl.col(name) - pl.col(f"late_{name}").fill_null(0) for name in ("quantity", "list_cost")
    )
    late_usage = late_usage.select("usage_row", "quantity", "list_cost")
    return met_usage.filter(pl.col("quantity") > 0).select(assignment.columns), late_usage


def until_cost_is_met(groups: pl.DataFrame, usage: pl.DataFrame, family: list[str]) -> tuple[pl.DataFrame, pl.Series]:
    """The usage that running charges without a quantity can be for, and the later usage rows, which they cannot.

    What the charges of a `family` (provider, model, meter) and period cost is met by the list cost of their hours, one after the other; the hour in which it is
    reached is met whole, and so is usage without a price. A charge that costs less than list leaves usage to be estimated that it may have paid for,
    until the next reading.

    `groups` are charge groups, `usage` has usage_row, the columns of the family, hour and list_cost.

    >>> from datetime import UTC, datetime
    >>> one, two, four, end = (datetime(2026, 11, 30, h, tzinfo=UTC) for h in (1, 2, 4, 23))
    >>> keys = {"provider": ["Anthropic"], "model": ["m"], "meter": ["input_tokens"]}
    >>> bill = {"currency": ["USD"], "pool_start": [one], "pool_end": [end], "complete_until": [four], "effective_cost": [5], "billed_cost": [5]}
    >>> groups = pl.DataFrame(keys | bill, schema_overrides={"effective_cost": MONEY, "billed_cost": MONEY})
    >>> usage = {"usage_row": [0, 1, 2], "hour": [one, two, four], "list_cost": [4, 4, 4]}
    >>> rows = pl.DataFrame(usage | {key: value * 3 for key, value in keys.items()}, schema_overrides={"list_cost": MONEY})
    >>> met, late = until_cost_is_met(groups, rows, list(keys))
    >>> met["usage_row"].to_list(), late.to_list()
    ([0, 1], [2])
    """
    pool = ["currency", *family, "pool_start", "pool_end"]
    cost = pl.max_horizontal(pl.col("effective_cost").sum(), pl.col("billed_cost").sum())
    pools = groups.filter(is_running()).group_by(pool).agg(cost=cost)
    rows = usage.select("usage_row", "hour", "list_cost", *family).join(pools, on=family, nulls_equal=True)
    rows = rows.filter(pl.col("hour") >= pl.col("pool_start"), pl.col("hour") < pl.col("pool_end"))
    hours = rows.group_by(*pool, "hour").agg(pl.col("cost").first(), listed=pl.col("list_cost").sum()).sort(*pool, "hour")
    cost_before = pl.col("listed").cum_sum().over(pool) - pl.col("listed")
    late_hours = hours.filter((pl.col("listed") > 0) & (cost_before >= pl.col("cost")))
    late_rows = rows.join(late_hours, on=[*pool, "hour"], how="semi", nulls_equal=True)["usage_row"].unique()
    return usage.filter(~pl.col("usage_row").is_in(late_rows.implode())), late_rows


def _split(rows: pl.DataFrame, amount: str, weight: str, *, pool: str, order_by: list[str]) -> pl.DataFrame:
    """Rows with the amount of their pool split exactly by the weight. (MO-1)"""
    rows = rows.with_columns(pl.col(weight).cast(MONEY))
    weighted_rows = rows.with_columns(__weight=weights(rows, weight, pool)).lazy()
    return split(weighted_rows, amounts=[amount], weight="__weight", pool=pool, order_by=order_by).drop("__weight").collect()


def unbilled_usage(usage: pl.DataFrame, matched_usage: pl.Series, late_usage: pl.DataFrame) -> pl.DataFrame:
    """Usage that no charge pays for, with `late`: of rows that running periods met in part the later part. (ES-1a)"""
    late_columns = late_usage.rename({"quantity": "late_quantity", "list_cost": "late_list_cost"})
    rows = usage.join(
        late_columns.with_columns(late=pl.lit(value=True)), on="usage_row", how="left", maintain_order="left"
    ).with_columns(pl.col("late").fill_null(value=False))
    rows = rows.filter(pl.col("late") | ~pl.col("usage_row").is_in(matched_usage.implode()))
    names = ("quantity", "list_cost")
    late_values = [pl.when("late").then(f"late_{name}").otherwise(name).alias(name) for name in names]
    return rows.with_columns(late_values).drop("late_quantity", "late_list_cost")
