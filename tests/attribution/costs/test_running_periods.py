"""Running periods: calls meet a charge that was read before its period ended in order of time, later ones are estimated (ES-1a)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from attribution.run import attribute
from ingest.run import ingest
from ledger import registry
from ledger.books import Books
from ledger.tables import RATES
from tests.attribution.costs.test_settling import LIST, day, metered, read_at, use
from tests.attribution.test_rules import rows, total
from tests.support.books_by_hand import at, charge, charges, price, spans, write
from tests.support.paths import DATA

D = Decimal
CASE = DATA / "cases" / "matching-11"
GPT = [price("gpt-4.1", "input_tokens", "0.000002", provider="openai")]


def test_es1a_the_first_bucket_of_a_day_pays_for_its_first_calls(books: Books) -> None:
    """The bucket held the 1 000 000 tokens of x when it was read; 9 000 000 of y came later. Once the day is over the bucket holds both."""
    registry.import_text(books, (CASE / "registry.csv").read_text(), uri="registry.csv", actor="test")
    write(books, prices=GPT)
    ingest(books, "otlp", [str(CASE / "spans.json")])
    ingest(books, "openai", [str(CASE / "openai")], now=datetime(2026, 10, 3, 12, tzinfo=UTC))
    attribute(books)
    assert rows(books, "initiator_team", "basis", "reason", "effective_cost", cost_class="metered") == [
        ("X", "billed", "coarse_match", D(2)),
        ("Y", "estimated", None, D(18)),
    ]
    assert books.store.scan(RATES).select("logged_quantity", "flag").collect().rows() == [(D(10**6), "coarse_match")]


def test_es1a_the_hour_in_which_the_quantity_is_reached_is_met_in_part(books: Books) -> None:
    """2 500 tokens for 0.0075 of 1 000 at eight and 1 500 + 3 000 at nine: half of nine o'clock is met; the rest costs what was paid of list."""
    early, nine, big, late = use(1, 8, "a"), use(2, 9, "b", tokens=1500), use(3, 9, "c", tokens=3000), use(4, 10, "d")
    write(books, spans=spans(late, big, nine, early), charges=charges(day("0.0075", 5, tokens_k="2.5")), prices=LIST)
    read_at(books, "0" * 64, at(12, day=5))
    assert [(agent, basis, cost) for agent, basis, _, cost in metered(books)] == [
        ("a", "billed", D("0.003")),
        ("b", "billed", D("0.0015")),
        ("b", "estimated", D("0.003")),
        ("c", "billed", D("0.003")),
        ("c", "estimated", D("0.006")),
        ("d", "estimated", D("0.003")),
    ]
    assert total(books, "basis") == {"billed": D("0.0075"), "estimated": D("0.012")}


@pytest.mark.parametrize(
    ("tokens_k", "moment", "by_basis"),
    [
        ("1", at(0, day=7), {"billed": D("0.002")}),  # settled: what is logged beyond the bill is scaled down
        ("100", at(12, day=5), {"billed": D("0.04")}),  # more than all calls: the rest is uncaptured
        ("1", at(0, day=5), {"billed": D("0.002"), "estimated": D("0.002")}),  # read as the day began
    ],
)
def test_es1a_a_settled_day_and_one_that_bills_more_than_all_calls(
    books: Books, tokens_k: str, moment: datetime, by_basis: dict[str, Decimal]
) -> None:
    cost = str(D(tokens_k) * D("0.002")) if tokens_k == "1" else "2"
    facts = spans(use(1, 8, "a"), use(2, 9, "b"))
    write(books, spans=facts, charges=charges(day(cost, 5, tokens_k=tokens_k)), prices=LIST)
    read_at(books, "0" * 64, moment)
    attribute(books)
    assert total(books, "basis", cost_class="metered") == by_basis
    assert total(books, "basis", cost_class="unallocated").get("billed", D(0)) == D(cost) - by_basis["billed"]


@pytest.mark.slow
def test_es1a_a_month_read_in_its_midst_and_a_period_of_no_length(books: Books) -> None:
    """A FOCUS charge of the whole month holds 2 000 tokens of the 5th; those of the 20th come after. A charge of an instant is of its hour."""
    month: dict[str, Any] = {
        "charge_period_start": at(0, day=1),
        "charge_period_end": datetime(2026, 11, 1, tzinfo=UTC),
        "final": False,
    }
    instant: dict[str, Any] = {"charge_period_start": at(7), "charge_period_end": at(7), "final": False, "sub_account_id": "2222"}
    facts = spans(
        use(1, 8, "a"),
        use(2, 9, "b"),
        use(3, 9, "c", day=20),
        use(4, 7, "d", account_id="2222"),
        use(5, 7, "e", account_id="2222"),
    )
    bill = charges(charge("0.004", tokens_k="2", **month), charge("0.002", tokens_k="1", **instant))
    write(books, spans=facts, charges=bill, prices=LIST)
    read_at(books, "0" * 64, at(6, day=6))
    assert [(agent, basis, cost) for agent, basis, _, cost in metered(books)] == [
        ("a", "billed", D("0.002")),
        ("b", "billed", D("0.002")),
        ("c", "estimated", D("0.002")),
        ("d", "billed", D("0.001")),
        ("d", "estimated", D("0.001")),
        ("e", "billed", D("0.001")),
        ("e", "estimated", D("0.001")),
    ]


@pytest.mark.slow
def test_es1a_a_bucket_without_a_quantity_pays_for_the_calls_that_its_cost_buys_at_list_price(books: Books) -> None:
    """0.003 on the running day: of 0.002 at eight, 0.002 at nine and 0.002 at ten, the first two hours; a settled day pays for all three."""
    facts = spans(*(use(n, hour, agent) for n, (hour, agent) in enumerate([(8, "a"), (9, "b"), (10, "c")], 1)))
    write(books, spans=facts, charges=charges(day("0.003", 5)), prices=LIST)
    read_at(books, "0" * 64, at(12, day=5))
    assert [(agent, basis, cost) for agent, basis, _, cost in metered(books)] == [
        ("a", "billed", D("0.0015")),
        ("b", "billed", D("0.0015")),
        ("c", "estimated", D("0.002")),
    ]
    write(books, charges=charges(day("0.003", 5, raw_id="1" * 64)))
    read_at(books, "1" * 64, at(12, day=8))
    assert [(agent, basis, cost) for agent, basis, _, cost in metered(books)] == [(a, "billed", D("0.001")) for a in "abc"]
