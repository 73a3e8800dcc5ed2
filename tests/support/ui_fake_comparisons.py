"""Canned comparisons for the dashboard's tests: September and October of `ui_fake_api.ATOMS`, whose changes are volume and price."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fastapi import FastAPI

from api import models as m

BEFORE, AFTER = Decimal("100.00"), Decimal("131.50")
ROWS: list[dict[str, Any]] = [
    {"team": "Dev", "agent": "coder", "effect": "volume", "cost": Decimal("40.000000000001")},
    {"team": "Dev", "agent": "coder", "effect": "tokens_per_call", "cost": Decimal("-2.5")},
    {"team": "Care", "agent": "support-bot", "effect": "price", "cost": Decimal("-10.000000000001")},
    {"team": None, "agent": None, "effect": "new", "cost": Decimal(4)},
]
"""They sum to 31.5."""


def register(app: FastAPI, *, empty: bool) -> None:
    """The route."""

    @app.get("/v1/compare")
    def compare(by: str = "", view: str = "initiator", basis: str = "effective") -> m.ComparisonTable:
        names = [name for name in by.split(",") if name]
        shape: dict[str, Any] = {"by": names, "view": view, "basis": basis, "calendar": "invoice", "timezone": "UTC"}
        months = [datetime(2026, month, 1, tzinfo=UTC) for month in (9, 10, 10, 11)]
        times: dict[str, Any] = dict(zip(("before_start", "before_end", "after_start", "after_end"), months, strict=True))
        totals = {"totals_before": BEFORE, "totals_after": AFTER, "totals_change": AFTER - BEFORE}
        sums: dict[str, Any] = {name: {} if empty else {"USD": amount} for name, amount in totals.items()}
        rows = [m.ComparisonRow.model_validate({"currency": "USD", **dict.fromkeys(names), **row}) for row in ROWS]
        return m.ComparisonTable(**shape, **times, **sums, runs={"2026-10": "run-7"}, rows=[] if empty else rows)
