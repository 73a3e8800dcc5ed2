"""GitHub Copilot's AI usage report: a CSV of days, users, models and AI credits, or premium requests before June 2026."""

from __future__ import annotations

import polars as pl

from ingest.bills.checks import Check
from ingest.bills.export_table import ExportTable, console_access, joined, tags, text
from ledger import money

_MODEL = text("model").str.strip_prefix("Auto: ")
_BILLED, _GROSS, _DISCOUNT = (money.parse(text(name)) for name in ("net_amount", "gross_amount", "discount_amount"))

SOURCE = ExportTable(
    name="github-copilot",
    title="GitHub Copilot's AI usage report: AI credits by user and model, CSV",
    access=console_access("github.com, Billing and licensing, AI usage, Get usage report"),
    required=("date", "sku", "model", "quantity", "unit_type", "gross_amount", "discount_amount", "net_amount"),
    optional=("username", "product", "organization", "repository", "cost_center_name", "applied_cost_per_quantity"),
    columns={
        "billed_cost": text("net_amount"),
        "list_cost": text("gross_amount"),
        "billing_currency": pl.lit("USD"),
        "charge_period_start": text("date"),
        "charge_description": joined(text("model"), text("sku")),
        "sku_id": text("sku"),
        "sku_meter": joined(_MODEL, text("sku")),
        "product_code": text("product"),
        "sub_account_id": text("organization"),
        "sub_account_name": text("organization"),
        "principal": text("username"),
        "consumed_quantity": text("quantity"),
        "consumed_unit": text("unit_type"),
        "list_unit_price": text("applied_cost_per_quantity"),
        "tags": tags(cost_center="cost_center_name", repository="repository"),
        "provider_name": pl.lit("GitHub"),
        "publisher_name": pl.lit("GitHub"),
        "invoice_issuer_name": pl.lit("GitHub"),
        "service_name": pl.lit("GitHub Copilot"),
    },
    names={
        "billed_cost": "net_amount",
        "list_cost": "gross_amount",
        "charge_period_start": "date",
    },
    doubts=(
        Check(
            "net_amount",
            (_GROSS - _DISCOUNT - _BILLED).abs() > pl.lit("0.01").cast(money.MONEY),
            "is not gross_amount less discount_amount; it is booked as it is",
            "compare it with the invoice, and fetch the report again",
            "net_amount",
        ),
    ),
    other_exports={
        "workflow_path": "this is the report of metered usage: fetch the AI usage report, which has models",
        "Requests Used": "this is the report of premium requests, which has no amounts: fetch the AI usage report",
    },
)
