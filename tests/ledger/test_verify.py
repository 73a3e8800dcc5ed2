"""A flipped bit is named, with its file and what to do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledger.books import Books
from ledger.store import Store
from ledger.tables import COSTS, SPANS, TABLES
from ledger.verify import database_problems, verify_table
from rootcost.cli import app


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def verify(home: Path) -> tuple[int, dict[str, list[dict[str, object]]]]:
    result = CliRunner().invoke(app, ["--home", str(home), "verify", "--format", "json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_bit_of_a_data_file_or_a_commit_is_named(published_home: Path, seed: int) -> None:
    chance = random.Random(seed)
    tables = published_home / "tables"
    path = chance.choice(sorted(p for p in tables.rglob("*") if p.suffix in (".parquet", ".json")))
    position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
    flip(path, position, bit)
    try:
        report = verify_table(Store(tables), TABLES[path.relative_to(tables).parts[0]])
    finally:
        flip(path, position, bit)
    assert f"tables/{path.relative_to(tables)}" in {problem.uri for problem in report.problems}


def test_a_whole_ledger_agrees_with_its_checksums_and_control_totals(copied_home: Path) -> None:
    code, report = verify(copied_home)
    assert (code, report["problems"]) == (0, [])
    assert report["months"] == [{"month": "2026-10", "bill_changed": False, "agrees": True}]
    assert {row["without_checksum"] for row in report["tables"]} == {0}
    assert {"costs", "spans", "charges"} <= {row["table"] for row in report["tables"]}


def test_what_to_do_about_a_damaged_file_is_said(copied_home: Path) -> None:
    (spans_file,) = (copied_home / "tables/spans").rglob("*.parquet")
    costs_file = next((copied_home / "tables/costs").rglob("*.parquet"))
    flip(spans_file, 100)
    flip(costs_file, 100)
    code, report = verify(copied_home)
    assert code == 1
    remedies = {str(problem["uri"]).split("/")[1]: str(problem["remedy"]) for problem in report["problems"]}
    assert remedies["costs"].endswith("run rootcost attribute --again, which computes the month again")
    assert remedies["spans"].endswith("without one read what was imported of date=2026-10-05 again")


def test_files_without_a_checksum_are_read_to_their_end(copied_home: Path) -> None:
    folder = copied_home / "tables/spans"
    (folder / "_checksums.jsonl").unlink()
    store = Store(copied_home / "tables")
    report = verify_table(store, SPANS)
    assert (report.files, report.without_checksum, report.problems) == (1, 1, [])
    (path,) = folder.rglob("*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\0" * (len(content) - 400) + content[-300:])
    assert "cannot be read" in verify_table(store, SPANS).problems[0].reason


def test_a_missing_file_and_a_damaged_list_are_named(copied_home: Path) -> None:
    next((copied_home / "tables/costs").rglob("*.parquet")).unlink()
    flip(copied_home / "tables/costs/_checksums.jsonl", 3)
    (line_problem, file_problem) = verify_table(Store(copied_home / "tables"), COSTS).problems
    assert (line_problem.uri, line_problem.severity) == ("tables/costs/_checksums.jsonl", "warning")
    assert (file_problem.reason, file_problem.severity) == ("the file is missing", "error")


def test_costs_that_differ_from_their_control_totals_are_told(copied_home: Path) -> None:
    with Books.open(copied_home) as books:
        costs = books.store.scan(COSTS).collect()
        run_id = costs["run_id"][0]
        books.store.replace(COSTS, costs.head(1), {"month": "2026-10", "run_id": run_id})
    code, report = verify(copied_home)
    assert code == 1
    assert {(p["uri"], p["field"]) for p in report["problems"]} >= {("month/2026-10", "difference")}


def test_a_damaged_page_of_the_database_is_told(copied_home: Path) -> None:
    path = copied_home / "rootcost.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 3 + 8] = b"\xff" * 8  # the header of a page
    path.write_bytes(content)
    with Books.open(copied_home) as books:
        assert "the database is damaged" in next(database_problems(books.database)).reason
