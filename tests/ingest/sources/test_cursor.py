"""Cursor's usage events: on-demand requests are billed, included ones have a list cost at most, an unknown kind is no guess."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ingest.sources.cursor import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.bill_exports import export, missing_column_error, money_by_agent
from tests.support.golden import check_golden_folder, read_all
from tests.support.paths import DATA

D = Decimal
FOLDER = DATA / "cursor"
SAMPLE = FOLDER / "sample.csv"
HEADER = "Date,Kind,Model,Cost\n"


def test_the_sample_gives_the_expected_rows() -> None:
    check_golden_folder(SOURCE, FOLDER)


def test_users_pay_their_on_demand_requests(books: Books) -> None:
    owners = "agent,team,principals\nann-ide,Shop,ann@acme.example\nbob-ide,Data,bob@acme.example\n"
    by_agent = money_by_agent(books, "cursor", SAMPLE, [], owners)
    assert by_agent == {"ann-ide": D("0.07"), "bob-ide": D("1234.56")}


@pytest.mark.parametrize("header", SOURCE.required)
def test_a_header_that_changed_is_named(header: str, tmp_path: Path) -> None:
    assert f"columns are missing: {header}" in str(missing_column_error(SOURCE, SAMPLE, header, tmp_path))


def test_the_export_of_requests_has_no_amounts(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="export usage by tokens"):
        read_all(SOURCE, export(tmp_path, "Date,User,Kind,Model,Requests\n2026-10-01T00:00:00Z,a,On-Demand,m,1\n"))


def test_kinds_and_amounts_that_say_nothing_are_problems(tmp_path: Path) -> None:
    text = HEADER + (
        "2026-10-01T00:00:00Z,Gifted,m,0.5\n2026-10-01T00:00:00Z,On-Demand,m,Included\n"
        "2026-10-01T00:00:00Z,User API Key,m,0.3\n2026-10-01T00:00:00Z,on-demand,m,$2.00\n"
    )
    rows, problems = read_all(SOURCE, export(tmp_path, text))
    assert [(row["billed_cost"], row["list_cost"]) for row in rows] == [(D(0), None), (D(2), None)]
    assert sorted((p.place, p.field, p.severity) for p in problems) == [
        ("line 2", "Kind", "error"),
        ("line 3", "Cost", "error"),
        ("line 4", "Cost", "warning"),
    ]
