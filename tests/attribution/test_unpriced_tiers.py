"""A service tier that the price book does not price is estimated at the standard price, and told. (ES-2)"""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import PROBLEMS
from tests.attribution.test_rules import call, rows
from tests.support.books_by_hand import charge, charges, price, spans, write

D = Decimal
MODEL = "anthropic.claude-sonnet-4-6"
LIST = [price(MODEL, "input_tokens", "0.000003"), price(MODEL, "input_tokens", "0.000001", service_tier="flex")]


def findings(books: Books) -> list[tuple[str, Decimal | None]]:
    problems = books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("tier_at_standard")).collect()
    return problems.select("reason", "cost").rows()


@pytest.mark.parametrize(
    ("tier", "cost", "is_finding"),
    [
        ("priority", "0.03", True),
        ("fast", "0.03", True),
        ("flex", "0.01", False),
        ("default", "0.03", False),
        ("batch", "0.015", False),
    ],
)
def test_a_tier_is_estimated_at_its_price_or_told_with_its_money(books: Books, tier: str, cost: str, is_finding: bool) -> None:
    tier_call = call(1, 1, None, 10_000, agent_name="coder", service_tier=tier)
    write(books, spans=spans(tier_call, call(2, 2, None, 10_000, agent_name="coder")), prices=LIST)
    attribute(books)
    estimates = {(reason or "").count("tier_at_standard"): money for reason, money in rows(books, "reason", "effective_cost")}
    tier_findings = findings(books)
    if is_finding:
        assert estimates == {1: D(cost), 0: D("0.03")}
        assert [(repr(tier) in reason, money) for reason, money in tier_findings] == [(True, D(cost))]
    else:
        assert 1 not in estimates and sum(money for _, money in rows(books, "reason", "effective_cost")) == D(cost) + D("0.03")
        assert tier_findings == []


def test_a_billed_tier_is_no_finding(books: Books) -> None:
    bill = charges(charge("0.09", tokens_k="10"))
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder", service_tier="priority")), prices=LIST, charges=bill)
    attribute(books)
    assert [basis for (basis,) in rows(books, "basis")] == ["billed"]
    assert findings(books) == []
