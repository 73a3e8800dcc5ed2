"""Credits, refunds, corrections and taxes: of this invoice, of earlier ones, and of nobody's (RA-5). Dollars worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import BALANCE
from tests.attribution.test_rules import OWNERS, call, rows, total
from tests.support.books_by_hand import at, charge, charges, spans, write

D = Decimal
KNOWN = {"account_id": "1111", "region": "us-east-1"}
OCTOBER = {
    "charge_period_start": datetime(2026, 10, 1, tzinfo=UTC),
    "charge_period_end": datetime(2026, 11, 1, tzinfo=UTC),
}
NOVEMBER = datetime(2026, 11, 5, 10, tzinfo=UTC)


def in_november(cost: str, **told: Any) -> dict[str, Any]:
    return charge(cost, **({"billing_month": "2026-11", "consumed_unit": None} | told))


def of_november(**told: Any) -> dict[str, Any]:
    """A charge of 0.006 for 2 000 tokens of coder in November, on November's invoice."""
    period = {"charge_period_start": NOVEMBER, "charge_period_end": NOVEMBER + timedelta(hours=1)}
    return charge("0.006", tokens_k="2", billing_month="2026-11", **{**period, **told})


def october_used_two_to_one(books: Books, *more: dict[str, Any], **told: Any) -> None:
    """October: support-bot 2 000 and coder 1 000 of 3 000 tokens at 0.009. November: coder alone."""
    facts = spans(
        call(1, 1, None, 2000, agent_name="support-bot", **KNOWN),
        call(2, 2, None, 1000, agent_name="coder", **KNOWN),
        call(3, 3, None, 2000, agent_name="coder", start_time=NOVEMBER, **KNOWN),
    )
    write(books, spans=facts, charges=charges(charge("0.009", tokens_k="3", **told), of_november(), *more), owners=OWNERS)


def of_the_correction(books: Books, reason: str) -> list[tuple[Any, ...]]:
    return rows(books, "month", "cost_class", "initiator_agent", "effective_cost", reason=reason)


def balanced(books: Books) -> bool:
    return bool(books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item())


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False])
def test_a_correction_of_last_month_follows_last_months_users(books: Books, at_once: bool) -> None:
    """November's invoice takes 0.003 back of October's 0.009: two thirds to support-bot, though coder alone worked in November."""
    back = in_november("-0.003", charge_class="Correction")
    october_used_two_to_one(books, back)
    for months in [None] if at_once else [["2026-10"], ["2026-11"]]:
        attribute(books, months)
    assert of_the_correction(books, "correction") == [
        ("2026-11", "metered", "coder", D("-0.001")),
        ("2026-11", "metered", "support-bot", D("-0.002")),
    ]
    assert {p for (p,) in rows(books, "period_start", reason="correction")} == {at(10)}, "it keeps the period it corrects"
    assert {r for (r,) in rows(books, "rule", reason="correction")} == {"RA-5"}
    assert balanced(books)


def test_a_credit_for_a_whole_earlier_month_follows_all_of_its_sku(books: Books) -> None:
    credit = in_november("-0.0009", charge_category="Credit", **OCTOBER)
    october_used_two_to_one(books, credit)
    attribute(books)
    assert of_the_correction(books, "credit") == [
        ("2026-11", "metered", "coder", D("-0.0003")),
        ("2026-11", "metered", "support-bot", D("-0.0006")),
    ]


def test_a_correction_follows_the_charge_of_its_hour_before_those_of_its_day(books: Books) -> None:
    """Two hours of October, one agent each; the correction names the second hour."""
    second = {"charge_period_start": at(12), "charge_period_end": at(13)}
    facts = spans(
        call(1, 1, None, 1000, agent_name="support-bot", **KNOWN),
        call(2, 2, None, 1000, agent_name="coder", start_time=at(12), **KNOWN),
    )
    bill = charges(
        charge("0.003", tokens_k="1"),
        charge("0.003", tokens_k="1", **second),
        in_november("-0.001", charge_class="Correction", **second),
        in_november(
            "-0.002", charge_class="Correction", charge_period_start=at(0), charge_period_end=at(0, day=6), invoice_id="b"
        ),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert of_the_correction(books, "correction") == [
        ("2026-11", "metered", "coder", D("-0.001")),
        ("2026-11", "metered", "coder", D("-0.001")),
        ("2026-11", "metered", "support-bot", D("-0.001")),
    ]


def test_a_correction_of_uncaptured_and_owned_cost_goes_where_that_went(books: Books) -> None:
    """October's storage was Growth's by tag and half of a lot nobody's; each correction finds its own SKU's charges."""
    disk = {"service_name": "Amazon S3", "consumed_unit": "GB-Mo"}
    bill = charges(
        charge("4", **disk, sku_meter="Disk", tags='{"user_team":"Growth"}'),
        charge("4", **disk, sku_meter="Disk"),
        charge("10", **disk, sku_meter="Requests"),
        in_november("-1", charge_class="Correction", service_name="Amazon S3", sku_meter="Disk"),
        in_november("-5", charge_class="Correction", service_name="Amazon S3", sku_meter="Requests"),
    )
    write(books, charges=bill)
    attribute(books)
    assert rows(books, "cost_class", "initiator_team", "effective_cost", month="2026-11") == [
        ("owner", "Growth", D("-0.5")),
        ("unallocated", None, D("-0.5")),
        ("unallocated", None, D("-5")),
    ]


def test_a_correction_of_a_month_nobody_drew_falls_to_the_ladder_and_not_on_this_months_users(books: Books) -> None:
    back = in_november("-0.003", charge_class="Correction", tags='{"team":"Growth"}')
    stray = in_november("-0.004", charge_class="Correction")
    write(books, spans=spans(call(3, 3, None, 2000, agent_name="coder", start_time=NOVEMBER, **KNOWN)))
    write(books, charges=charges(of_november(), back, stray))
    attribute(books)
    assert rows(books, "cost_class", "initiator_team", "effective_cost", reason="credit_without_charge") == [
        ("owner", "Growth", D("-0.003")),
        ("unallocated", None, D("-0.004")),
    ]


def test_a_late_charge_and_its_credit_on_one_later_invoice_meet_there(books: Books) -> None:
    """Both for October, both on November's invoice: the credit needs no earlier month."""
    bill = charges(charge("0.003", tokens_k="1", billing_month="2026-11"), in_november("-0.001", charge_category="Credit"))
    write(books, spans=spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN)), charges=bill)
    attribute(books)
    assert of_the_correction(books, "credit") == [("2026-11", "metered", "support-bot", D("-0.001"))]


