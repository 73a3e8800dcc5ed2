"""Corrections: credits and refunds follow the charges they correct, by the same weights and with their sign. (RA-5)

They also follow charges of earlier invoices, by the costs published for those. Taxes are in `attribution.costs.taxes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from attribution.columns import WHO
from ledger.money import MONEY, split, weights
from ledger.tables import COST_COLUMNS, COSTS

Time = Literal["same", "within", "overlap", "any"]
"""How the period of a charge lies to that of its correction: the same, within it, overlapping it, or at any time of the invoice."""

_SKU, _RESOURCE = ("service", "sku_meter"), ("service", "sku_meter", "resource_id")
_FOLLOW: tuple[tuple[tuple[str, ...], Time], ...] = (
    (_RESOURCE, "same"),
    (_SKU, "same"),
    (_RESOURCE, "within"),
    (_SKU, "within"),
    (_RESOURCE, "overlap"),
    (_SKU, "overlap"),
    (_SKU, "any"),
    (("service",), "within"),
    (("service",), "overlap"),
    (("service",), "any"),
    ((), "within"),
    ((), "overlap"),
    ((), "any"),
)
"""What a credit and the charge it corrects have in common, most specific first, and always currency, provider and payer; the account
too, where the credit names one. A credit that names a SKU or a service is never spread beyond it.
"""

INHERITED = ("cost_class", *WHO, "model", "meter", "usage_key", "resource", "region", "principal")
"""Columns that a following row copies from the cost it follows."""

MATCHED_BY = (
    "currency",
    "provider",
    "billing_account",
    "account",
    "service",
    "sku_meter",
    "resource_id",
    "invoice_id",
    "period_start",
    "period_end",
)
"""Columns that costs are found by, beside INHERITED and the four cost columns."""

_BILL = ("currency", "provider")
_PAYER = (*_BILL, "billing_account")
_PERIOD = ("period_start", "period_end")
_CANDIDATE_COLUMNS = (*MATCHED_BY, *(c for c in INHERITED if c not in MATCHED_BY), *COST_COLUMNS)
_MAX_PAIRS = 5_000_000
"""Beyond this many pairs of a credit and a cost, hours and single calls are aggregated, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class _Level:
    """One way to find what a row follows: keys in common, how the periods lie, on this invoice or on earlier ones."""

    keys: tuple[str, ...]
    time: Time
    earlier: bool
    applies: pl.Expr


