"""Tables on narrow screens: every column stays readable, whatever has to give way."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from rootcost.terminal import tables

MONEY = ["charges_in", "metered", "owner", "shared", "idle", "unallocated", "difference"]
BALANCE: list[dict[str, Any]] = [
    {"currency": "USD", "invoice_month": "2026-10", "provider": provider, "cost_column": column}
    | dict.fromkeys(MONEY, Decimal("1234.5"))
    | {"owner": Decimal(of), "difference": Decimal(0)}
    for of, (provider, column) in enumerate((p, c) for p in ("AWS", "OpenAI") for c in ("billed", "effective"))
]


def drawn(width: int, columns: list[str], rows: list[dict[str, object]], **told: object) -> str:
    page = io.StringIO()
    Console(file=page, width=width, highlight=False).print(tables.table(columns, rows, width=width, **told))  # type: ignore[arg-type]
    return page.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 220])
def test_no_line_is_wider_than_the_screen_and_nothing_is_lost(width: int) -> None:
    shown = drawn(width, list(BALANCE[0]), BALANCE, money=MONEY)
    assert max(len(line) for line in shown.splitlines()) <= width
    for word in ("USD", "2026-10", "AWS", "OpenAI", "billed", "effective", "1,234.50", "difference"):
        assert word in shown, shown


def test_what_is_the_same_in_every_row_gives_way_first() -> None:
    shown = drawn(80, list(BALANCE[0]), BALANCE, money=[m for m in MONEY if m != "shared"], keep=["cost_column"])
    heading = next(line for line in shown.splitlines() if "provider" in line)
    assert "currency" not in heading
    assert "currency: USD" in shown


def test_columns_that_are_to_be_kept_stay_though_all_is_the_same() -> None:
    rows: list[dict[str, object]] = [{"team": None, "reason": "x" * 30, "what": f"{n}" * 30} for n in (1, 2)]
    assert "team" in drawn(30, ["team", "reason", "what"], rows, keep=["team"]).splitlines()[1]


def test_a_screen_too_narrow_for_columns_gets_lines() -> None:
    rows: list[dict[str, object]] = [{"run": f"20261101T060000-1c8f9a3{n}", "cause": f"cause {n}"} for n in (1, 2)]
    lines = [line.split() for line in drawn(34, ["run", "cause"], rows).splitlines() if line.strip()]
    assert lines == [
        ["run", "20261101T060000-1c8f9a31"],
        ["cause", "cause", "1"],
        ["run", "20261101T060000-1c8f9a32"],
        ["cause", "cause", "2"],
    ]


def test_markup_in_names_is_text() -> None:
    assert "[bold]x[/bold]" in drawn(80, ["name"], [{"name": "[bold]x[/bold]"}])
