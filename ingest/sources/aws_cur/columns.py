"""The columns of the AWS Cost and Usage Report, legacy and 2.0, under the names of CUR 2.0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.bills.csv_reader import ColumnSelection
from ledger.errors import FormatError

NEEDED = (
    *("bill_billing_period_start_date", "line_item_line_item_type", "line_item_usage_start_date", "line_item_usage_end_date"),
    *("line_item_unblended_cost", "line_item_currency_code"),
)
"""Required columns."""

_UNUSED_UPFRONT = "reservation_unused_amortized_upfront_fee_for_billing_period"
NET = {
    "line_item_unblended_cost": "line_item_net_unblended_cost",
    "line_item_unblended_rate": "line_item_net_unblended_rate",
    "reservation_effective_cost": "reservation_net_effective_cost",
    _UNUSED_UPFRONT: _UNUSED_UPFRONT.replace("reservation_", "reservation_net_"),
    "reservation_unused_recurring_fee": "reservation_net_unused_recurring_fee",
    "savings_plan_savings_plan_effective_cost": "savings_plan_net_savings_plan_effective_cost",
}
"""Columns that accounts with discounts also have net of them. The net amount is used where it is filled."""

AMORTISED = {
    "DiscountedUsage": ("reservation_effective_cost",),
    "RIFee": (_UNUSED_UPFRONT, "reservation_unused_recurring_fee"),
    "SavingsPlanCoveredUsage": ("savings_plan_savings_plan_effective_cost",),
    "SavingsPlanRecurringFee": ("savings_plan_total_commitment_to_date", "savings_plan_used_commitment"),
}
"""The columns that the effective cost of a line type is computed from."""

PLAIN = {
    "invoice_id": "bill_invoice_id",
    "invoice_issuer_name": "bill_invoicing_entity",
    "publisher_name": "bill_billing_entity",
    "billing_account_id": "bill_payer_account_id",
    "billing_account_name": "bill_payer_account_name",
    "billing_period_start": "bill_billing_period_start_date",
    "billing_currency": "line_item_currency_code",
    "charge_period_start": "line_item_usage_start_date",
    "charge_period_end": "line_item_usage_end_date",
    "charge_description": "line_item_line_item_description",
    "line_item_type": "line_item_line_item_type",
    "sub_account_id": "line_item_usage_account_id",
    "sub_account_name": "line_item_usage_account_name",
    "product_code": "line_item_product_code",
    "sku_meter": "line_item_usage_type",
    "operation": "line_item_operation",
    "resource_id": "line_item_resource_id",
    "principal": "line_item_iam_principal",
    "sku_id": "product_sku",
    "sku_price_id": "pricing_rate_code",
    "list_unit_price": "pricing_public_on_demand_rate",
}
"""Columns of `charges` that one column of the report fills."""

_OTHERS = (
    *(
        "line_item_usage_amount",
        "pricing_unit",
        "pricing_term",
        "pricing_public_on_demand_cost",
        "product_region_code",
        "product_region",
    ),
    *(
        "product_product_name",
        "product_servicename",
        "product",
        "reservation_reservation_a_r_n",
        "savings_plan_savings_plan_a_r_n",
    ),
    "split_line_item_parent_resource_id",
)
MAPS = {"tags": "", "resource_tags": "", "cost_category": "costCategory/"}
"""Map columns, and the prefix their keys get. Of equal keys the earlier column's value is kept."""

_RATES = ("line_item_unblended_rate", "line_item_net_unblended_rate")
AMOUNTS = (
    *(name for pair in NET.items() for name in pair if name not in _RATES),
    *("savings_plan_total_commitment_to_date", "savings_plan_used_commitment", "pricing_public_on_demand_cost"),
)
"""Measure columns: amounts."""
_MEASURES = frozenset(
    [
        *AMOUNTS,
        *("line_item_usage_amount", "line_item_usage_start_date", "line_item_usage_end_date", "bill_billing_period_start_date"),
    ]
)

_KNOWN = frozenset(
    [*NEEDED, *PLAIN.values(), *_OTHERS, *MAPS, *NET, *NET.values(), *(name for parts in AMORTISED.values() for name in parts)]
)


@dataclass(frozen=True)
class Layout:
    """The columns of a report: canonical name to the header's name, and the columns that hold one tag each, with the tag's key."""

    headers: dict[str, str]
    tag_columns: dict[str, str]

    @property
    def selection(self) -> ColumnSelection:
        """Header names worth reading."""
        measures = {header for name, header in self.headers.items() if name in _MEASURES}
        return ColumnSelection(sorted({*self.headers.values(), *self.tag_columns} - measures), sorted(measures))


def spelling(name: str) -> str:
    """The CUR 2.0 name of a header.

    >>> spelling("lineItem/UsageType"), spelling("reservation/ReservationARN"), spelling("line_item_usage_type")
    ('line_item_usage_type', 'reservation_reservation_a_r_n', 'line_item_usage_type')
    """
    if "/" not in name:
        return name.lower()
    group, _, column = name.partition("/")
    return f"{_snake(group)}_{_snake(column)}"


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().replace("-", "_")


def tag_key(name: str) -> str | None:
    """The key a one-tag column stands for: as the header has it; underscored Parquet names as CUR 2.0's maps have them.

    >>> tag_key("resourceTags/user:team"), tag_key("resource_tags_user_team"), tag_key("cost_category_unit")
    ('resourceTags/user:team', 'user_team', 'costCategory/unit')
    """
    if name.startswith(("resourceTags/", "costCategory/", "iamPrincipal/")):
        return name
    if name.startswith("resource_tags_"):
        return name.removeprefix("resource_tags_")
    return f"costCategory/{name.removeprefix('cost_category_')}" if name.startswith("cost_category_") else None


def layout(header: Sequence[str], *, location: str) -> Layout:
    """Finds the columns. Raises `FormatError` that names every required column that is missing."""
    headers: dict[str, str] = {}
    tags: dict[str, str] = {}
    for name in header:
        if (key := tag_key(name)) is not None:
            tags[name] = key
        elif (column := spelling(name)) in _KNOWN:
            headers.setdefault(column, name)
    missing = [name for name in NEEDED if name not in headers]
    if missing:
        raise FormatError(
            f"no AWS Cost and Usage Report: columns are missing: {', '.join(missing)}",
            where=location,
            remedy="add these columns to the export's query, or name the source that fits the file",
        )
    return Layout(headers, tags)
