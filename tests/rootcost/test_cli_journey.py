"""From files to figures by commands alone: the worked example of the specification, as a user would run it."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from tests.support.cli_books import Command, bill, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("input"))


@pytest.fixture(scope="module")
def rootcost(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Books in which the example is ingested and attributed; the tests below only ask."""
    run = Command(tmp_path_factory.mktemp("ledger") / "home")
    for line in (
        ("ingest", "focus", files / "bill.csv"),
        ("ingest", "otlp", files / "traces.json"),
        ("agents", "import", files / "agents.csv"),
        ("attribute",),
    ):
        done = run.in_a_process(*line)
        assert done.code == 0, done.err
    return run


def costs_by_team(rootcost: Command, view: str) -> dict[tuple[str, str | None], str]:
    rows = rootcost("costs", "--by", "team,cost_class", "--view", view, "--format", "json").rows
    return {(row["cost_class"], row["team"]): row["cost"] for row in rows}


def test_who_caused_it_and_who_burned_it(rootcost: Command) -> None:
    assert costs_by_team(rootcost, "initiator") == {
        ("metered", "Care"): "0.018",
        ("metered", "Dev"): "0.009",
        ("unallocated", None): "0.003",
    }
    assert costs_by_team(rootcost, "executor") == {
        ("metered", "Care"): "0.006",
        ("metered", "Data"): "0.012",
        ("metered", "Dev"): "0.009",
        ("unallocated", None): "0.003",
    }


def test_rows_have_the_promised_keys_in_order(rootcost: Command) -> None:
    (row, *_) = rootcost("costs", "--by", "initiator_team,model", "--granularity", "day", "--format", "json").rows
    assert list(row) == ["initiator_team", "model", "period_start", "currency", "cost", "cost_billed", "cost_estimated"]
    assert row["period_start"] == "2026-10-05T00:00:00+00:00"
    assert row["currency"] == "USD"
    assert "period_start" not in rootcost("costs", "--format", "json").rows[0]


def test_the_unlogged_rest_says_why(rootcost: Command) -> None:
    rows = rootcost("costs", "--by", "team,reason", "--where", "cost_class=unallocated", "--format", "json").rows
    assert [(row["cost"], row["reason"]) for row in rows] == [("0.003", "uncaptured_usage")]


def test_where_keeps_whole_values_and_an_empty_one_is_unknown(rootcost: Command) -> None:
    def total(*where: str) -> Decimal:
        options = [part for kept in where for part in ("--where", kept)]
        return sum((Decimal(row["cost"]) for row in rootcost("costs", *options, "--format", "json").rows), Decimal(0))

    assert total("initiator_team=Care") == Decimal("0.018")
    assert total("initiator_team=Car") == 0
    assert total("initiator_team=Care", "initiator_team=Dev") == Decimal("0.027")
    assert total("initiator_team=") == Decimal("0.003")


def test_the_range_is_half_open(rootcost: Command) -> None:
    assert len(rootcost("costs", "--from", "2026-10", "--to", "2026-11", "--format", "json").rows) > 0
    assert rootcost("costs", "--from", "2026-10-01", "--to", "2026-10-05", "--format", "json").rows == []
    assert rootcost("costs", "--from", "2026-10-05T11:00:00Z", "--format", "json").rows == []


@pytest.mark.parametrize("basis", ["effective", "billed", "list", "contracted"])
def test_every_cost_column_adds_up_to_the_bill(rootcost: Command, basis: str) -> None:
    rows = rootcost("costs", "--basis", basis, "--format", "json").rows
    assert sum(Decimal(row["cost"]) for row in rows) == Decimal("0.03")


def test_csv_and_parquet_hold_the_same_exact_figures(rootcost: Command, tmp_path: Path) -> None:
    expected = rootcost("costs", "--format", "json").rows
    from_csv = list(csv.DictReader(io.StringIO(rootcost("costs", "--format", "csv").out)))
    assert [row["cost"] for row in from_csv] == [row["cost"] for row in expected]
    target = tmp_path / "costs.parquet"
    assert rootcost("costs", "--format", "parquet", "--output", target).code == 0
    frame = pl.read_parquet(target)
    assert frame.schema["cost"] == pl.Decimal(38, 12)
    assert frame["cost"].to_list() == [Decimal(row["cost"]) for row in expected]


def test_the_table_names_teams_money_and_total(rootcost: Command) -> None:
    shown = rootcost("costs", "--by", "team,agent,reason").out
    for word in ("support-bot", "Care", "0.018", "coder", "uncaptured_usage", "total", "0.03", "USD"):
        assert word in shown, shown


