"""RA-3: usage of a call that crosses an hour's border is met in the hour of its start, else in that of its end. Dollars by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.costs import month
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import BALANCE, COSTS, USAGE_HOURLY
from tests.attribution.costs.test_settling import read_at
from tests.attribution.test_rules import OWNERS, call, rows, total
from tests.support.books_by_hand import at, charge, charges, price, spans, write

D = Decimal
PLACE = {"account_id": "1111", "region": "us-east-1"}


def logged(number: int, agent: str, tokens: int, start: datetime, minutes: int = 1, **columns: Any) -> dict[str, Any]:
    """A call of an agent that lasts some minutes."""
    end = start + timedelta(minutes=minutes)
    return call(number, number, None, tokens, agent_name=agent, start_time=start, end_time=end, **{**PLACE, **columns})


def billed(cost: str, start: datetime, hours: int = 1, **columns: Any) -> dict[str, Any]:
    return charge(cost, charge_period_start=start, charge_period_end=start + timedelta(hours=hours), **columns)


def is_balanced(books: Books) -> bool:
    return bool(books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item())


def test_a_charge_of_the_hour_of_its_end_meets_the_call(books: Books) -> None:
    """1 000 tokens from 10:59 to 11:01; the bill has them at eleven, and all of ten o'clock with another model."""
    bill = charges(
        billed("0.003", at(11), tokens_k="1"), billed("0.001", at(10), tokens_k="1", sku_meter="USE1-NovaPro-input-tokens")
    )
    write(books, spans=spans(logged(1, "coder", 1000, at(10, 59), 2)), charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "cost_class", "reason", "usage_hour", "period_start", "quantity", "effective_cost") == [
        ("coder", "metered", "hour_end", at(10), at(11), 1000, D("0.003")),
        (None, "unallocated", "uncaptured_usage", None, at(10), 1000, D("0.001")),
    ]
    assert is_balanced(books)


def test_only_rows_of_calls_that_cross_carry_the_hour_of_their_end(books: Books) -> None:
    facts = [logged(1, "coder", 100, at(10, 10)), logged(2, "coder", 20, at(10, 58)), logged(3, "coder", 3, at(10, 59), 1)]
    write(books, spans=spans(*facts), owners=OWNERS)
    attribute(books)
    usage = books.store.scan(USAGE_HOURLY).select("hour", "end_hour", "quantity").sort("quantity").collect()
    assert usage.rows() == [(at(10), at(11), 3), (at(10), None, 120)]


