"""The bill, ready to be rated: charges summed to lots, and each lot classified by what it sells. (RA-1)

A lot is all charges that no rule can tell apart: same account, service, SKU, resource, principal, tags, period, category. Summing
before rating is what lets ten million charges be rated in seconds.
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from functools import cache

import polars as pl

from attribution import names
from attribution.names import ModelNames, Sold, spelled
from ledger.lots import SAME_LOT, keyed
from ledger.money import MONEY
from ledger.tables import COST_COLUMNS, LOTS, TOKEN_METERS

RATED_AS = {
    "sub_account_id": "account",
    "region_id": "region",
    "billing_currency": "currency",
    "charge_period_start": "period_start",
    "charge_period_end": "period_end",
    "billing_account_id": "billing_account",
    "service_name": "service",
}
"""Keys of a lot, and the names costs and pools have for them."""

FOLLOWING = ("Credit", "Adjustment")
"""Categories that correct other charges. (RA-5)"""

ABSURD, NEGATIVE = "absurd_quantity", "negative_quantity"
"""Names of quantities that no bill can mean."""


def lots(charges: pl.LazyFrame, display: ModelNames) -> pl.DataFrame:
    """Charges summed to lots, in a fixed order, with `lot` (row number), `role` and what is sold.

    `role` is what the rules make of it: ``tokens`` (quantity comparable with logs), ``driver`` (split by what used it),
    ``follow`` (credit, refund, correction), ``tax``, ``other``. `odd` names a quantity that no bill can mean, which then counts as absent or
    is not compared; `final` says that the provider restates none of its charges any more.
    """
    summed = (
        keyed(charges)
        .group_by(SAME_LOT)
        .agg(
            *(pl.col(c).sum() for c in COST_COLUMNS),
            pl.col("quantity").sum(),
            pl.len().alias("charges"),
            final=pl.col("final").fill_null(value=False).all(),
        )
        .collect()
        .sort(SAME_LOT)
    )
    return _classified(summed, display).with_columns(lot=pl.int_range(pl.len(), dtype=pl.Int64))


def _classified(lots: pl.DataFrame, display: ModelNames) -> pl.DataFrame:
    words = ["sku_meter", "charge_description", "unit"]
    distinct = lots.select(words).unique()
    found = [names.sold(*row) for row in distinct.iter_rows()]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "model": pl.String,
        "meter": pl.String,
        "service_tier": pl.String,
        "context_above": pl.Int64,
        "kind": pl.String,
        "factor": MONEY,
        "provisioned": pl.Boolean,
    }
    assert set(schema) == {f.name for f in fields(Sold)}
    sold = pl.concat([distinct, pl.DataFrame([asdict(s) for s in found], schema=schema)], how="horizontal")
    sold = sold.with_columns(model=pl.Series([display.display(m) for m in sold["model"]], dtype=pl.String))
    frame = lots.join(sold, on=words, how="left", nulls_equal=True, maintain_order="left")
    frame = frame.with_columns(
        provider=spelled(frame["provider_name"], names.provider),
        resource=pl.when(~pl.col("resource_id").str.contains("foundation-model", literal=True)).then("resource_id"),
        ai=_sells_models(frame),
    )
    tokens = pl.col("meter").is_in(TOKEN_METERS) & pl.col("model").is_not_null()
    usage = (pl.col("charge_category") == "Usage") & pl.col("charge_class").is_null() & ~pl.col("negative")
    # No bill counts 10^15 of anything: such a quantity is a fault, and a product of it would overflow.
    absurd = pl.col("quantity").abs() >= 10**15
    frame = frame.with_columns(
        odd=pl.when(absurd).then(pl.lit(ABSURD)).when(usage & (pl.col("quantity") < 0)).then(pl.lit(NEGATIVE)),
        quantity=pl.when(~absurd).then("quantity"),
    )
    # What a commitment was paid for and nobody used: it stands apart, whatever resource it names.
    unused = pl.col("commitment_discount_status").eq_missing(pl.lit("Unused"))
    return frame.with_columns(
        billed_quantity=pl.when(pl.col("factor").is_not_null()).then(pl.col("quantity") * pl.col("factor")),
        role=pl.when(pl.col("charge_category") == "Tax")
        .then(pl.lit("tax"))
        .when(pl.col("charge_category").is_in(FOLLOWING) | pl.col("charge_class").is_not_null() | pl.col("negative"))
        .then(pl.lit("follow"))
        .when(usage & unused)
        .then(pl.lit("other"))
        .when(usage & tokens & (pl.col("quantity") * pl.col("factor") > 0))
        .then(pl.lit("tokens"))
        .when(usage & (tokens | pl.col("resource_id").is_not_null()))
        .then(pl.lit("driver"))
        .otherwise(pl.lit("other")),
    )


def noted(lots: pl.DataFrame, *, run_id: str, month: str) -> pl.DataFrame:
    """Lots as rows of the table `lots`, whatever names rating gave their keys."""
    back = {rated: key for key, rated in RATED_AS.items() if rated in lots.columns}
    frame = lots.rename(back).with_columns(run_id=pl.lit(run_id), month=pl.lit(month), lot_id=pl.col("lot"))
    return LOTS.conform(frame.select(c for c in LOTS.schema if c in frame.columns))


@cache
def _ai() -> re.Pattern[str]:
    return re.compile("|".join(row["pattern"] for row in names.table("ai_services")), re.IGNORECASE)


def _sells_models(frame: pl.DataFrame) -> pl.Series:
    """Whether a service sells models: such a charge that cannot be classified is listed, not lumped with storage."""
    words = frame.select(
        pl.concat_str([pl.col(c).fill_null("") for c in ("provider_name", "service_name", "product_code")], separator=" ")
    ).to_series()
    distinct = words.unique()
    book = pl.DataFrame({"w": distinct, "ai": pl.Series([bool(_ai().search(w)) for w in distinct], dtype=pl.Boolean)})
    return pl.DataFrame({"w": words}).join(book, on="w", how="left", maintain_order="left")["ai"]
