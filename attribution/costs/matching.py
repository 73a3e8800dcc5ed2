"""Rating the bill: every charge meets the usage it pays for. (RA-1, RA-1a, RA-2, RA-3)

Pools are matched on all keys that both sides know, most keys first. What the bill has beyond the logs stays apart (`uncaptured`),
what a provisioned resource has beyond its use is `idle`; nothing is smeared over those who did log.

Terms: a *lot* is a sum of like charges (`attribution.costs.charge_groups`), a *use* is a row of `usage_hourly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Literal

import polars as pl

from attribution.columns import WHO
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
from ledger.money import MONEY, split, weights
from ledger.tables import COST_COLUMNS, COSTS, TOKEN_METERS

_BASE = ("currency", "provider", "model", "meter", "pool_start", "pool_end")
_TIER_DEFAULTS: Mapping[str, str | int] = {"service_tier": "standard", "context_above": 0}
"""What a tier is where nothing is said of it. Like other keys, tiers told on both sides must agree; silence meets any, last. (RA-1a)"""

Side = Literal["bill", "log"]
_SIDES: tuple[Side | None, ...] = (None, "bill", "log")
_MISSING_TIERS: tuple[dict[str, Side], ...] = tuple(
    {tier: side for tier, side in zip(_TIER_DEFAULTS, sides, strict=True) if side is not None}
    for sides in sorted(product(_SIDES, repeat=len(_TIER_DEFAULTS)), key=lambda sides: len(sides) - sides.count(None))
)
"""Which side says nothing of which tier: neither of none first, so that equals meet before silence is filled."""


@dataclass(slots=True)
class MatchResult:
    """The outcome: shares of charges on uses (lot, use, quantity and costs; `with_dimensions` gives them words), what is left of each lot, the
    rates, and the uses that found a charge.
    """

    shares: pl.DataFrame
    left: pl.DataFrame
    rates: pl.DataFrame
    used: pl.Series


def with_pool_keys(lots: pl.DataFrame) -> pl.DataFrame:
    """Lots under the names pools are matched by, with the hours their period is matched by."""
    return lots.rename(RATED_AS).with_columns(*pool_period("period_start", "period_end"))


def match_usage(lots: pl.DataFrame, uses: pl.DataFrame, tolerance: Decimal) -> MatchResult:
    """Holds token lots against logged tokens and drivers against seconds or requests.

    `lots` as from `with_pool_keys`, `uses` with a `use` row number. Amounts of `lots` that found no use are in `left`, with a `reason`.
    """
    shares: list[pl.DataFrame] = []
    rates: list[pl.DataFrame] = []
    keyed = uses.lazy().select(
        "use", "usage_key", "own_meter", "hour", "provider", "model", "meter", *_TIER_DEFAULTS, *OPTIONAL, "quantity", "list_cost"
    )
    logged = keyed.filter(pl.col("meter").is_in(TOKEN_METERS)).collect()
    measured = keyed.filter(pl.col("meter").is_in(["seconds", "requests"])).collect()
    tokens = _TokenMatcher(lots.filter(pl.col("role") == "tokens"), logged, tolerance)
    for silent in _MISSING_TIERS:
        for known, keys in _levels(tokens.lots, tokens.uses):
            tokens.match(known, keys, silent)
    shares += tokens.told()
    rates += tokens.rates
    by_quantity = drivers.split_by_quantity(
        lots.filter((pl.col("role") == "driver") & pl.col("meter").is_in(TOKEN_METERS)),
        tokens.open_uses(),
        ["provider", "model", "meter"],
    )
    resource = lots.filter((pl.col("role") == "driver") & ~pl.col("meter").is_in(TOKEN_METERS).fill_null(value=False))
    by_time = drivers.split_by_resource(resource, measured)
    shares += [by_quantity.shares, *(r.shares for r in by_time)]
    rates += [by_quantity.rates, *(r.rates for r in by_time)]
    left = pl.concat(
        [
            tokens.lots.drop("__known").with_columns(reason=pl.lit("uncaptured_usage")),
            by_quantity.left.with_columns(reason=pl.lit("uncaptured_usage")),
            *(r.left for r in by_time[-1:]),
            *(r.idle for r in by_time),
            lots.filter(pl.col("role") == "other").with_columns(reason=drivers.unmatched_reason()),
        ],
        how="diagonal_relaxed",
    )
    used = pl.concat([tokens.used, by_quantity.used]).unique()
    return MatchResult(combine(shares), left, combine(rates), used)


def _known_keys(frame: pl.DataFrame) -> pl.Expr:
    return pl.concat_str([pl.when(pl.col(c).is_not_null()).then(pl.lit(c)) for c in OPTIONAL], separator=",", ignore_nulls=True)


def _levels(lots: pl.DataFrame, uses: pl.DataFrame) -> list[tuple[str, tuple[str, ...]]]:
    """Every (what lots know, what both know), most shared keys first; ties in the order of OPTIONAL."""
    found = {
        (of_lots, tuple(k for k in OPTIONAL if k in of_lots.split(",") and k in of_uses.split(",")))
        for of_lots in lots["__known"].unique()
        for of_uses in uses["__known"].unique()
    }
    return sorted(
        found, key=lambda level: (-len(level[1]), -len(level[0].split(",")), [OPTIONAL.index(k) for k in level[1]], level[0])
    )


class _TokenMatcher:
    """Token lots and token uses, matched level by level; what a level leaves goes on to the next."""

    def __init__(self, lots: pl.DataFrame, uses: pl.DataFrame, tolerance: Decimal) -> None:
        self.lots = lots.with_columns(__known=_known_keys(lots))
        self.uses = uses.with_columns(__known=_known_keys(uses))
        self.tolerance = tolerance
        self.used = pl.Series("use", [], dtype=pl.Int64)
        self.shares: list[pl.DataFrame] = []
        self.rates: list[pl.DataFrame] = []

    def open_uses(self) -> pl.DataFrame:
        """Uses that no pool has taken yet."""
        return self.uses.join(self.used.to_frame(), on="use", how="anti") if self.used.len() else self.uses

    def told(self) -> list[pl.DataFrame]:
        """The shares; those of a use that was logged beyond everything billed say so."""
        beyond = self.uses.join(self.used.unique().to_frame(), on="use", how="semi")["use"].implode()
        matched = pl.col("flag").str.replace("overlogged,?", "").replace("", None)
        over = pl.when(pl.col("use").is_in(beyond)).then(pl.lit("overlogged"))
        flag = pl.concat_str(over, matched, separator=",", ignore_nulls=True)
        return [s.with_columns(flag=flag) for s in self.shares]

    def match(self, known: str, keys: tuple[str, ...], silent: Mapping[str, Side]) -> None:
        """Rates the lots that know `known` against the uses with which they share exactly `keys`, on tiers of which one side is silent."""
        others = [k for k in known.split(",") if k and k not in keys]
        told = {tier: pl.col(tier).ne(pl.lit(_TIER_DEFAULTS[tier])) for tier in silent}
        lots = self.lots.filter(
            pl.col("__known") == known,
            pl.col("billed_quantity") > 0,
            *(told[tier].not_() if side == "bill" else told[tier] for tier, side in silent.items()),
        )
        if not lots.height:
            return
        uses = self.uses.filter(
            *(pl.col(k).is_not_null() for k in keys),
            *(pl.col(k).is_null() for k in others),
            *(told[tier] if side == "bill" else told[tier].not_() for tier, side in silent.items()),
        )
        if not uses.height:
            return
        pool = [*_BASE, *(tier for tier in _TIER_DEFAULTS if tier not in silent), *keys]
        dropped = [*others, *silent]
        without = [pl.lit("without " + ", ".join(dropped))] if dropped else []
        pools = (
            lots.group_by(pool)
            .agg(pl.col("billed_quantity").sum().alias("billed"), *(pl.col(c).sum() for c in COST_COLUMNS))
            .sort(pool)
            .with_row_index("pool")
        )
        took = assign_usage(uses, pools, pool)
        logged = took.group_by("pool").agg(logged=pl.col("quantity").sum(), list_at_book=complete_list_cost())
        gap = (pl.col("billed") - pl.col("logged")).abs()
        near = gap <= (pl.col("billed") * pl.lit(self.tolerance, dtype=MONEY))
        pools = (
            pools.join(logged, on="pool")
            .filter(pl.col("logged") > 0)
            .sort("pool")
            .with_columns(
                denominator=pl.when(near).then("logged").otherwise(pl.max_horizontal("billed", "logged")),
                flag=pl.concat_str(
                    pl.when(~near & (pl.col("logged") > pl.col("billed"))).then(pl.lit("overlogged")),
                    pl.when(pl.lit(bool(dropped))).then(pl.lit("coarse_match")),
                    separator=",",
                    ignore_nulls=True,
                ),
                # Pools of two levels may share all their keys: the level tells them apart.
                pool_id=pl.concat_str([*(pl.col(k).cast(pl.String).fill_null("-") for k in pool), *without], separator="|"),
                level=pl.lit("exact") if not without else without[0],
            )
        )
        if pools.height:
            self._share(pools, pool, lots, took)

    def _share(self, pools: pl.DataFrame, pool: list[str], lots: pl.DataFrame, took: pl.DataFrame) -> None:
        mine = lots.join(pools.select(*pool, "pool", "pool_id", "denominator", "logged", "flag"), on=pool).sort("lot")
        took = took.join(pools.select("pool"), on="pool", how="semi")
        beyond = _excess(took, pools)
        parted = split_over_usage(mine, took, COST_COLUMNS)
        self.shares.append(with_paid_quantity(parted.filter(pl.col("use").is_not_null()), mine, beyond))
        rest = parted.filter(pl.col("use").is_null()).select("lot", *COST_COLUMNS).join(_unlogged(mine), on="lot")
        untouched = self.lots.filter(~pl.col("lot").is_in(mine["lot"].implode()))
        leftover = self.lots.drop("billed_quantity", *COST_COLUMNS).join(rest, on="lot")
        self.lots = pl.concat([untouched, leftover.select(untouched.columns)])
        # What was logged beyond this pool's bill may be what a coarser pool bills: it goes on, the rest of the use is done.
        carried = self.uses.drop("quantity").join(beyond, on="use").select(self.uses.columns)
        self.uses = pl.concat([self.uses.join(took.select("use"), on="use", how="anti"), carried])
        self.used = pl.concat([self.used, took["use"]])
        self.rates.append(pools.drop("pool").rename({"pool_start": "period_start", "pool_end": "period_end"}))


def _excess(took: pl.DataFrame, pools: pl.DataFrame) -> pl.DataFrame:
    """How much of each use lies beyond what its pool bills, by use; none where logs and bill agree within the tolerance."""
    over = took.select("use", "quantity", "pool").join(
        pools.filter(pl.col("flag").str.contains("overlogged")).select("pool", "billed", "logged"), on="pool"
    )
    if not over.height:
        return pl.DataFrame(schema={"use": pl.Int64, "quantity": MONEY})
    halves = [
        over.select("use", "quantity", rest=pl.lit(value=rest), part=part.cast(MONEY))
        for rest, part in ((False, pl.col("billed")), (True, pl.col("logged") - pl.col("billed")))
    ]
    both = pl.concat(halves)
    both = both.with_columns(__weight=weights(both, "part", "use"))
    out = split(both.lazy(), amounts=["quantity"], weight="__weight", pool="use", order_by=["rest"]).filter("rest")
    return out.select("use", "quantity").filter(pl.col("quantity") > 0).collect()


def _unlogged(lots: pl.DataFrame) -> pl.DataFrame:
    """How much of each lot's quantity no log tells of: its share of what the pool's bill has beyond the logs."""
    halves = [
        lots.select("lot", "billed_quantity", rest=pl.lit(value=rest), part=part)
        for rest, part in ((False, pl.col("logged")), (True, pl.col("denominator") - pl.col("logged")))
    ]
    both = pl.concat(halves).with_columns(pl.col("part").cast(MONEY))
    both = both.with_columns(__weight=weights(both, "part", "lot"))
    out = split(both.lazy(), amounts=["billed_quantity"], weight="__weight", pool="lot", order_by=["rest"]).filter("rest")
    return out.select("lot", "billed_quantity").collect()


_GROUP_DIMENSIONS = {*COSTS.schema, "sku_meter", "resource_id"} - {*COST_COLUMNS, "quantity", "pool_id", "reason"}
"""What a share repeats of its lot: the dimensions of costs, and what credits are matched by."""


def with_dimensions(shares: pl.DataFrame, lots: pl.DataFrame, uses: pl.DataFrame) -> pl.DataFrame:
    """Shares with the words of their lot, and owner and dimensions of their use (``use_…`` where both sides have a say).

    `lots` are all lots of the month in the order of their numbers, `uses` those that were rated.
    """
    if not shares.height:
        return shares
    words = lots.select(c for c in lots.columns if c in _GROUP_DIMENSIONS)
    owner = uses.select(*(pl.col(c).alias(f"use_{c}") for c in (*OPTIONAL, "reason")), "usage_key", "own_meter", *WHO)
    # Lots and uses are numbered as they stand, so their words are gathered rather than joined.
    return pl.concat([shares, words[shares["lot"]], owner[shares["use"]]], how="horizontal")
