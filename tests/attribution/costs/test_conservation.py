"""Conservation, whatever the bill and the logs hold: charges in = costs out, in every column, class by class and in both views."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.costs.month import compute_in_memory
from attribution.pricing import PriceBook
from attribution.usage.reader import Usage
from ledger import registry
from ledger.settings import AttributionSettings, SharedRule
from ledger.tables import COST_COLUMNS, PRICES, TOKEN_METERS, USAGE_HOURLY
from tests.support.amounts import largest_difference
from tests.support.books_by_hand import at, charge, charges

MONEY = st.decimals(min_value=Decimal(-1000), max_value=Decimal(100000), places=12)
POSITIVE = st.decimals(min_value=0, max_value=Decimal(100000), places=12)
MODELS = {"Claude4.6Sonnet": "claude-sonnet-4-6", "NovaPro": "nova-pro"}


@st.composite
def bill_row(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["tokens", "tokens", "tokens", "gpu", "storage", "credit", "tax", "refund", "purchase"]))
    hour = draw(st.integers(8, 12))
    costs = {c: draw(MONEY if kind in ("credit", "tax", "refund") else POSITIVE) for c in COST_COLUMNS}
    told: dict[str, Any] = {
        "charge_period_start": at(hour),
        "charge_period_end": at(hour + draw(st.sampled_from([1, 4]))),
        "sub_account_id": draw(st.sampled_from([None, "1111", "2222"])),
        "region_id": draw(st.sampled_from([None, "us-east-1"])),
        "principal": draw(st.sampled_from([None, "arn:p"])),
        "tags": draw(st.sampled_from([None, '{"team":"Growth"}'])),
        "invoice_id": draw(st.sampled_from([None, "inv"])),
        "billing_currency": draw(st.sampled_from(["USD", "USD", "EUR"])),
        **costs,
    }
    if kind == "tokens":
        told |= {
            "sku_meter": f"USE1-{draw(st.sampled_from(sorted(MODELS)))}-input-tokens",
            "tokens_k": str(draw(st.integers(0, 50))),
        }
    elif kind == "gpu":
        told |= {
            "sku_meter": "USE1-BoxUsage:g5",
            "resource_id": "i-gpu",
            "consumed_unit": "Hrs",
            "consumed_quantity": Decimal(draw(st.integers(0, 3))),
        }
    else:
        told |= {"sku_meter": draw(st.sampled_from([None, "USE1-NovaPro-input-tokens"])), "consumed_unit": None}
        told["charge_category"] = {
            "storage": "Usage",
            "credit": "Credit",
            "tax": "Tax",
            "refund": "Usage",
            "purchase": "Purchase",
        }[kind]
        told["charge_class"] = "Correction" if kind == "refund" else None
    return charge("0", **told)


@st.composite
def use_row(draw: st.DrawFn) -> dict[str, Any]:
    gpu = draw(st.booleans())
    team = draw(st.sampled_from(["Care", "Dev", None]))
    return {
        "rollup_id": "r",
        "month": "2026-10",
        "hour": at(draw(st.integers(8, 13))),
        "usage_key": draw(st.integers(0, 10**6)),
        "initiator_agent": draw(st.sampled_from(["bot", "coder"])),
        "initiator_team": team,
        "executor_agent": "bot",
        "executor_team": "Care",
        "method": "path",
        "provider": "AWS",
        "account": draw(st.sampled_from([None, "1111", "2222"])),
        "region": draw(st.sampled_from([None, "us-east-1"])),
        "principal": draw(st.sampled_from([None, "arn:p"])),
        "model": None if gpu else draw(st.sampled_from(sorted(MODELS.values()))),
        "meter": "seconds" if gpu else "input_tokens",
        "service_tier": "standard",
        "context_above": 0,
        "resource": "i-gpu" if gpu else None,
        "quantity": Decimal(draw(st.integers(0, 40_000))),
        "calls": 1,
        "list_cost": draw(st.sampled_from([None, Decimal("0.003")])),
    }


RULE = SharedRule(name="storage", service="Amazon Bedrock", charge_category="Purchase")


@settings(max_examples=15)
@given(
    st.lists(bill_row(), min_size=1, max_size=12),
    st.lists(use_row(), max_size=12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_charges_in_equal_costs_out(bill: list[dict[str, Any]], uses: list[dict[str, Any]], rule: bool, random: Any) -> None:
    rules = AttributionSettings(shared=[RULE] if rule else [])
    book = PriceBook(PRICES.empty())
    timeline = registry.timeline(pl.DataFrame(schema=registry.SCHEMA))

    def draw(bill: list[dict[str, Any]], uses: list[dict[str, Any]]) -> pl.DataFrame:
        money = {"quantity": USAGE_HOURLY.schema["quantity"], "list_cost": USAGE_HOURLY.schema["list_cost"]}
        frame = (
            USAGE_HOURLY.conform(pl.DataFrame(uses, schema_overrides=money, infer_schema_length=None))
            if uses
            else USAGE_HOURLY.empty()
        )
        frame = frame.sort("hour", "usage_key", "meter")
        return compute_in_memory(
            charges(*bill).lazy(), Usage.from_frame(frame), timeline, book, rules, run_id="r", month="2026-10"
        )

    costs = draw(bill, uses)
    billed = costs.filter(pl.col("basis") == "billed")
    for currency in ("USD", "EUR"):
        mine = billed.filter(pl.col("currency") == currency)
        for column in COST_COLUMNS:
            charged = sum((row[column] for row in bill if row["billing_currency"] == currency), Decimal(0))
            assert mine[column].sum() == charged, (currency, column)
    assert set(costs["cost_class"].unique()) <= {"metered", "owner", "shared", "idle", "unallocated"}
    metered_tokens = costs.filter((pl.col("cost_class") == "metered") & pl.col("meter").is_in(TOKEN_METERS))
    assert metered_tokens["executor_agent"].null_count() == 0

    mixed_bill, mixed_uses = list(bill), list(uses)
    random.shuffle(mixed_bill)
    random.shuffle(mixed_uses)
    again = draw(mixed_bill, mixed_uses)
    keys = ["cost_class", "initiator_team", "initiator_agent", "model", "currency", "period_start"]

    def summed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.group_by(keys).agg(pl.col(c).sum() for c in COST_COLUMNS).sort(keys)

    # Uses with equal keys may trade places, so single picodollars may move between like rows; sums per owner may not.
    left, right = summed(costs), summed(again)
    assert left.select(keys).equals(right.select(keys))
    for column in COST_COLUMNS:
        gap = largest_difference(left[column], right[column])
        assert gap is None or gap <= Decimal("0.000000001")
