"""Cost and Usage Reports as AWS lays them out, made small for tests."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MONTH = "2026-10"
MAP = pa.map_(pa.string(), pa.string())
TIME = pa.timestamp("ms", "UTC")
TYPES: dict[str, pa.DataType] = {
    "bill_billing_period_start_date": TIME,
    "line_item_usage_start_date": TIME,
    "line_item_usage_end_date": TIME,
    "resource_tags": MAP,
    "tags": MAP,
    "cost_category": MAP,
    "product": MAP,
}
AMOUNTS = (
    "line_item_unblended_cost",
    "line_item_net_unblended_cost",
    "line_item_usage_amount",
    "pricing_public_on_demand_cost",
    "reservation_effective_cost",
    "reservation_unused_amortized_upfront_fee_for_billing_period",
    "reservation_unused_recurring_fee",
    "savings_plan_savings_plan_effective_cost",
    "savings_plan_total_commitment_to_date",
    "savings_plan_used_commitment",
)


def moment(day: int, hour: int = 0, month: str = MONTH) -> datetime:
    return datetime.fromisoformat(f"{month}-{day:02}T{hour:02}:00:00").replace(tzinfo=UTC)


def line(cost: float | str | None, kind: str = "Usage", **more: Any) -> dict[str, Any]:
    month = more.pop("month", MONTH)
    return {
        "bill_billing_period_start_date": moment(1, month=month),
        "bill_payer_account_id": "111122223333",
        "bill_invoice_id": None,
        "line_item_line_item_type": kind,
        "line_item_usage_account_id": "444455556666",
        "line_item_usage_start_date": moment(5, 1, month),
        "line_item_usage_end_date": moment(5, 2, month),
        "line_item_product_code": "AmazonBedrock",
        "line_item_usage_type": "USE1-NovaPro-input-tokens" if kind == "Usage" else None,
        "line_item_currency_code": "USD",
        "line_item_unblended_cost": cost,
        **more,
    }


def parquet(*lines: dict[str, Any], lists: bool = False) -> bytes:
    """A CUR 2.0 Parquet file; `lists` writes maps as lists of key and value structs, as some engines do."""
    names = list(dict.fromkeys(name for entry in lines for name in entry))
    columns = {}
    for name in names:
        kind = TYPES.get(name, pa.float64() if name in AMOUNTS else pa.string())
        values = [entry.get(name) for entry in lines]
        if kind == MAP:
            values = [None if v is None else list(v.items()) for v in values]
            if lists:
                kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
                values = [None if v is None else [{"key": k, "value": w} for k, w in v] for v in values]
        columns[name] = pa.array(values, kind)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="snappy")
    return out.getvalue()


def manifest(files: list[str], *, execution: str, month: str = MONTH, export: str = "agents") -> bytes:
    """The manifest of one run of a CUR 2.0 export."""
    year, number = map(int, month.split("-"))
    following = f"{year + number // 12}{number % 12 + 1:02}"
    return json.dumps(
        {
            "exportArn": f"arn:aws:bcm-data-exports:us-east-1:111122223333:export/{export}-0f3c",
            "executionId": execution,
            "billingPeriod": {"start": f"{month.replace('-', '')}01T000000.000Z", "end": f"{following}01T000000.000Z"},
            "columns": [{"name": "line_item_unblended_cost", "type": "double"}],
            "dataFiles": files,
        }
    ).encode()
