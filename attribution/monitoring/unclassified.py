"""Unclassified SKUs of AI services, and what they cost. (RA-1, RA-4)"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from attribution.classification.names import ModelNames
from attribution.classification.skus import Classifier, SkuText
from attribution.costs import charge_groups
from ledger.books import Books
from ledger.charge_groups import CHARGE_GROUP_KEY, with_group_key
from ledger.money import MONEY
from ledger.tables import CHARGES, USAGE_HOURLY

_SKU = ("provider", "service", "product_code", "sku", "unit", "currency")
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(_SKU, pl.String),
    "cost": MONEY,
    "quantity": MONEY,
    "charges": pl.UInt32,
    "first": pl.String,
    "last": pl.String,
    "meter": pl.String,
}


def unclassified_skus(books: Books, months: Sequence[str] | None = None) -> pl.DataFrame:
    """SKUs that no rule matches, the most expensive first (by effective cost, in either direction of sign): see `SCHEMA`.

    `sku` is the description where a charge has no SKU; `first` and `last` are the first and last invoice month it was on; `meter` is the one
    that its text names, where only the model is unknown.
    """
    charges = books.store.scan(CHARGES, None if months is None else {"billing_month": list(months)})
    charge_sums = (
        with_group_key(charges.filter(pl.col("charge_category") == "Usage"))
        .group_by(CHARGE_GROUP_KEY)
        .agg(
            pl.col("effective_cost", "quantity").sum(),
            pl.len().alias("charges"),
            first=pl.col("billing_month").min(),
            last=pl.col("billing_month").max(),
        )
        .collect()
    )
    own_rules = books.settings.attribution.skus
    classified_groups = charge_groups.classify(
        charge_sums, ModelNames(()), own_rules, lambda: charge_groups.single_model_resources(books.store.scan(USAGE_HOURLY))
    )
    unclassified_groups = classified_groups.filter("unclassified").with_columns(
        service="service_name", sku=pl.coalesce("sku_meter", "charge_description"), currency="billing_currency"
    )
    rows = (
        unclassified_groups.group_by(_SKU)
        .agg(
            cost=pl.col("effective_cost").sum(),
            quantity=pl.col("quantity").sum(),
            charges=pl.col("charges").sum(),
            first=pl.col("first").min(),
            last=pl.col("last").max(),
        )
        .sort(pl.col("cost").abs(), *(pl.col(c) for c in _SKU), descending=[True] + [False] * len(_SKU), nulls_last=True)
    )
    classifier = Classifier(own_rules)
    meters = [
        classifier.sold(SkuText(row["provider"], row["service"], row["product_code"], row["sku"], None, row["unit"])).meter
        for row in rows.iter_rows(named=True)
    ]
    tokens = pl.Series("meter", [m if m and m.endswith("_tokens") else None for m in meters], dtype=pl.String)
    return rows.with_columns(tokens).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
