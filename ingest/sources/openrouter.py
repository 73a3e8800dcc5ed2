"""OpenRouter's activity as its console exports it: a CSV of generations, each with what it cost."""

from __future__ import annotations

import polars as pl

from ingest.bills.export_table import ExportTable, console_access, tags, text

SOURCE = ExportTable(
    name="openrouter",
    title="OpenRouter's activity: generations and what they cost, CSV",
    access=console_access("openrouter.ai, Activity, Export, CSV of generations"),
    required=("generation_id", "created_at", "cost_total", "model_permaslug"),
    optional=("provider_name", "variant", "user", "api_key_name", "app_name"),
    columns={
        "billed_cost": text("cost_total"),
        "billing_currency": pl.lit("USD"),
        "charge_period_start": text("created_at"),
        "charge_description": text("model_permaslug"),
        "sku_id": text("model_permaslug"),
        "sku_meter": text("model_permaslug"),
        "product_code": text("provider_name"),
        "operation": text("variant"),
        "principal": text("api_key_name"),
        "tags": tags(app="app_name", user="user"),
        "provider_name": pl.lit("OpenRouter"),
        "publisher_name": pl.lit("OpenRouter"),
        "invoice_issuer_name": pl.lit("OpenRouter"),
        "service_name": pl.lit("OpenRouter"),
    },
    names={"billed_cost": "cost_total", "charge_period_start": "created_at"},
    period="1h",
    other_exports={
        "Slug": "this is the summary of days: export the generations, which say when and by which key",
    },
)