def test_the_balance_is_zero_in_all_four_columns(rootcost: Command) -> None:
    rows = rootcost("balance", "--format", "json").rows
    assert [row["cost_column"] for row in rows] == ["billed_cost", "contracted_cost", "effective_cost", "list_cost"]
    for row in rows:
        assert {key: row[key] for key in ("currency", "invoice_month", "provider")} == {
            "currency": "USD",
            "invoice_month": "2026-10",
            "provider": "AWS",
        }
        figures = {key: row[key] for key in ("charges_in", "metered", "owner", "shared", "idle", "unallocated", "difference")}
        assert figures == {
            "charges_in": "0.03",
            "metered": "0.027",
            "owner": "0",
            "shared": "0",
            "idle": "0",
            "unallocated": "0.003",
            "difference": "0",
        }
    assert "charges in = costs out" in rootcost("balance").out


def test_explain_tells_the_story_of_a_chain_and_draws_it(rootcost: Command) -> None:
    chain = f"{1:032x}:{1:016x}"
    told = rootcost("explain", chain)
    assert told.code == 0, told.err
    assert "support-bot" in told.out
    assert "researcher" in told.out
    assert "0.018" in told.out
    assert rootcost("explain", chain, "--format", "json").rows["kind"] == "chain"


def test_explain_of_something_unknown_is_one_clear_line(rootcost: Command) -> None:
    done = rootcost("explain", "nothing-like-it")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert "nothing-like-it" in done.err


def test_attributing_again_changes_nothing(rootcost: Command) -> None:
    before = rootcost("costs", "--format", "json").rows
    assert "Nothing has changed" in rootcost("attribute").out
    assert rootcost("costs", "--format", "json").rows == before


@pytest.mark.slow
def test_a_restated_bill_replaces_its_month(files: Path, tmp_path: Path) -> None:
    run = Command(tmp_path / "home")
    target = tmp_path / "bill.csv"
    for cost in ("0.03", "0.06"):
        target.write_text(bill(BilledCost=cost, EffectiveCost=cost, ListCost=cost, ContractedCost=cost))
        assert run("ingest", "focus", target).code == 0
        assert run("attribute", "--from", "2026-10", "--to", "2026-11").code == 0
        (row,) = [r for r in run("balance", "--format", "json").rows if r["cost_column"] == "billed_cost"]
        assert (row["charges_in"], row["difference"]) == (cost, "0")


@pytest.mark.slow
def test_a_bad_line_is_a_problem_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = Command(tmp_path / "home")
    header, good = bill().splitlines()
    bad = good.replace('"0.030000000000"', '"three cents"', 1)
    (tmp_path / "bill.csv").write_text(f"{header}\n{good}\n{bad}\n")
    done = run("ingest", "focus", tmp_path / "bill.csv")
    assert done.code == 1
    assert "rootcost problems" in done.err
    (problem,) = run("problems", "--format", "json", "--severity", "error").rows
    assert {"file", "line", "field", "reason", "remedy"} <= set(problem)
    assert problem["file"].endswith("bill.csv")
    assert problem["field"] == "BilledCost"
    assert "three cents" in problem["reason"]
    attributed = run("attribute")
    assert attributed.code == 0
    assert "1 line of bills was left out: rootcost problems" in attributed.out
    as_json = run("balance", "--format", "json")
    assert {row["charges_in"] for row in as_json.rows} == {"0.03"}
    assert "1 line of bills was left out" in as_json.err
    assert "1 line of bills was left out" in run("balance").out
    (tmp_path / "bill.csv").write_text(f"{header}\n{good}\n")
    assert run("ingest", "focus", tmp_path / "bill.csv").code == 0
    assert "left out" not in run("balance").out


@pytest.mark.slow
def test_an_asked_for_dimension_is_shown_though_nothing_is_known_of_it(files: Path, tmp_path: Path) -> None:
    run = Command(tmp_path / "home")
    assert "USD as read: billed cost 0.03" in run("ingest", "focus", files / "bill.csv").out
    run("attribute")
    heading = next(line for line in run("costs", "--by", "team").out.splitlines() if "cost" in line)
    assert heading.split()[0] == "team"


@pytest.mark.slow
def test_a_budget_that_is_exceeded_raises_one_alert(files: Path, tmp_path: Path) -> None:
    run = Command(tmp_path / "home")
    assert run("ingest", "focus", files / "bill.csv").code == 0
    assert run("ingest", "otlp", files / "traces.json").code == 0
    assert run("agents", "import", files / "agents.csv").code == 0
    assert run("budgets", "set", "care", "--team", "Care", "--amount", "0.01").code == 0
    assert "team Care caused USD 0.018 of 0.01 in 2026-10 (180 %); billed 0.018, estimated 0.00." in run("attribute").err
    (budget,) = run("budgets", "list", "--format", "json").rows
    assert (budget["state"], budget["spent"], budget["left"]) == ("exceeded", "0.018", "-0.008")
    assert "Care" not in run("attribute").err, "an alert rings once"