def test_a_charge_of_october_on_novembers_invoice_is_found_in_december(books: Books) -> None:
    late = charge("0.003", tokens_k="1", billing_month="2026-11")
    back = charge("-0.001", billing_month="2026-12", consumed_unit=None, charge_class="Correction")
    write(books, spans=spans(call(1, 1, None, 1000, agent_name="support-bot", **KNOWN)), charges=charges(late, back))
    attribute(books)
    assert of_the_correction(books, "correction") == [("2026-12", "metered", "support-bot", D("-0.001"))]


def test_a_daily_credit_is_not_laid_on_the_hour_it_begins_with(books: Books) -> None:
    """A credit for the day and hourly charges, the first of which begins with the day: all of the day's hours share it."""
    day = {"charge_period_start": at(0), "charge_period_end": at(0, day=6)}
    first = {"charge_period_start": at(0), "charge_period_end": at(1)}
    bill = charges(
        charge("0.003", tokens_k="1", **first),
        charge("0.009", tokens_k="3"),
        charge("-0.004", charge_category="Credit", consumed_unit=None, **day),
    )
    facts = spans(
        call(1, 1, None, 1000, agent_name="support-bot", start_time=at(0, 5), **KNOWN),
        call(2, 2, None, 3000, agent_name="coder", **KNOWN),
    )
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert of_the_correction(books, "credit") == [
        ("2026-10", "metered", "coder", D("-0.003")),
        ("2026-10", "metered", "support-bot", D("-0.001")),
    ]


def test_the_tax_of_an_earlier_invoice_follows_that_invoice(books: Books) -> None:
    """Tax of 0.0009 that names October's invoice; and one that corrects October's tax under a number of its own."""
    plain = {"charge_category": "Tax", "service_name": None, "sku_meter": None, "sub_account_id": None}
    named = in_november("0.0009", **plain, invoice_id="inv-10", charge_period_start=NOVEMBER, charge_period_end=NOVEMBER)
    corrected = in_november("-0.0003", **plain, invoice_id="corr-1", charge_class="Correction", **OCTOBER)
    october_used_two_to_one(books, named, corrected, invoice_id="inv-10")
    attribute(books)
    assert of_the_correction(books, "tax") == [
        ("2026-11", "metered", "coder", D("-0.0001")),
        ("2026-11", "metered", "coder", D("0.0003")),
        ("2026-11", "metered", "support-bot", D("-0.0002")),
        ("2026-11", "metered", "support-bot", D("0.0006")),
    ]
    assert balanced(books)


@pytest.mark.slow
def test_a_restated_october_moves_novembers_correction_and_nothing_else_does(books: Books) -> None:
    october_used_two_to_one(books, in_november("-0.003", charge_class="Correction"))
    attribute(books)
    assert attribute(books).unchanged == ["2026-10", "2026-11"]
    more = spans(call(4, 4, None, 3000, agent_name="support-bot", **KNOWN))
    write(books, spans=more, charges=charges(charge("0.018", tokens_k="6")))
    report = attribute(books)
    assert report.months == ["2026-10", "2026-11"], "November leans on October, so it is drawn again"
    assert of_the_correction(books, "correction") == [
        ("2026-11", "metered", "coder", D("-0.0005")),
        ("2026-11", "metered", "support-bot", D("-0.0025")),
    ]


@pytest.mark.slow
def test_a_correction_dated_1970_is_looked_for_and_stays_nobodys(books: Books) -> None:
    long_ago = datetime(1970, 1, 1, tzinfo=UTC)
    october_used_two_to_one(
        books,
        in_november(
            "-0.003", charge_class="Correction", charge_period_start=long_ago, charge_period_end=long_ago + timedelta(hours=1)
        ),
    )
    attribute(books)
    assert total(books, "cost_class", reason="credit_without_charge") == {"unallocated": D("-0.003")}


def test_a_credit_larger_than_its_charges_and_one_on_free_charges_keep_their_sign(books: Books) -> None:
    """-5 on a charge of 0.003 makes the pool negative; -1 on a SKU whose charges are free has no weights and falls to the ladder."""
    free = {"service_name": "Amazon S3", "sku_meter": "Free", "consumed_unit": None}
    bill = charges(
        charge("0.003", tokens_k="1"),
        charge("-5", charge_category="Credit", consumed_unit=None),
        charge("0", **free),
        charge("-1", charge_category="Credit", **free),
    )
    write(books, spans=spans(call(1, 1, None, 1000, agent_name="coder", **KNOWN)), charges=bill)
    attribute(books)
    assert total(books, "initiator_agent") == {"coder": D("-4.997"), None: D("-1")}
    assert total(books, "reason", cost_class="unallocated") == {"credit_without_charge": D("-1")}
    assert balanced(books)
