"""Estimates beside the bill: what it covers, what it may repeat, commitments, tolerance at its edge, and drift (ES-1, ES-3, RA-2, RA-5)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from attribution.costs.drift import measure_drift
from attribution.monitoring.drift_alerts import exceeding
from attribution.run import attribute
from ledger.books import Books
from ledger.db import Alert
from ledger.settings import AttributionSettings
from ledger.tables import BALANCE, PROBLEMS, RATES
from tests.attribution.test_rules import call, configure, rows, total
from tests.support.books_by_hand import at, charge, charges, price, span, spans, write

D = Decimal
KNOWN = {"account_id": "1111", "region": "us-east-1"}
LIST = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]
OCTOBER = {"charge_period_start": datetime(2026, 10, 1, tzinfo=UTC), "charge_period_end": datetime(2026, 11, 1, tzinfo=UTC)}
MYSTERY = {"sku_meter": "USE1-Mystery-Thing", "consumed_unit": "Units", "consumed_quantity": D(1)}


def problems(books: Books, name: str) -> pl.DataFrame:
    return books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with(name)).collect()


# ── what the bill covers ────────────────────────────────────────────────────────────────────────────────────────────


def test_es1_a_final_monthly_charge_without_a_model_ends_the_estimates_of_its_account(books: Books) -> None:
    """It may be what the 10 000 tokens cost: they are not counted a second time."""
    write(
        books,
        spans=spans(call(1, 1, None, 10_000, agent_name="coder", **KNOWN)),
        charges=charges(charge("0.03", **MYSTERY, **OCTOBER)),
        prices=LIST,
    )
    attribute(books)
    assert rows(books, "cost_class", "reason", "basis", "effective_cost") == [
        ("metered", "not_on_bill", "billed", D(0)),
        ("unallocated", "unclassified_sku", "billed", D("0.03")),
    ]
    assert not problems(books, "maybe_estimated_too").height


def test_es1_while_it_is_provisional_estimates_go_on_and_the_risk_is_told(books: Books) -> None:
    facts = spans(
        call(1, 1, None, 10_000, agent_name="coder", **KNOWN),
        call(2, 2, None, 10_000, agent_name="coder", provider="openai", response_model="gpt-4o"),
    )
    write(books, spans=facts, charges=charges(charge("0.03", **MYSTERY, **OCTOBER, final=False)), prices=LIST)
    attribute(books)
    assert rows(books, "effective_cost", basis="estimated", provider="AWS") == [(D("0.03"),)]
    told = problems(books, "maybe_estimated_too")
    assert told["place"].to_list() == ["AWS 1111 USE1-Mystery-Thing"]


def test_es1_an_account_whose_own_charges_come_by_the_hour_is_covered_as_far_as_those(books: Books) -> None:
    """The mystery is account 1111's; account 2222 is billed by the hour, until 5 o'clock so far, and used 10 000 tokens at ten."""
    other = {**KNOWN, "account_id": "2222"}
    until_five = {"charge_period_start": at(4), "charge_period_end": at(5), "sub_account_id": "2222"}
    write(
        books,
        spans=spans(call(1, 1, None, 10_000, agent_name="coder", **other)),
        charges=charges(charge("0.03", **MYSTERY, **OCTOBER), charge("0.003", tokens_k="1", **until_five)),
        prices=LIST,
    )
    attribute(books)
    assert rows(books, "basis", "effective_cost", cost_class="metered") == [("estimated", D("0.03"))]


# ── quantities at the edge ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("logged", "metered", "flag"),
    [
        (9_950, "0.03", ""),  # exactly half a percent below: equal
        (9_949, "0.029847", ""),  # 0.03 · 9949/10000; the rest is uncaptured
        (10_050, "0.03", ""),  # exactly half a percent above: equal
        (10_051, "0.03", "overlogged"),
    ],
)
def test_ra2_the_tolerance_is_counted_to_the_token(books: Books, logged: int, metered: str, flag: str) -> None:
    write(
        books,
        spans=spans(call(1, 1, None, logged, agent_name="coder", **KNOWN)),
        charges=charges(charge("0.03", tokens_k="10")),
    )
    attribute(books)
    told = total(books, "cost_class")
    assert told["metered"] == D(metered)
    assert sum(told.values()) == D("0.03")
    assert books.store.scan(RATES).collect()["flag"].to_list() == [flag]


def test_ra2_without_tolerance_one_token_is_uncaptured(books: Books) -> None:
    configure(books, attribution=AttributionSettings(tolerance=D(0)))
    write(
        books,
        spans=spans(call(1, 1, None, 9_999, agent_name="coder", **KNOWN)),
        charges=charges(charge("0.03", tokens_k="10")),
    )
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.029997"), "unallocated": D("0.000003")}


def test_ra2_free_charges_and_mixed_signs_of_columns_are_split_all_the_same(books: Books) -> None:
    """A free tier: 10K tokens at 0, list 0.03. And a charge whose billed cost is 0 after an amortised commitment."""
    bill = charges(charge("0", tokens_k="10", list_cost=D("0.03"), contracted_cost=D("0.03")))
    facts = spans(call(1, 1, None, 2_500, agent_name="coder", **KNOWN), call(2, 2, None, 7_500, agent_name="bot", **KNOWN))
    write(books, spans=facts, charges=bill)
    attribute(books)
    assert rows(books, "initiator_agent", "effective_cost", "list_cost") == [
        ("bot", D(0), D("0.0225")),
        ("coder", D(0), D("0.0075")),
    ]


# ── commitments ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ra5_a_commitment_is_amortised_on_its_users_and_its_purchase_stays_visible(books: Books) -> None:
    """720 paid up front; an hour of it costs 1 effective and 0 billed. Half the machine's hour was used; of another hour nobody's."""
    gpu = {
        "sku_meter": "USE1-BoxUsage:g5.xlarge",
        "consumed_unit": "Hrs",
        "consumed_quantity": D(1),
        "service_name": "Amazon EC2",
        "billed_cost": D(0),
    }
    bill = charges(
        charge("0", **OCTOBER, charge_category="Purchase", line_item_type="RIFee", billed_cost=D(720), consumed_unit=None),
        charge("1", **gpu, resource_id="i-gpu", line_item_type="DiscountedUsage", commitment_discount_status="Used"),
        charge("1", **gpu, resource_id="ri-1", commitment_discount_status="Unused"),
    )
    write(books, spans=spans(span(1, 1, agent_name="coder", resource_id="i-gpu", end_time=at(10, 30))), charges=bill)
    attribute(books)
    assert rows(books, "cost_class", "reason", "billed_cost", "effective_cost") == [
        ("idle", "idle_capacity", D(0), D("0.5")),
        ("idle", "unused_commitment", D(0), D(1)),
        ("metered", None, D(0), D("0.5")),
        ("unallocated", "commitment_purchase", D(720), D(0)),
    ]
    assert books.store.scan(BALANCE).select((pl.col("difference") == 0).all()).collect().item()


# ── drift ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def two_months(books: Books, september: str, october: str) -> None:
    """A million tokens in each month, $3 at list, and what the bills say."""
    past = datetime(2026, 9, 5, 10, tzinfo=UTC)
    period = {"charge_period_start": past, "charge_period_end": past.replace(hour=11), "billing_month": "2026-09"}
    facts = spans(
        call(1, 1, None, 1_000_000, agent_name="coder", start_time=past, **KNOWN),
        call(2, 2, None, 1_000_000, agent_name="coder", **KNOWN),
    )
    bill = charges(charge(september, tokens_k="1000", **period), charge(october, tokens_k="1000"))
    write(books, spans=facts, charges=bill, prices=LIST)


def alerts(books: Books) -> list[tuple[Any, ...]]:
    with books.database.session() as session:
        return [(a.subject, a.text) for a in session.scalars(select(Alert).where(Alert.kind == "drift"))]


@pytest.mark.slow
def test_es3_a_bill_far_from_its_estimates_is_told_and_rings_once(books: Books) -> None:
    """September paid 2.85 of 3.00: October was estimated at 2.85 and is billed 6.00, 110.5 % more."""
    two_months(books, "2.85", "6")
    attribute(books)
    (told,) = problems(books, "estimate_drift").iter_rows(named=True)
    assert told["place"] == "AWS claude-sonnet-4-6"
    assert "billed USD 6.00 for what was estimated at 2.85, 110.5 % more" in told["reason"]
    assert alerts(books) == [
        (
            "AWS claude-sonnet-4-6",
            "Estimates of AWS claude-sonnet-4-6 were off in 2026-10: billed USD 6.00 for what was estimated at 2.85, 110.5 % more.",
        )
    ]
    configure(books, attribution=AttributionSettings(tolerance=D("0.01")))
    attribute(books)
    assert len(alerts(books)) == 1


@pytest.mark.parametrize(("october", "tolerance", "rings"), [("2.9", "0.1", 0), ("3.99", "0.4", 1), ("3.99", "0.41", 0)])
def test_es3_within_the_tolerance_or_below_a_dollar_nothing_rings(books: Books, october: str, tolerance: str, rings: int) -> None:
    """Against 2.85: 2.90 is within 10 %; 3.99 is exactly 40 % more, and 1.14 above."""
    configure(books, attribution=AttributionSettings(drift_tolerance=D(tolerance)))
    two_months(books, "2.85", october)
    attribute(books)
    assert len(alerts(books)) == (rings if D(october) / D("2.85") - 1 > D(tolerance) else 0)


def test_es3_drift_by_hand() -> None:
    """1 000 of 2 000 billed tokens were logged, $6 for all: $3 for what lists at $2."""
    rates = pl.DataFrame(
        {
            "currency": ["USD", "EUR"],
            "provider": ["AWS", "AWS"],
            "model": ["m", "m"],
            "flag": ["", ""],
            "logged_quantity": [D(1000), D(1)],
            "denominator": [D(2000), D(1)],
            "effective_cost": [D(6), D(1)],
            "billed_cost": [D(6), D(1)],
            "list_at_book": [D(2), D(1)],
        }
    )
    told = measure_drift(rates, None, currency="USD")
    assert told.rows() == [("AWS", "m", "USD", D(2), D(3), D("0.5"))]
    assert exceeding(told, D("0.5")).height == 0
    assert exceeding(told, D("0.4999")).height == 1
