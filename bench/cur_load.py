"""A month of a large AWS organisation as a CUR 2.0 export: the columns and value kinds of the demo's export, at any size.

Line items are drawn from a catalogue of series (a resource, a usage type, a price, its tags), since hourly exports repeat them.
The draw is reproducible and written in chunks, so that a month of any size needs little memory.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SERIES = 20_000
FILE_ROWS = 1_000_000
CHUNK_ROWS = 200_000
_MONTH, _HOURS = np.datetime64("2026-10-01T00:00:00", "ms"), 744
_REGIONS = (("us-east-1", "USE1"), ("us-west-2", "USW2"), ("eu-west-1", "EUW1"), ("eu-central-1", "EUC1"))
_MODELS = {"Claude4.6Sonnet": 0.003, "Claude4.5Haiku": 0.001, "ClaudeOpus4.6": 0.005, "NovaPro": 0.0008, "NovaLite": 0.00006}
_METERS = {"input-tokens": 1.0, "output-tokens": 5.0, "cache-read-input-token-count": 0.1, "cache-write-input-token-count": 1.25}
_MACHINES = {"g5.xlarge": 1.006, "m7i.large": 0.1008, "c7g.2xlarge": 0.29, "p4d.24xlarge": 32.7726}
_KINDS = ("Usage", "SavingsPlanCoveredUsage", "SavingsPlanNegation", "DiscountedUsage", "EdpDiscount", "SavingsPlanRecurringFee")
_SHARES = (0.915, 0.02, 0.02, 0.02, 0.024, 0.001)
_PLAN = "arn:aws:savingsplans::999900001111:savingsplan/5b1c9d70-3a51-4a39-9a59-0c7c7f1e2d11"
_RESERVED = "arn:aws:ec2:us-east-1:999900001111:reserved-instances/0f3c5b1c-9d70-4a39-9a59-0c7c7f1e2d11"
_SAME = {
    "bill_bill_type": "Anniversary",
    "bill_billing_entity": "AWS",
    "bill_invoicing_entity": "Amazon Web Services, Inc.",
    "bill_payer_account_id": "999900001111",
    "bill_payer_account_name": "Payer",
    "line_item_currency_code": "USD",
    "line_item_legal_entity": "Amazon Web Services, Inc.",
    "pricing_currency": "USD",
}
_EMPTY = (
    *("bill_invoice_id", "line_item_tax_type", "pricing_lease_contract_length", "pricing_offering_class", "product_comment"),
    *("pricing_purchase_option", "product_fee_code", "product_fee_description", "product_from_location", "product_to_location"),
    *("product_from_location_type", "product_from_region_code", "product_to_location_type", "product_to_region_code"),
    *("product_instance_family", "reservation_availability_zone", "reservation_end_time", "reservation_start_time"),
    *("reservation_modification_status", "savings_plan_end_time", "savings_plan_offering_type", "savings_plan_start_time"),
    *("savings_plan_instance_type_family", "savings_plan_payment_option", "savings_plan_purchase_term", "savings_plan_region"),
    "split_line_item_parent_resource_id",
)
_ZERO = (
    *("line_item_normalization_factor", "reservation_amortized_upfront_cost_for_usage", "reservation_unused_quantity"),
    *("reservation_unused_amortized_upfront_fee_for_billing_period", "reservation_unused_recurring_fee"),
    *("reservation_net_effective_cost", "reservation_recurring_fee_for_usage", "reservation_upfront_value"),
    *("savings_plan_net_savings_plan_effective_cost", "savings_plan_amortized_upfront_commitment_for_billing_period"),
)


def export(root: Path, rows: int) -> Path:
    """Writes one run of the export below `root`, files first and the manifest last; returns its folder."""
    base, month = root / "cur" / "org", "BILLING_PERIOD=2026-10"
    (base / "data" / month).mkdir(parents=True)
    rng = np.random.default_rng(7)
    series = _catalogue(rng)
    names = []
    for number, start in enumerate(range(0, rows, FILE_ROWS), 1):
        name = f"org-{number:05d}.snappy.parquet"
        count = min(FILE_ROWS, rows - start)
        chunks = (_lines(series, rng, min(CHUNK_ROWS, count - at), start + at) for at in range(0, count, CHUNK_ROWS))
        first = next(chunks)
        with pq.ParquetWriter(base / "data" / month / name, first.schema, compression="snappy", store_schema=False) as writer:
            writer.write_table(first)
            for chunk in chunks:
                writer.write_table(chunk)
        names.append(f"s3://bench-bills/cur/org/data/{month}/{name}")
    manifest = base / "metadata" / month / "org-Manifest.json"
    manifest.parent.mkdir(parents=True)
    told = {
        "exportArn": "arn:aws:bcm-data-exports:us-east-1:999900001111:export/org-0f3c",
        "executionId": "bench",
        "billingPeriod": {"start": "20261001T000000.000Z", "end": "20261101T000000.000Z"},
        "dataFiles": names,
    }
    manifest.write_text(json.dumps(told))
    return base


def _catalogue(rng: np.random.Generator) -> dict[str, Any]:
    """What repeats: one entry a series, text as dictionaries, maps as they are."""
    rows = [_one_series(rng, number) for number in range(SERIES)]
    texts = {name: pa.array([row[name] for row in rows], pa.string()).dictionary_encode() for name in rows[0] if name[0] != "_"}
    kinds = {"product": pa.map_(pa.string(), pa.string()), "resource_tags": pa.map_(pa.string(), pa.string())}
    kinds["tags"] = kinds["cost_category"] = kinds["product"]
    maps = {name: pa.array([list(row[f"_{name}"].items()) for row in rows], kind) for name, kind in kinds.items()}
    return {"texts": texts, "maps": maps, "rate": np.array([row["_rate"] for row in rows])}


def _one_series(rng: np.random.Generator, number: int) -> dict[str, Any]:
    region, prefix = _REGIONS[rng.integers(len(_REGIONS))]
    account, team = int(rng.integers(80)), int(rng.integers(30))
    principal, draw = "", rng.random()
    if draw < 0.6:
        model, meter = list(_MODELS)[rng.integers(len(_MODELS))], list(_METERS)[rng.integers(len(_METERS))]
        code, name, unit, operation = "AmazonBedrock", "Amazon Bedrock", "1K tokens", "InvokeModelInference"
        usage, rate = f"{prefix}-{model}-{meter}", _MODELS[model] * _METERS[meter]
        about = f"{rate:.8f} per 1K tokens for {model} {meter} in {region}"
        resource = f"arn:aws:bedrock:{region}:{account:012d}:application-inference-profile/{number // 4:08x}"
        principal = f"arn:aws:sts::{account:012d}:assumed-role/agents/{_word(number // 3)}"
    elif draw < 0.85:
        machine = list(_MACHINES)[rng.integers(len(_MACHINES))]
        code, name, unit, operation = "AmazonEC2", "Amazon Elastic Compute Cloud", "Hrs", "RunInstances"
        usage, rate, resource = f"{prefix}-BoxUsage:{machine}", _MACHINES[machine], f"i-{number:017x}"
        about = f"${rate} per On Demand Linux {machine} Instance Hour"
    else:
        code, name, unit, operation = "AmazonS3", "Amazon Simple Storage Service", "Requests", "PutObject"
        usage, rate, resource = f"{prefix}-Requests-Tier1", 0.000005, f"bucket-{number:06d}"
        about = "$0.005 per 1,000 PUT, COPY, POST, or LIST requests"
    tags = {"user_team": f"team-{team:02}", "user_env": ("prod", "dev")[number % 2], "user_app": f"app-{number % 400}"}
    return {
        "line_item_usage_account_id": f"{account:012d}",
        "line_item_usage_account_name": f"account-{account}",
        "line_item_iam_principal": principal,
        "line_item_line_item_description": about,
        "line_item_operation": operation,
        "line_item_product_code": code,
        "line_item_resource_id": resource,
        "line_item_unblended_rate": f"{rate:.10f}",
        "line_item_blended_rate": f"{rate:.10f}",
        "line_item_usage_type": usage,
        "line_item_availability_zone": f"{region}a",
        "pricing_public_on_demand_rate": f"{rate:.10f}",
        "pricing_rate_code": f"SKU{zlib.crc32(usage.encode()) % 10**6:06d}.JRTCKXETXF.6YS6EN2CT7",
        "pricing_rate_id": f"{number % 900:09d}",
        "pricing_unit": unit,
        "product_product_family": "Machine Learning" if code == "AmazonBedrock" else "Compute",
        "product_region_code": region,
        "product_servicecode": code,
        "product_sku": f"{number % 900:016X}",
        "product_usagetype": usage,
        "_rate": rate,
        "_product": {"product_name": name, "servicename": name, "region": region, "servicecode": code, "usagetype": usage},
        "_resource_tags": tags if rng.random() < 0.9 else {},
        "_tags": {"iamPrincipal/agent": _word(number // 3)} if principal else {},
        "_cost_category": {"Unit": ("EU", "US")[account % 2]},
    }


def _word(number: int) -> str:
    return f"agent-{number % 1200:04d}"


def _lines(series: dict[str, Any], rng: np.random.Generator, rows: int, first: int) -> pa.Table:
    # Few series make most of the lines, as in life.
    drawn = (rng.random(rows) ** 2 * SERIES).astype(np.int32)
    take = pa.array(drawn)
    hour = rng.integers(0, _HOURS, rows)
    begins = _MONTH + hour.astype("timedelta64[h]")
    kind = rng.choice(len(_KINDS), rows, p=_SHARES).astype(np.int32)
    quantity = np.round(rng.lognormal(4, 2, rows), 3)
    # AWS writes a product of decimals as a double; where it has added such products up, the double shows all its digits.
    cost = np.where(rng.random(rows) < 0.98, np.round(quantity * series["rate"][drawn], 10), quantity * series["rate"][drawn])
    public = np.where(np.isin(kind, (0, 1, 3)), cost, 0.0)
    unblended = np.where(kind == 2, -cost, np.where(kind == 4, np.round(cost * -0.12, 10), np.where(kind == 3, 0.0, cost)))
    plan = np.where(kind == 1, np.round(cost * 0.7, 10), 0.0)
    zero = np.zeros(rows)
    columns: dict[str, pa.Array] = {name: _same(value, rows) for name, value in _SAME.items()}
    columns |= {name: _same("", rows) for name in _EMPTY}
    columns |= dict.fromkeys(_ZERO, pa.array(zero))
    columns |= {name: array.take(take) for name, array in (series["texts"] | series["maps"]).items()}
    columns |= {
        "bill_billing_period_start_date": pa.array(np.full(rows, _MONTH)),
        "bill_billing_period_end_date": pa.array(np.full(rows, np.datetime64("2026-11-01T00:00:00", "ms"))),
        "identity_line_item_id": _ids(rng, rows),
        "identity_time_interval": _intervals(hour),
        "line_item_line_item_type": pa.DictionaryArray.from_arrays(kind, pa.array(_KINDS)),
        "line_item_usage_start_date": pa.array(begins),
        "line_item_usage_end_date": pa.array(begins + np.timedelta64(1, "h")),
        "line_item_usage_amount": pa.array(quantity),
        "line_item_blended_cost": pa.array(unblended),
        "line_item_unblended_cost": pa.array(unblended),
        "line_item_net_unblended_cost": pa.array(np.round(unblended * 0.94, 12)),
        "pricing_public_on_demand_cost": pa.array(public),
        "pricing_term": _same("OnDemand", rows),
        "reservation_effective_cost": pa.array(np.where(kind == 3, np.round(cost * 0.6, 10), 0.0)),
        "reservation_reservation_a_r_n": _either(kind == 3, _RESERVED),
        "savings_plan_savings_plan_a_r_n": _either(np.isin(kind, (1, 2, 5)), _PLAN),
        "savings_plan_savings_plan_effective_cost": pa.array(plan),
        "savings_plan_total_commitment_to_date": pa.array(np.where(kind == 5, 8.0, 0.0)),
        "savings_plan_used_commitment": pa.array(np.where(kind == 5, 6.125, 0.0)),
        "discount": pa.MapArray.from_arrays(
            pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()), pa.array([], pa.float64())
        ),
        "discount_total_discount": pa.array(zero),
    }
    return pa.table({name: columns[name] for name in sorted(columns)})


def _same(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([value]))


def _either(given: np.ndarray[Any, np.dtype[np.bool_]], value: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(given.astype(np.int32), pa.array(["", value]))


def _ids(rng: np.random.Generator, rows: int) -> pa.Array:
    """40 letters a line that never repeat, as AWS numbers its lines."""
    letters = rng.integers(97, 123, rows * 40, dtype=np.uint8)
    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * 40)
    return pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(letters))


def _intervals(hour: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    starts = _MONTH + np.arange(_HOURS + 1).astype("timedelta64[h]")
    texts = [f"{a}Z/{b}Z" for a, b in zip(starts[:-1].astype("datetime64[s]"), starts[1:].astype("datetime64[s]"), strict=True)]
    return pa.DictionaryArray.from_arrays(hour.astype(np.int32), pa.array(texts))
