"""OpenAI's costs as its console exports them: a CSV of days, projects and line items.

The counterpart of `ingest.sources.openai` for those who have no admin key: the same charges, under the same names.
"""

from __future__ import annotations

import polars as pl

from ingest.bills.export_table import ExportTable, console_access, tags, text

_TOLD = ("amount_value", "amount_currency", "quantity", "line_item", "project_id", "api_key_id", "user_id")
_IS_OF_TOKENS = text("line_item").str.contains(r"(?:^|[\s,])(?:input|output)(?: tokens)?(?:, [\w ]+)?$")

SOURCE = ExportTable(
    name="openai-console",
    title="OpenAI costs as the console exports them, CSV",
    access=console_access("platform.openai.com, Usage, Costs, grouped by project and line item, Export"),
    required=("start_time_iso", "end_time_iso", "amount_value", "amount_currency", "line_item", "project_id"),
    optional=(
        "quantity",
        "quantity_unit",
        "user_id",
        "api_key_id",
        "organization_id",
        "organization_name",
        "project_name",
    ),
    columns={
        "billed_cost": text("amount_value"),
        "billing_currency": text("amount_currency").str.to_uppercase(),
        "charge_period_start": text("start_time_iso"),
        "charge_period_end": text("end_time_iso"),
        "charge_description": text("line_item"),
        "sku_id": text("line_item"),
        "sku_meter": text("line_item"),
        "billing_account_id": text("organization_id"),
        "billing_account_name": text("organization_name"),
        "sub_account_id": text("project_id"),
        "sub_account_name": text("project_name"),
        "principal": text("api_key_id"),
        "consumed_quantity": text("quantity"),
        "consumed_unit": pl.when(text("quantity").is_not_null()).then(
            pl.coalesce(text("quantity_unit"), pl.when(_IS_OF_TOKENS).then(pl.lit("Tokens")))
        ),
        "tags": tags(user_id="user_id"),
        "provider_name": pl.lit("OpenAI"),
        "publisher_name": pl.lit("OpenAI"),
        "invoice_issuer_name": pl.lit("OpenAI"),
        "service_name": pl.lit("OpenAI API"),
    },
    names={
        "billed_cost": "amount_value",
        "billing_currency": "amount_currency",
        "charge_period_start": "start_time_iso",
        "charge_period_end": "end_time_iso",
    },
    is_empty=pl.all_horizontal(text(name).is_null() for name in _TOLD),
    other_exports={
        "num_model_requests": "this is the export of activity, which has no amounts: export Costs",
    },
)
