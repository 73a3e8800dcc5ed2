"""Cursor's usage events as its dashboard exports them: a CSV of requests, of which the on-demand ones are billed."""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.bills.checks import Check
from ingest.bills.export_table import ExportTable, console_access, dollars, joined, tags, text
from ledger import money

_ON_DEMAND: Final = "on-demand"
_INCLUDED: Final = ("included", "free")
_OWN_KEY: Final = "user api key"
_FAILED: Final = r"^(?:errored|aborted), (?:no charge|not charged)$"

_KIND = text("Kind").str.to_lowercase()
_IS_INCLUDED = _KIND.is_in(_INCLUDED)
_IS_FREE = _IS_INCLUDED | (_KIND == _OWN_KEY) | _KIND.str.contains(_FAILED)
_AMOUNT = money.parse(dollars("Cost"))

SOURCE = ExportTable(
    name="cursor",
    title="Cursor's usage events: on-demand requests and what they cost, CSV",
    access=console_access("cursor.com, Dashboard, Usage, Export CSV"),
    required=("Date", "Kind", "Model", "Cost"),
    optional=("User", "Cloud Agent ID", "Automation ID", "Max Mode"),
    columns={
        "billed_cost": pl.when(_IS_FREE).then(pl.lit("0")).otherwise(dollars("Cost")),
        "list_cost": pl.when(_IS_INCLUDED & _AMOUNT.is_not_null()).then(dollars("Cost")),
        "billing_currency": pl.lit("USD"),
        "charge_period_start": text("Date"),
        "charge_description": joined(text("Model"), text("Kind")),
        "sku_id": text("Model"),
        "sku_meter": joined(text("Model"), pl.when(text("Max Mode").str.to_lowercase() == "yes").then(pl.lit("max mode"))),
        "operation": text("Kind"),
        "principal": text("User"),
        "tags": tags(automation_id="Automation ID", cloud_agent_id="Cloud Agent ID"),
        "provider_name": pl.lit("Cursor"),
        "publisher_name": pl.lit("Cursor"),
        "invoice_issuer_name": pl.lit("Cursor"),
        "service_name": pl.lit("Cursor"),
    },
    names={"billed_cost": "Cost", "list_cost": "Cost", "charge_period_start": "Date"},
    period="1h",
    checks=(
        Check(
            "Kind",
            ~(_IS_FREE | (_KIND == _ON_DEMAND)).fill_null(False),
            "is no kind of request that is known, so nothing says whether it is billed",
            "look it up in Cursor's dashboard and report it; book its amount as a FOCUS file if it is billed",
            "Kind",
        ),
    ),
    doubts=(
        Check(
            "Cost",
            (_KIND == _OWN_KEY) & (_AMOUNT != 0),
            "is told for a request on a key of your own; it is not booked",
            "the key's provider bills it; compare Cursor's invoice, should it name a fee",
            "Cost",
        ),
    ),
    other_exports={"Requests": "this export counts requests and has no amounts: export usage by tokens"},
)
