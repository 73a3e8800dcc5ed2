"""Drivers: charges without a comparable quantity, split by what used them: tokens, seconds of use, requests. (RA-3)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from attribution.classification.skus import UNGROUPED
from attribution.costs.pools import combine, complete_list_cost, pool_hours, split_over_usage, with_paid_quantity
from ledger.money import MONEY, known_sum
from ledger.tables import COST_COLUMNS

_PLACE = ("account", "region")


@dataclass(slots=True, kw_only=True)
class DriverResult:
    """Shares on usage rows, unmatched groups, idle capacity, the rates, and the usage rows that drove a pool."""

    shares: pl.DataFrame
    unmatched: pl.DataFrame
    idle: pl.DataFrame
    rates: pl.DataFrame
    matched_usage: pl.Series

    @classmethod
    def combine(cls, results: Sequence[DriverResult]) -> DriverResult:
        """The results of different groups as one."""
        frames = {name: combine([getattr(result, name) for result in results]) for name in ("shares", "idle", "rates")}
        unmatched_groups = pl.concat([result.unmatched for result in results], how="diagonal_relaxed")
        return cls(**frames, unmatched=unmatched_groups, matched_usage=pl.concat([result.matched_usage for result in results]))


def split_by_quantity(
    groups: pl.DataFrame, usage: pl.DataFrame, keys: list[str], *, is_provisioned: bool = False, by_list_cost: bool = False
) -> DriverResult:
    """Splits groups without a comparable quantity over what used them; provisioned ones keep their idle part apart. (RA-3)

    `by_list_cost`: by the list cost of the usage, where all usage of a pool is priced.
    Capacity is what all groups of one SKU and resource sell in the pool's hours: an hour billed in two halves, or half of it at a
    reservation's price, is still one hour.
    """
    no_match = DriverResult(
        shares=groups.clear(),
        unmatched=groups,
        idle=groups.clear(),
        rates=pl.DataFrame(),
        matched_usage=pl.Series("usage_row", [], dtype=pl.Int64),
    )
    if not groups.height or not usage.height:
        return no_match
    pool = ["currency", *dict.fromkeys((*keys, "provider", *_PLACE)), "pool_start", "pool_end"]
    if is_provisioned:
        pool.append("sku_meter")
    pools = groups.select(pool).unique().sort(pool).with_row_index("pool")
    assignment = _driver_usage(usage.filter(pl.col("quantity") > 0), pools, keys)
    if not assignment.height:
        return no_match
    if by_list_cost:
        is_priced = (pl.col("list_cost").is_not_null().all() & (pl.col("list_cost").sum() > 0)).over("pool")
        assignment = assignment.with_columns(quantity=pl.when(is_priced).then("list_cost").otherwise("quantity"))
    pools = pools.join(
        assignment.group_by("pool").agg(logged=pl.col("quantity").sum(), list_at_book=complete_list_cost()),
        on="pool",
        maintain_order="left",
    ).with_columns(
        pool_id=pl.concat_str([pl.lit("driver"), *(pl.col(k).cast(pl.String).fill_null("-") for k in pool)], separator="|")
    )
    pool_groups = groups.join(pools, on=pool, nulls_equal=True).sort("charge_group")
    sold_quantity = pl.col("billed_quantity").fill_null(0).clip(0).sum().over("pool")
    capacity = pl.max_horizontal(sold_quantity, "logged") if is_provisioned else pl.col("logged")
    pool_groups = pool_groups.with_columns(denominator=capacity.cast(MONEY), flag=pl.lit(""))
    parts = split_over_usage(pool_groups, assignment, COST_COLUMNS)
    remainder = parts.filter(pl.col("usage_row").is_null()).select("charge_group", *COST_COLUMNS)
    idle = (
        groups.drop(*COST_COLUMNS).join(remainder, on="charge_group").with_columns(reason=pl.lit("idle_capacity"))
        if is_provisioned
        else groups.clear()
    )
    rates = (
        pool_groups.group_by(*pool, "pool_id", "denominator")
        .agg(*(known_sum(c) for c in COST_COLUMNS), billed=pl.col("billed_quantity").sum(), logged=pl.col("logged").first())
        .with_columns(level=pl.lit("driver"), flag=pl.lit(""))
        .rename({"pool_start": "period_start", "pool_end": "period_end"})
    )
    unmatched_groups = groups.filter(~pl.col("charge_group").is_in(pool_groups["charge_group"].implode()))
    shares = with_paid_quantity(
        parts.filter(pl.col("usage_row").is_not_null()),
        pool_groups,
        pl.DataFrame(schema={"usage_row": pl.Int64, "quantity": MONEY}),
    )
    return DriverResult(shares=shares, unmatched=unmatched_groups, idle=idle, rates=rates, matched_usage=assignment["usage_row"])


_OWNERS = (("owner_agent",), ("owner_team",))


def split_by_model(groups: pl.DataFrame, usage: pl.DataFrame, *, counted_usage: pl.Series) -> DriverResult:
    """Splits groups that name a model and no meter over the calls of the model, by list cost, else by what was counted. (RA-3)

    A charge whose owner is an executor's agent, else his team, is split over their calls first; others over the calls that no such charge is
    split over, if there are any. `counted_usage` are usage rows whose quantity another charge pays for already.
    """
    results: list[DriverResult] = []
    remaining_groups, open_usage = groups, usage
    for keys in _OWNERS:
        has_owner = pl.all_horizontal(pl.col(k).is_not_null() for k in keys)
        result = split_by_quantity(
            remaining_groups.filter(has_owner), usage.filter(has_owner), ["provider", "model", *keys], by_list_cost=True
        )
        results.append(result)
        remaining_groups = pl.concat([remaining_groups.filter(~has_owner), result.unmatched], how="diagonal_relaxed")
        open_usage = open_usage.filter(~pl.col("usage_row").is_in(result.matched_usage.implode()))
    for usage_of_all in (open_usage, usage):
        result = split_by_quantity(remaining_groups, usage_of_all, ["provider", "model"], by_list_cost=True)
        results.append(result)
        remaining_groups = result.unmatched
    for result in results:
        result.unmatched = result.unmatched.clear()
    results[-1].unmatched = remaining_groups
    split = DriverResult.combine(results)
    if split.shares.height:
        logged_quantities = usage.select("usage_row", logged="quantity").filter(
            ~pl.col("usage_row").is_in(counted_usage.implode())
        )
        is_first = pl.col("quantity").is_not_null() & pl.col("usage_row").is_first_distinct()
        shares = split.shares.sort("charge_group", "usage_row").join(
            logged_quantities, on="usage_row", how="left", maintain_order="left"
        )
        quantity = pl.when(is_first).then("logged")
        split.shares = shares.with_columns(quantity=quantity, flag=pl.lit("split_by_list_cost")).drop("logged")
        split.rates = split.rates.with_columns(level=pl.lit("model"))
    return split


_CLOUDS = ("AWS", "Google Cloud", "Microsoft", "Oracle")


def _driver_usage(usage: pl.DataFrame, pools: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Which usage drives each pool. Cloud, account and region must agree where both sides have them; every charge is split by itself, so one
    usage row may drive several pools. A place that only the caller states need not agree where no pool of that hour has it. (RA-1d)
    """
    hours = pools.join(pool_hours(pools), on=["pool_start", "pool_end"])
    optional_keys = [k for k in ("provider", *_PLACE) if k not in keys]
    assignment = usage.select(
        "usage_row",
        "usage_key",
        "own_meter",
        "quantity",
        "list_cost",
        "hour",
        *keys,
        *(pl.col(k).alias(f"use_{k}") for k in optional_keys),
        stated_by_caller=pl.col("caller_place").fill_null("").str.split(","),
    ).join(hours.select("pool", "hour", *keys, *optional_keys), on=[*keys, "hour"], nulls_equal=True)
    agrees_with_caller = pl.lit(value=True)
    for key in optional_keys:
        # A self-hosted model or a database has its vendor as provider, not the cloud it runs in.
        is_unknown = ~pl.col("use_provider").is_in(_CLOUDS) if key == "provider" else pl.col(f"use_{key}").is_null()
        agrees = is_unknown | pl.col(key).is_null() | (pl.col(key) == pl.col(f"use_{key}"))
        is_hint = pl.col("stated_by_caller").list.contains(key)
        assignment = assignment.filter(agrees.fill_null(value=True) | is_hint)
        agrees_with_caller = agrees_with_caller & (agrees.fill_null(value=True) | ~is_hint)
    has_agreement = agrees_with_caller.any().over("usage_row")
    assignment = assignment.filter(agrees_with_caller | ~has_agreement)
    return assignment.select("usage_row", "pool", "usage_key", "own_meter", "quantity", "list_cost")


