"""OpenRouter's activity: a charge for each generation in its hour, none for what a key of one's own paid, none twice."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ingest.run import ingest
from ingest.sources.openrouter import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import CHARGES
from tests.support.bill_exports import export, missing_column_error, money_by_agent
from tests.support.golden import check_golden_folder, read_all
from tests.support.paths import DATA

D = Decimal
FOLDER = DATA / "openrouter"
SAMPLE = FOLDER / "sample.csv"
HEADER = "generation_id,created_at,cost_total,model_permaslug\n"


def test_the_sample_gives_the_expected_rows() -> None:
    check_golden_folder(SOURCE, FOLDER)


@pytest.mark.slow
def test_keys_pay_their_generations(books: Books) -> None:
    owners = "agent,team,principals\ndesk,Desk,care-key\nlab,Lab,lab-key\n"
    by_agent = money_by_agent(books, "openrouter", SAMPLE, [], owners)
    assert by_agent == {"desk": D("0.5123"), "lab": D("0.000000123457")}


@pytest.mark.parametrize("header", SOURCE.required)
def test_a_header_that_changed_is_named(header: str, tmp_path: Path) -> None:
    assert f"columns are missing: {header}" in str(missing_column_error(SOURCE, SAMPLE, header, tmp_path))


def test_the_summary_of_days_is_told_apart(tmp_path: Path) -> None:
    text = "Date,Slug,Usage,BYOK Usage,Requests,Prompt Tokens,Completion Tokens\n2026-10-01,a/b,1,0,1,1,1\n"
    with pytest.raises(FormatError, match="export the generations"):
        read_all(SOURCE, export(tmp_path, text))


def test_hostile_rows_are_problems_and_the_others_are_read(tmp_path: Path) -> None:
    text = HEADER + f"{'g' * 100_000},2026-10-01T00:00:00Z,1e-5,a/b\ngen-2,yesterday,1,a/b\ngen-3,2026-10-01,,a/b\n"
    rows, problems = read_all(SOURCE, export(tmp_path, text))
    assert [row["billed_cost"] for row in rows] == [D("0.00001")]
    assert sorted((p.place, p.field) for p in problems) == [("line 3", "created_at"), ("line 4", "cost_total")]


def test_a_later_export_under_another_name_counts_nothing_twice(books: Books, tmp_path: Path) -> None:
    text = HEADER + "gen-1,2026-10-01 10:00:00,0.25,a/b\n"
    ingest(books, "openrouter", [str(export(tmp_path, text, "one.csv"))])
    report = ingest(books, "openrouter", [str(export(tmp_path, text + "gen-2,2026-10-02 10:00:00,0.5,a/b\n", "two.csv"))])
    assert "one.csv" in report.problems[0].reason
    assert books.store.scan(CHARGES).collect()["billed_cost"].to_list() == [D("0.25")]
