"""Anthropic's console: the costs it exports name SKUs as its API does, and a second export counts nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from ingest.run import ingest
from ingest.sources.anthropic_console import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import CHARGES
from tests.support.bill_exports import call, export, missing_column_error, money_by_agent
from tests.support.golden import check_golden_folder, read_all
from tests.support.paths import DATA

D = Decimal
FOLDER = DATA / "anthropic_console"
SAMPLE = FOLDER / "sample.csv"
OWNERS = "agent,team,principals\ncare-bot,Care,\ncoder,Dev,\nnightly,Data,apikey_01B\n"


def test_the_sample_gives_the_expected_rows() -> None:
    check_golden_folder(SOURCE, FOLDER)


def test_calls_share_what_their_model_cost_and_keys_pay_what_no_call_explains(books: Books) -> None:
    day = datetime(2026, 10, 1, 9, tzinfo=UTC)
    about = {"provider": "anthropic", "response_model": "claude-sonnet-4-6"}
    calls = [
        *call(1, "care-bot", day, input_tokens=1_500_000, output_tokens=10_000, **about),
        *call(2, "coder", day, input_tokens=500_000, output_tokens=90_000, **about),
    ]
    by_agent = money_by_agent(books, "anthropic-console", SAMPLE, calls, OWNERS)
    assert by_agent == {"care-bot": D("4.65"), "coder": D("2.85"), "nightly": D("0.93")}


@pytest.mark.parametrize("header", SOURCE.required)
def test_a_header_that_changed_is_named(header: str, tmp_path: Path) -> None:
    assert f"columns are missing: {header}" in str(missing_column_error(SOURCE, SAMPLE, header, tmp_path))


def test_the_export_of_tokens_is_no_bill(tmp_path: Path) -> None:
    text = "usage_date_utc,model_version,api_key,workspace,usage_input_tokens_no_cache\n2026-10-01,claude-opus-4-6,a,Default,5\n"
    with pytest.raises(FormatError, match="export Cost, not Usage"):
        read_all(SOURCE, export(tmp_path, text))


def test_hostile_amounts_are_problems_and_unknown_token_types_keep_their_name(tmp_path: Path) -> None:
    text = "usage_date_utc,model,workspace,token_type,cost_usd\n"
    text += "2026-10-01,Claude Opus 9,W,output,1e99\n2026-10-01,Claude Opus 9,W,dreaming,0.5\nsoon,Claude Opus 9,W,output,1\n"
    rows, problems = read_all(SOURCE, export(tmp_path, text))
    assert [(problem.place, problem.field) for problem in problems] == [("line 2", "cost_usd"), ("line 4", "usage_date_utc")]
    assert [(row["sku_meter"], row["list_cost"]) for row in rows] == [("claude-opus-9, dreaming", None)]


def test_a_later_export_under_another_name_counts_nothing_twice(books: Books, tmp_path: Path) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    ingest(books, "anthropic-console", [str(export(tmp_path, text, "2026-10-02.csv"))])
    report = ingest(books, "anthropic-console", [str(export(tmp_path, text.replace("6.00,6.00", "7.00,7.00"), "2026-10-31.csv"))])
    assert "2026-10-02.csv" in report.problems[0].reason
    assert books.store.scan(CHARGES).collect()["billed_cost"].sum() == D("8.43")
