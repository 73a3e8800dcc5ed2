"""Charge groups: charges that no allocation rule distinguishes are rated together. (RA-1)

Attribution sums charges by these keys and stores the groups in the table `lots`. Queries use the same keys to find the group of a charge,
and the charges of a group.
"""

from __future__ import annotations

import polars as pl

CHARGE_GROUP_COLUMNS = (
    "provider_name", "billing_account_id", "sub_account_id", "region_id", "service_name", "product_code", "sku_meter",
    "operation", "charge_description", "line_item_type", "unit", "resource_id", "principal", "tags", "charge_category",
    "charge_class", "charge_period_start", "charge_period_end", "billing_currency", "invoice_id", "commitment_discount_status",
)  # fmt: skip
"""Columns of `charges`, except `unit` (the unit of the quantity used for rating); `charge_description` is a key only where no SKU is given."""

CHARGE_GROUP_KEY = (*CHARGE_GROUP_COLUMNS, "negative")
"""The key of a charge group: its columns, and whether its charges are negative."""


def with_group_key(charges: pl.LazyFrame) -> pl.LazyFrame:
    """Charges with the key of their group: adds `unit`, `quantity` and `negative`, and keeps the description only where it is a key.

    >>> row = dict(consumed_unit=None, consumed_quantity=None, pricing_unit="1K tokens", pricing_quantity=10, sku_meter="in",
    ...            charge_description="1K input tokens", effective_cost=-1, billed_cost=None)
    >>> with_group_key(pl.LazyFrame([row])).select("unit", "quantity", "charge_description", "negative").collect().row(0)
    ('1K tokens', 10, None, True)
    """
    has_consumed_quantity = pl.col("consumed_unit").is_not_null() & pl.col("consumed_quantity").is_not_null()
    return charges.with_columns(
        unit=pl.when(has_consumed_quantity).then("consumed_unit").otherwise("pricing_unit"),
        quantity=pl.when(has_consumed_quantity).then("consumed_quantity").otherwise("pricing_quantity"),
        charge_description=pl.when(pl.col("sku_meter").is_null()).then("charge_description"),
        negative=pl.col("effective_cost").fill_null(0) + pl.col("billed_cost").fill_null(0) < 0,
    )
