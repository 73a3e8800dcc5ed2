"""Journals: cents of three closed months, restated twice, sum to the invoices; every file balances and none holds a formula."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import PeriodClose
from api.queries import of_operator
from attribution.run import attribute
from ledger.books import Books
from ledger.closing.accounts import Accounts
from ledger.closing.cents import largest_remainders, rounded
from ledger.settings import AttributionSettings, ReportSettings, SharedRule
from rootcost.journals import profiles
from rootcost.journals.profiles import Profile
from rootcost.operations import periods
from rootcost.operations.journals import MonthJournals, month_journals
from tests.attribution.test_rules import configure
from tests.support.books_by_hand import charge, charges, write
from tests.support.cli_books import Command

D = Decimal
MONTHS = ("2026-08", "2026-09", "2026-10")
FORMULA = '=HYPERLINK("http://x")'
SUPPORT = {"service_name": "AWS Support", "sku_meter": "Support", "consumed_unit": None}
VALUES = {"subsidiary": "Parent", "tax_rate": "Tax Exempt", "company_code": "1010"}
ACCOUNTS = Accounts(
    expense="6400",
    payable="2000",
    accrued="2100",
    suspense="9999",
    cost_centers={"Care": "CC1", "Dev": "CC2", FORMULA: "CC3"},
    values=VALUES,
)


def bill(month: str, extra: str = "0") -> list[dict[str, Any]]:
    """Three invoices in three currencies, a credit among them, with amounts that no three teams share in cents."""
    start = datetime.fromisoformat(f"{month}-05").replace(tzinfo=UTC)
    times = {"billing_month": month, "charge_period_start": start, "charge_period_end": start + timedelta(hours=1)}
    parts = (
        (str(D("10.01") + D(extra)), "A-1", "USD"),
        ("-3.335", "A-1", "USD"),
        ("0.025", "A-2", "USD"),
        ("1000.5", "J-1", "JPY"),
        ("2.0005", "K-1", "KWD"),
    )
    return [
        charge(cost, invoice_id=f"{month}-{number}", billing_currency=currency, **times, **SUPPORT)
        for cost, number, currency in parts
    ]


def write_bills(books: Books, *restated_costs: str) -> None:
    """All three bills; that of August with what a restatement adds."""
    rows = [row for month in MONTHS for row in bill(month, *(restated_costs if month == MONTHS[0] else ()))]
    write(books, charges=charges(*rows))


@pytest.fixture
def closed_books(books: Books) -> Books:
    rule = SharedRule(name="support", service="AWS Support", method="even", teams=["Care", "Dev", FORMULA])
    configure(books, attribution=AttributionSettings(shared=[rule]), report=ReportSettings(timezone="Pacific/Auckland"))
    write_bills(books)
    attribute(books)
    for month in MONTHS:
        checks = {check.item: check.figure for check in periods.checks(of_operator(books), month)}
        assert checks["month_over"].startswith("ends 2026-") and checks["month_over"].endswith(":00")
        assert periods.close(of_operator(books), month, PeriodClose()).state == "closed"
    return books


def require_invoices(books: Books, extra: str = "0") -> list[MonthJournals]:
    """What is owed by the journals is each invoice, rounded once, in its currency; nothing is off by a cent."""
    everything = [month_journals(books, month, ACCOUNTS) for month in MONTHS]
    for month, entries in zip(MONTHS, everything, strict=True):
        owed: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        by_team: dict[str, Decimal] = defaultdict(Decimal)
        for entry in entries.journals:
            assert sum((line.amount for line in entry.lines), D(0)) == 0, entry.number
            assert all((line.debit is None) != (line.credit is None) for line in entry.lines)
            for line in entry.lines:
                if line.account == ACCOUNTS.payable:
                    owed[line.invoice_id, entry.currency] -= line.amount
                elif entry.currency == "USD":
                    by_team[line.team] += line.amount
        exact: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for row in bill(month, extra if month == MONTHS[0] else "0"):
            exact[row["invoice_id"], row["billing_currency"]] += row["billed_cost"]
        units = {"USD": D("0.01"), "JPY": D(1), "KWD": D("0.001")}
        invoices = {key: amount.quantize(units[key[1]], rounding=ROUND_HALF_EVEN) for key, amount in exact.items()}
        assert owed == invoices
        lines_by_team: dict[str, Decimal] = defaultdict(Decimal)
        for booked_line in entries.lines:
            assert abs(booked_line.difference) < units[booked_line.currency] * 2
            if booked_line.currency == "USD":
                lines_by_team[booked_line.team] += booked_line.amount
        assert by_team == lines_by_team
    return everything


@pytest.mark.slow
def test_three_closed_months_and_two_restatements_tie_to_the_invoices(closed_books: Books) -> None:
    require_invoices(closed_books)
    write_bills(closed_books, "0.255")
    attribute(closed_books)
    require_invoices(closed_books, "0.255")
    write_bills(closed_books, "-20.004")
    attribute(closed_books)
    august = require_invoices(closed_books, "-20.004")[0]
    assert [entry.kind for entry in august.journals if entry.currency == "USD"] == ["actual", "adjustment", "adjustment"]
    assert august.journals[0].posting_date.isoformat() == "2026-08-31"
    for name in profiles.names():
        require_sound_file(name, august)


def require_sound_file(name: str, entries: MonthJournals) -> None:
    """The file of a profile balances in its own columns, and no cell of text begins as a formula does."""
    text = Profile.named(name).csv(entries.journals, ACCOUNTS)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == sum(len(entry.lines) for entry in entries.journals)
    debit, credit, amount = (
        next((column for column in rows[0] if word in column.lower()), None) for word in ("debit", "credit", "amount")
    )
    if debit and credit:
        assert sum(D(row[debit] or "0") for row in rows) == sum(D(row[credit] or "0") for row in rows) > 0
        assert not any(row[column].startswith("-") for row in rows for column in (debit, credit))
    else:
        assert amount
        assert sum(D(row[amount]) for row in rows) == 0
    cells = [cell for row in rows for column, cell in row.items() if column != amount or debit]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_an_open_month_is_accrued_and_taken_back_and_a_hole_goes_to_suspense(books: Books, tmp_path: Path) -> None:
    configure(
        books,
        attribution=AttributionSettings(
            shared=[SharedRule(name="all", service="AWS Support", method="even", teams=["Care", "Dev"])]
        ),
    )
    write(books, charges=charges(charge("10.01", **SUPPORT), charge("5", **SUPPORT | {"service_name": "Other"})))
    attribute(books)
    codes = tmp_path / "accounts.toml"
    rootcost = Command(books.settings.home)
    command = ("journal", "--month", "2026-10", "--accounts", codes)
    assert "there is no file of accounts" in rootcost(*command).err
    codes.write_text('expense = "=1+1"\npayable = "2"\naccrued = "3"\nsuspense = "9"\n')
    assert "expense: " in rootcost(*command).err
    codes.write_text('expense = "1"\npayable = "2"\naccrued = "3"\nsuspense = "9"\n[cost_centers]\nCare = "CC1"\n')
    ran = rootcost(*command)
    assert ran.code == 1
    assert "suspense account 9, since they have no cost center: (no team: no_team), Dev" in ran.err
    assert "values.tax_rate" in rootcost(*command, "--profile", "xero").err
    assert "is no profile" in rootcost(*command, "--profile", "zero").err
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert {row["kind"]: row["date"] for row in rows} == {"accrual": "2026-10-31", "reversal": "2026-11-01"}
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[row["account"]] += D(row["debit"] or "0") - D(row["credit"] or "0")
        sums["accrual of " + row["account"]] += D(row["debit"] or "0") if row["kind"] == "accrual" else D(0)
    assert {account: amount for account, amount in sums.items() if "accrual" not in account} == dict.fromkeys("139", D(0))
    assert sums["accrual of 1"] + sums["accrual of 9"] == D("15.01")
    assert rootcost(*command, "--out", tmp_path / "files").code == 1
    files = json.loads((tmp_path / "files/manifest.json").read_text(encoding="utf-8"))["files"]
    assert {entry["kind"]: entry["control_total"] for entry in files.values()} == {"accrual": "15.01", "reversal": "15.01"}
    for name, entry in files.items():
        assert hashlib.sha256((tmp_path / "files" / name).read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.slow
def test_a_long_journal_is_cut_into_parts_that_balance(closed_books: Books) -> None:
    entries = month_journals(closed_books, MONTHS[0], ACCOUNTS, max_lines=3).journals
    dollars = [entry for entry in entries if entry.currency == "USD"]
    assert len(dollars) > 1
    assert all(len(entry.lines) <= 3 and not sum((line.amount for line in entry.lines), D(0)) for entry in dollars)
    assert len({entry.number for entry in dollars}) == len(dollars)


@given(st.lists(st.decimals("-99", "99", places=6), min_size=1, max_size=20), st.integers(-1, 1))
def test_largest_remainders_hit_any_target_within_a_unit(amounts: Sequence[Decimal], shift: int) -> None:
    unit = D("0.01")
    total = sum(amounts, D(0))
    target = rounded(total, unit) + (unit * shift if abs(rounded(total, unit) + unit * shift - total) < unit else 0)
    parts = largest_remainders(amounts, target, unit)
    assert sum(parts, D(0)) == target
    assert all(abs(part - amount) < 2 * unit for part, amount in zip(parts, amounts, strict=True))
