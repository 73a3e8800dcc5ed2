"""Matching: every charge is matched with the usage it pays for. (RA-1, RA-1a, RA-2, RA-3)

Pools are matched on all keys that both sides have, most keys first. What the bill has beyond the logs is kept apart (`uncaptured`), what a
provisioned resource has beyond its use is `idle`; neither is charged to the usage that was logged.

A charge group (`charge_group` is its number) is a sum of like charges (`attribution.costs.charge_groups`), a usage row (`usage_row`) is a row of
`usage_hourly`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Literal

import polars as pl

from attribution.columns import CALLER, VARIANT, WHO
from attribution.costs import drivers
from attribution.costs.charge_groups import RATED_AS
from attribution.costs.pools import (
    OPTIONAL,
    assign_usage,
    combine,
    complete_list_cost,
    pool_period,
    split_over_usage,
    with_paid_quantity,
)
from attribution.usage.dimensions import fill_defaults
from ledger.money import MONEY, known_sum, split, weights
from ledger.settings import Defaults
from ledger.tables import COST_COLUMNS, COSTS, TOKEN_METERS

_BASE = ("currency", "provider", "model", "meter", "pool_start", "pool_end")
_TIER_DEFAULTS: Mapping[str, str | int] = {"service_tier": "standard", "context_above": 0}
"""The value of a tier that was not stated. Tiers stated on both sides must agree; a default matches any, after exact matches. (RA-1a)"""

Side = Literal["bill", "log"]
_SIDES: tuple[Side | None, ...] = (None, "bill", "log")
_MISSING_TIERS: tuple[dict[str, Side], ...] = tuple(
    {tier: side for tier, side in zip(_TIER_DEFAULTS, sides, strict=True) if side is not None}
    for sides in sorted(product(_SIDES, repeat=len(_TIER_DEFAULTS)), key=lambda sides: len(sides) - sides.count(None))
)
"""Which side lacks which tier: none first, so that equal tiers are matched before defaults."""


@dataclass(slots=True)
class MatchResult:
    """Shares of charge groups on usage rows, the unmatched part of each group, the rates, and the usage rows that a charge pays for.

    `shares` has charge_group, usage_row, quantity and cost columns; `with_dimensions` adds the other columns.
    """

    shares: pl.DataFrame
    unmatched: pl.DataFrame
    rates: pl.DataFrame
    matched_usage: pl.Series


def with_pool_keys(groups: pl.DataFrame) -> pl.DataFrame:
    """Charge groups under the names that pools are matched by, with the hours that their period stands for."""
    return groups.rename(RATED_AS).with_columns(*pool_period("period_start", "period_end"))


def match_usage(groups: pl.DataFrame, usage: pl.DataFrame, tolerance: Decimal, defaults: Sequence[Defaults] = ()) -> MatchResult:
    """Matches token charges with logged tokens, and other charges with the seconds or requests that used their resource.

    The place that only a caller states is tried first, then replaced by the settings' `defaults`, if any. (RA-1d)
    `groups` are as from `with_pool_keys`, `usage` has a row number `usage_row`. Amounts of `groups` that match no usage are in `unmatched`, with a `reason`.
    """
    shares: list[pl.DataFrame] = []
    rates: list[pl.DataFrame] = []
    usage = usage.with_columns(pl.lit(None, dtype=pl.String).alias(c) for c in (*CALLER, *VARIANT) if c not in usage.columns)
    key_columns = usage.lazy().select(
        "usage_row",
        "usage_key",
        "own_meter",
        "hour",
        "provider",
        "model",
        "meter",
        *_TIER_DEFAULTS,
        *OPTIONAL,
        "quantity",
        "list_cost",
        *CALLER,
    )
    token_usage = key_columns.filter(pl.col("meter").is_in(TOKEN_METERS)).collect()
    driver_usage = key_columns.filter(pl.col("meter").is_in(["seconds", "requests"])).collect()
    tokens = _TokenMatcher(groups.filter(pl.col("role") == "tokens"), token_usage, tolerance)
    tokens.match_all(defaults)
    shares += tokens.flagged_shares()
    rates += tokens.rates
    token_drivers = drivers.split_by_quantity(
        groups.filter((pl.col("role") == "driver") & pl.col("meter").is_in(TOKEN_METERS)),
        tokens.open_usage(),
        ["provider", "model", "meter"],
    )
    resource_groups = groups.filter((pl.col("role") == "driver") & ~pl.col("meter").is_in(TOKEN_METERS).fill_null(value=False))
    resource_drivers = drivers.split_by_resource(resource_groups, driver_usage)
    shares += [token_drivers.shares, *(r.shares for r in resource_drivers)]
    rates += [token_drivers.rates, *(r.rates for r in resource_drivers)]
    unmatched_groups = pl.concat(
        [
            tokens.groups.drop("__known").with_columns(reason=pl.lit("uncaptured_usage")),
            token_drivers.unmatched.with_columns(reason=pl.lit("uncaptured_usage")),
            *(r.unmatched for r in resource_drivers[-1:]),
            *(r.idle for r in resource_drivers),
            groups.filter(pl.col("role") == "other").with_columns(reason=drivers.unmatched_reason()),
        ],
        how="diagonal_relaxed",
    )
    matched_usage = pl.concat([tokens.matched_usage, token_drivers.matched_usage]).unique()
    return MatchResult(combine(shares), unmatched_groups, combine(rates), matched_usage)


def _known_keys(frame: pl.DataFrame) -> pl.Expr:
    return pl.concat_str([pl.when(pl.col(c).is_not_null()).then(pl.lit(c)) for c in OPTIONAL], separator=",", ignore_nulls=True)


def _with_known_keys(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(__known=_known_keys(frame))


def _levels(groups: pl.DataFrame, usage: pl.DataFrame) -> list[tuple[str, tuple[str, ...]]]:
    """Every pair of (keys the groups have, keys both sides have), most shared keys first; ties in the order of OPTIONAL."""
    levels = {
        (group_keys, tuple(k for k in OPTIONAL if k in group_keys.split(",") and k in usage_keys.split(",")))
        for group_keys in groups["__known"].unique()
        for usage_keys in usage["__known"].unique()
    }
    return sorted(
        levels, key=lambda level: (-len(level[1]), -len(level[0].split(",")), [OPTIONAL.index(k) for k in level[1]], level[0])
    )


def without_caller_place(usage: pl.DataFrame, defaults: Sequence[Defaults] = ()) -> pl.DataFrame:
    """Usage without the accounts and regions that only the caller states; the settings' `defaults` take their place. (RA-1d)

    >>> usage = pl.DataFrame({"provider": ["AWS"], "account": ["1111"], "region": ["us-east-1"], "caller_place": ["region"]})
    >>> without_caller_place(usage).row(0)
    ('AWS', '1111', None, None)
    """
    if "caller_place" not in usage.columns or not usage["caller_place"].count():
        return usage
    is_stated = pl.col("caller_place").str.split(",").list
    frame = usage.with_columns(
        *(pl.when(~is_stated.contains(key).fill_null(value=False)).then(key).alias(key) for key in ("account", "region")),
        caller_place=pl.lit(None, dtype=pl.String),
    )
    return fill_defaults(frame, defaults)


class _TokenMatcher:
    """Token charge groups and token usage, matched level by level; what one level leaves unmatched goes on to the next."""

    def __init__(self, groups: pl.DataFrame, usage: pl.DataFrame, tolerance: Decimal) -> None:
        self.groups = _with_known_keys(groups)
        self.usage = _with_known_keys(usage)
        self.tolerance = tolerance
        self.matched_usage = pl.Series("usage_row", [], dtype=pl.Int64)
        self.caller_places = usage.filter(pl.col("caller_place").is_not_null()).select(
            "usage_row", "account", "region", "caller_place"
        )
        self.placeless_shares: set[int] = set()
        self.shares: list[pl.DataFrame] = []
        self.rates: list[pl.DataFrame] = []

    def match_all(self, defaults: Sequence[Defaults]) -> None:
        """Matches by stated release, version and geography first, then without; each with the caller's place, then without. (RA-1c, RA-1d)

        So a call that states its release meets the SKU of that release, wherever its caller runs, before a call that states none.
        """
        for has_variant in (True, False):
            if not self.match_levels(has_variant=has_variant) or not self.caller_places.height:
                continue
            shares_before, usage = len(self.shares), self.usage
            is_hinted = pl.col("usage_row").is_in(self.caller_places["usage_row"].implode())
            self.usage = pl.concat(
                [usage.filter(~is_hinted), _with_known_keys(without_caller_place(usage.filter(is_hinted), defaults))]
            )
            self.match_levels(has_variant=has_variant)
            self.placeless_shares.update(range(shares_before, len(self.shares)))
            hinted_usage = self.usage.filter(is_hinted).drop("account", "region", "caller_place")
            hinted_usage = hinted_usage.join(self.caller_places, on="usage_row", maintain_order="left")
            self.usage = pl.concat([self.usage.filter(~is_hinted), _with_known_keys(hinted_usage.select(usage.columns))])

    def match_levels(self, *, has_variant: bool) -> bool:
        """Matches at every level where what a SKU states of its model is shared, or is not; whether there is any such level.

        Equal tiers come before defaults, most shared keys first.
        """
        levels = [
            (known_keys, keys)
            for known_keys, keys in _levels(self.groups, self.usage)
            if has_variant == all(key in keys for key in VARIANT if key in known_keys.split(","))
        ]
        for missing_tiers in _MISSING_TIERS:
            for known_keys, keys in levels:
                self.match(known_keys, keys, missing_tiers)
        return bool(levels)

    def open_usage(self) -> pl.DataFrame:
        """Usage rows that no pool has taken yet."""
        return (
            self.usage.join(self.matched_usage.to_frame(), on="usage_row", how="anti") if self.matched_usage.len() else self.usage
        )

    def flagged_shares(self) -> list[pl.DataFrame]:
        """The shares; usage that was logged beyond everything billed is flagged `overlogged`."""
        overlogged_usage = self.usage.join(self.matched_usage.unique().to_frame(), on="usage_row", how="semi")[
            "usage_row"
        ].implode()
        pool_flag = pl.col("flag").str.replace("overlogged,?", "").replace("", None)
        overlogged_flag = pl.when(pl.col("usage_row").is_in(overlogged_usage)).then(pl.lit("overlogged"))
        is_placeless = pl.col("usage_row").is_in(self.caller_places["usage_row"].implode())
        placeless_flag = pl.when(is_placeless).then(pl.lit("caller_place"))
        return [
            shares.with_columns(
                flag=pl.concat_str(
                    overlogged_flag,
                    *([placeless_flag] if number in self.placeless_shares else []),
                    pool_flag,
                    separator=",",
                    ignore_nulls=True,
                )
            )
            for number, shares in enumerate(self.shares)
        ]

    def match(self, known_keys: str, keys: tuple[str, ...], missing_tiers: Mapping[str, Side]) -> None:
        """Matches groups that have exactly `known_keys` with usage that shares exactly `keys`, where one side lacks the `missing_tiers`."""
        unshared_keys = [k for k in known_keys.split(",") if k and k not in keys]
        tier_is_known = {tier: pl.col(tier).ne(pl.lit(_TIER_DEFAULTS[tier])) for tier in missing_tiers}
        groups = self.groups.filter(
            pl.col("__known") == known_keys,
            pl.col("billed_quantity") > 0,
            *(tier_is_known[tier].not_() if side == "bill" else tier_is_known[tier] for tier, side in missing_tiers.items()),
        )
        if not groups.height:
            return
        usage = self.usage.filter(
            *(pl.col(k).is_not_null() for k in keys),
            *(pl.col(k).is_null() for k in unshared_keys),
            *(tier_is_known[tier] if side == "bill" else tier_is_known[tier].not_() for tier, side in missing_tiers.items()),
        )
        if not usage.height:
            return
        pool = [*_BASE, *(tier for tier in _TIER_DEFAULTS if tier not in missing_tiers), *keys]
        dropped_keys = [*unshared_keys, *missing_tiers]
        level_names = [pl.lit("without " + ", ".join(dropped_keys))] if dropped_keys else []
        pools = (
            groups.group_by(pool)
            .agg(pl.col("billed_quantity").sum().alias("billed"), *(known_sum(c) for c in COST_COLUMNS))
            .sort(pool)
            .with_row_index("pool")
        )
        assignment = assign_usage(usage, pools, pool)
        logged_sums = assignment.group_by("pool").agg(logged=pl.col("quantity").sum(), list_at_book=complete_list_cost())
        gap = (pl.col("billed") - pl.col("logged")).abs()
        is_within_tolerance = gap <= (pl.col("billed") * pl.lit(self.tolerance, dtype=MONEY))
        pools = (
            pools.join(logged_sums, on="pool")
            .filter(pl.col("logged") > 0)
            .sort("pool")
            .with_columns(
                denominator=pl.when(is_within_tolerance).then("logged").otherwise(pl.max_horizontal("billed", "logged")),
                flag=pl.concat_str(
                    pl.when(~is_within_tolerance & (pl.col("logged") > pl.col("billed"))).then(pl.lit("overlogged")),
                    pl.when(pl.lit(bool(dropped_keys))).then(pl.lit("coarse_match")),
                    separator=",",
                    ignore_nulls=True,
                ),
                # Pools of two levels may share all their keys: the level tells them apart.
                pool_id=pl.concat_str([*(pl.col(k).cast(pl.String).fill_null("-") for k in pool), *level_names], separator="|"),
                level=pl.lit("exact") if not level_names else level_names[0],
            )
        )
        if pools.height:
            self._split_pools(pools, pool, groups, assignment)

    def _split_pools(self, pools: pl.DataFrame, pool: list[str], groups: pl.DataFrame, assignment: pl.DataFrame) -> None:
        pool_groups = groups.join(pools.select(*pool, "pool", "pool_id", "denominator", "logged", "flag"), on=pool).sort(
            "charge_group"
        )
        assignment = assignment.join(pools.select("pool"), on="pool", how="semi")
        excess = _excess(assignment, pools)
        parts = split_over_usage(pool_groups, assignment, COST_COLUMNS)
        self.shares.append(with_paid_quantity(parts.filter(pl.col("usage_row").is_not_null()), pool_groups, excess))
        remainder = (
            parts.filter(pl.col("usage_row").is_null())
            .select("charge_group", *COST_COLUMNS)
            .join(_unlogged(pool_groups), on="charge_group")
        )
        other_groups = self.groups.filter(~pl.col("charge_group").is_in(pool_groups["charge_group"].implode()))
        remaining_groups = self.groups.drop("billed_quantity", *COST_COLUMNS).join(remainder, on="charge_group")
        self.groups = pl.concat([other_groups, remaining_groups.select(other_groups.columns)])
        # What was logged beyond this pool's bill may be billed by a coarser pool: it goes on, the other part is matched.
        remaining_usage = self.usage.drop("quantity").join(excess, on="usage_row").select(self.usage.columns)
        self.usage = pl.concat([self.usage.join(assignment.select("usage_row"), on="usage_row", how="anti"), remaining_usage])
        self.matched_usage = pl.concat([self.matched_usage, assignment["usage_row"]])
        self.rates.append(pools.drop("pool").rename({"pool_start": "period_start", "pool_end": "period_end"}))


def _excess(assignment: pl.DataFrame, pools: pl.DataFrame) -> pl.DataFrame:
    """How much of each usage row lies beyond what its pool bills, by usage_row; none where logs and bill agree within the tolerance."""
    overlogged_rows = assignment.select("usage_row", "quantity", "pool").join(
        pools.filter(pl.col("flag").str.contains("overlogged")).select("pool", "billed", "logged"), on="pool"
    )
    if not overlogged_rows.height:
        return pl.DataFrame(schema={"usage_row": pl.Int64, "quantity": MONEY})
    halves = [
        overlogged_rows.select("usage_row", "quantity", rest=pl.lit(value=is_rest), part=part.cast(MONEY))
        for is_rest, part in ((False, pl.col("billed")), (True, pl.col("logged") - pl.col("billed")))
    ]
    parts = pl.concat(halves)
    parts = parts.with_columns(__weight=weights(parts, "part", "usage_row"))
    out = split(parts.lazy(), amounts=["quantity"], weight="__weight", pool="usage_row", order_by=["rest"]).filter("rest")
    return out.select("usage_row", "quantity").filter(pl.col("quantity") > 0).collect()


def _unlogged(groups: pl.DataFrame) -> pl.DataFrame:
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


_GROUP_DIMENSIONS = {*COSTS.schema, "sku_meter", "resource_id"} - {*COST_COLUMNS, "quantity", "pool_id", "reason"}
"""Columns that a share repeats of its charge group: the dimensions of costs, and what credits are matched by."""


def with_dimensions(shares: pl.DataFrame, groups: pl.DataFrame, usage: pl.DataFrame) -> pl.DataFrame:
    """Shares with the dimensions of their charge group, and owner and dimensions of their usage row (``use_…`` where both sides have them).

    `groups` are all groups of the month in the order of their numbers, `usage` the rows that were matched.
    """
    if not shares.height:
        return shares
    group_columns = groups.select(c for c in groups.columns if c in _GROUP_DIMENSIONS)
    usage_columns = usage.select(
        *(pl.col(c).alias(f"use_{c}") for c in (*OPTIONAL, "reason")), "usage_key", "own_meter", *WHO, usage_hour="hour"
    )
    # Groups and usage are numbered in row order, so their columns are gathered rather than joined.
    return pl.concat([shares, group_columns[shares["charge_group"]], usage_columns[shares["usage_row"]]], how="horizontal")
