"""Anthropic's costs as its console exports them: a CSV of days, workspaces, keys, models and token types.

The counterpart of `ingest.sources.anthropic` for those who have no admin key. SKUs are written as the cost report of the API writes
them, so that both are classified alike.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.bills.export_table import ExportTable, console_access, joined, text

_TOKEN_TYPES: Final = {
    "input_no_cache": "uncached_input_tokens",
    "input_cache_read": "cache_read_input_tokens",
    "input_cache_write_5m": "cache_creation.ephemeral_5m_input_tokens",
    "input_cache_write_1h": "cache_creation.ephemeral_1h_input_tokens",
    "output": "output_tokens",
}
"""Token types of the console, as the API names them; others stay as they are."""
_PLAIN_USES: Final = ("message", "standard")
_UNKNOWN_PLACES: Final = ("not_available", "global")

_MODEL = text("model").str.to_lowercase().str.replace_all(r"\s+", "-")
_USE = pl.when(~text("usage_type").is_in(_PLAIN_USES)).then(text("usage_type"))
_CONTEXT = pl.when(~text("context_window").str.contains(r"^(?:≤|<=)|^0-200k$")).then(text("context_window"))
_SPEED = pl.when(text("speed") == "fast").then(pl.lit("fast mode"))
_SKU = pl.when(text("token_type").is_not_null() & text("model").is_not_null()).then(
    joined(_MODEL, text("token_type").replace(_TOKEN_TYPES), _USE, _CONTEXT, _SPEED)
)
_IS_DEFAULT = text("workspace").fill_null("Default") == "Default"

SOURCE = ExportTable(
    name="anthropic-console",
    title="Anthropic costs as the console exports them, CSV",
    access=console_access("platform.claude.com, Cost, Export"),
    required=("usage_date_utc", "model", "workspace", "token_type", "cost_usd"),
    optional=("api_key", "api_key_id", "usage_type", "context_window", "list_price_usd", "cost_type", "inference_geo", "speed"),
    columns={
        "billed_cost": text("cost_usd"),
        "list_cost": text("list_price_usd"),
        "billing_currency": pl.lit("USD"),
        "charge_period_start": text("usage_date_utc"),
        "charge_description": joined(text("model"), text("token_type"), text("cost_type")),
        "sku_id": pl.coalesce(_SKU, text("cost_type")),
        "sku_meter": pl.coalesce(_SKU, text("cost_type")),
        "sub_account_id": pl.when(_IS_DEFAULT).then(pl.lit("default")).otherwise(text("workspace")),
        "sub_account_name": pl.when(_IS_DEFAULT).then(pl.lit("Default workspace")).otherwise(text("workspace")),
        "principal": pl.coalesce(text("api_key_id"), text("api_key")),
        "region_id": pl.when(~text("inference_geo").is_in(_UNKNOWN_PLACES)).then(text("inference_geo")),
        "provider_name": pl.lit("Anthropic"),
        "publisher_name": pl.lit("Anthropic"),
        "invoice_issuer_name": pl.lit("Anthropic"),
        "service_name": pl.lit("Claude API"),
    },
    names={"billed_cost": "cost_usd", "list_cost": "list_price_usd", "charge_period_start": "usage_date_utc"},
    other_exports={
        "usage_input_tokens_no_cache": "this is the export of tokens, which has no amounts: export Cost, not Usage",
    },
)
