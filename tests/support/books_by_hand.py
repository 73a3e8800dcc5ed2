"""Small ledgers written by hand: spans, charges and owners in a line each, for tests that read like the domain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from ledger import registry
from ledger.books import Books
from ledger.ids import span_key, trace_key
from ledger.tables import CHARGES, PRICES, SPANS, TIME

DAY = datetime(2026, 10, 5, tzinfo=UTC)
BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
SONNET: dict[str, Any] = {
    "provider": "bedrock",
    "response_model": "anthropic.claude-sonnet-4-6-v1:0",
    "usage_scope": "leaf",
    "input_includes_cache": True,
}


def at(hour: int, minute: int = 0, *, day: int = 5) -> datetime:
    """An instant of October 2026."""
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC)


def span(trace: int, number: int, parent: int | None = None, **columns: Any) -> dict[str, Any]:
    """A span named by small numbers; `columns` are set as given, `link=(trace, span)` a span link."""
    trace_id, span_id = f"{trace:032x}", f"{number:016x}"
    row: dict[str, Any] = {
        "channel": "otlp",
        "source": "otlp",
        "trace_id": trace_id,
        "span_id": span_id,
        "trace_key": trace_key(trace_id),
        "span_key": span_key(span_id),
        "parent_key": None if parent is None else span_key(f"{parent:016x}"),
        "parent_span_id": None if parent is None else f"{parent:016x}",
        "start_time": at(10),
        "rank": len(columns),
    }
    if "link" in columns:
        other = columns.pop("link")
        row |= {"link_trace_key": trace_key(f"{other[0]:032x}"), "link_span_key": span_key(f"{other[1]:016x}")}
    row |= columns
    row.setdefault("end_time", row["start_time"] + timedelta(seconds=60))
    row["date"] = row["start_time"].date()
    return row


def spans(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `spans`."""
    return SPANS.conform(pl.DataFrame(list(rows), infer_schema_length=None))


def charge(cost: str, **columns: Any) -> dict[str, Any]:
    """A charge of Bedrock input tokens in account 1111, hour 10; `columns` sets other columns. All four cost columns are `cost` unless given."""
    row: dict[str, Any] = {
        "source": "focus",
        "scope": "by-hand",
        "raw_id": "0" * 64,
        "billing_month": "2026-10",
        "final": True,
        "billing_currency": "USD",
        "billed_cost": Decimal(cost),
        "effective_cost": Decimal(cost),
        "list_cost": Decimal(cost),
        "contracted_cost": Decimal(cost),
        "charge_period_start": at(10),
        "charge_period_end": at(11),
        "charge_category": "Usage",
        "provider_name": "AWS",
        "billing_account_id": "9999",
        "sub_account_id": "1111",
        "service_name": "Amazon Bedrock",
        "region_id": "us-east-1",
        "sku_meter": "USE1-Claude4.6Sonnet-input-tokens",
        "consumed_unit": "1K tokens",
    }
    if "tokens_k" in columns:
        row["consumed_quantity"] = Decimal(columns.pop("tokens_k"))
    return row | columns


def charges(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `charges`."""
    money = {c: t for c, t in CHARGES.schema.items() if isinstance(t, pl.Decimal)}
    frame = pl.DataFrame(
        [{"charge_id": f"c{n}", **row} for n, row in enumerate(rows)], infer_schema_length=None, schema_overrides={}
    )
    return CHARGES.conform(frame.with_columns(pl.col(c).cast(t) for c, t in money.items() if c in frame.columns))


def price(model: str, meter: str, rate: str, **columns: Any) -> dict[str, Any]:
    """A list price."""
    row = {
        "origin": "list",
        "book": "by hand",
        "provider": "bedrock_converse",
        "model": model,
        "meter": meter,
        "service_tier": "standard",
        "context_above": 0,
        "region": "",
        "currency": "USD",
        "rate": Decimal(rate),
        "valid_from": BEGIN,
        "recorded_at": BEGIN,
    }
    return row | columns


def write(
    books: Books,
    *,
    spans: pl.DataFrame | None = None,
    charges: pl.DataFrame | None = None,
    prices: list[dict[str, Any]] | None = None,
    owners: str = "",
) -> Books:
    """Puts facts into the books; `owners` is a registry file."""
    if spans is not None:
        books.store.merge(SPANS, spans, prefer="rank")
    if charges is not None:
        for (scope, month), rows in charges.group_by("scope", "billing_month"):
            books.store.replace(CHARGES, rows, {"scope": str(scope), "billing_month": str(month)})
    if prices:
        books.store.append(
            PRICES,
            pl.DataFrame(prices, schema_overrides={"rate": PRICES.schema["rate"], "valid_from": TIME, "recorded_at": TIME}),
        )
    if owners:
        registry.import_text(books, owners, uri="by hand", actor="test")
    return books
