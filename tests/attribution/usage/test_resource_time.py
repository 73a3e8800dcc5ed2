"""RA-3: of nested spans that hold one resource only the outermost counts. Dollars worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from attribution.run import attribute
from ledger.books import Books
from tests.attribution.test_rules import OWNERS, total
from tests.support.books_by_hand import at, charge, charges, span, spans, write

D = Decimal
MACHINE = {
    "sku_meter": "USE1-BoxUsage:g5.xlarge",
    "consumed_unit": "Hrs",
    "consumed_quantity": D(1),
    "service_name": "Amazon EC2",
}


def holder(trace: int, number: int, parent: int | None, agent: str | None, minutes: int, **columns: Any) -> dict[str, Any]:
    return span(trace, number, parent, **{"agent_name": agent, "resource_id": "i-gpu", "end_time": at(10, minutes), **columns})


@pytest.mark.slow
@pytest.mark.parametrize("between", [None, "i-other"])
def test_a_holder_inside_a_holder_counts_once_whatever_lies_between(books: Books, between: str | None) -> None:
    """support-bot holds the machine for ten minutes; within them a tool, or a holder of another machine, holds it for five more."""
    facts = spans(
        holder(1, 1, None, "support-bot", 10),
        span(1, 2, 1, resource_id=between, end_time=at(10, 8)),
        span(1, 3, 2, end_time=at(10, 7)),
        holder(1, 4, 3, None, 5),
        holder(2, 5, None, "coder", 5),
    )
    write(books, spans=facts, charges=charges(charge("3.60", resource_id="i-gpu", **MACHINE)), owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.60"), "coder": D("0.30"), None: D("2.70")}


@pytest.mark.slow
def test_a_holder_that_only_links_to_another_holds_time_of_its_own(books: Books) -> None:
    """A link leads on to other work: coder's five minutes begin after support-bot's ten."""
    facts = spans(
        holder(1, 1, None, "support-bot", 10),
        holder(2, 5, None, "coder", 25, link=(1, 1), start_time=at(10, 20)),
    )
    write(books, spans=facts, charges=charges(charge("3.60", resource_id="i-gpu", **MACHINE)), owners=OWNERS)
    attribute(books)
    assert total(books, "executor_agent") == {"support-bot": D("0.60"), "coder": D("0.30"), None: D("2.70")}


@pytest.mark.slow
def test_siblings_on_one_resource_both_count(books: Books) -> None:
    facts = spans(
        span(1, 1, agent_name="support-bot", end_time=at(10, 30)),
        holder(1, 2, 1, None, 10),
        holder(1, 3, 1, "coder", 5),
    )
    write(books, spans=facts, charges=charges(charge("3.60", resource_id="i-gpu", **MACHINE)), owners=OWNERS)
    attribute(books)
    assert total(books, "executor_agent") == {"support-bot": D("0.60"), "coder": D("0.30"), None: D("2.70")}


@pytest.mark.slow
def test_a_chain_of_thousands_of_holders_is_bounded(books: Books) -> None:
    """Spans that name two machines by turns, each inside the one before it: the first of each counts."""
    facts = spans(
        *(holder(1, n, n - 1 or None, "coder" if n == 1 else None, 6, resource_id=f"i-{n % 2}") for n in range(1, 3001))
    )
    bill = charges(*(charge("3.60", resource_id=f"i-{n}", **MACHINE) for n in (0, 1)))
    write(books, spans=facts, charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("0.72"), None: D("6.48")}
