"""Rating the bill: every charge meets the usage it pays for. (RA-1, RA-1a, RA-2, RA-3)

Pools are matched on all keys that both sides know, most keys first. What the bill has beyond the logs stays apart (`uncaptured`),
what a provisioned resource has beyond its use is `idle`; nothing is smeared over those who did log.

Terms: a *lot* is a sum of like charges (`attribution.billed`), a *use* is a row of `usage_hourly`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import polars as pl

from attribution.dimensions import WHO
from ledger.money import MONEY, split, weights
from ledger.tables import COST_COLUMNS, COSTS, TOKEN_METERS

OPTIONAL = ("account", "region", "resource", "principal")
"""Keys that a log or a bill may not know. Known on both sides they must agree; unknown on one side they are merged over."""

_BASE = ("currency", "provider", "model", "meter", "period_start", "period_end")
_TIERS = ("service_tier", "context_above")
_LONGEST = timedelta(days=400)


@dataclass(slots=True)
class Rated:
    """The outcome: shares of charges on uses, what is left of each lot, the rates, and the uses that found a charge."""

    shares: pl.DataFrame
    left: pl.DataFrame
    rates: pl.DataFrame
    used: pl.Series


def prepare(lots: pl.DataFrame) -> pl.DataFrame:
    """Lots under the names pools are matched by."""
    return lots.rename(
        {
            "sub_account_id": "account",
            "region_id": "region",
            "billing_currency": "currency",
            "charge_period_start": "period_start",
            "charge_period_end": "period_end",
            "billing_account_id": "billing_account",
            "service_name": "service",
        }
    )


def rate(lots: pl.DataFrame, uses: pl.DataFrame, tolerance: Decimal) -> Rated:
    """Holds token lots against logged tokens and drivers against seconds or requests.

    `lots` as from `prepare`, `uses` with a `use` row number. Amounts of `lots` that found no use are in `left`, with a `reason`.
    """
    shares: list[pl.DataFrame] = []
    rates: list[pl.DataFrame] = []
    keyed = uses.lazy().select(
        "use", "usage_key", "hour", "provider", "model", "meter", *_TIERS, *OPTIONAL, "quantity", "list_cost"
    )
    logged = keyed.filter(pl.col("meter").is_in(TOKEN_METERS)).collect()
    measured = keyed.filter(pl.col("meter").is_in(["seconds", "requests"])).collect()
    tokens = _Round(lots.filter(pl.col("role") == "tokens"), logged, tolerance)
    for drop_tiers in (False, True):
        for known, keys in _levels(tokens.lots, tokens.uses):
            tokens.match(known, keys, drop_tiers=drop_tiers)
    shares += tokens.told()
    rates += tokens.rates
    by_quantity = _by_driver(
        lots.filter((pl.col("role") == "driver") & pl.col("meter").is_in(TOKEN_METERS)),
        tokens.open_uses(),
        ["provider", "model", "meter"],
    )
    resource = lots.filter((pl.col("role") == "driver") & ~pl.col("meter").is_in(TOKEN_METERS).fill_null(value=False))
    by_time = _by_resource(resource, measured)
    shares += [by_quantity.shares, *(r.shares for r in by_time)]
    rates += [by_quantity.rates, *(r.rates for r in by_time)]
    left = pl.concat(
        [
            tokens.lots.drop("__known").with_columns(reason=pl.lit("uncaptured_usage")),
            by_quantity.left.with_columns(reason=pl.lit("uncaptured_usage")),
            *(r.left for r in by_time[-1:]),
            *(r.idle for r in by_time),
            lots.filter(pl.col("role") == "other").with_columns(reason=_why_other()),
        ],
        how="diagonal_relaxed",
    )
    used = pl.concat([tokens.used, by_quantity.used]).unique()
    return Rated(described(_together(shares), lots, uses), left, _together(rates), used)


def _together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    filled = [f for f in frames if f.height]
    return pl.concat(filled, how="diagonal_relaxed") if filled else pl.DataFrame()


def _why_other() -> pl.Expr:
    return (
        pl.when(
            (pl.col("charge_category") == "Purchase")
            & pl.col("line_item_type").fill_null("").str.contains("^(RIFee|SavingsPlan)")
        )
        .then(pl.lit("commitment_purchase"))
        .when((pl.col("charge_category") == "Purchase") & (pl.col("effective_cost") == 0))
        .then(pl.lit("commitment_purchase"))
        .when(pl.col("charge_category") == "Purchase")
        .then(pl.lit("fee"))
        .when(pl.col("ai"))
        .then(pl.lit("unclassified_sku"))
        .otherwise(pl.lit("no_logged_use"))
    )


def _known(frame: pl.DataFrame) -> pl.Expr:
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


def period_hours(lots: pl.DataFrame) -> pl.DataFrame:
    """Every charge period with each hour in it, so that hourly uses can be joined to hours, days and months alike."""
    periods = lots.select("period_start", "period_end").unique().filter(pl.col("period_end") - pl.col("period_start") <= _LONGEST)
    return periods.with_columns(
        hour=pl.datetime_ranges(
            pl.col("period_start").dt.truncate("1h"), pl.col("period_end"), "1h", closed="left", time_zone="UTC"
        )
    ).explode("hour")


class _Round:
    """Token lots and token uses, matched level by level; what a level leaves goes on to the next."""

    def __init__(self, lots: pl.DataFrame, uses: pl.DataFrame, tolerance: Decimal) -> None:
        self.lots = lots.with_columns(__known=_known(lots))
        self.uses = uses.with_columns(__known=_known(uses))
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

    def match(self, known: str, keys: tuple[str, ...], *, drop_tiers: bool) -> None:
        """Rates the lots that know `known` against the uses with which they share exactly `keys`."""
        others = [k for k in known.split(",") if k and k not in keys]
        uses = self.uses.filter(*(pl.col(k).is_not_null() for k in keys), *(pl.col(k).is_null() for k in others))
        lots = self.lots.filter(pl.col("__known") == known, pl.col("billed_quantity") > 0)
        if not uses.height or not lots.height:
            return
        pool = [*_BASE, *(() if drop_tiers else _TIERS), *keys]
        pools = (
            lots.group_by(pool)
            .agg(pl.col("billed_quantity").sum().alias("billed"), *(pl.col(c).sum() for c in COST_COLUMNS))
            .sort(pool)
            .with_row_index("pool")
        )
        took = _taken(uses, pools, pool)
        logged = took.group_by("pool").agg(logged=pl.col("quantity").sum(), list_at_book=_all_listed())
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
                    pl.when(pl.lit(bool(others) or drop_tiers)).then(pl.lit("coarse_match")),
                    separator=",",
                    ignore_nulls=True,
                ),
                pool_id=pl.concat_str([pl.col(k).cast(pl.String).fill_null("-") for k in pool], separator="|"),
                level=pl.lit(
                    "exact"
                    if not others and not drop_tiers
                    else "without " + ", ".join([*others, *(_TIERS if drop_tiers else ())])
                ),
            )
        )
        if pools.height:
            self._share(pools, pool, lots, took)

    def _share(self, pools: pl.DataFrame, pool: list[str], lots: pl.DataFrame, took: pl.DataFrame) -> None:
        mine = lots.join(pools.select(*pool, "pool", "pool_id", "denominator", "logged", "flag"), on=pool).sort("lot")
        took = took.join(pools.select("pool"), on="pool", how="semi")
        beyond = _excess(took, pools)
        parted = part(mine, took, COST_COLUMNS)
        self.shares.append(_paid_for(parted.filter(pl.col("use").is_not_null()), mine, beyond))
        rest = parted.filter(pl.col("use").is_null()).select("lot", *COST_COLUMNS).join(_unlogged(mine), on="lot")
        untouched = self.lots.filter(~pl.col("lot").is_in(mine["lot"].implode()))
        leftover = self.lots.drop("billed_quantity", *COST_COLUMNS).join(rest, on="lot")
        self.lots = pl.concat([untouched, leftover.select(untouched.columns)])
        # What was logged beyond this pool's bill may be what a coarser pool bills: it goes on, the rest of the use is done.
        carried = self.uses.drop("quantity").join(beyond, on="use").select(self.uses.columns)
        self.uses = pl.concat([self.uses.join(took.select("use"), on="use", how="anti"), carried])
        self.used = pl.concat([self.used, took["use"]])
        self.rates.append(pools.drop("pool"))


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


def _paid_for(shares: pl.DataFrame, lots: pl.DataFrame, beyond: pl.DataFrame) -> pl.DataFrame:
    """Shares with the quantity they pay for: once a use, however many lots its pool has, and without what lies beyond the bill."""
    first = lots.group_by("pool").agg(pl.col("lot").min().alias("__first"))
    out = shares.join(first, on="pool", how="left", maintain_order="left").join(
        beyond.rename({"quantity": "__beyond"}), on="use", how="left", maintain_order="left"
    )
    paid = pl.col("quantity") - pl.col("__beyond").fill_null(0)
    return out.with_columns(quantity=pl.when(pl.col("lot") == pl.col("__first")).then(paid)).drop("__first", "__beyond", "pool")


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


def _taken(uses: pl.DataFrame, pools: pl.DataFrame, pool: list[str]) -> pl.DataFrame:
    """Which pool each use falls into: use, pool, usage_key, quantity, list_cost."""
    hours = pools.select("pool", *pool).join(period_hours(pools), on=["period_start", "period_end"])
    shared = [k for k in pool if k not in ("currency", "period_start", "period_end")]
    took = (
        uses.lazy()
        .select("use", "usage_key", "quantity", "list_cost", "hour", *shared)
        .join(hours.lazy().select("pool", "hour", "period_start", "period_end", *shared), on=[*shared, "hour"])
        .collect()
    )
    if took["use"].n_unique() < took.height:
        # A use of several overlapping periods belongs to the shortest: the most specific statement about its hour.
        took = took.sort(pl.col("period_end") - pl.col("period_start"), "period_start", "pool").unique(
            "use", keep="first", maintain_order=True
        )
    return took.select("use", "pool", "usage_key", "quantity", "list_cost")


def part(lots: pl.DataFrame, took: pl.DataFrame, amounts: Sequence[str]) -> pl.DataFrame:
    """Each lot's amounts over the uses of its pool, exactly, and over a remainder row (use null) that comes last. (MO-1)

    `lots` has lot, pool, pool_id, flag, denominator and logged; `took` has pool, use, usage_key, quantity. A pool's uses go in the order of
    their usage_key. Returns lot, use, pool_id, flag, quantity and the amounts, so that millions of shares stay small; `described` puts
    the other words back.
    """
    # Most bills say the same in two or three cost columns: what is equal on every lot is split once.
    split_as = {c: next(d for d in amounts if lots[d].equals(lots[c])) for c in amounts}
    wanted, amounts = amounts, list(dict.fromkeys(split_as.values()))
    about = ("lot", "pool", *amounts)
    rows = pl.concat(
        [
            lots.select(about).join(took.select("pool", "use", "usage_key", "quantity"), on="pool"),
            lots.select(
                *about,
                use=pl.lit(None, dtype=pl.Int64),
                usage_key=pl.lit(None, dtype=pl.Int64),
                quantity=pl.col("denominator") - pl.col("logged"),
            ),
        ],
        how="diagonal_relaxed",
    ).with_columns(pl.col("quantity").cast(MONEY))
    rows = rows.with_columns(__weight=weights(rows, "quantity", "lot"), __last=pl.col("use").is_null())
    out = split(rows.lazy(), amounts=amounts, weight="__weight", pool="lot", order_by=["__last", "usage_key"]).collect()
    out = out.with_columns(pl.col(split_as[c]).alias(c) for c in wanted if c not in amounts)
    return out.drop("__weight", "__last", "usage_key").join(
        lots.select("lot", "pool_id", "flag"), on="lot", maintain_order="left"
    )


_TOLD = {*COSTS.schema, "sku_meter", "resource_id"} - {*COST_COLUMNS, "quantity", "pool_id", "reason"}
"""What a share repeats of its lot: the dimensions of costs, and what credits are matched by."""


def described(shares: pl.DataFrame, lots: pl.DataFrame, uses: pl.DataFrame) -> pl.DataFrame:
    """Shares with the words of their lot, and owner and dimensions of their use (``use_…`` where both sides have a say)."""
    if not shares.height:
        return shares
    words = lots.select(c for c in lots.columns if c in _TOLD)
    owner = uses.select(*(pl.col(c).alias(f"use_{c}") for c in (*OPTIONAL, "reason")), "usage_key", *WHO)
    # Lots and uses are numbered as they stand, so their words are gathered rather than joined.
    return pl.concat([shares, words[shares["lot"]], owner[shares["use"]]], how="horizontal")


@dataclass(slots=True)
class _Driven:
    shares: pl.DataFrame
    left: pl.DataFrame
    idle: pl.DataFrame
    rates: pl.DataFrame
    used: pl.Series


def _by_driver(lots: pl.DataFrame, uses: pl.DataFrame, keys: list[str], *, provisioned: bool = False) -> _Driven:
    """Splits lots without a comparable quantity by what used them; provisioned ones keep their idle part apart. (RA-3)"""
    none = _Driven(lots.clear(), lots, lots.clear(), pl.DataFrame(), pl.Series("use", [], dtype=pl.Int64))
    if not lots.height or not uses.height:
        return none
    pool = ["currency", *dict.fromkeys((*keys, "provider", *OPTIONAL[:2])), "period_start", "period_end"]
    pools = lots.select(pool).unique().sort(pool).with_row_index("pool")
    took = _driving(uses.filter(pl.col("quantity") > 0), pools, keys)
    if not took.height:
        return none
    pools = pools.join(
        took.group_by("pool").agg(logged=pl.col("quantity").sum(), list_at_book=_all_listed()), on="pool"
    ).with_columns(
        pool_id=pl.concat_str([pl.lit("driver"), *(pl.col(k).cast(pl.String).fill_null("-") for k in pool)], separator="|")
    )
    mine = lots.join(pools, on=pool, nulls_equal=True).sort("lot")
    capacity = pl.max_horizontal(pl.col("billed_quantity").fill_null(0), "logged") if provisioned else pl.col("logged")
    mine = mine.with_columns(denominator=capacity.cast(MONEY), flag=pl.lit(""))
    parted = part(mine, took, COST_COLUMNS)
    rest = parted.filter(pl.col("use").is_null()).select("lot", *COST_COLUMNS)
    idle = (
        lots.drop(*COST_COLUMNS).join(rest, on="lot").with_columns(reason=pl.lit("idle_capacity"))
        if provisioned
        else lots.clear()
    )
    rates = (
        mine.group_by(*pool, "pool_id", "denominator")
        .agg(*(pl.col(c).sum() for c in COST_COLUMNS), billed=pl.col("billed_quantity").sum(), logged=pl.col("logged").first())
        .with_columns(level=pl.lit("driver"), flag=pl.lit(""))
    )
    left = lots.filter(~pl.col("lot").is_in(mine["lot"].implode()))
    shares = _paid_for(
        parted.filter(pl.col("use").is_not_null()), mine, pl.DataFrame(schema={"use": pl.Int64, "quantity": MONEY})
    )
    return _Driven(shares, left, idle, rates, took["use"])


_CLOUDS = ("AWS", "Google Cloud", "Microsoft", "Oracle")


def _driving(uses: pl.DataFrame, pools: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Which uses drive each pool. What both sides know of cloud, account and region must agree; every charge is split on its own, so
    one use may drive several pools.
    """
    hours = pools.join(period_hours(pools), on=["period_start", "period_end"])
    known = [k for k in ("provider", *OPTIONAL[:2]) if k not in keys]
    took = uses.select(
        "use", "usage_key", "quantity", "list_cost", "hour", *keys, *(pl.col(k).alias(f"use_{k}") for k in known)
    ).join(hours.select("pool", "hour", *keys, *known), on=[*keys, "hour"])
    for key in known:
        # A self-hosted model or a database names its maker as provider, not the cloud it runs in.
        silent = ~pl.col("use_provider").is_in(_CLOUDS) if key == "provider" else pl.col(f"use_{key}").is_null()
        agrees = silent | pl.col(key).is_null() | (pl.col(key) == pl.col(f"use_{key}"))
        took = took.filter(agrees.fill_null(value=True))
    return took.select("use", "pool", "usage_key", "quantity", "list_cost")


