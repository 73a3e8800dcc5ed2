"""Which charges are rated together: those that no rule can tell apart make one lot. (RA-1)

Attribution sums charges to lots and notes them in the table `lots`; whoever asks about a charge finds its lot by the same keys, and
the charges of a lot likewise. Said once, here, so that the way there and the way back cannot differ.
"""

from __future__ import annotations

import polars as pl

CHARGE_GROUP_COLUMNS = (
    "provider_name", "billing_account_id", "sub_account_id", "region_id", "service_name", "product_code", "sku_meter",
    "operation", "charge_description", "line_item_type", "unit", "resource_id", "principal", "tags", "charge_category",
    "charge_class", "charge_period_start", "charge_period_end", "billing_currency", "invoice_id", "commitment_discount_status",
)  # fmt: skip
"""Columns of `charges`, but for `unit` (of the quantity that counts); `charge_description` counts only where no SKU is named."""

CHARGE_GROUP_KEY = (*CHARGE_GROUP_COLUMNS, "negative")
"""What charges of one lot have in common: their keys, and whether they give money back."""


def with_group_key(charges: pl.LazyFrame) -> pl.LazyFrame:
    """Charges with their lot's keys: `unit`, `quantity` and `negative` added, the description kept only where it tells lots apart.

    >>> row = dict(consumed_unit=None, consumed_quantity=None, pricing_unit="1K tokens", pricing_quantity=10, sku_meter="in",
    ...            charge_description="1K input tokens", effective_cost=-1, billed_cost=None)
    >>> keyed(pl.LazyFrame([row])).select("unit", "quantity", "charge_description", "negative").collect().row(0)
    ('1K tokens', 10, None, True)
    """
    has_consumed_quantity = pl.col("consumed_unit").is_not_null() & pl.col("consumed_quantity").is_not_null()
    return charges.with_columns(
        unit=pl.when(has_consumed_quantity).then("consumed_unit").otherwise("pricing_unit"),
        quantity=pl.when(has_consumed_quantity).then("consumed_quantity").otherwise("pricing_quantity"),
        charge_description=pl.when(pl.col("sku_meter").is_null()).then("charge_description"),
        negative=pl.col("effective_cost").fill_null(0) + pl.col("billed_cost").fill_null(0) < 0,
    )
