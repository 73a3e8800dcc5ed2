"""Nested budgets: a child fits into its parent, or is refused with the numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.budgets.nesting import Node, require_fit
from ledger.budgets.terms import parse_terms
from ledger.errors import UsageError
from ledger.exchange_rates import Exchange
from ledger.periods import now

NO_RATES = Exchange([])
COMPANY: Any = {"scopes": {"organisation": "Acme"}}


def node(name: str, amount: str, parent: str | None = None, **fields: Any) -> Node:
    """A budget whose id is its name."""
    terms = parse_terms(
        {"name": name, "amount": amount, "currency": "USD", "scopes": {"team": name}, "parent_id": parent} | fields
    )
    return Node(name, terms, Decimal(amount))


def check(*nodes: Node, of: str, exchange: Exchange = NO_RATES, team_of: dict[str, str] | None = None) -> None:
    require_fit({n.budget_id: n for n in nodes}, of, exchange, team_of or {})


def refusal(*nodes: Node, of: str, **context: Any) -> str:
    with pytest.raises(UsageError) as error:
        check(*nodes, of=of, **context)
    return str(error.value)


def test_siblings_share_what_the_parent_has() -> None:
    company, care = node("company", "8000", **COMPANY), node("care", "4000", "company")
    check(company, care, node("dev", "4000", "company"), of="dev")
    assert refusal(company, care, node("dev", "4500", "company"), of="dev") == (
        "dev: amount: company has 8,000.00 USD, and its budgets 8,500.00 together (care 4,000.00, dev 4,500.00): 500.00 too much"
        " — lower some of them, raise the parent, or allow it (exceeds_parent)"
    )
    check(company, care, node("dev", "4500", "company", exceeds_parent=True), of="dev")


def test_a_parent_is_not_made_smaller_than_its_children() -> None:
    children = node("care", "4000", "company"), node("dev", "3000", "company")
    assert "company has 6,000.00 USD, and its budgets 7,000.00 together" in refusal(
        node("company", "6000", **COMPANY), *children, of="company"
    )
    day = node("daily", "700", "company", period="day")
    check(node("company", "700", **COMPANY), day, of="company")
    assert "daily has 700.00, and its parent company only 600.00 USD" in refusal(
        node("company", "600", **COMPANY), day, of="company"
    )


def test_a_child_lies_within_its_parent() -> None:
    care = node("care", "10", scopes={"team": "Care"})
    check(care, node("bot", "5", "care", scopes={"agent": "bot"}), of="bot", team_of={"bot": "Care"})
    check(care, node("run", "5", "care", scopes={"workflow": "nightly"}, period="chain"), of="run")
    assert "care is about team Care, and this one about Dev" in refusal(
        care, node("bot", "5", "care", scopes={"agent": "bot"}), of="bot", team_of={"bot": "Dev"}
    )
    assert "care is about team Care, and this one about Dev" in refusal(
        care, node("dev", "5", "care", scopes={"team": "Dev", "agent": "x"}), of="dev"
    )
    assert "organisation Acme is no part of team Care" in refusal(care, node("all", "5", "care", **COMPANY), of="all")
    model = node("model", "10", scopes={"team": "Care", "model": "gpt-4o"})
    assert "about model gpt-4o, and this one about any" in refusal(
        model, node("bot", "5", "model", scopes={"team": "Care", "agent": "bot"}), of="bot"
    )
    assert "a year is longer than the month of care" in refusal(
        care, node("x", "5", "care", scopes={"team": "Care", "agent": "x"}, period="year"), of="x"
    )
    assert "it counts the executor's cost" in refusal(
        care, node("x", "5", "care", scopes={"team": "Care", "agent": "x"}, view="executor"), of="x"
    )


def test_no_budget_lies_within_itself() -> None:
    first, second = node("a", "5", "b", scopes={"team": "T"}), node("b", "5", "a", scopes={"team": "T"})
    assert "a budget cannot lie within itself: a > b > a" in refusal(first, second, of="a")
    assert "its parent is no budget in force" in refusal(node("a", "5", "gone"), of="a")


@pytest.mark.clock
def test_other_currencies_are_compared_at_the_rate_of_today() -> None:
    company, care = node("company", "100", **COMPANY), node("care", "90", "company", currency="EUR")
    assert "no exchange rate of today from EUR into USD" in refusal(company, care, of="care")
    check(company, care, of="care", exchange=Exchange([("EUR", "USD", now().date(), Decimal("1.1"), "test")]))
    dear = Exchange([("EUR", "USD", now().date(), Decimal("1.2"), "test")])
    assert "care has 108.00, and its parent company only 100.00 USD" in refusal(company, care, of="care", exchange=dear)