def _all_listed() -> pl.Expr:
    """The list price of a pool's uses, where all of them have one: a part would pass for the whole."""
    return pl.when(pl.col("list_cost").is_not_null().all()).then(pl.col("list_cost").sum())


def _by_resource(lots: pl.DataFrame, uses: pl.DataFrame) -> list[_Driven]:
    """Lots of a resource, by the seconds its users held it; by requests where no span of it has a length."""
    seconds = uses.filter((pl.col("meter") == "seconds") & (pl.col("quantity") > 0))
    requests = uses.filter(pl.col("meter") == "requests")
    out: list[_Driven] = []
    rest = lots.with_columns(meter_sold="meter").drop("meter")
    for measured, provisioned in ((seconds, True), (seconds, False), (requests, False)):
        chosen = rest.filter(pl.col("provisioned")) if provisioned else rest
        driven = _by_driver(chosen, measured, ["resource"], provisioned=provisioned)
        out.append(driven)
        if not provisioned:
            rest = driven.left
            continue
        # Capacity whose users are known to the logs, in a period when none of them used it, stood idle.
        unused = driven.left.filter(pl.col("resource").is_in(seconds["resource"].unique().implode()))
        driven.idle = pl.concat([driven.idle, unused.with_columns(reason=pl.lit("idle_capacity"))], how="diagonal_relaxed")
        busy = pl.concat([chosen.filter(~pl.col("lot").is_in(driven.left["lot"].implode())), unused])["lot"]
        rest = rest.filter(~pl.col("lot").is_in(busy.implode()))
    out[-1].left = rest.with_columns(meter="meter_sold", reason=_why_other()).drop("meter_sold")
    return out
