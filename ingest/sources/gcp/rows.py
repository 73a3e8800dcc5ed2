"""Conversion of rows of Google's billing export to FOCUS terms. (`gcp_export_schema`: the standard and the detailed table)

* net = cost + Σ credits.amount, summed inside the row. Over all rows of an invoice month, whatever their ``cost_type``, that is what
  is invoiced, tax, adjustments and the rounding error included: it is the billed cost. Google bills commitments month by month, on
  SKUs of their own, so there is nothing to spread over months: the effective cost is the same.
* The contracted cost is ``cost``: at the account's own prices, before credits; where a commitment's own price is in ``cost``, what it
  would have been without (``cost_at_effective_price_default``). The list cost is ``cost_at_list``, unknown where the export lacks it.
* Rows that are not usage have no price: all four costs are equal.
* ``invoice.month`` is the month it is billed in, in US/Pacific; the hour of usage may lie in another month.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import polars as pl
import pyarrow as pa

from ingest.bills import dictionary
from ingest.bills.dictionary import BillBatch
from ingest.logs.json_fields import FieldError, decimal, text
from ingest.problem_counter import described
from ledger import money

PROVIDER = "Google Cloud"
COLUMNS = (
    "billing_account_id", "service", "sku", "usage_start_time", "usage_end_time", "project", "labels", "system_labels", "location",
    "resource", "tags", "transaction_type", "seller_name", "export_time", "cost", "currency", "usage", "credits", "invoice",
    "cost_type", "adjustment_info", "price", "cost_at_list", "cost_at_effective_price_default", "subscription",
)  # fmt: skip
"""Columns of the export that are read. Columns that Google adds are ignored, missing ones are null."""
NEEDED = frozenset({"cost", "currency", "invoice", "usage_start_time", "usage_end_time"})
"""Columns that every billing export has, and that identify it."""

COSTS = ("billed_cost", "effective_cost", "list_cost", "contracted_cost")
MEASURES = (*COSTS, "pricing_quantity", "consumed_quantity", "charge_period_start", "charge_period_end", "billing_period_start")
DIMENSIONS = (
    "billing_currency", "charge_category", "charge_description", "provider_name", "publisher_name", "invoice_issuer_name",
    "billing_account_id", "sub_account_id", "sub_account_name", "service_name", "product_code", "region_id", "resource_id",
    "resource_name", "sku_id", "sku_meter", "line_item_type", "pricing_unit", "list_unit_price", "contracted_unit_price",
    "consumed_unit", "commitment_discount_id", "commitment_discount_status", "tags",
)  # fmt: skip

_CATEGORIES = {"regular": "Usage", "tax": "Tax", "adjustment": "Adjustment", "rounding_error": "Adjustment"}
_COMMITMENT = re.compile(r"commitment\b", re.IGNORECASE)
_MONTH = re.compile(r"(\d{4})-?(0[1-9]|1[0-2])\Z")
LABELS = (("", "", "labels"), ("tag/", "", "tags"), ("system/", "", "system_labels"), ("project/", "project", "labels"))
"""Where labels stand: the prefix of their keys, the record around the list, the list."""
_DIGITS = 400

Row = dict[str, str | None]


def is_export(value: object) -> bool:
    """Whether an object has the columns of a billing export.

    >>> is_export({"cost": 1, "currency": "USD", "invoice": {}, "usage_start_time": "", "usage_end_time": ""}), is_export({"BilledCost": 1})
    (True, False)
    """
    return isinstance(value, Mapping) and set(value) >= NEEDED


def charge(row: Mapping[str, Any]) -> tuple[Row, str]:
    """The row under the names of `charges`, all as text, and its ``cost_type`` if that is unknown.

    Credits of a free tier and of a commitment, and every digit:

    >>> told, _ = charge({"cost": Decimal("1.25"), "currency": "EUR", "invoice": {"month": "202610"}, "cost_type": "regular",
    ...     "usage_start_time": "2026-11-01 06:00:00 UTC", "usage_end_time": "2026-11-01 07:00:00 UTC", "cost_at_list": Decimal("1.5"),
    ...     "credits": [{"type": "FREE_TIER", "amount": Decimal("-0.1")}, {"type": "DISCOUNT", "amount": Decimal("-1E-7")}]})
    >>> [told[c] for c in ("billed_cost", "list_cost", "contracted_cost", "billing_period_start")]
    ['1.1499999', '1.5', '1.25', '2026-10-01T00:00:00Z']

    Raises `FieldError` where the row cannot be booked.
    """
    kind = cost_type(row.get("cost_type"))
    regular = kind == "regular"
    sku, service, project = _part(row, "sku"), _part(row, "service"), _part(row, "project")
    usage, price, place, resource = _part(row, "usage"), _part(row, "price"), _part(row, "location"), _part(row, "resource")
    cost, credit_entries = _amount(row, "cost"), _entries(row, "credits")
    if cost is None:
        raise FieldError("cost", "the charge has no amount", "export the table again: every row of it has a cost")
    with localcontext() as context:
        context.prec = _DIGITS
        net = sum((_amount(credit, "amount", "credits.amount") or money.ZERO for credit in credit_entries), cost)
    default_cost = _amount(row, "cost_at_effective_price_default")
    sku_description = text(sku.get("description"))
    commitment_credit = next((c for c in credit_entries if is_commitment(c.get("type"))), {})
    commitment = first(text(_part(row, "subscription").get("instance_id")), text(commitment_credit.get("id")))
    price_units = _amount(price, "pricing_unit_quantity", "price.pricing_unit_quantity")
    return {
        "billed_cost": str(net),
        "effective_cost": str(net),
        "list_cost": _as_text(_amount(row, "cost_at_list") if regular else net),
        "contracted_cost": str((cost if default_cost is None else default_cost) if regular else net),
        "pricing_quantity": _as_text(_amount(usage, "amount_in_pricing_units", "usage.amount_in_pricing_units")),
        "consumed_quantity": _as_text(_amount(usage, "amount", "usage.amount")),
        "charge_period_start": moment(row.get("usage_start_time")),
        "charge_period_end": moment(row.get("usage_end_time")),
        "billing_period_start": _billing_period_start(_part(row, "invoice")),
        "billing_currency": _currency(row),
        "charge_category": category(kind, sku_description),
        "charge_description": first(text(_part(row, "adjustment_info").get("description")), sku_description),
        "provider_name": PROVIDER,
        "publisher_name": publisher(text(row.get("seller_name")), row.get("transaction_type")),
        "invoice_issuer_name": PROVIDER,
        "billing_account_id": text(row.get("billing_account_id")),
        "sub_account_id": text(project.get("id")),
        "sub_account_name": text(project.get("name")),
        "service_name": text(service.get("description")),
        "product_code": text(service.get("id")),
        "region_id": first(text(place.get("region")), text(place.get("location"))),
        "resource_id": first(text(resource.get("global_name")), text(resource.get("name"))),
        "resource_name": text(resource.get("name")),
        "sku_id": text(sku.get("id")),
        "sku_meter": meter(sku_description),
        "line_item_type": kind,
        "pricing_unit": text(usage.get("pricing_unit")),
        "list_unit_price": unit_price(_amount(price, "list_price", "price.list_price"), price_units),
        "contracted_unit_price": unit_price(_amount(price, "effective_price", "price.effective_price"), price_units),
        "consumed_unit": text(usage.get("unit")),
        "commitment_discount_id": commitment,
        "commitment_discount_status": "Used" if commitment and regular and commitment_credit else None,
        "tags": tags(row),
    }, unknown_type(kind)


def cost_type(value: object) -> str:
    """The ``cost_type`` in lower case; a row without one is a regular one."""
    return (text(value) or "regular").lower()


def unknown_type(kind: str) -> str:
    """A ``cost_type`` that Google's documentation does not have, else nothing."""
    return "" if kind in _CATEGORIES else kind


