"""Charges of a meter matched with what calls used of it, level by level: the pools with most shared keys first. (RA-1a, RA-2, RA-2a)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Literal

import polars as pl

from attribution.columns import VARIANT
from attribution.costs.pools import (
    OPTIONAL,
    assign_usage,
    complete_list_cost,
    excess_usage,
    split_over_usage,
    unlogged_quantity,
    with_paid_quantity,
)
from attribution.costs.running_periods import in_order_of_time, is_running
from attribution.usage.dimensions import fill_defaults
from ledger.money import MONEY, known_sum
from ledger.settings import Defaults
from ledger.tables import COST_COLUMNS

_BASE = ("currency", "provider", "model", "meter", "pool_start", "pool_end")
TIER_DEFAULTS: Mapping[str, str | int] = {"service_tier": "standard", "context_above": 0}
"""The value of a tier that was not stated. Tiers stated on both sides must agree; a default matches any, after exact matches. (RA-1a)"""

_OWNER_KEYS: tuple[tuple[str, ...], ...] = (("owner_agent",), ("owner_team",), ())
"""Whose charges a call is matched with at one level: its executor's agent's, its executor's team's, anybody's. (RA-2a)"""

MAX_OFFERS = 100
"""How many pools of one level the usage of an hour is offered to, one after the other: a bill has periods of an hour, a day and a month."""

Side = Literal["bill", "log"]
_SIDES: tuple[Side | None, ...] = (None, "bill", "log")
_MISSING_TIERS: tuple[dict[str, Side], ...] = tuple(
    {tier: side for tier, side in zip(TIER_DEFAULTS, sides, strict=True) if side is not None}
    for sides in sorted(product(_SIDES, repeat=len(TIER_DEFAULTS)), key=lambda sides: len(sides) - sides.count(None))
)
"""Which side lacks which tier: none first, so that equal tiers are matched before defaults."""


def _known_keys(frame: pl.DataFrame) -> pl.Expr:
    return pl.concat_str([pl.when(pl.col(c).is_not_null()).then(pl.lit(c)) for c in OPTIONAL], separator=",", ignore_nulls=True)


