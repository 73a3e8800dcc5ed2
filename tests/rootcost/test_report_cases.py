"""Reports of cases with known answers: what is billed and what estimated, and which day and month a cost is of. (LA-1, TI-1a)"""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_books import Command
from tests.support.paths import ROOT

CASES = ROOT / "tests" / "data" / "cases"


def rows_of(rootcost: Command, *options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = rootcost("costs", *options, "--format", "json").rows
    return rows


# ── LA-1, matching-15 ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def restated(home: Path) -> Command:
    """A bill of 17.00, restated as 5.00: 12.00 of usage is on no bill any more."""
    rootcost, case = Command(home), CASES / "matching-15"
    for line in (
        ("agents", "import", case / "registry.csv"),
        ("ingest", "otlp", case / "spans.json"),
        ("ingest", "focus", case / "bill.csv", "--scope", "b"),
        ("attribute",),
    ):
        rootcost(*line)
    assert {row["cost_estimated"] for row in rows_of(rootcost)} == {"0"}
    rootcost("ingest", "focus", case / "restated.csv", "--scope", "b")
    rootcost("attribute")
    return rootcost


@pytest.mark.slow
def test_every_format_says_how_much_of_a_total_is_estimated(restated: Command) -> None:
    rows = rows_of(restated)
    assert [(row["team"], row["cost"], row["cost_billed"], row["cost_estimated"]) for row in rows] == [
        ("Y", "9", "0", "9"),
        (None, "5", "5", "0"),
        ("X", "3", "0", "3"),
    ]
    lines = list(csv.DictReader(io.StringIO(restated("costs", "--format", "csv").out)))
    assert sum(Decimal(line["cost_billed"]) for line in lines) == Decimal(5)
    assert sum(Decimal(line["cost_estimated"]) for line in lines) == Decimal(12)
    (total,) = [line for line in restated("costs").out.splitlines() if line.strip().startswith("total")]
    assert total.split() == ["total", "17.00", "5.00", "12.00"]


@pytest.mark.slow
def test_billed_cost_is_what_the_bill_says(restated: Command) -> None:
    rows = rows_of(restated, "--basis", "billed", "--from", "2026-10", "--to", "2026-11")
    assert [(row["team"], row["cost"], row["cost_estimated"]) for row in rows] == [(None, "5", "0")]


# ── TI-1a, matching-03 ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "zone", ["Pacific/Honolulu", *(pytest.param(zone, marks=pytest.mark.slow) for zone in ("UTC", "America/New_York"))]
)
def test_month_and_day_in_any_timezone(home: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Daily and monthly charges: 159.00 in October, over the budget of 150, and each call on its own day. (TI-1a)

    14:00 UTC is the same date in all three zones, so the answer is, too.
    """
    monkeypatch.setenv("ROOTCOST_REPORT__TIMEZONE", zone)
    rootcost, case = Command(home), CASES / "matching-03"
    for line in (
        ("agents", "import", case / "registry.csv"),
        ("ingest", "otlp", case / "spans.json"),
        ("ingest", "focus", case / "bill.csv"),
        ("budgets", "set", "a-monthly", "--team", "A", "--amount", "150"),
        ("attribute",),
    ):
        rootcost(*line)
    october = ("--by", "initiator_team", "--from", "2026-10", "--to", "2026-11")
    for options in ((*october,), (*october, "--calendar", "usage"), ("--by", "initiator_team", "--granularity", "month")):
        assert [row["cost"] for row in rows_of(rootcost, *options)] == ["159"]
    days = rows_of(rootcost, "--by", "initiator_team", "--granularity", "day")
    assert [(row["period_start"][:10], row["cost"]) for row in days] == [
        ("2026-10-01", "101"),
        *((f"2026-10-{day:02d}", "2") for day in range(2, 31)),
    ]
    assert "159.00" in rootcost("budgets", "list").out
    assert "exceeded" in rootcost("budgets", "list").out