def category(kind: str, sku_description: str | None) -> str:
    """The category of a charge.

    >>> category("regular", "Commitment v1: N2 Cpu"), category("rounding_error", None), category("surprise", None)
    ('Purchase', 'Adjustment', 'Adjustment')
    """
    is_purchase = kind == "regular" and sku_description and _COMMITMENT.match(sku_description)
    return "Purchase" if is_purchase else _CATEGORIES.get(kind, "Adjustment")


def publisher(seller: str | None, transaction_type: object) -> str:
    """Who sells: the partner of a third-party sale, else Google."""
    return seller if seller and str(transaction_type or "").startswith("THIRD_PARTY") else PROVIDER


def is_commitment(credit_type: object) -> bool:
    """Whether a credit pays for usage that a commitment covers."""
    return str(credit_type or "").startswith("COMMITTED_USAGE_DISCOUNT")


def first(text_value: str | None, alternative: str | None) -> str | None:
    """A text, or the alternative where there is none."""
    return text_value or alternative


def meter(sku_description: str | None) -> str | None:
    """A SKU's description with single spaces."""
    return " ".join(sku_description.split()) if sku_description else None


def to_batch(rows: Sequence[Row], numbers: Sequence[int]) -> BillBatch:
    """Rows as a batch with dictionary-encoded dimensions; `numbers` are those of their lines in the file."""
    measures = pl.DataFrame({name: pl.Series([row[name] for row in rows], dtype=pl.String) for name in MEASURES})
    line = pl.Series(numbers, dtype=pl.Int64)
    dimensions = {name: pa.array([row[name] for row in rows], pa.string()) for name in DIMENSIONS}
    return dictionary.encode(dimensions, measures.with_columns(__row=line, __line=line))


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    if value is None:
        return {}
    if type(value) is not dict and not isinstance(value, Mapping):
        raise FieldError(name, f"{described(value)} is no record", "extract the table with its nested columns")
    return value


