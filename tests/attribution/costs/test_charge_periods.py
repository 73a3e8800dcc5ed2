"""Charge periods that are not clock hours, against usage that is known by the hour (RA-1, RA-2, RA-3). Dollars worked out by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import BALANCE, RATES
from tests.attribution.test_rules import call, rows, total
from tests.support.books_by_hand import at, charge, charges, span, spans, write

D = Decimal
GPU = {
    "sku_meter": "USE1-BoxUsage:g5.xlarge",
    "consumed_unit": "Hrs",
    "service_name": "Amazon EC2",
    "resource_id": "i-gpu",
}
KNOWN = {"account_id": "1111", "region": "us-east-1"}


def period(start: datetime, minutes: int) -> dict[str, Any]:
    return {"charge_period_start": start, "charge_period_end": start + timedelta(minutes=minutes)}


def test_charges_of_half_an_hour_are_held_together_against_their_hour(books: Books) -> None:
    """10K and 2K tokens are billed for the two halves of an hour; 9 000 and 3 000 were logged in it, by the hour.

    12 000 billed, 12 000 logged: nothing is uncaptured and nothing overlogged. Each charge goes 3 : 1, and keeps its own period.
    """
    bill = charges(charge("0.04", tokens_k="10", **period(at(10), 30)), charge("0.008", tokens_k="2", **period(at(10, 30), 30)))
    facts = spans(
        call(1, 1, None, 9000, agent_name="coder", **KNOWN),
        call(2, 2, None, 3000, agent_name="support-bot", start_time=at(10, 40), **KNOWN),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert rows(books, "initiator_agent", "period_start", "reason", "effective_cost") == [
        ("coder", at(10), None, D("0.03")),
        ("coder", at(10, 30), None, D("0.006")),
        ("support-bot", at(10), None, D("0.01")),
        ("support-bot", at(10, 30), None, D("0.002")),
    ]
    pool = books.store.scan(RATES).collect()
    assert pool.select("period_start", "period_end", "billed_quantity", "logged_quantity", "flag").rows() == [
        (at(10), at(11), D(12_000), D(12_000), "")
    ]


def test_what_short_periods_bill_beyond_the_logs_is_uncaptured_in_each(books: Books) -> None:
    """12K tokens billed in four quarters of an hour at 0.003 each, 9 000 logged: a quarter of every charge is uncaptured."""
    bill = charges(*(charge("0.003", tokens_k="3", **period(at(10, 15 * n), 15)) for n in range(4)))
    write(books, spans=spans(call(1, 1, None, 9000, agent_name="coder", **KNOWN)), charges=bill)
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.009"), "unallocated": D("0.003")}
    assert rows(books, "period_start", "effective_cost", cost_class="unallocated") == [
        (at(10, 15 * n), D("0.00075")) for n in range(4)
    ]


def test_days_that_begin_at_half_past_share_out_the_hours_without_overlap(books: Books) -> None:
    """A bill by the day of a zone at +5:30: days run from 18:30 to 18:30 UTC. The hour 18:00 has its middle in the later day."""
    bill = charges(
        charge("1", tokens_k="1", **period(at(18, 30, day=4), 24 * 60)),
        charge("2", tokens_k="1", **period(at(18, 30, day=5), 24 * 60)),
    )
    facts = spans(
        call(1, 1, None, 1000, agent_name="coder", start_time=at(17, 59), **KNOWN),
        call(2, 2, None, 1000, agent_name="support-bot", start_time=at(18, 10), **KNOWN),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [
        ("coder", None, D(1)),
        ("support-bot", None, D(2)),
    ]


def test_a_period_across_two_hours_belongs_to_the_hour_of_its_middle(books: Books) -> None:
    bill = charges(charge("0.003", tokens_k="1", **period(at(10, 50), 30)))
    facts = spans(
        call(1, 1, None, 1000, agent_name="coder", start_time=at(10, 55), **KNOWN),
        call(2, 2, None, 1000, agent_name="support-bot", start_time=at(11, 5), **KNOWN),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert rows(books, "initiator_agent", "reason", "effective_cost") == [
        ("coder", "not_on_bill", D(0)),
        ("support-bot", None, D("0.003")),
    ]


@pytest.mark.slow
def test_a_machine_billed_in_halves_of_an_hour_has_the_capacity_of_an_hour(books: Books) -> None:
    """Two half hours of a machine at 1.80 each; held for 45 of the 60 minutes: 0.90 of 3.60 stood idle."""
    bill = charges(*(charge("1.80", **GPU, consumed_quantity=D("0.5"), **period(at(10, minute), 30)) for minute in (0, 30)))
    write(books, spans=spans(span(1, 1, agent_name="coder", resource_id="i-gpu", end_time=at(10, 45))), charges=bill)
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("2.70"), "idle": D("0.90")}
    rates = books.store.scan(RATES).collect()
    assert rates["pool_id"].is_unique().all()
    assert rates["denominator"].to_list() == [D(3600)]


def test_an_hour_half_of_which_a_reservation_pays_is_one_hour(books: Books) -> None:
    """0.5 h at 1.00 from a reservation and 0.5 h at 2.00 on demand, one instance; held for half an hour."""
    bill = charges(
        charge("1", **GPU, consumed_quantity=D("0.5"), line_item_type="DiscountedUsage"),
        charge("2", **GPU, consumed_quantity=D("0.5"), line_item_type="Usage"),
    )
    write(books, spans=spans(span(1, 1, agent_name="coder", resource_id="i-gpu", end_time=at(10, 30))), charges=bill)
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("1.5"), "idle": D("1.5")}


@pytest.mark.slow
def test_a_period_without_length_and_one_without_end_do_not_stop_the_books(books: Books) -> None:
    """A charge of an instant counts in its hour; one of twenty years is no period that calls could be held against."""
    bill = charges(
        charge("0.003", tokens_k="1", **period(at(10, 20), 0)),
        charge("7", tokens_k="1", charge_period_start=datetime(2006, 1, 1, tzinfo=at(10).tzinfo), charge_period_end=at(11)),
    )
    write(books, spans=spans(call(1, 1, None, 1000, agent_name="coder", **KNOWN)), charges=bill)
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.003"), "unallocated": D(7)}
    assert books.store.scan(BALANCE).select(pl.col("difference").abs().sum()).collect().item() == 0
