"""The balance: charges in = metered + owner + shared + idle + unallocated, per currency, invoice month, provider and column. (MO-2)

Both sides are summed on their own: the left from `charges` as ingested, the right from the costs about to be published.
"""

from __future__ import annotations

from decimal import Decimal

import polars as pl

from attribution.classification import names
from ledger.errors import BalanceError
from ledger.money import known_sum
from ledger.tables import BALANCE, COST_CLASSES, COST_COLUMNS


def control_totals(charges: pl.LazyFrame, costs: pl.DataFrame, imports: pl.LazyFrame, *, run_id: str, month: str) -> pl.DataFrame:
    """The rows of `balance` for one invoice month; `costs` are costs, or sums of them by currency, provider, class and basis.

    A cost column that the bill does not tell is null on both sides; the difference is of what is known. (MO-1b)
    """
    keys = ["currency", "provider"]
    charge_sums = charges.group_by("billing_currency", "provider_name").agg(known_sum(c) for c in COST_COLUMNS).collect()
    charge_sums = (
        _with_providers(charge_sums.rename({"billing_currency": "currency"}))
        .group_by(keys)
        .agg(known_sum(c) for c in COST_COLUMNS)
    )
    cost_sums = (
        costs.lazy()
        .filter(pl.col("basis") == "billed")
        .group_by(*keys, "cost_class")
        .agg(known_sum(c) for c in COST_COLUMNS)
        .collect()
        .unpivot(on=COST_COLUMNS, index=[*keys, "cost_class"], variable_name="cost_column", value_name="cost")
        .with_columns(rows=pl.lit(value=True))
        .pivot("cost_class", index=[*keys, "cost_column"], values=["cost", "rows"], aggregate_function="first")
    )
    charge_rows = charge_sums.unpivot(on=COST_COLUMNS, index=keys, variable_name="cost_column", value_name="charges_in")
    totals = charge_rows.join(cost_sums, on=[*keys, "cost_column"], how="full", coalesce=True)
    zero = pl.lit(Decimal(0)).cast(BALANCE.schema["charges_in"])
    # A class without rows is 0 where the bill tells the column; a class whose rows do not have the column is null. (MO-1b)
    absent = pl.when(pl.col("charges_in").is_not_null()).then(zero)
    for name in COST_CLASSES:
        has_class = f"rows_{name}" in totals.columns
        has_rows = pl.col(f"rows_{name}").is_not_null()
        totals = totals.with_columns(
            (pl.when(has_rows).then(f"cost_{name}").otherwise(absent) if has_class else absent).alias(name)
        )
    costs_out = sum((pl.col(c).fill_null(zero) for c in COST_CLASSES[1:]), pl.col(COST_CLASSES[0]).fill_null(zero))
    totals = totals.with_columns(difference=pl.col("charges_in").fill_null(zero) - costs_out)
    totals = totals.join(_rounding(imports), on=[*keys, "cost_column"], how="left").with_columns(
        pl.col("rounding").fill_null("0"), run_id=pl.lit(run_id), invoice_month=pl.lit(month)
    )
    return BALANCE.conform(totals.select(list(BALANCE.schema))).sort("currency", "provider", "cost_column")


def _with_providers(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(provider=pl.Series([names.provider(p) for p in frame["provider_name"]], dtype=pl.String))


def _rounding(imports: pl.LazyFrame) -> pl.DataFrame:
    rows = imports.select("currency", "provider", "cost_column", "rounding").collect()
    rounding_sums: dict[tuple[str, str, str], Decimal] = {}
    for currency, provider, column, digits in rows.iter_rows():
        key = (currency, names.provider(provider) or provider, column)
        rounding_sums[key] = rounding_sums.get(key, Decimal(0)) + Decimal(digits)
    rounding_rows = [(*key, format(value.normalize(), "f")) for key, value in rounding_sums.items()]
    return pl.DataFrame(
        rounding_rows,
        schema={"currency": pl.String, "provider": pl.String, "cost_column": pl.String, "rounding": pl.String},
        orient="row",
    )


def require_balanced(balance: pl.DataFrame) -> None:
    """Raises `BalanceError` if charges and costs differ in any currency, provider or cost column. Nothing is published then."""
    unbalanced_rows = balance.filter(pl.col("difference") != 0)
    if unbalanced_rows.height:
        differences = ", ".join(
            f"{r['provider']} {r['cost_column']} {r['currency']} {r['difference']}" for r in unbalanced_rows.iter_rows(named=True)
        )
        raise BalanceError(
            f"the books do not balance: {differences}",
            where=balance["invoice_month"][0],
            remedy="nothing was published; the last good run stays in force",
        )