def test_nobody_pays_for_a_call_that_is_billed_in_the_next_hour(books: Books) -> None:
    """Three calls at ten o'clock of which one ends at eleven: its hour is shared by calls that have no other. All pay what they used."""
    facts = [
        logged(1, "support-bot", 1000, at(10, 10)),
        logged(2, "coder", 2000, at(10, 59)),
        logged(3, "researcher", 500, at(11, 30)),
    ]
    bill = charges(billed("0.003", at(10), tokens_k="1"), billed("0.0075", at(11), tokens_k="2.5"))
    write(books, spans=spans(*facts), charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [
        ("coder", "hour_end", D("0.006")),
        ("researcher", None, D("0.0015")),
        ("support-bot", None, D("0.003")),
    ]


def test_a_call_that_is_billed_where_it_started_stays_there(books: Books) -> None:
    """The next hour has 1 000 tokens that nobody logged: they are uncaptured, whoever ended in it."""
    bill = charges(billed("0.003", at(10), tokens_k="1"), billed("0.003", at(11), tokens_k="1"))
    write(books, spans=spans(logged(1, "coder", 1000, at(10, 59), 2)), charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [
        ("coder", None, D("0.003")),
        (None, "uncaptured_usage", D("0.003")),
    ]


def test_what_neither_hour_bills_is_told(books: Books) -> None:
    """1 000 tokens of which ten o'clock bills 200, eleven 300: the shares are scaled down to 500, and flagged."""
    bill = charges(billed("0.0006", at(10), tokens_k="0.2"), billed("0.0009", at(11), tokens_k="0.3"))
    write(books, spans=spans(logged(1, "coder", 1000, at(10, 59), 2)), charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "reason", "quantity", "effective_cost") == [
        ("hour_end", 300, D("0.0009")),
        ("overlogged", 200, D("0.0006")),
    ]


def test_a_small_first_hour_does_not_make_a_call_implausible(books: Books) -> None:
    """Ten tokens are billed at ten o'clock, and 1 000 of a call that ended at eleven are logged beside them. (RA-2b)"""
    facts = [logged(1, "support-bot", 10, at(10, 10)), logged(2, "coder", 1000, at(10, 59))]
    bill = charges(billed("0.00003", at(10), tokens_k="0.01"), billed("0.003", at(11), tokens_k="1"))
    write(books, spans=spans(*facts), charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.00003"), "coder": D("0.003")}


def test_the_end_is_met_under_the_conditions_of_the_start(books: Books) -> None:
    """The charge of eleven o'clock is of account 2222; who states 1111 does not meet it, who states none does."""
    bill = charges(billed("0.003", at(11), tokens_k="1", sub_account_id="2222"), billed("0.001", at(9), tokens_k="1"))
    facts = [
        logged(1, "coder", 1000, at(10, 59), channel="bedrock-logs", source="bedrock-logs"),
        logged(2, "researcher", 1000, at(10, 59), account_id=None, region=None),
    ]
    write(books, spans=spans(*facts), charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent", cost_class="metered", basis="billed") == {"researcher": D("0.003")}


def test_a_charge_without_a_quantity_meets_the_end_of_a_call(books: Books) -> None:
    bill = charges(billed("0.003", at(11), consumed_unit=None))
    write(books, spans=spans(logged(1, "coder", 1000, at(10, 59), 2)), charges=bill, owners=OWNERS)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [("coder", "hour_end", D("0.003"))]


@pytest.mark.slow
@pytest.mark.parametrize("batch_rows", [month.BATCH_ROWS, 0])
@pytest.mark.parametrize("hours", [1, 24])
def test_an_end_beyond_midnight_is_met_in_the_next_day(
    books: Books, monkeypatch: pytest.MonkeyPatch, batch_rows: int, hours: int
) -> None:
    """Two days, the month as a whole or every day a batch, billed by the hour or by the day."""
    monkeypatch.setattr(month, "BATCH_ROWS", batch_rows)
    facts = [
        logged(1, "support-bot", 1000, at(0, 10)),
        logged(2, "coder", 2000, at(23, 59)),
        logged(3, "researcher", 500, at(0, 30, day=6)),
    ]
    bill = charges(billed("0.003", at(0), hours, tokens_k="1"), billed("0.0075", at(0, day=6), hours, tokens_k="2.5"))
    write(books, spans=spans(*facts), charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.003"), "coder": D("0.006"), "researcher": D("0.0015")}
    assert {reason for (reason,) in rows(books, "reason")} == {None, "hour_end"}
    assert is_balanced(books)


@pytest.mark.slow
def test_late_usage_of_one_day_changes_the_next(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that ended in the second day arrives late, then more of that day's own: what stands of the cache is as computed anew."""
    monkeypatch.setattr(month, "BATCH_ROWS", 0)
    bill = charges(billed("0.003", at(0), 24, tokens_k="1"), billed("0.006", at(0, day=6), 24, tokens_k="2"))
    write(books, spans=spans(logged(1, "support-bot", 1000, at(9))), charges=bill, owners=OWNERS)
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.003"), None: D("0.006")}
    write(books, spans=spans(logged(2, "coder", 2000, at(23, 59))))
    attribute(books)
    assert total(books, "initiator_agent") == {"support-bot": D("0.003"), "coder": D("0.006")}
    write(books, spans=spans(logged(3, "researcher", 1000, at(9, day=6))))
    cached_run = attribute(books)
    # The second day's own 1 000 come first. Of the first day's 3 000 tokens 1 000 are billed; the call that crossed has 1 000 of the rest met there.
    costs = books.store.scan(COSTS, {"run_id": [cached_run.run_id]}).drop("run_id").collect().sort(pl.all())
    anew = attribute(books, force=True)
    assert books.store.scan(COSTS, {"run_id": [anew.run_id]}).drop("run_id").collect().sort(pl.all()).equals(costs)
    assert total(books, "initiator_agent") == {"support-bot": D("0.0015"), "coder": D("0.0045"), "researcher": D("0.003")}
    assert attribute(books).unchanged == ["2026-10"]


def test_usage_whose_end_the_bill_does_not_cover_yet_is_estimated(books: Books) -> None:
    """The bill was read when it had come to eleven o'clock, with nothing of a call that ended at eleven. (ES-1a)"""
    bill = charges(*(billed(cost, at(hour), tokens_k="1", final=False) for hour, cost in ((9, "0.003"), (11, "0"))))
    facts = [logged(1, "support-bot", 1000, at(9)), logged(2, "coder", 1000, at(10, 59))]
    prices = [price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003")]
    read_at(books, "0" * 64, at(11, 10, day=6))
    write(books, spans=spans(*facts), charges=bill.filter(pl.col("charge_period_start") == at(9)), prices=prices, owners=OWNERS)
    attribute(books)
    assert rows(books, "basis", "initiator_agent", "effective_cost") == [
        ("billed", "support-bot", D("0.003")),
        ("estimated", "coder", D("0.003")),
    ]


@pytest.mark.parametrize("months", [None, ["2026-11"]])
def test_what_an_earlier_invoice_took_at_the_start_is_not_there_for_late_rows_at_the_end(
    books: Books, months: list[str] | None
) -> None:
    """October's invoice bills the call where it started, November's late row the hour of its end: usage is spent once. (RA-2a)"""
    bill = charges(billed("0.003", at(10), tokens_k="1"), billed("0.003", at(11), tokens_k="1", billing_month="2026-11"))
    write(books, spans=spans(logged(1, "coder", 1000, at(10, 59), 2)), charges=bill, owners=OWNERS)
    attribute(books, months)
    assert rows(books, "initiator_agent", "reason", "effective_cost", month="2026-11") == [(None, "uncaptured_usage", D("0.003"))]


def test_a_call_is_met_in_the_month_of_its_start(books: Books) -> None:
    """Not kept whole yet: a call that ended in the next month is not on that month's bill."""
    last = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)
    first = last + timedelta(minutes=1)
    write(
        books,
        spans=spans(logged(1, "coder", 1000, last, 2)),
        charges=charges(billed("0.003", first, tokens_k="1", billing_month="2026-11")),
        prices=[price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003")],
        owners=OWNERS,
    )
    attribute(books)
    assert rows(books, "month", "basis", "initiator_agent", "reason", "effective_cost") == [
        ("2026-10", "estimated", "coder", None, D("0.003")),
        ("2026-11", "billed", None, "uncaptured_usage", D("0.003")),
    ]
