"""`rootcost runs`: what there is, and why two of them differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attribution.run import attribute
from ledger.books import Books
from rootcost.cli import app
from tests.support.books_by_hand import charge, charges, write

S3 = {"service_name": "Amazon S3", "sku_meter": None, "consumed_unit": None}


@pytest.fixture
def two_runs(home: Path) -> tuple[Path, str, str]:
    with Books.open(home) as books:
        write(books, charges=charges(charge("1", **S3)))
        old = attribute(books).run_id
        write(books, charges=charges(charge("1.25", **S3)))
        return home, old, attribute(books).run_id


def call(home: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--home", str(home), *words])
    return result.exit_code, result.stdout


def test_runs_are_listed_newest_first_with_the_months_they_are_in_force_for(two_runs: tuple[Path, str, str]) -> None:
    home, old, new = two_runs
    code, told = call(home, "runs", "--format", "json")
    assert code == 0
    assert [(r["run_id"], r["published_months"]) for r in json.loads(told)] == [(new, ["2026-10"]), (old, [])]


def test_two_runs_differ_by_a_restated_charge(two_runs: tuple[Path, str, str]) -> None:
    code, told = call(two_runs[0], "runs", *two_runs[1:], "--format", "json")
    assert code == 0
    assert [(d["cause"], d["cost_class"], d["old"], d["new"], d["moved"]) for d in json.loads(told)] == [
        ("restated charge", None, "1", "1.25", "0.25"),
        ("restated charge", "unallocated", "1", "1.25", "0.25"),
    ]


def test_an_empty_ledger_has_no_runs_and_says_what_to_do(home: Path) -> None:
    assert call(home, "runs", "--format", "json") == (0, "[]\n")
