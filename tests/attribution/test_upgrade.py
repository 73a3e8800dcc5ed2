"""An upgrade keeps no old money: other code or classification data rebuilds the months it had concluded, and says so. (TI-2)"""

from __future__ import annotations

import json
import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from api import queries
from api.queries import of_operator
from attribution.costs import matching
from attribution.monitoring.run_diff import differences
from attribution.run import LIVE, attribute
from ledger import code
from ledger.books import Books
from ledger.db import Published, Rollup, Run
from ledger.spool import Spool
from ledger.tables import COSTS, USAGE_HOURLY
from rootcost.service.jobs import Jobs
from tests.support.books_by_hand import SONNET, at, charge, charges, price, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import ROOT

D = Decimal
CASE = ROOT / "tests" / "data" / "cases" / "upgrade-keeps-old-costs"
MEMBER: dict[str, Any] = {**SONNET, "account_id": "1111", "region": "us-east-1"}


# ── the case, with two versions of the classification data ──────────────────────────────────────────────────────────


@pytest.fixture
def older(tmp_path: Path) -> dict[str, str]:
    """The environment in which `rootcost` is an older version: one that reads Azure's "4.3" of Grok as a GPT."""
    shutil.copytree(ROOT / "attribution", tmp_path / "older" / "attribution", ignore=shutil.ignore_patterns("__pycache__"))
    (spellings,) = (tmp_path / "older").rglob("spellings.csv")
    was, now = spellings.read_text(encoding="utf-8"), ",grok-,4.3 of Azure Grok Models"
    assert was.count(now) == 1
    spellings.write_text(was.replace(now, now.replace("grok-", "gpt-", 1)), encoding="utf-8")
    return {"PYTHONPATH": str(tmp_path / "older"), "PYTHONSAFEPATH": "1", "COLUMNS": "200"}


