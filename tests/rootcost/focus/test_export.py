"""The export of allocated costs: both margins are exact, every version passes our own check, and the bytes are the same each time."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.run import attribute
from ledger.books import Books
from ledger.errors import RootCostError
from ledger.settings import AttributionSettings, SharedRule
from ledger.tables import CHARGES, COSTS
from rootcost.cli import app
from rootcost.focus.columns import VERSIONS, Version
from rootcost.focus.export import ExportQuery, export
from rootcost.focus.parts import METRICS, PartsQuery, month_parts
from rootcost.focus.split import ratios, split
from tests.attribution.test_rules import configure
from tests.support.books_by_hand import charge, charges, write

D = Decimal
TEAMS = ["Care", "Dev", "Ops"]
SHARED = {"service_name": "AWS Support", "sku_meter": "Support", "consumed_unit": None, "service_category": None}


@given(
    st.lists(st.integers(0, 10**18), min_size=1, max_size=6),
    st.lists(st.integers(0, 10**18), min_size=1, max_size=5),
    st.sampled_from([1, -1]),
)
def test_parts_have_both_margins_and_the_sign_of_their_charge(amounts: list[int], weights: list[int], sign: int) -> None:
    total = sum(amounts)
    # Weights that sum to the charges, as allocated amounts do.
    allocated_amounts = [part for (part,) in zip(*split([total], weights), strict=True)]
    charge_amounts, allocated_amounts = [sign * amount for amount in amounts], [sign * amount for amount in allocated_amounts]
    parts = split(charge_amounts, allocated_amounts)
    assert [sum(row) for row in parts] == charge_amounts
    assert not total or [sum(column) for column in zip(*parts, strict=True)] == allocated_amounts
    assert sum(ratios(weights)) == 10**12
    # Only where charges are a few units is there nothing to exchange with.
    assert min(amounts) < 1000 or min(weights) == 0 or all(part * sign >= 0 for row in parts for part in row)


@pytest.fixture
def shared_books(books: Books) -> Books:
    """A pool that three teams share, of charges that no rule tells apart, with a refund, a tax, and cents that do not divide by three."""
    configure(
        books,
        attribution=AttributionSettings(shared=[SharedRule(name="support", service="AWS Support", method="even", teams=TEAMS)]),
    )
    tax = {"charge_category": "Tax", "service_name": None, "sku_meter": "Tax", "consumed_unit": None}
    rows = [
        *(charge(cost, **SHARED) for cost in ("10.01", "0.000000000001", "3.33")),
        charge("-1.25", **SHARED), charge("0.77", **tax), charge("5", **{**SHARED, "service_name": "Amazon Other"}),
    ]  # fmt: skip
    write(books, charges=charges(*rows))
    attribute(books)
    return books


def run_of(books: Books) -> str:
    from ledger.published import runs_in_force

    return runs_in_force(books.database)["2026-10"]


def sums(frame: pl.DataFrame, *keys: str) -> dict[Any, Any]:
    rows = frame.group_by(keys).agg(pl.col(name).sum() for name in METRICS[:4]).to_dicts()
    return {tuple(row[key] for key in keys): tuple(row[name] for name in METRICS[:4]) for row in rows}


def test_charges_and_recipients_are_the_sums_of_their_parts(shared_books: Books) -> None:
    parts = month_parts(shared_books, "2026-10", run_of(shared_books), PartsQuery("team"))
    bill = shared_books.store.scan(CHARGES).collect()
    costs = shared_books.store.scan(COSTS).collect().with_columns(team="initiator_team")
    assert sums(parts, "charge_id") == sums(bill, "charge_id")
    assert sums(parts, "cost_class", "team") == sums(costs, "cost_class", "team")
    ratios_of_charges = parts.group_by("charge_id").agg(pl.col("ratio").sum())["ratio"].to_list()
    assert ratios_of_charges == [1] * bill.height
    assert {team for team in parts["team"].to_list() if team} == set(TEAMS)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_passes_our_own_check(shared_books: Books, tmp_path: Path, version: Version) -> None:
    result = export(shared_books, ExportQuery("2026-10", version), str(tmp_path / "out"))
    assert result.report.faults == []
    frame = pl.read_parquet(tmp_path / "out/costs-2026-10.parquet")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["totals"]["USD"]["BilledCost"] == "17.860000000001"
    assert frame["BilledCost"].sum() == D("17.860000000001")
    prefix = "x_" if version == "1.2" else ""
    assert set(frame[f"{prefix}AllocatedMethodId"].unique()) <= {"rootcost-shared-1", "rootcost-unallocated-1"}
    no_team_rows = frame.filter(pl.col(f"{prefix}AllocatedMethodId") == "rootcost-unallocated-1")
    assert no_team_rows[f"{prefix}AllocatedResourceId"].null_count() == no_team_rows.height
    second_folder = tmp_path / "again"
    export(shared_books, ExportQuery("2026-10", version), str(second_folder))
    assert {path.name: path.read_bytes() for path in second_folder.rglob("*") if path.is_file()} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }


def test_a_bill_that_has_changed_since_the_run_is_told(shared_books: Books, tmp_path: Path) -> None:
    write(shared_books, charges=charges(charge("11", **SHARED)))
    with pytest.raises(RootCostError, match="are not those that the run of 2026-10 allocated"):
        export(shared_books, ExportQuery("2026-10", "1.3"), str(tmp_path / "out"))


def test_the_command_writes_csv_by_team(shared_books: Books, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def exit_code(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_info:
            app(["--home", str(shared_books.home), "focus", "export", *arguments])
        return int(exit_info.value.code or 0)

    assert exit_code("--month", "2026-10", "--out", str(tmp_path), "--grain", "team", "--format", "csv", "--version", "1.4") == 0
    assert "USD: BilledCost 17.860000000001" in capfd.readouterr().err
    frame = pl.read_csv(tmp_path / "costs-2026-10.csv", infer_schema=False)
    assert "ProviderName" not in frame.columns
    assert sum(D(cost) for cost in frame["BilledCost"]) == D("17.860000000001")
    periods = pl.read_csv(tmp_path / "billing-periods-2026-10.csv", infer_schema=False)
    assert periods["BillingPeriodStatus"].to_list() == ["Open"]
    assert exit_code("--month", "2025-01", "--out", str(tmp_path)) == 2
    assert "is not published" in capfd.readouterr().err
