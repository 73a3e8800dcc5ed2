"""`rootcost periods`: states, checklist, close, documents and opening again, at the command line."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from api.queries import of_operator
from attribution.run import attribute
from ledger import db
from ledger.books import Books
from ledger.settings import AttributionSettings, ReportSettings, SharedRule
from rootcost.operations import periods
from tests.attribution.monitoring.test_run_diff import KNOWN, LIST, SUPPORT, restate
from tests.attribution.test_rules import OWNERS, call, configure
from tests.support.books_by_hand import charge, charges, spans, write
from tests.support.cli_books import Command

MONTH = "2026-10"


@pytest.fixture
def rootcost(books: Books) -> Command:
    """A month of which all but support has a team."""
    facts = spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN), call(2, 2, None, 2000, agent_name="coder", **KNOWN))
    write(books, spans=facts, charges=charges(charge("0.009", tokens_k="3"), charge("12", **SUPPORT)), owners=OWNERS, prices=LIST)
    attribute(books)
    return Command(books.settings.home)


def blocking(rootcost: Command) -> dict[str, str]:
    checks = rootcost("periods", "checklist", MONTH, "--format", "json").rows
    assert all(check["remedy"] for check in checks if not check["passed"])
    return {check["item"]: check["figure"] for check in checks if check["blocks"] and not check["passed"]}


def row(rootcost: Command) -> dict[str, object]:
    (found_row,) = rootcost("periods", "list", "--format", "json").rows
    assert isinstance(found_row, dict)
    return found_row


def test_a_month_is_closed_once_nothing_blocks_or_it_is_waived(rootcost: Command, books: Books) -> None:
    assert blocking(rootcost) == {"unallocated": "12 USD of 12.009 USD without a team, at most 10 % may be"}
    assert row(rootcost)["state"] == "provisional"
    accounts = books.home / "accounts.toml"
    accounts.write_text(
        'expense = "1"\npayable = "2"\naccrued = "3"\nsuspense = "9"\nno_team = "0"\n[cost_centers]\nCare = "C"\n'
    )
    assert blocking(rootcost)["cost_centers"] == "1 team without one: Dev"
    accounts.unlink()
    answer = rootcost("periods", "close", MONTH)
    assert answer.code == 2
    assert "unallocated: 12 USD of 12.009 USD" in answer.err
    assert "cannot be waived" in rootcost("periods", "close", MONTH, "--waive", "balance").err
    assert "no such item" in rootcost("periods", "close", MONTH, "--waive", "ballance").err
    assert "needs a reason" in rootcost("periods", "close", MONTH, "--waive", "unallocated").err

    answer = rootcost("periods", "close", MONTH, "--waive", "unallocated", "--reason", "kept central")
    assert f"{MONTH}-1 (actual)" in answer.out
    assert "is closed" in rootcost("periods", "close", MONTH).err
    restate(books)
    attribute(books)
    lines = rootcost("periods", "documents", MONTH, "--format", "json").rows
    assert [(line["number"], line["cause"], line["team"], line["effective_cost"]) for line in lines] == [
        (f"{MONTH}-1", "close", None, "12"),
        (f"{MONTH}-1", "close", "Care", "0.003"),
        (f"{MONTH}-1", "close", "Dev", "0.006"),
        (f"{MONTH}-2", "restated charge", None, "0.003"),
    ]
    with books.database.session() as session:
        entries = session.scalars(sa.select(db.Audit).where(db.Audit.subject == MONTH)).all()
    actions = {entry.action: entry.after or {} for entry in entries}
    assert actions["period.close"]["waived"] == ["unallocated"]
    assert actions["period.book"]["totals"] == {"USD": {"billed_cost": "0.003", "effective_cost": "0.003"}}


def test_opening_again_is_asked_here_and_not_approved_here(rootcost: Command) -> None:
    rootcost("periods", "close", MONTH, "--waive", "unallocated", "--reason", "kept central")
    assert "needs a reason" in rootcost("periods", "reopen", MONTH).err
    assert "asks to open it again: late bill" in rootcost("periods", "reopen", MONTH, "--reason", "late bill").out
    assert "somebody else must approve it" in rootcost("periods", "reopen", MONTH, "--decision", "approve").err
    assert row(rootcost)["state"] == "closed"


def test_the_checklist_names_what_a_month_lacks(rootcost: Command, books: Books) -> None:
    """A bill that is not final, facts that are not attributed, and a currency without rates; a month that is not over is open."""
    configure(
        books,
        report=ReportSettings(currency="EUR"),
        attribution=AttributionSettings(shared=[SharedRule(name="support", service="AWS Support")]),
    )
    write(books, charges=charges(charge("0.009", tokens_k="3", final=False), charge("12", **SUPPORT)))
    checks = {check.item: check for check in periods.checks(of_operator(books), MONTH)}
    assert "computed from other facts" in checks["attributed"].figure
    assert checks["bill_final"].figure == "1 of 2 charges provisional"
    assert checks["exchange_rates"].figure.startswith("into EUR: USD: 1 day from 2026-10-")
    assert not any(checks[item].passed for item in ("attributed", "bill_final", "exchange_rates", "unallocated"))
    assert periods.period(of_operator(books), MONTH).state == "open"
    assert "is no month" in rootcost("periods", "checklist", "2026-13").err
    assert "nothing is known" in rootcost("periods", "checklist", "2020-01").err
