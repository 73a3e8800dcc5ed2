"""The four FOCUS costs of an AWS line item, by its type.

| line item type | billed | effective | list | contracted | category |
|---|---|---|---|---|---|
| Usage | unblended | unblended | public on-demand | unblended | Usage |
| DiscountedUsage | unblended (0 or recurring) | reservation effective cost | public on-demand | as list | Usage |
| RIFee | fee | unused upfront + unused recurring | fee | fee | Purchase |
| SavingsPlanCoveredUsage | unblended (on-demand equivalent) | plan's effective cost | public on-demand | unblended | Usage |
| SavingsPlanNegation | minus the covered usage | 0 | 0 | 0 | Usage |
| SavingsPlanUpfrontFee | fee | 0 | fee | fee | Purchase |
| SavingsPlanRecurringFee | fee | commitment to date − used | fee | fee | Purchase |
| Fee | fee | 0 with a reservation, else fee | fee | fee | Purchase |
| Tax / Credit | signed | signed | signed | signed | Tax / Credit |
| Refund | signed | signed | signed | signed | Usage with a usage type, else Adjustment; class Correction |
| …Discount | signed | signed | signed | signed | Credit |
| any other | signed | signed | signed | signed | Adjustment, with a warning: an unknown type is never left out |

Unblended, rates and amortised parts are net of discounts where the report has net columns and they are filled; blended
cost is never used. A report without the amortisation columns keeps a commitment's lines on their billed cost, all of them,
with a warning: mixing the two would count the commitment twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext

import polars as pl

from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.sources.aws_cur.columns import AMORTISED, AMOUNTS, NET, Layout
from ledger.money import exact_decimal

_USED = ("Usage", "DiscountedUsage", "SavingsPlanCoveredUsage")
_PLAN = ("SavingsPlanCoveredUsage", "SavingsPlanNegation", "SavingsPlanUpfrontFee", "SavingsPlanRecurringFee")
_RESERVED = ("DiscountedUsage", "RIFee")
_CATEGORIES = {
    **dict.fromkeys((*_USED, "SavingsPlanNegation"), "Usage"),
    **dict.fromkeys(("RIFee", "Fee", "SavingsPlanUpfrontFee", "SavingsPlanRecurringFee", "FlatRateSubscription"), "Purchase"),
    "Tax": "Tax",
    "Credit": "Credit",
}

_COMPUTED = ("RIFee", "SavingsPlanRecurringFee")
_NUMBERS = {kind: number for number, kind in enumerate((*_USED, *_PLAN[1:], "RIFee", "Fee"), 1)}
"""The line item types that determine a line's costs, as numbers, which compare faster than text."""

_type = pl.col("line_item_type")
IS_KNOWN = (_type.is_in(sorted(_CATEGORIES)) | (_type == "Refund") | _type.str.ends_with("Discount")).fill_null(False)
"""BillBatch whose type is in the table above."""
IS_USED = _type.is_in(_USED)
"""BillBatch whose usage amount is usage. Fees, negations and discounts repeat amounts that other lines have."""


def commitments_priced(layout: Layout) -> dict[str, bool]:
    """Whether the report has the columns for the effective cost of savings plans and of reservations."""
    return {
        "savings plans": all(part in layout.headers for kind in _PLAN if kind in AMORTISED for part in AMORTISED[kind]),
        "reservations": all(part in layout.headers for kind in _RESERVED for part in AMORTISED[kind]),
    }


def net(layout: Layout, name: str) -> pl.Expr:
    """A column of the report, net of discounts where that is filled; null where the report lacks it."""
    columns = [pl.col(layout.headers[spelt]) for spelt in (NET.get(name, name), name) if spelt in layout.headers]
    return pl.coalesce(columns) if columns else pl.lit(None, dtype=pl.String)


def needs_arithmetic(batch: BillBatch) -> pl.Series:
    """The few lines whose effective cost is a sum or a difference."""
    return batch.expand(_type.is_in(_COMPUTED).fill_null(False))


def costs(batch: BillBatch, layout: Layout) -> BillBatch:
    """The four cost columns as the report has them: doubles, or text. `line_item_type` must be one of the dimensions.

    Lines that need arithmetic must come as text, so that no digit is lost.
    """
    has_amortisation = commitments_priced(layout)
    names = [layout.headers[name] for name in AMOUNTS if name in layout.headers]
    doubles = all(batch.rows.schema[name] == pl.Float64 for name in names)
    amount = pl.Float64() if doubles else pl.String()
    dimension_columns = batch.dimensions.select(
        __kind=_type.replace_strict(_NUMBERS, default=0, return_dtype=pl.UInt8),
        __reservation=net(layout, "reservation_reservation_a_r_n").is_not_null(),
    )
    rows = pl.concat([batch.rows, dimension_columns[batch.rows[DIMENSIONS_ROW]]], how="horizontal")
    rows = rows.with_columns(pl.col(names).cast(amount)).with_columns(
        billed_cost=net(layout, "line_item_unblended_cost"),
        __public=net(layout, "pricing_public_on_demand_cost").cast(amount),
        __reserved=net(layout, "reservation_effective_cost").cast(amount),
        __planned=net(layout, "savings_plan_savings_plan_effective_cost").cast(amount),
        __undiscounted=pl.col(layout.headers["line_item_unblended_cost"]),
    )
    list_cost = _list_cost(doubles=doubles)
    zero = pl.lit(0.0) if doubles else pl.lit("0")
    negation = _is("SavingsPlanNegation")
    rows = rows.with_columns(
        effective_cost=_effective(rows, layout, has_amortisation, zero),
        list_cost=pl.when(negation).then(zero).otherwise(list_cost),
        contracted_cost=pl.when(negation).then(zero).when(_is("DiscountedUsage")).then(list_cost).otherwise("billed_cost"),
    )
    return BillBatch(rows, batch.dimensions)


