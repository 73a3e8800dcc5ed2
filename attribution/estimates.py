"""Estimates: what the bill does not cover yet, at list price times what this customer really pays of it. (ES-1, ES-2)"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import polars as pl

from attribution.rollup import WHAT, WHO
from ledger.money import MONEY, proportion
from ledger.tables import COSTS


def coverage(lots: pl.DataFrame) -> pl.DataFrame:
    """Until when each provider's bill speaks of metered usage: provider, account (null: any), `covered_until`."""
    metered = lots.filter(pl.col("role") == "tokens")
    by_account = (
        metered.filter(pl.col("account").is_not_null())
        .group_by("provider", "account")
        .agg(covered_until=pl.col("period_end").max())
    )
    overall = (
        metered.group_by("provider")
        .agg(covered_until=pl.col("period_end").max())
        .with_columns(account=pl.lit(None, dtype=pl.String))
    )
    return pl.concat([by_account, overall.select(by_account.columns)])


def is_covered(uses: pl.DataFrame, covered: pl.DataFrame) -> pl.Series:
    """Whether the bill already covers the hour of each use."""
    if not covered.height:
        return pl.Series("covered", [False] * uses.height, dtype=pl.Boolean)
    frame = uses.join(covered.rename({"covered_until": "own"}), on=["provider", "account"], how="left", maintain_order="left")
    overall = covered.filter(pl.col("account").is_null()).select("provider", any="covered_until")
    frame = frame.join(overall, on="provider", how="left", maintain_order="left")
    return frame.select(covered=(pl.col("hour") < pl.coalesce("own", "any")).fill_null(value=False)).to_series()


def paid_of_list(rates: pl.DataFrame) -> pl.DataFrame:
    """What was really paid of one dollar at list, per currency, provider and model, and per provider (model null).

    From the pools of this bill where the logs were priced: billed effective cost of the logged part over its list price.
    """
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "currency": pl.String,
        "provider": pl.String,
        "model": pl.String,
        "ratio": MONEY,
    }
    if not rates.height:
        return pl.DataFrame(schema=schema)
    told = rates.filter((pl.col("list_at_book") > 0) & (pl.col("denominator") > 0))
    out: list[dict[str, object]] = []
    for keys in (["currency", "provider", "model"], ["currency", "provider"]):
        for key, pools in told.group_by(keys, maintain_order=True):
            paid = sum(
                (proportion(a, q, d) for a, q, d in pools.select("effective_cost", "logged_quantity", "denominator").iter_rows()),
                Decimal(0),
            )
            listed = str(pools["list_at_book"].sum())
            out.append(
                {
                    **dict(zip(keys, key, strict=True)),
                    "model": key[2] if len(key) == 3 else None,
                    "ratio": proportion(Decimal(1), paid, Decimal(listed)),
                }
            )
    return pl.DataFrame(out, schema=schema)


def estimate(uses: pl.DataFrame, ratios: pl.DataFrame, *, run_id: str, month: str, currency: str) -> pl.DataFrame:
    """Uses no bill covers, as costs with basis ``estimated``; unpriced ones with null cost, never 0.

    `currency` is the price book's.
    """
    if not uses.height:
        return COSTS.empty()
    mine = ratios.filter(pl.col("currency") == currency)
    frame = uses.join(
        mine.filter(pl.col("model").is_not_null()).select("provider", "model", own="ratio"), on=["provider", "model"], how="left"
    )
    frame = frame.join(mine.filter(pl.col("model").is_null()).select("provider", any="ratio"), on="provider", how="left")
    factor = pl.coalesce("own", "any", pl.lit(1).cast(MONEY))
    paid = (pl.col("list_cost") * factor).cast(MONEY)
    unpriced = pl.col("list_cost").is_null()
    costs = frame.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        period_start=pl.col("hour"),
        period_end=pl.col("hour") + timedelta(hours=1),
        cost_class=pl.lit("metered"),
        basis=pl.lit("estimated"),
        reason=pl.when(unpriced).then(pl.lit("unpriced")).otherwise("reason"),
        rule=pl.when(unpriced).then(pl.lit("ES-2")).otherwise(pl.lit("ES-1")),
        charge_category=pl.lit("Usage"),
        currency=pl.lit(currency),
        billed_cost=paid,
        effective_cost=paid,
        contracted_cost=paid,
    )
    known = [c for c in COSTS.schema if c in costs.columns]
    assert set(WHO) <= set(known)
    assert set(WHAT) <= set(known)
    return COSTS.conform(costs.select(known))


def not_on_bill(uses: pl.DataFrame, *, run_id: str, month: str, currency: str) -> pl.DataFrame:
    """Uses of hours the bill covers without naming them: they cost nothing there, and say so.

    Adding an estimate would count money twice, since what the bill could not name is among its unallocated rows.
    """
    if not uses.height:
        return COSTS.empty()
    nothing = pl.lit(0).cast(MONEY)
    costs = uses.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        period_start=pl.col("hour"),
        period_end=pl.col("hour") + timedelta(hours=1),
        cost_class=pl.lit("metered"),
        basis=pl.lit("billed"),
        reason=pl.lit("not_on_bill"),
        rule=pl.lit("RA-2"),
        charge_category=pl.lit("Usage"),
        currency=pl.lit(currency),
        billed_cost=nothing,
        effective_cost=nothing,
        list_cost=nothing,
        contracted_cost=nothing,
    )
    return COSTS.conform(costs.select(c for c in COSTS.schema if c in costs.columns))
