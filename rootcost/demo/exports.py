"""The bill as files: a CUR 2.0 Data Export in its S3 layout, and a FOCUS 1.2 file from OpenAI.

Layout and columns of the CUR follow AWS's Data Exports (Parquet with MAP columns, a manifest a run, CREATE_NEW_REPORT); costs
are doubles there, and every double written here reads back as the exact decimal.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.money import text
from rootcost.demo import company as co
from rootcost.demo.bill import AwsLine, OpenAiLine

_TEXT, _DOUBLE, _TIME = pa.string(), pa.float64(), pa.timestamp("ms")
_MAP, _DOUBLE_MAP = pa.map_(pa.string(), pa.string()), pa.map_(pa.string(), pa.float64())


def exact_double(amount: Decimal) -> float:
    """The double whose shortest text is this decimal; raises an error for amounts without one.

    >>> exact_double(Decimal("0.02640000"))
    0.0264
    """
    double = float(amount)
    if Decimal(repr(double)) != amount:
        raise ArithmeticError(f"{amount} has no exact double")
    return double


def _discount(line: AwsLine) -> list[tuple[str, float]]:
    saving = line.net - line.listed
    return [("PrivateRateDiscount", exact_double(saving))] if saving else []


def _product(line: AwsLine) -> list[tuple[str, str]]:
    return [("product_name", line.product_name), ("servicename", line.product_name), ("region", line.region)]


def _tags(line: AwsLine, prefix: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in line.tags if key.startswith(prefix)]


def _resource_tags(line: AwsLine) -> list[tuple[str, str]]:
    return [("user_" + key.removeprefix("resourceTags/user:"), value) for key, value in _tags(line, "resourceTags/user:")]


_COLUMNS: Sequence[tuple[str, pa.DataType, Callable[[AwsLine], Any]]] = (
    ("bill_bill_type", _TEXT, lambda line: "Anniversary"),
    ("bill_billing_entity", _TEXT, lambda line: "AWS"),
    ("bill_billing_period_end_date", _TIME, lambda line: None),
    ("bill_billing_period_start_date", _TIME, lambda line: None),
    ("bill_invoice_id", _TEXT, lambda line: ""),
    ("bill_invoicing_entity", _TEXT, lambda line: "Amazon Web Services, Inc."),
    ("bill_payer_account_id", _TEXT, lambda line: co.PAYER),
    ("bill_payer_account_name", _TEXT, lambda line: co.ACCOUNT_NAMES[co.PAYER]),
    ("cost_category", _MAP, lambda line: []),
    ("discount", _DOUBLE_MAP, _discount),
    ("discount_total_discount", _DOUBLE, lambda line: exact_double(line.net - line.listed)),
    ("identity_line_item_id", _TEXT, lambda line: None),
    ("identity_time_interval", _TEXT, lambda line: f"{_zulu(line.start)}/{_zulu(line.end)}"),
    ("line_item_blended_cost", _DOUBLE, lambda line: exact_double(line.listed)),
    ("line_item_blended_rate", _TEXT, lambda line: text(line.rate) if line.quantity else ""),
    ("line_item_currency_code", _TEXT, lambda line: co.CURRENCY),
    ("line_item_iam_principal", _TEXT, lambda line: line.principal),
    ("line_item_legal_entity", _TEXT, lambda line: "Amazon Web Services, Inc."),
    ("line_item_line_item_description", _TEXT, lambda line: line.description),
    ("line_item_line_item_type", _TEXT, lambda line: line.line_type),
    ("line_item_net_unblended_cost", _DOUBLE, lambda line: exact_double(line.net)),
    ("line_item_operation", _TEXT, lambda line: line.operation),
    ("line_item_product_code", _TEXT, lambda line: line.product_code),
    ("line_item_resource_id", _TEXT, lambda line: line.resource),
    ("line_item_tax_type", _TEXT, lambda line: "USSalesTax" if line.line_type == "Tax" else ""),
    ("line_item_unblended_cost", _DOUBLE, lambda line: exact_double(line.listed)),
    ("line_item_unblended_rate", _TEXT, lambda line: text(line.rate) if line.quantity else ""),
    ("line_item_usage_account_id", _TEXT, lambda line: line.account),
    ("line_item_usage_account_name", _TEXT, lambda line: co.ACCOUNT_NAMES[line.account]),
    ("line_item_usage_amount", _DOUBLE, lambda line: exact_double(line.quantity)),
    ("line_item_usage_end_date", _TIME, lambda line: line.end.replace(tzinfo=None)),
    ("line_item_usage_start_date", _TIME, lambda line: line.start.replace(tzinfo=None)),
    ("line_item_usage_type", _TEXT, lambda line: line.usage_type),
    ("pricing_currency", _TEXT, lambda line: co.CURRENCY),
    ("pricing_public_on_demand_cost", _DOUBLE, lambda line: exact_double(line.listed) if line.line_type == "Usage" else 0.0),
    ("pricing_public_on_demand_rate", _TEXT, lambda line: text(line.rate) if line.quantity else ""),
    ("pricing_term", _TEXT, lambda line: "OnDemand" if line.line_type == "Usage" else ""),
    ("pricing_unit", _TEXT, lambda line: line.unit),
    ("product", _MAP, _product),
    ("product_product_family", _TEXT, lambda line: ""),
    ("product_region_code", _TEXT, lambda line: line.region if line.line_type == "Usage" else ""),
    ("product_servicecode", _TEXT, lambda line: line.product_code),
    ("product_sku", _TEXT, lambda line: _digest(line.product_code, line.usage_type)[:16].upper()),
    ("reservation_effective_cost", _DOUBLE, lambda line: 0.0),
    ("reservation_reservation_a_r_n", _TEXT, lambda line: ""),
    ("resource_tags", _MAP, _resource_tags),
    ("savings_plan_savings_plan_a_r_n", _TEXT, lambda line: ""),
    ("savings_plan_savings_plan_effective_cost", _DOUBLE, lambda line: 0.0),
    ("tags", _MAP, lambda line: list(line.tags)),
)


def write_cur(root: Path, lines: Sequence[AwsLine], *, first: datetime, end: datetime, run: datetime, files: int = 3) -> Path:
    """One run of the export: data files first, the manifest last. Returns the manifest's path.

    `root` stands for the bucket; files are named by their ``s3://`` address in the manifest, as AWS does.
    """
    month = first.strftime("%Y-%m")
    execution = _digest(co.EXPORT, run.isoformat())
    base = Path(co.EXPORT_PREFIX) / co.EXPORT
    stamp = run.strftime("%Y-%m-%dT%H:%M:%S.000Z") + "-" + execution[:8]
    data = base / "data" / f"BILLING_PERIOD={month}" / stamp
    (root / data).mkdir(parents=True, exist_ok=True)
    size = -(-len(lines) // files)
    names = []
    for number in range(files):
        part = lines[number * size : (number + 1) * size]
        name = data / f"{co.EXPORT}-{number + 1:05d}.snappy.parquet"
        pq.write_table(_table(part, first, end, number * size), root / name, compression="snappy")
        names.append(name)
    manifest = root / base / "metadata" / f"BILLING_PERIOD={month}" / stamp / f"{co.EXPORT}-Manifest.json"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "exportArn": f"arn:aws:bcm-data-exports:us-east-1:{co.PAYER}:export/{co.EXPORT}-5b1c9d70",
        "executionId": execution,
        "billingPeriod": {"start": _compact(first), "end": _compact(end)},
        "compression": "Parquet",
        "contentType": "Parquet",
        "columns": [{"name": name, "type": _cur_type(kind)} for name, kind, _ in _COLUMNS],
        "dataFiles": [f"s3://{co.BUCKET}/{name.as_posix()}" for name in names],
    }
    manifest.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return manifest


def _table(lines: Sequence[AwsLine], first: datetime, end: datetime, offset: int) -> pa.Table:
    arrays: dict[str, pa.Array] = {}
    period = {
        "bill_billing_period_start_date": first.replace(tzinfo=None),
        "bill_billing_period_end_date": end.replace(tzinfo=None),
    }
    for name, kind, value in _COLUMNS:
        if name in period:
            values: list[Any] = [period[name]] * len(lines)
        elif name == "identity_line_item_id":
            values = [_digest(str(offset + n), line.usage_type, line.start.isoformat())[:40] for n, line in enumerate(lines)]
        else:
            values = [value(line) for line in lines]
        arrays[name] = pa.array(values, type=kind)
    return pa.table(arrays)


def _cur_type(kind: pa.DataType) -> str:
    type_names = {
        _TEXT: "string",
        _DOUBLE: "double",
        _TIME: "timestamp",
        _MAP: "map<string,string>",
        _DOUBLE_MAP: "map<string,double>",
    }
    return type_names[kind]


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=20).hexdigest()


def _zulu(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(at: datetime) -> str:
    return at.strftime("%Y%m%dT%H%M%S.000Z")


FOCUS_COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice",
    "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId",
    "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter",
    "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags",
)  # fmt: skip
"""Columns of Cost and Usage 1.2 that apply to a provider without commitments, capacity reservations or virtual currency."""


def write_focus(path: Path, lines: Sequence[OpenAiLine], *, first: datetime, end: datetime) -> Path:
    """OpenAI's charges as a FOCUS 1.2 CSV: one row per day and line item; empty fields are null."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FOCUS_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for line in lines:
        cost, rate = text(line.cost), text(line.rate)
        writer.writerow(
            {
                "BilledCost": cost,
                "EffectiveCost": cost,
                "ListCost": cost,
                "ContractedCost": cost,
                "BillingAccountId": co.OPENAI_ORGANISATION,
                "BillingAccountName": co.COMPANY,
                "BillingAccountType": "Organization",
                "BillingCurrency": co.CURRENCY,
                "PricingCurrency": co.CURRENCY,
                "BillingPeriodStart": _zulu(first),
                "BillingPeriodEnd": _zulu(end),
                "ChargeCategory": "Usage",
                "ChargeDescription": line.item,
                "ChargeFrequency": "Usage-Based",
                "ChargePeriodStart": _zulu(line.day),
                "ChargePeriodEnd": _zulu(line.day + timedelta(days=1)),
                "ConsumedQuantity": text(line.quantity),
                "ConsumedUnit": line.unit,
                "PricingQuantity": text(line.quantity),
                "PricingUnit": line.unit,
                "PricingCategory": "Standard",
                "ListUnitPrice": rate,
                "ContractedUnitPrice": rate,
                "ProviderName": "OpenAI",
                "PublisherName": "OpenAI",
                "InvoiceIssuerName": "OpenAI",
                "ServiceCategory": "AI and Machine Learning",
                "ServiceName": "OpenAI API",
                "ServiceSubcategory": "Generative AI",
                "SkuId": line.item.replace(", ", "/"),
                "SkuMeter": line.item,
                "SkuPriceId": line.item.replace(", ", "/") + "/standard",
                "SubAccountId": co.OPENAI_PROJECT,
                "SubAccountName": "Brightwater main",
                "SubAccountType": "Project",
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(out.getvalue(), encoding="utf-8")
    return path