def split_by_resource(groups: pl.DataFrame, usage: pl.DataFrame) -> list[DriverResult]:
    """Splits groups of a resource by the seconds it was used; by requests where no span of it has a duration."""
    seconds = usage.filter((pl.col("meter") == "seconds") & (pl.col("quantity") > 0))
    requests = usage.filter(pl.col("meter") == "requests")
    results: list[DriverResult] = []
    remaining_groups = groups.with_columns(meter_sold="meter").drop("meter")
    for driver_usage, is_provisioned in ((seconds, True), (seconds, False), (requests, False)):
        chosen = remaining_groups.filter(pl.col("provisioned")) if is_provisioned else remaining_groups
        result = split_by_quantity(chosen, driver_usage, ["resource"], is_provisioned=is_provisioned)
        results.append(result)
        if not is_provisioned:
            remaining_groups = result.unmatched
            continue
        # Capacity that logs show usage of in other periods, but none in this one, was idle.
        unused_groups = result.unmatched.filter(pl.col("resource").is_in(seconds["resource"].unique().implode()))
        result.idle = pl.concat([result.idle, unused_groups.with_columns(reason=pl.lit("idle_capacity"))], how="diagonal_relaxed")
        busy = pl.concat(
            [chosen.filter(~pl.col("charge_group").is_in(result.unmatched["charge_group"].implode())), unused_groups]
        )["charge_group"]
        remaining_groups = remaining_groups.filter(~pl.col("charge_group").is_in(busy.implode()))
    results[-1].unmatched = remaining_groups.with_columns(meter="meter_sold", reason=unmatched_reason()).drop("meter_sold")
    return results


def unmatched_reason() -> pl.Expr:
    """Why a charge matches no usage."""
    return (
        pl.when((pl.col("charge_category") == "Usage") & (pl.col("commitment_discount_status") == "Unused"))
        .then(pl.lit("unused_commitment"))
        .when(
            (pl.col("charge_category") == "Purchase")
            & pl.col("line_item_type").fill_null("").str.contains("^(RIFee|SavingsPlan)")
        )
        .then(pl.lit("commitment_purchase"))
        .when((pl.col("charge_category") == "Purchase") & (pl.col("effective_cost") == 0))
        .then(pl.lit("commitment_purchase"))
        .when(pl.col("charge_category") == "Purchase")
        .then(pl.lit("fee"))
        .when(pl.col("unclassified"))
        .then(pl.lit("unclassified_sku"))
        .when(pl.col("sku_rule") == UNGROUPED)
        .then(pl.lit("ungrouped"))
        .otherwise(pl.lit("no_logged_use"))
    )
