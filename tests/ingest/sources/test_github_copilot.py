"""GitHub Copilot's AI usage report: what is billed after the discount, by user, and what the credits would have cost as list cost."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ingest.sources.github_copilot import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.bill_exports import export, missing_column_error, money_by_agent
from tests.support.golden import check_golden_folder, read_all
from tests.support.paths import DATA

D = Decimal
FOLDER = DATA / "github_copilot"
SAMPLE = FOLDER / "sample.csv"
HEADER = "date,username,product,sku,model,quantity,unit_type,gross_amount,discount_amount,net_amount\n"


def test_the_sample_gives_the_expected_rows() -> None:
    check_golden_folder(SOURCE, FOLDER)


def test_users_pay_their_credits_and_what_names_nobody_is_nobody_s(books: Books) -> None:
    owners = "agent,team,principals\nshop-dev,Shop,ann\nplatform-dev,Platform,bob\n"
    assert money_by_agent(books, "github-copilot", SAMPLE, [], owners) == {
        "shop-dev": D(1),
        "platform-dev": D("0.4"),
        None: D("0.144"),
    }


@pytest.mark.parametrize("header", SOURCE.required)
def test_a_header_that_changed_is_named(header: str, tmp_path: Path) -> None:
    assert f"columns are missing: {header}" in str(missing_column_error(SOURCE, SAMPLE, header, tmp_path))


def test_the_report_of_metered_usage_is_told_apart(tmp_path: Path) -> None:
    text = "date,product,sku,quantity,unit_type,gross_amount,discount_amount,net_amount,username,workflow_path\n2026-10-01,a,b,1,c,1,0,1,d,e\n"
    with pytest.raises(FormatError, match="fetch the AI usage report"):
        read_all(SOURCE, export(tmp_path, text))


def test_amounts_that_contradict_each_other_are_booked_as_billed_and_told(tmp_path: Path) -> None:
    row = "2026-10-01,ann,copilot,copilot_ai_credit,GPT-5,1,ai-credits,{},{},{}\n"
    text = HEADER + row.format("5", "1", "9") + row.format("0.30000000000000004", "0.1", "0.2") + row.format("1", "0", "free")
    rows, problems = read_all(SOURCE, export(tmp_path, text))
    assert [row["billed_cost"] for row in rows] == [D(9), D("0.2")]
    assert [(p.place, p.field, p.severity) for p in problems] == [
        ("line 2", "net_amount", "warning"),
        ("line 4", "net_amount", "error"),
    ]