def _entries(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = row.get(name)
    if not value and value in (None, []):
        return []
    if isinstance(value, dict) and isinstance(value.get("list"), list):  # Parquet's three levels, as loaded tables have them
        value = [entry.get("element") if isinstance(entry, dict) else entry for entry in value["list"]]
    if not isinstance(value, list) or not all(type(entry) is dict or isinstance(entry, Mapping) for entry in value):
        raise FieldError(name, f"{described(value)} is no list of records", "extract the table with its nested columns")
    return value


def _amount(row: Mapping[str, Any], name: str, field: str = "") -> Decimal | None:
    value = row.get(name)
    if value is None:
        return None
    number = decimal(value)
    if number is None:
        raise FieldError(field or name, f"{described(value)} is no amount", "export the table again; amounts are plain numbers")
    return number


def _as_text(number: Decimal | None) -> str | None:
    return None if number is None else str(number)


def moment(value: object) -> str | None:
    """A time as text."""
    return value.isoformat() if isinstance(value, datetime) else text(value)


def invoice_month(text_value: str | None) -> str | None:
    """``invoice.month`` as YYYY-MM; None where it is not a month.

    >>> invoice_month("202610"), invoice_month("202613"), invoice_month(None)
    ('2026-10', None, None)
    """
    match = _MONTH.match(text_value or "")
    return f"{match[1]}-{match[2]}" if match else None


def _billing_period_start(invoice: Mapping[str, Any]) -> str:
    text_value = text(invoice.get("month"))
    month = invoice_month(text_value)
    if month is None:
        reason = "the invoice month is missing" if text_value is None else f"{described(text_value)} is no month"
        raise FieldError("invoice.month", reason, "every row names the month it is billed in, such as 202610")
    return f"{month}-01T00:00:00Z"


def _currency(row: Mapping[str, Any]) -> str:
    currency = text(row.get("currency"))
    if currency is None:
        raise FieldError("currency", "the currency is missing", "every row needs the currency of its billing account")
    return currency.upper()


def unit_price(rate: Decimal | None, units: Decimal | None) -> str | None:
    """The price of one pricing unit; the export states it for ``pricing_unit_quantity`` of them.

    >>> unit_price(Decimal("0.3"), Decimal(1000000)), unit_price(Decimal(3), None), unit_price(None, Decimal(1))
    ('3.00000000000E-7', '3.000000000000000000', None)
    """
    if rate is None or abs(rate) >= 10**15:
        return None
    return _per_unit(rate, Decimal(1) if units is None else units)


@lru_cache(4096)
def _per_unit(rate: Decimal, units: Decimal) -> str | None:
    return str(money.unit_rate(rate, units)) if units > 0 else None


def tags(row: Mapping[str, Any]) -> str | None:
    """Labels under their own keys; resource tags, the project's labels and Google's own with a prefix for their kind."""
    project = _part(row, "project")
    places = ((prefix, _entries(project if outer else row, name)) for prefix, outer, name in LABELS)
    entries = ((prefix, entry) for prefix, entries in places for entry in entries)
    return tag_object(tuple((prefix, text(entry.get("key")), text(entry.get("value"))) for prefix, entry in entries))


@lru_cache(8192)
def tag_object(entries: tuple[tuple[str, str | None, str | None], ...]) -> str | None:
    """Prefix, key and value of each label as one JSON object; of two values of a key the first counts.

    >>> tag_object((("", "team", "care"), ("project/", "team", "core"), ("", "team", "late"), ("", "env", None)))
    '{"project/team":"core","team":"care"}'
    """
    values: dict[str, str] = {}
    for prefix, key, value in entries:
        if key and value:
            values.setdefault(prefix + key, value)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if values else None
