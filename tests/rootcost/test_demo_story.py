"""The demo from end to end, held to the truth the company's own model knows."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from api import queries
from api.queries import of_operator
from ledger.books import Books
from ledger.db import Run
from ledger.errors import UsageError
from ledger.tables import COST_COLUMNS, COSTS
from rootcost.demo import company
from rootcost.demo.home import clear, is_demo
from rootcost.demo.story import run_demo

ZERO = Decimal(0)
DUST = Decimal("1e-8")
"""Splits round at the twelfth place, once a pool; a month has thousands of pools."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """A small demo: its home, what it printed, its exit code."""
    home, page = tmp_path_factory.mktemp("demo") / "home", io.StringIO()
    code = run_demo(home, scale=0.1, console=Console(file=page, width=120))
    return home, page.getvalue(), code


@pytest.fixture(scope="module")
def truth(told: tuple[Path, str, int]) -> dict[str, Any]:
    return dict(json.loads((told[0] / "demo" / "truth.json").read_text()))


@pytest.fixture(scope="module")
def costs(told: tuple[Path, str, int]) -> pl.DataFrame:
    """All costs of the run in force."""
    with Books.open(told[0]) as books:
        (month,) = queries.published(of_operator(books))
        return books.store.scan(COSTS, {"month": [month.month], "run_id": [month.run_id]}).collect()


def _tokens(costs: pl.DataFrame, basis: str) -> pl.DataFrame:
    """Metered tokens, without the credits and taxes that follow them."""
    return costs.filter(
        (pl.col("cost_class") == "metered")
        & (pl.col("basis") == basis)
        & (pl.col("charge_category") == "Usage")
        & pl.col("meter").str.ends_with("_tokens")
        & (pl.col("effective_cost") > 0)
    )


def _by(frame: pl.DataFrame, *keys: str) -> dict[tuple[str | None, ...], Decimal]:
    summed = frame.group_by(keys).agg(pl.col("effective_cost").sum())
    return {tuple(None if k == "unknown" else k for k in row[:-1]): row[-1] for row in summed.iter_rows()}


def _expected(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[str | None, ...], Decimal]:
    out: dict[tuple[str | None, ...], Decimal] = defaultdict(Decimal)
    for row in rows:
        out[tuple(row[k] for k in keys)] += Decimal(row["effective_cost"])
    return out


def _same(found: dict[tuple[str | None, ...], Decimal], expected: dict[tuple[str | None, ...], Decimal]) -> None:
    off = {
        key: (found.get(key), expected.get(key))
        for key in found.keys() | expected.keys()
        if abs(found.get(key, ZERO) - expected.get(key, ZERO)) > DUST
    }
    assert off == {}


@pytest.mark.slow
class TestAgainstTheTruth:
    def test_every_initiator_pays_what_its_calls_cost(self, costs: pl.DataFrame, truth: dict[str, Any]) -> None:
        keys = ("initiator_team", "initiator_agent", "meter")
        _same(_by(_tokens(costs, "billed"), *keys), _expected(truth["initiators"], *keys))

    def test_every_executor_burned_what_its_calls_cost(self, costs: pl.DataFrame, truth: dict[str, Any]) -> None:
        keys = ("executor_team", "executor_agent")
        _same(_by(_tokens(costs, "billed"), *keys), _expected(truth["executors"], *keys))

    def test_an_agent_that_changed_hands_is_paid_by_two_teams(self, costs: pl.DataFrame) -> None:
        mine = _tokens(costs, "billed").filter(pl.col("initiator_agent") == company.INVOICE_READER.name)
        days = mine.group_by("initiator_team").agg(
            pl.col("period_start").min().alias("first"), pl.col("period_start").max().alias("last")
        )
        spans = {team: (first.day, last.day) for team, first, last in days.iter_rows()}
        assert spans["Finance"][1] == 15
        assert spans["Operations"][0] == 16

    def test_the_last_day_is_estimated_at_what_is_really_paid(self, costs: pl.DataFrame, truth: dict[str, Any]) -> None:
        """List price less 12 % on AWS, although no bill has told of that day: the discount is learnt from the month."""
        keys = ("initiator_team", "initiator_agent")
        _same(_by(_tokens(costs, "estimated"), *keys), _expected(truth["unbilled"], *keys))
        assert {t.day for t in _tokens(costs, "estimated")["period_start"]} == {31}

    def test_usage_nobody_logged_goes_to_its_owner_or_stays_in_sight(self, costs: pl.DataFrame, truth: dict[str, Any]) -> None:
        lost = costs.filter((pl.col("reason") == "uncaptured_usage") & (pl.col("charge_category") == "Usage"))
        expected: dict[tuple[str | None, ...], Decimal] = {
            (u["owner_team"], u["owner_agent"]): Decimal(u["effective_cost"]) for u in truth["uncaptured"]
        }
        _same(_by(lost, "initiator_team", "initiator_agent"), expected)
        assert set(lost.filter(pl.col("initiator_team").is_null())["cost_class"]) == {"unallocated"}

    def test_machines_are_paid_by_who_used_them_and_idle_time_stands_apart(
        self, costs: pl.DataFrame, truth: dict[str, Any]
    ) -> None:
        gpu = costs.filter(pl.col("resource").is_in(company.GPU_NODES) & (pl.col("charge_category") == "Usage"))
        used = gpu.filter(pl.col("cost_class") == "metered")
        assert set(used["initiator_agent"]) == {company.ROUTE_PLANNER.name}
        assert gpu.filter(pl.col("cost_class") == "idle")["effective_cost"].sum() > 0
        assert gpu["effective_cost"].sum() == Decimal(truth["bills"]["AWS, restated"]["by_kind"]["gpu"])
        runtime = costs.filter((pl.col("resource") == company.AGENT_RUNTIME) & (pl.col("charge_category") == "Usage"))
        assert set(runtime["initiator_agent"]) == {company.CONTRACT_REVIEW.name}
        assert runtime["effective_cost"].sum() == pytest.approx(
            Decimal(truth["bills"]["AWS, restated"]["by_kind"]["runtime"]), abs=DUST
        )

    def test_support_is_shared_by_rule(self, costs: pl.DataFrame, truth: dict[str, Any]) -> None:
        shared = costs.filter(pl.col("cost_class") == "shared")
        assert {rule.split("@")[0] for rule in shared["rule"]} == {"AWS support, by metered cost"}
        assert shared["effective_cost"].sum() == Decimal(truth["bills"]["AWS, restated"]["by_kind"]["support"])

    def test_both_views_and_the_balance_come_to_the_bill(
        self, told: tuple[Path, str, int], costs: pl.DataFrame, truth: dict[str, Any]
    ) -> None:
        bills = truth["bills"]
        bill = Decimal(bills["AWS, restated"]["effective_cost"]) + Decimal(bills["OpenAI"]["effective_cost"])
        assert costs.filter(pl.col("basis") == "billed")["effective_cost"].sum() == pytest.approx(bill, abs=DUST)
        with Books.open(told[0]) as books:
            balance = queries.balance(of_operator(books))
        assert set(balance["cost_column"]) == set(COST_COLUMNS)
        assert (balance["difference"] == 0).all()


class TestTheTelling:
    def test_it_ends_well_and_says_how_to_go_on(self, told: tuple[Path, str, int]) -> None:
        home, page, code = told
        assert code == 0
        assert f"rootcost serve --home {home}".split()[0] in page
        assert "http://127.0.0.1:8501" in page
        assert "Traceback" not in page

    def test_every_chapter_is_there(self, told: tuple[Path, str, int]) -> None:
        for chapter in ("What was read", "Who started it", "What is left, and why", "One chain", "Budgets", "The balance"):
            assert chapter in told[1]
        assert "charges in = costs out in all 8 control totals" in told[1]
        assert "Billed usage that no log records" in told[1]
        assert "└─ " in told[1]

    def test_one_budget_is_exceeded_and_rang_once(self, told: tuple[Path, str, int]) -> None:
        with Books.open(told[0]) as books:
            exceeded = [b.scope_name for b in queries.budgets(of_operator(books)) if b.state == "exceeded"]
            alerts = queries.alerts(of_operator(books)).page(limit=100)
        assert exceeded == ["Engineering"]
        assert len([a for a in alerts.rows if a.severity == "critical"]) == 1
        assert "● alert" in told[1]
        (critical,) = [a for a in alerts.rows if a.severity == "critical"]
        with Books.open(told[0]) as books:
            (budget,) = [b for b in queries.budgets(of_operator(books)) if b.name == critical.subject]
        assert f"caused USD {budget.spent:,.2f} of {budget.amount:,.2f}" in critical.text, "it says what the table says"

    def test_headings_fit_a_narrow_page_where_there_is_no_terminal(self, told: tuple[Path, str, int]) -> None:
        headings = [line for line in told[1].splitlines() if line.endswith("──") and line[0].isalpha()]
        assert headings
        assert max(len(line) for line in headings) <= 100

    def test_the_first_run_stays_readable(self, told: tuple[Path, str, int]) -> None:
        with Books.open(told[0]) as books, books.database.session() as session:
            runs = session.query(Run).order_by(Run.started_at).all()
            assert [r.cause for r in runs] == ["demo", "AWS restated the bill"]
            assert books.store.scan(COSTS).filter(pl.col("run_id") == runs[0].run_id).select(pl.len()).collect().item() > 0


class TestTheHome:
    @pytest.mark.slow
    def test_a_demo_is_made_again_in_its_own_home(self, told: tuple[Path, str, int], tmp_path: Path) -> None:
        assert is_demo(told[0])
        home = tmp_path / "again"
        page = io.StringIO()
        for _ in range(2):
            assert run_demo(home, scale=0.01, console=Console(file=page, width=120)) == 0
        with Books.open(home) as books:
            assert len(queries.published(of_operator(books))) == 1

    def test_anybody_elses_ledger_is_left_alone(self, tmp_path: Path) -> None:
        with Books.open(tmp_path / "real"):
            pass
        before = sorted(p.name for p in (tmp_path / "real").iterdir() if p.suffix != ".lock")
        with pytest.raises(UsageError, match="no demo made"):
            run_demo(tmp_path / "real", scale=0.01, console=Console(file=io.StringIO()))
        assert [n for n in sorted(p.name for p in (tmp_path / "real").iterdir()) if not n.endswith(".lock")] == before

    def test_a_demo_that_was_cut_off_can_be_made_again(self, tmp_path: Path) -> None:
        clear(tmp_path)
        (tmp_path / "tables").mkdir()
        clear(tmp_path)
        assert not (tmp_path / "tables").exists()

    def test_a_store_named_by_the_environment_is_never_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOTCOST_STORE__URI", str(tmp_path / "production"))
        with pytest.raises(UsageError, match="environment names a store"):
            run_demo(tmp_path / "home", scale=0.01, console=Console(file=io.StringIO()))
        assert not (tmp_path / "production").exists()