def _with_known_keys(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(__known=_known_keys(frame))


def _levels(groups: pl.DataFrame, usage: pl.DataFrame) -> list[tuple[str, tuple[str, ...]]]:
    """Every pair of (keys the groups have, keys both sides have), most shared keys first; of as many, groups without further keys first,
    since they match exactly; ties in the order of OPTIONAL.
    """
    levels = {
        (group_keys, tuple(k for k in OPTIONAL if k in group_keys.split(",") and k in usage_keys.split(",")))
        for group_keys in groups["__known"].unique()
        for usage_keys in usage["__known"].unique()
    }

    def order(level: tuple[str, tuple[str, ...]]) -> tuple[int, int, list[int], str]:
        group_keys, shared_keys = level
        further = len(group_keys.split(",")) if group_keys else 0
        return -len(shared_keys), further, [OPTIONAL.index(k) for k in shared_keys], group_keys

    return sorted(levels, key=order)


def _shares_variant(known_keys: str, keys: Sequence[str]) -> bool:
    """Whether charges with `known_keys` state something of their model beside its family, and `keys` has all of that. (RA-1c)

    >>> [_shares_variant(known, ("region", "release")) for known in ("release,region", "release,geography", "region")]
    [True, False, False]
    """
    variant_keys = [key for key in known_keys.split(",") if key in VARIANT]
    return bool(variant_keys) and set(variant_keys) <= set(keys)


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


@dataclass(frozen=True, slots=True)
class _Level:
    """The keys that the pools of one step share, those that one side lacks, whose charges they are, and how often usage was offered."""

    pool: list[str]
    dropped_keys: list[str]
    owner_keys: tuple[str, ...]
    offer: int

    @property
    def names(self) -> list[str]:
        """What sets this step apart from an exact match."""
        return [
            *(["without " + ", ".join(self.dropped_keys)] if self.dropped_keys else []),
            *(key.replace("_", " ") for key in self.owner_keys),
            *([f"offer {self.offer}"] if self.offer > 1 else []),
        ]


class TokenMatcher:
    """Charge groups and usage of tokens and other meters, matched level by level; what one level leaves unmatched goes on to the next."""

    def __init__(self, groups: pl.DataFrame, usage: pl.DataFrame, tolerance: Decimal) -> None:
        self.groups = _with_known_keys(groups)
        self.usage = _with_known_keys(usage)
        self.tolerance = tolerance
        self.matched_usage = pl.Series("usage_row", [], dtype=pl.Int64)
        self.late_usage = pl.Series("usage_row", [], dtype=pl.Int64)
        self.caller_places = usage.filter(pl.col("caller_place").is_not_null()).select(
            "usage_row", "account", "region", "caller_place"
        )
        self.placeless_shares: set[int] = set()
        self.shares: list[pl.DataFrame] = []
        self.rates: list[pl.DataFrame] = []
        self.overlogged: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        """Of each step in which more was logged than billed: the pool of each usage row, and those pools."""

    @property
    def unmatched(self) -> pl.DataFrame:
        """The unmatched part of each charge group, with `is_met`: whether some of it was matched."""
        met_groups = (
            pl.concat([shares["charge_group"] for shares in self.shares]) if self.shares else pl.Series([], dtype=pl.Int64)
        )
        return self.groups.drop("__known").with_columns(is_met=pl.col("charge_group").is_in(met_groups.unique().implode()))

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
        """Matches at every level where a SKU states something of its model that calls share, or where it does not; whether there is any such level.

        Equal tiers come before defaults, most shared keys first.
        """
        levels = [
            (known_keys, keys)
            for known_keys, keys in _levels(self.groups, self.usage)
            if has_variant == _shares_variant(known_keys, keys)
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

    def flagged_shares(self, surplus_usage: pl.DataFrame) -> list[pl.DataFrame]:
        """The shares; usage that was logged beyond everything billed, `surplus_usage`, is flagged `overlogged`."""
        overlogged_usage = surplus_usage.join(self.matched_usage.unique().to_frame(), on="usage_row", how="semi")[
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
        """Matches groups that have exactly `known_keys` with usage that shares exactly `keys`, where one side lacks the `missing_tiers`.

        Groups whose owner is the executor's agent come first, then those of its team, then all; what usage has beyond its pool is offered to the
        others before the next step. (RA-2a)
        """
        unshared_keys = [k for k in known_keys.split(",") if k and k not in keys]
        tier_is_known = {tier: pl.col(tier).ne(pl.lit(TIER_DEFAULTS[tier])) for tier in missing_tiers}
        is_group = pl.all_horizontal(
            pl.col("__known") == known_keys,
            pl.col("billed_quantity") > 0,
            *(tier_is_known[tier].not_() if side == "bill" else tier_is_known[tier] for tier, side in missing_tiers.items()),
        )
        is_usage = pl.all_horizontal(
            pl.lit(value=True),
            *(pl.col(k).is_not_null() for k in keys),
            *(pl.col(k).is_null() for k in unshared_keys),
            *(tier_is_known[tier] if side == "bill" else tier_is_known[tier].not_() for tier, side in missing_tiers.items()),
        )
        if not self.groups.filter(is_group).height or not self.usage.filter(is_usage).height:
            return
        pool = [*_BASE, *(tier for tier in TIER_DEFAULTS if tier not in missing_tiers), *keys]
        for owner_keys in _OWNER_KEYS:
            is_owner = pl.all_horizontal(pl.lit(value=True), *(pl.col(k).is_not_null() for k in owner_keys))
            for offer in range(1, MAX_OFFERS + 1):
                groups, usage = self.groups.filter(is_group, is_owner), self.usage.filter(is_usage, is_owner)
                if not groups.height or not usage.height:
                    break
                level = _Level([*pool, *owner_keys], [*unshared_keys, *missing_tiers], owner_keys, offer)
                if not self._match_level(groups, usage, level):
                    break

    def _match_level(self, groups: pl.DataFrame, usage: pl.DataFrame, level: _Level) -> bool:
        """Matches groups and usage that share the level's keys; whether usage was left over that other pools may take."""
        pools = (
            groups.group_by(level.pool)
            .agg(
                pl.col("billed_quantity").sum().alias("billed"), *(known_sum(c) for c in COST_COLUMNS), running=is_running().any()
            )
            .sort(level.pool)
            .with_row_index("pool")
        )
        tolerance = pl.lit(self.tolerance, dtype=MONEY)
        assignment, late_usage = in_order_of_time(assign_usage(usage, pools, level.pool), pools, tolerance)
        logged_sums = assignment.group_by("pool").agg(logged=pl.col("quantity").sum(), list_at_book=complete_list_cost())
        gap = (pl.col("billed") - pl.col("logged")).abs()
        is_within_tolerance = gap <= pl.col("billed") * tolerance
        pools = (
            pools.join(logged_sums, on="pool")
            .filter(pl.col("logged") > 0)
            .sort("pool")
            .with_columns(
                denominator=pl.when(is_within_tolerance).then("logged").otherwise(pl.max_horizontal("billed", "logged")),
                flag=pl.concat_str(
                    pl.when(~is_within_tolerance & (pl.col("logged") > pl.col("billed"))).then(pl.lit("overlogged")),
                    pl.when(pl.lit(bool(level.dropped_keys))).then(pl.lit("coarse_match")),
                    separator=",",
                    ignore_nulls=True,
                ),
                # Pools of two levels may share all their keys: the level tells them apart.
                pool_id=pl.concat_str(
                    [*(pl.col(k).cast(pl.String).fill_null("-") for k in level.pool), *map(pl.lit, level.names)], separator="|"
                ),
                level=pl.lit("without " + ", ".join(level.dropped_keys) if level.dropped_keys else "exact"),
            )
        )
        return bool(pools.height) and self._split_pools(pools, level.pool, groups, assignment, late_usage)

    def _split_pools(
        self, pools: pl.DataFrame, pool: list[str], groups: pl.DataFrame, assignment: pl.DataFrame, late_usage: pl.DataFrame
    ) -> bool:
        pool_columns = pools.select(*pool, "pool", "pool_id", "denominator", "logged", "flag")
        pool_groups = groups.join(pool_columns, on=pool, nulls_equal=True).sort("charge_group")
        assignment = assignment.join(pools.select("pool"), on="pool", how="semi")
        excess = excess_usage(assignment, pools)
        parts = split_over_usage(pool_groups, assignment, COST_COLUMNS)
        self.shares.append(with_paid_quantity(parts.filter(pl.col("usage_row").is_not_null()), pool_groups, excess))
        remainder = (
            parts.filter(pl.col("usage_row").is_null())
            .select("charge_group", *COST_COLUMNS)
            .join(unlogged_quantity(pool_groups), on="charge_group")
        )
        other_groups = self.groups.filter(~pl.col("charge_group").is_in(pool_groups["charge_group"].implode()))
        remaining_groups = self.groups.drop("billed_quantity", *COST_COLUMNS).join(remainder, on="charge_group")
        self.groups = pl.concat([other_groups, remaining_groups.select(other_groups.columns)])
        # What was logged beyond this pool's bill, or later, may be billed by a coarser pool: it goes on, the other part is matched.
        remainders = pl.concat([excess, late_usage.join(assignment, on="usage_row", how="semi")])
        remaining_usage = self.usage.drop("quantity", "list_cost").join(remainders, on="usage_row").select(self.usage.columns)
        self.usage = pl.concat([self.usage.join(assignment.select("usage_row"), on="usage_row", how="anti"), remaining_usage])
        self.matched_usage = pl.concat([self.matched_usage, assignment["usage_row"]])
        if excess.height:
            pools_beyond = pools.filter(pl.col("flag").str.contains("overlogged"))
            self.overlogged.append((assignment.select("usage_row", "pool"), pools_beyond.select("pool", "billed", "logged")))
        self.rates.append(pools.drop("pool").rename({"pool_start": "period_start", "pool_end": "period_end"}))
        self.late_usage = pl.concat([self.late_usage, late_usage["usage_row"]])
        return bool(excess.height or late_usage.height)
