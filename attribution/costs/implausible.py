"""Quantities that cannot be: what one emitter logs of a pool is more than 20 times what its charges bill. (RA-2b)

One unit slip, thousands sent as units, would scale down everybody else of its pool and leave their money with the emitter that errs.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from ledger.money import MONEY, known_sum

MAX_RATIO = 20
"""How many times the billed quantity an emitter's logged quantity may be."""

EMITTER = ("source", "owner_agent", "owner_team")
"""What stands for an emitter in hourly usage: the source that read it, and the agent that executed the calls, with its team."""

NOTHING = pl.DataFrame(
    schema=dict.fromkeys(("provider", "model", "meter", "source", "executor_agent", "executor_team", "currency"), pl.String)
    | {"rows": pl.UInt32, "quantity": MONEY, "effective_cost": MONEY}
)
"""A summary without rows: what was set aside, by emitter, model and meter, with the money that it would have taken."""


def implausible_rows(
    usage: pl.DataFrame, surplus_usage: pl.DataFrame, overlogged_steps: Iterable[tuple[pl.DataFrame, pl.DataFrame]]
) -> pl.Series:
    """Numbers of the usage rows that are set aside: they exceed everything they met, and their emitter's quantity is more than 20 times that.

    `overlogged_steps` are those of matching in which more was logged than billed: usage_row and pool of each row, and the pools (pool, billed,
    logged). The rows of an emitter that met the same pool first are compared with all pools that any of them met. `surplus_usage` is what no
    charge took; usage that is later than a running period's bill is no part of it. (ES-1a)

    >>> usage = pl.DataFrame({"usage_row": [0, 1], "quantity": [900, 60_000], "source": "otlp", "owner_agent": ["a", "b"], "owner_team": "T"})
    >>> pools = pl.DataFrame({"pool": [0], "billed": [1000], "logged": [60_900]})
    >>> implausible_rows(usage, usage, [(pl.DataFrame({"usage_row": [0, 1], "pool": [0, 0]}), pools)]).to_list()
    [1]
    """
    steps = list(overlogged_steps)
    if not any(_is_suspicious(pools) for _, pools in steps):
        return pl.Series("usage_row", [], dtype=pl.Int64)
    parts = [
        rows.select("usage_row", "pool").join(pools.select("pool", "billed"), on="pool").with_columns(step=number)
        for number, (rows, pools) in enumerate(steps)
    ]
    meetings = pl.concat(parts).join(surplus_usage.select("usage_row"), on="usage_row", how="semi")
    meetings = meetings.with_columns(at=pl.struct("step", "pool"))
    first = meetings.group_by("usage_row").agg(first=pl.col("at").sort_by("step").first())
    emitters = first.join(usage.select("usage_row", "quantity", *EMITTER), on="usage_row")
    keys = ["first", *EMITTER]
    logged_sums = emitters.group_by(keys).agg(pl.col("quantity").sum(), "usage_row")
    billed_sums = (
        meetings.join(emitters.select("usage_row", *keys), on="usage_row")
        .unique([*keys, "at"])
        .group_by(keys)
        .agg(pl.col("billed").sum())
    )
    cells = logged_sums.join(billed_sums, on=keys, nulls_equal=True)
    return (
        cells.filter(pl.col("quantity") > MAX_RATIO * pl.col("billed")).select(pl.col("usage_row").explode()).to_series().sort()
    )


def _is_suspicious(pools: pl.DataFrame) -> bool:
    return bool(pools.select((pl.col("logged") > MAX_RATIO * pl.col("billed")).any()).item())


def summarise(usage: pl.DataFrame, shares: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """What was set aside, as in `NOTHING`: `shares` are those that the rows would have had of the charge groups. (RA-2b)"""
    if not usage.height:
        return NOTHING
    if not shares.height:
        shares = pl.DataFrame(schema={"charge_group": pl.Int64, "usage_row": pl.Int64, "effective_cost": MONEY})
    money = (
        shares.join(groups.select("charge_group", "currency"), on="charge_group")
        .group_by("usage_row", "currency")
        .agg(known_sum("effective_cost"))
    )
    keys = [c for c in NOTHING.columns if c not in ("rows", "quantity", "effective_cost")]
    sums = usage.join(money, on="usage_row", how="left").group_by(keys)
    return sums.agg(rows=pl.len(), quantity=pl.col("quantity").sum(), effective_cost=known_sum("effective_cost")).sort(keys)