def with_the_case(home: Path, bill: Path = CASE / "bill.csv") -> Command:
    """A ledger of the case's bill and call, and of one price, so that no run needs to fill the price book."""
    with Books.open(home) as books:
        write(books, prices=[price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003")])
    rootcost = Command(home)
    rootcost("ingest", "focus", bill)
    rootcost("ingest", "otlp", CASE / "traces.json")
    return rootcost


def shown(rootcost: Command) -> list[tuple[Any, ...]]:
    """Agent, model, reason, class and cost of each row that costs something."""
    rows = rootcost("costs", "--by", "initiator_agent,model,reason,cost_class", "--format", "json").rows
    return [(r["initiator_agent"], r["model"], r["reason"], r["cost_class"], r["cost"]) for r in rows if Decimal(r["cost"])]


@pytest.mark.slow
def test_an_upgrade_rebuilds_a_month_that_it_concludes_otherwise_and_says_so(
    home: Path, tmp_path: Path, older: dict[str, str]
) -> None:
    rootcost = with_the_case(home)
    assert rootcost.in_a_process("attribute", **older).code == 0
    assert shown(rootcost) == [(None, "gpt-4.3", "uncaptured_usage", "unallocated", "3")]

    upgraded = rootcost("attribute", COLUMNS="200")
    assert "this version of RootCost may conclude otherwise than the one before: 2026-10" in upgraded.out
    assert shown(rootcost) == [("bot", "grok-4.3", "coarse_match", "metered", "3")]
    new, old = (row["run_id"] for row in rootcost("runs", "--format", "json").rows)
    moved = rootcost("runs", old, new, "--format", "json").rows
    assert [(d["cause"], d["cost_class"], d["moved"]) for d in moved] == [("code", "metered", "3"), ("code", "unallocated", "-3")]
    assert "Nothing has changed" in rootcost("attribute").out, "once is enough"

    fresh = with_the_case(tmp_path / "fresh")
    fresh("attribute")
    assert shown(fresh) == shown(rootcost), "the same facts, the same version, the same costs"


@pytest.mark.slow
def test_what_an_upgrade_moves_is_told_apart_from_what_a_restated_bill_moves(
    home: Path, tmp_path: Path, older: dict[str, str]
) -> None:
    rootcost = with_the_case(home)
    rootcost.in_a_process("attribute", **older)
    restated = tmp_path / "bill.csv"
    restated.write_text((CASE / "bill.csv").read_text().replace("3.00,3.00,3.00,3.00", "4.00,4.00,4.00,4.00"))
    rootcost("ingest", "focus", restated)
    rootcost("attribute")
    new, old = (row["run_id"] for row in rootcost("runs", "--format", "json").rows)
    moved = rootcost("runs", old, new, "--format", "json").rows
    assert [(d["cause"], d["cost_class"], d["moved"]) for d in moved] == [
        ("restated charge", None, "1"),
        ("code", "metered", "3"),
        ("code", "unallocated", "-3"),
        ("restated charge", "metered", "1"),
    ]


# ── the digest ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of a module, a table, and a module in a folder."""
    folder = tmp_path / "attribution"
    (folder / "inner").mkdir(parents=True)
    (folder / "run.py").write_bytes(b"a = 1\nb = 2\n")
    (folder / "inner" / "rules.py").write_bytes(b"c = 3\n")
    (folder / "inner" / "skus.csv").write_bytes(b"rule,pattern\n")
    return folder


def digest(folder: Path, polars: str = "2.1.0") -> str:
    return code.digest_of({"attribution": folder}, polars)


@pytest.mark.parametrize("path", ["run.py", "inner/rules.py", "inner/skus.csv"])
def test_code_and_classification_data_are_in_the_digest(package: Path, path: str) -> None:
    before = digest(package)
    (package / path).write_bytes((package / path).read_bytes() + b"\n")
    assert digest(package) != before


def test_a_module_that_moves_is_another_one_and_so_is_polars(package: Path) -> None:
    before = digest(package)
    assert digest(package, "2.2.0") != before
    (package / "inner" / "rules.py").rename(package / "rules.py")
    assert digest(package) != before


def test_what_concludes_nothing_is_not_in_the_digest(package: Path, tmp_path: Path) -> None:
    before = digest(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"compiled")
    (package / "py.typed").touch()
    (package / "budgets.py").write_text("limit = 1\n")
    (package / "inner" / "anomalies.py").write_text("limit = 1\n")
    (package / "run.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    os.utime(package / "run.py", (0, 0))
    assert digest(package) == before
    assert digest(shutil.copytree(package, tmp_path / "elsewhere")) == before


def test_all_that_the_packages_read_is_code_or_a_table() -> None:
    """A file of another kind would have to come into the digest, or be named here."""
    for package in code.HASHED_PACKAGES:
        kinds = {p.suffix for p in (ROOT / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        assert kinds - set(code.SUFFIXES) <= {".typed", ".mako"}
    paths = [path for name in code.HASHED_PACKAGES for path, _ in code.sources(ROOT / name, name)]
    assert {"attribution/run.py", "ledger/money.py", "ledger/tables.py"} <= set(paths)
    assert any(path.endswith("/spellings.csv") for path in paths)
    assert not [path for path in paths if "/migrations/" in path]
    assert code.digest() == code.digest_of({name: ROOT / name for name in code.HASHED_PACKAGES}, pl.__version__)


# ── what rests on it ────────────────────────────────────────────────────────────────────────────────────────────────


def other_version(monkeypatch: pytest.MonkeyPatch, digest: str = "another") -> None:
    """From here on, RootCost is another version."""
    monkeypatch.setattr(code, "digest", lambda: digest)


def two_months(books: Books) -> None:
    """A call and its charge in October, and in November; November leans on October's rates."""
    november = at(9).replace(month=11)
    write(
        books,
        spans=spans(
            span(1, 1, agent_name="alpha", start_time=at(9), **MEMBER, input_tokens=1000),
            span(2, 2, agent_name="beta", start_time=november, **MEMBER, input_tokens=1000),
        ),
        charges=charges(charge("3", charge_period_start=at(9), charge_period_end=at(10))),
    )


def inputs(books: Books, month: str) -> dict[str, str]:
    with books.database.session() as session:
        run = session.get_one(Run, session.get_one(Published, month).run_id)
        return dict(run.inputs[month])


@pytest.mark.slow
def test_both_layers_are_drawn_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spans are read again, and no cached batch is used, although every fact is what it was."""
    two_months(books)
    first = attribute(books)
    assert first.other_code == []
    seen: list[int] = []
    honest = matching.match_usage

    def counted(*facts: Any) -> Any:
        seen.append(1)
        return honest(*facts)

    monkeypatch.setattr(matching, "match_usage", counted)
    other_version(monkeypatch)
    second = attribute(books)
    assert second.months == second.other_code == ["2026-10", "2026-11"]
    assert second.spans_read == 2
    assert second.rollups_reused == 0
    assert seen
    assert attribute(books).unchanged == ["2026-10", "2026-11"]
    assert [d for month in first.months for d in differences(books, month, first.run_id, second.run_id)] == []


@pytest.mark.slow
def test_a_month_that_leans_on_a_rebuilt_one_is_told_as_stale_and_rebuilt_after_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_months(books)
    attribute(books)
    other_version(monkeypatch)
    november = attribute(books, ["2026-11"])
    assert november.other_code == ["2026-11"]
    assert november.stale == [], "October does not lean on November"
    october = attribute(books, ["2026-10"])
    assert october.other_code == ["2026-10"]
    assert october.stale == ["2026-11"], "November was concluded by this version, but from an October of the other"
    rest = attribute(books)
    assert rest.unchanged == ["2026-10"]
    assert rest.months == ["2026-11"]
    assert inputs(books, "2026-11")["code"] == "another"
    assert attribute(books).months == []


@pytest.mark.slow
def test_the_cause_of_a_month_that_leans_on_a_rebuilt_one_is_code_alone(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    two_months(books)
    attribute(books)
    before = inputs(books, "2026-11")
    other_version(monkeypatch)
    attribute(books)
    after = inputs(books, "2026-11")
    assert {name for name in before if before[name] != after[name]} == {"code"}


@pytest.mark.slow
def test_serve_rebuilds_what_leans_on_a_rebuilt_month(books: Books, tmp_path: Path) -> None:
    """January is no neighbour of October, but has no nearer month with rates: its estimates move with October's bill."""
    late = at(9).replace(year=2027, month=1)
    two_months(books)
    write(books, prices=[price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003")])
    write(books, spans=spans(span(3, 3, agent_name="beta", start_time=late, **MEMBER, input_tokens=1000)))
    jobs = Jobs(books, Spool(tmp_path / "spool"))
    jobs.attribute()
    write(books, charges=charges(charge("6", charge_period_start=at(9), charge_period_end=at(10))))
    assert jobs.attribute()["months"] == ["2026-10", "2026-11", "2027-01"]
    assert attribute(books).months == []


@pytest.mark.slow
def test_what_serve_had_concluded_before_an_upgrade_stays_to_be_compared(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a month is open, serve lets go of what it supersedes; an upgrade is another matter."""
    two_months(books)
    old = attribute(books, cause=LIVE).run_id
    other_version(monkeypatch)
    upgraded = attribute(books, cause=LIVE).run_id
    assert attribute(books, cause=LIVE, force=True).published
    kept = books.store.scan(COSTS, {"month": ["2026-10"]}).select("run_id").unique().collect()["run_id"]
    assert old in kept
    assert upgraded not in kept


@pytest.mark.slow
def test_a_ledger_of_the_version_before_the_digest_is_rebuilt_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs noted no code; its settings are not taken for changed ones."""
    two_months(books)
    attribute(books)
    with books.database.session() as session:
        run = session.scalars(sa.select(Run)).one()
        run.inputs = {month: {k: v for k, v in of.items() if k != "code"} for month, of in run.inputs.items()}
    upgraded = attribute(books)
    assert upgraded.other_code == ["2026-10", "2026-11"]
    assert attribute(books).unchanged == ["2026-10", "2026-11"]


@pytest.mark.slow
def test_a_month_is_rebuilt_again_on_demand_and_leaves_one_drawing(home: Path) -> None:
    rootcost = Command(home)
    with Books.open(home) as books:
        two_months(books)
    rootcost("attribute")
    done = rootcost("attribute", "--again", "--from", "2026-10", "--to", "2026-11")
    assert ": 2026-10 published; 1 span read" in done.out
    assert "may conclude otherwise" not in done.out
    assert "Nothing has changed" in rootcost("attribute").out
    with Books.open(home) as books:
        with books.database.session() as session:
            rollups = {rollup.rollup_id for rollup in session.scalars(sa.select(Rollup))}
            in_force = {i for month in session.scalars(sa.select(Published)) for i in month.rollup_ids}
        drawn = set(books.store.scan(USAGE_HOURLY).select("rollup_id").collect()["rollup_id"])
        assert rollups == in_force == drawn
        sums = books.store.scan(COSTS, {"month": ["2026-10"]}).group_by("run_id").agg(pl.col("effective_cost").sum()).collect()
        assert sums["effective_cost"].to_list() == [D(3), D(3)]


@pytest.mark.slow
def test_explain_says_that_another_version_drew_the_figure(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    two_months(books)
    attribute(books)
    other_version(monkeypatch)
    story = json.dumps(queries.explain(of_operator(books), "c0").model_dump(mode="json"))
    assert "the code changed since, so the next run may differ" in story
