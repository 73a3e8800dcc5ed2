"""OpenAI's console: the costs it exports are the charges of its API, and a second export counts nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from ingest.run import ingest
from ingest.sources.openai_console import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import CHARGES
from tests.support.bill_exports import call, export, missing_column_error, money_by_agent
from tests.support.golden import check_golden_folder, read_all
from tests.support.paths import DATA

D = Decimal
FOLDER = DATA / "openai_console"
SAMPLE = FOLDER / "sample.csv"
MINI = "gpt-4o-mini-2024-07-18"
OLD_HEADER = "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id,organization_id,organization_name\n"
OLD_ROW = "1790812800,1790899200,2026-10-01T00:00:00+00:00,2026-10-02T00:00:00+00:00,{},usd,{},,org-acme,Acme\n"


def test_the_sample_gives_the_expected_rows() -> None:
    check_golden_folder(SOURCE, FOLDER)


def test_calls_pay_their_line_items(books: Books) -> None:
    day = datetime(2026, 10, 1, 9, tzinfo=UTC)
    calls = [
        *call(1, "care-bot", day, provider="openai", response_model=MINI, input_tokens=2_000_000),
        *call(2, "researcher", day, provider="openai", response_model=MINI, output_tokens=6393),
    ]
    by_agent = money_by_agent(books, "openai-console", SAMPLE, calls, "agent,team\ncare-bot,Care\nresearcher,Data\n")
    assert (by_agent["care-bot"], by_agent["researcher"]) == (D("0.3"), D("0.00383598"))
    assert sum(by_agent.values()) == D("0.37383598")


def test_an_older_export_without_quantities_and_without_groups_is_read(tmp_path: Path) -> None:
    text = OLD_HEADER + OLD_ROW.format("0.895874", "") + OLD_ROW.format("-1e-7", '"o3, input"')
    rows, problems = read_all(SOURCE, export(tmp_path, text))
    assert problems == []
    assert [(r["billed_cost"], r["sku_meter"], r["sub_account_id"]) for r in rows] == [
        (D("0.895874"), None, None),
        (D("-1e-7"), "o3, input", None),
    ]


@pytest.mark.parametrize("header", SOURCE.required)
def test_a_header_that_changed_is_named(header: str, tmp_path: Path) -> None:
    assert f"columns are missing: {header}" in str(missing_column_error(SOURCE, SAMPLE, header, tmp_path))


def test_the_export_of_activity_is_no_bill(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="export Costs"):
        read_all(
            SOURCE, export(tmp_path, "start_time,end_time,start_time_iso,end_time_iso,num_model_requests,model\n1,2,3,4,5,6\n")
        )


def test_a_row_without_an_amount_that_names_a_line_item_is_a_problem(tmp_path: Path) -> None:
    text = OLD_HEADER + OLD_ROW.format("", '"o3, input"') + OLD_ROW.format("NaN", "x") + OLD_ROW.format("0.5", "x")
    rows, problems = read_all(SOURCE, export(tmp_path, text))
    assert sorted((problem.place, problem.field) for problem in problems) == [
        ("line 2", "amount_value"),
        ("line 3", "amount_value"),
    ]
    assert [row["billed_cost"] for row in rows] == [D("0.5")]


def test_a_later_export_under_another_name_counts_nothing_twice(books: Books, tmp_path: Path) -> None:
    early = export(tmp_path, OLD_HEADER + OLD_ROW.format("1", '"o3, input"'), "cost_2026-10-15.csv")
    late = export(tmp_path, OLD_HEADER + OLD_ROW.format("2", '"o3, input"'), "cost_2026-10-31.csv")
    ingest(books, "openai-console", [str(early)])
    report = ingest(books, "openai-console", [str(late)])
    assert "cost_2026-10-15.csv" in report.problems[0].reason
    assert books.store.scan(CHARGES).collect()["billed_cost"].to_list() == [D(1)]