def follow_charges(
    groups: pl.DataFrame, current_costs: pl.DataFrame, earlier_costs: pl.DataFrame, *, month_begin: datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits credits over the costs of the charges they correct; returns shares, and groups that correct nothing known.

    `current_costs` are the costs allocated so far, `earlier_costs` those published for earlier invoices, both with MATCHED_BY, INHERITED and
    the cost columns. `month_begin` is the invoice month's first instant: a row whose period ends before it corrects an earlier month, and is
    never charged to this month's users.
    """
    shares: list[pl.DataFrame] = []
    unmatched_groups = groups
    sides = {False: candidate_costs(current_costs, groups), True: candidate_costs(earlier_costs, groups)}
    is_past = pl.col("period_end") <= month_begin
    for level in _credit_levels(is_past):
        if not unmatched_groups.height:
            break
        # A row that names a principal corrects that principal's charges alone.
        names_principal = pl.col("principal").is_not_null()
        level_groups = unmatched_groups.filter(level.applies)
        steps = [
            _follow_at_level(
                level_groups.filter(names_principal), sides[level.earlier], replace(level, keys=(*level.keys, "principal"))
            ),
            _follow_at_level(level_groups.filter(~names_principal), sides[level.earlier], level),
        ]
        for share in (step for step in steps if step.height):
            shares.append(share)
            unmatched_groups = unmatched_groups.filter(~pl.col("charge_group").is_in(share["charge_group"].implode()))
    return following_rows(shares, groups), unmatched_groups


def following_rows(shares: Sequence[pl.DataFrame], groups: pl.DataFrame) -> pl.DataFrame:
    """Shares of `groups` on the costs they follow, with reason, rule and no quantity of their own."""
    if not shares:
        return groups.clear()
    return pl.concat(shares, how="diagonal_relaxed").with_columns(
        reason=_reason(), rule=pl.lit("RA-5"), quantity=pl.lit(None, dtype=MONEY)
    )


def correctable_costs(costs: pl.LazyFrame, month_groups: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """The costs that `groups` could follow, with MATCHED_BY, INHERITED and the four cost columns; `month_groups` have their SKUs."""
    match = _hard_keys(groups)
    skus = month_groups.lazy().select(pl.col("charge_group").alias("lot_id"), "sku_meter", "resource_id")
    return (
        costs.join(groups.lazy().select(match).unique(), on=match, how="semi", nulls_equal=True)
        .join(skus, on="lot_id", how="left")
        .select(_CANDIDATE_COLUMNS)
        .collect()
    )


def candidate_costs(costs: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """The costs that could be followed at all, so that each level searches few."""
    if not costs.height or not groups.height:
        return costs.clear()
    match = _hard_keys(groups)
    missing = [pl.lit(None, dtype=COSTS.schema[c]).alias(c) for c in INHERITED if c not in costs.columns]
    candidates = costs.join(groups.select(match).unique(), on=match, how="semi", nulls_equal=True)
    return candidates.with_columns(missing).select(_CANDIDATE_COLUMNS)


def _hard_keys(groups: pl.DataFrame) -> list[str]:
    """Keys that each of `groups` shares with all costs it may follow: a tax goes beyond its service, a payer it lacks is any."""
    if (groups["role"] == "tax").any():
        return [*_BILL] if groups["billing_account"].null_count() else [*_PAYER]
    return [*_PAYER, *(() if groups["service"].null_count() else ("service",))]


def _credit_levels(is_past: pl.Expr) -> Iterator[_Level]:
    for keys, time in _FOLLOW:
        for account in (("account",), ()):
            applies = _may_spread(keys, account)
            if time == "any":
                yield _Level((*account, *keys), time, False, applies & ~is_past)
                continue
            for earlier in (False, True):
                yield _Level((*account, *keys), time, earlier, applies)


def _may_spread(keys: Sequence[str], account: Sequence[str]) -> pl.Expr:
    """Whether a credit may be spread over all charges that share only `keys`: it must not name anything finer itself."""
    condition = pl.col("account").is_not_null() if account else pl.col("account").is_null()
    for finer in ("sku_meter", "service"):
        if finer not in keys:
            condition = condition & pl.col(finer).is_null()
    return condition


def _follow_at_level(groups: pl.DataFrame, targets: pl.DataFrame, level: _Level) -> pl.DataFrame:
    """The groups that match costs at this level, split over them."""
    return split_over_costs(groups, targets, (*_PAYER, *level.keys), level.time)


def split_over_costs(groups: pl.DataFrame, targets: pl.DataFrame, keys: Sequence[str], time: Time) -> pl.DataFrame:
    """The groups that have `keys` in common with costs of their `time`, split over those by what they cost."""
    if not groups.height or not targets.height:
        return groups.clear()
    match = [*keys, *(_PERIOD if time == "same" else ())]
    keep: Sequence[str] = [k for k in INHERITED if k not in match]
    by_time = time in ("within", "overlap")
    candidates = targets.join(groups.select(match).unique(), on=match, how="semi", nulls_equal=True)
    if _pairs(groups, candidates, match) > _MAX_PAIRS:
        if by_time:
            return groups.clear()
        keep = [k for k in keep if k != "usage_key"]
        candidates = candidates.with_columns(usage_key=pl.lit(None, dtype=pl.Int64))
    period = [pl.col(p).alias(f"of_{p}") for p in _PERIOD] if by_time else []
    costs = candidates.group_by([*match, *period, *keep]).agg(*(pl.col(c).sum().alias(f"of_{c}") for c in COST_COLUMNS))
    rows = groups.drop([c for c in INHERITED if c in groups.columns and c not in match]).join(costs, on=match, nulls_equal=True)
    if time == "within":
        rows = rows.filter(pl.col("of_period_start") >= pl.col("period_start"), pl.col("of_period_end") <= pl.col("period_end"))
    if time == "overlap":
        # A period of length 0 overlaps periods that contain its instant.
        end = pl.max_horizontal("period_end", pl.col("period_start") + timedelta(microseconds=1))
        rows = rows.filter(pl.col("of_period_start") < end, pl.col("of_period_end") > pl.col("period_start"))
    rows = rows.with_columns(weight=_weight()).filter(pl.col("weight") > 0)
    if not rows.height:
        return groups.clear()
    order = [*(f"of_{p}" for p in _PERIOD if by_time), *keep]
    rows = rows.with_columns(__w=weights(rows, "weight", "charge_group")).filter(pl.col("__w") > 0)
    shares = split(rows.lazy(), amounts=COST_COLUMNS, weight="__w", pool="charge_group", order_by=order).collect()
    return shares.drop("__w", "weight", *(c for c in shares.columns if c.startswith("of_")))


def _pairs(groups: pl.DataFrame, targets: pl.DataFrame, match: Sequence[str]) -> int:
    """How many rows a join on `match` gives."""
    sides = [frame.group_by(match).agg(n=pl.len().cast(pl.Int64)) for frame in (groups, targets)]
    pair_counts = sides[0].join(sides[1], on=match, nulls_equal=True, suffix="_there")
    return int(pair_counts.select((pl.col("n") * pl.col("n_there")).sum()).item() or 0)


def _weight() -> pl.Expr:
    """What the charges cost; where a column is 0 for all that a group follows (many bills leave EffectiveCost 0), the next column counts."""
    total = [pl.col(f"of_{c}").sum().over("charge_group") for c in ("effective_cost", "billed_cost", "list_cost")]
    return (
        pl.when(total[0] > 0)
        .then("of_effective_cost")
        .when(total[1] > 0)
        .then("of_billed_cost")
        .when(total[2] > 0)
        .then("of_list_cost")
    )


def _reason() -> pl.Expr:
    """credit, adjustment or tax as the bill calls it; a negative row of any other category is a refund."""
    has_category_name = pl.col("charge_category").is_in(["Credit", "Adjustment", "Tax"])
    return (
        pl.when(has_category_name)
        .then(pl.col("charge_category").str.to_lowercase())
        .when(pl.col("charge_class").is_not_null())
        .then(pl.lit("correction"))
        .otherwise(pl.lit("refund"))
    )