def _list_cost(*, doubles: bool) -> pl.Expr:
    """The public price of usage; null where it is 0 although the usage has a cost."""

    def is_zero(name: str) -> pl.Expr:
        return pl.col(name) == 0 if doubles else pl.col(name).str.contains(r"^[-+]?[0.]*(?:[eE].*)?$")

    free = (is_zero("__public") & ~is_zero("__undiscounted")).fill_null(False)
    return pl.when(_is(*_USED) & ~free).then(pl.coalesce("__public", "__undiscounted")).otherwise("__undiscounted")


def _effective(rows: pl.DataFrame, layout: Layout, has_amortisation: Mapping[str, bool], zero: pl.Expr) -> pl.Expr:
    effective = pl.col("billed_cost")
    if has_amortisation["reservations"]:
        effective = (
            pl.when(_is("DiscountedUsage"))
            .then(pl.coalesce("__reserved", "billed_cost"))
            .when(_is("RIFee"))
            .then(pl.coalesce(_computed_cost(rows, layout, "RIFee", plus=True), "billed_cost"))
            .when(_is("Fee") & pl.col("__reservation"))
            .then(zero)
            .otherwise(effective)
        )
    if has_amortisation["savings plans"]:
        effective = (
            pl.when(_is("SavingsPlanCoveredUsage"))
            .then(pl.coalesce("__planned", "billed_cost"))
            .when(_is("SavingsPlanNegation", "SavingsPlanUpfrontFee"))
            .then(zero)
            .when(_is("SavingsPlanRecurringFee"))
            .then(pl.coalesce(_computed_cost(rows, layout, "SavingsPlanRecurringFee", plus=False), "billed_cost"))
            .otherwise(effective)
        )
    return effective


def _is(*kinds: str) -> pl.Expr:
    return pl.any_horizontal(pl.col("__kind") == _NUMBERS[kind] for kind in kinds)


def _computed_cost(rows: pl.DataFrame, layout: Layout, kind: str, *, plus: bool) -> pl.Series:
    """The effective cost of the few lines where it is a sum or a difference, exact; null where neither part is filled."""
    first, second = (net(layout, part) for part in AMORTISED[kind])
    parts = rows.select(wanted=_is(kind), left=first, right=second).with_row_index("at").filter("wanted")
    computed_costs = [(at, _combine(a, b, plus=plus)) for at, _, a, b in parts.iter_rows()]
    column = pl.Series([None], dtype=rows.schema["billed_cost"]).new_from_index(0, rows.height)
    return column.scatter([at for at, _ in computed_costs], [text for _, text in computed_costs]) if computed_costs else column


def _combine(one: str | None, other: str | None, *, plus: bool) -> str | None:
    if one is None and other is None:
        return None
    first, second = exact_decimal(one or "0"), exact_decimal(other or "0")
    if first is None or second is None:
        return one if first is None else other
    with localcontext() as context:
        context.prec = 120
        total: Decimal = first + second if plus else first - second
    return format(total, "f")


def categories() -> dict[str, pl.Expr]:
    """FOCUS charge category, class, frequency, pricing category and commitment status of a line, by its type."""
    refund = _type == "Refund"
    plan = pl.coalesce("__plan", "__reserved_by")
    return {
        "charge_category": pl.when(refund & pl.col("sku_meter").is_not_null())
        .then(pl.lit("Usage"))
        .when(refund)
        .then(pl.lit("Adjustment"))
        .when(_type.str.ends_with("Discount"))
        .then(pl.lit("Credit"))
        .otherwise(_type.replace_strict(_CATEGORIES, default="Adjustment", return_dtype=pl.String)),
        "charge_class": pl.when(refund).then(pl.lit("Correction")),
        "charge_frequency": pl.when(IS_USED)
        .then(pl.lit("Usage-Based"))
        .when(_type.is_in(("RIFee", "SavingsPlanRecurringFee", "FlatRateSubscription")))
        .then(pl.lit("Recurring"))
        .when(_type.is_in(("Fee", "SavingsPlanUpfrontFee")))
        .then(pl.lit("One-Time")),
        "pricing_category": pl.when(_type.is_in(("DiscountedUsage", "SavingsPlanCoveredUsage")))
        .then(pl.lit("Committed"))
        .when((_type == "Usage") & pl.col("__term").eq_missing("Spot"))
        .then(pl.lit("Dynamic"))
        .when(_type == "Usage")
        .then(pl.lit("Standard")),
        "commitment_discount_id": plan,
        "commitment_discount_status": pl.when(_type.is_in(("DiscountedUsage", "SavingsPlanCoveredUsage")))
        .then(pl.lit("Used"))
        .when(_type.is_in(("RIFee", "SavingsPlanRecurringFee")))
        .then(pl.lit("Unused")),
    }
