"""Where two rules meet: releases and callers' places, inferred providers and several bills, late rows, borders of months, units and tokens of pictures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.settings import AttributionSettings, Defaults
from tests.attribution.test_rules import call, configure, rows, total
from tests.support.books_by_hand import at, charge, charges, price, span, spans, write

D = Decimal
PROVIDERS = pytest.mark.parametrize("provider", ["bedrock", None, "Amazn"], ids=["stated", "unsaid", "misspelt"])
"""A provider that is inferred is that provider: whose it is does not depend on who said it. (RA-1b)"""


def plain_call(number: int, agent: str, provider: str | None, **columns: Any) -> dict[str, Any]:
    """A call of 10 000 tokens of a model whose name does not show who sells it."""
    return call(number, 1, None, 10_000, agent_name=agent, provider=provider, response_model="claude-sonnet-4-6", **columns)


# ── a release and a place ───────────────────────────────────────────────────────────────────────────────────────────


def azure_charge(cost: str, sku: str, region: str, tokens_k: str = "1000") -> dict[str, Any]:
    """A charge of input tokens of Azure OpenAI."""
    seller = {"provider_name": "Microsoft", "service_name": "Azure OpenAI", "sub_account_id": "s"}
    return charge(cost, tokens_k=tokens_k, sku_meter=f"{sku} Inp regnl Tokens", region_id=region, **seller)


def azure_call(number: int, agent: str, model: str, region: str, tokens: int = 1_000_000) -> list[dict[str, Any]]:
    """An agent and its one call; the region is that of the caller."""
    about = {"provider": "azure", "response_model": model, "region": region}
    return [span(number, 1, agent_name=agent), call(number, 2, 1, tokens, **about)]


def test_releases_whose_callers_run_where_the_other_is_billed_pay_their_own(books: Books) -> None:
    """5.00 and 2.50 a million, each billed where the caller of the other runs; `any` runs where the cheap one is and states none."""
    write(
        books,
        spans=spans(
            *azure_call(1, "old", "gpt-4o-2024-05-13", "eastus"),
            *azure_call(2, "new", "gpt-4o-2024-08-06", "westeurope"),
            *azure_call(3, "any", "gpt-4o", "eastus"),
        ),
        charges=charges(azure_charge("5", "gpt-4o-0513", "westeurope"), azure_charge("5", "gpt-4o-0806", "eastus", "2000")),
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"old": D(5), "new": D("2.5"), "any": D("2.5")}


def test_a_charge_without_a_release_takes_no_call_whose_release_is_billed_elsewhere(books: Books) -> None:
    """The caller of `old` runs where a SKU without a release is billed, at half the price: it pays its release's 5.00, `any` the 2.50."""
    write(
        books,
        spans=spans(
            *azure_call(1, "old", "gpt-4o-2024-05-13", "eastus"),
            *azure_call(2, "any", "gpt-4o", "eastus"),
        ),
        charges=charges(azure_charge("5", "gpt-4o-0513", "westeurope"), azure_charge("2.50", "gpt-4o", "eastus")),
    )
    attribute(books)
    assert total(books, "initiator_agent") == {"old": D(5), "any": D("2.5")}


# ── an inferred provider and several bills of it ────────────────────────────────────────────────────────────────────

TWO_PAYERS = (
    charge("0.03", tokens_k="10", billing_account_id="9999", sub_account_id="1111"),
    charge("0.06", tokens_k="10", billing_account_id="8888", sub_account_id="2222"),
)
"""The same hour of the same model on the bills of two payers, the second at twice the price."""


@PROVIDERS
def test_two_payers_each_pay_for_the_calls_of_their_account(books: Books, provider: str | None) -> None:
    """`a` runs in the account of the first payer, `b` in that of the second."""
    calls = (
        plain_call(1, "a", provider, account_id="1111"),
        plain_call(2, "b", provider, account_id="2222"),
    )
    write(books, spans=spans(*calls), charges=charges(*TWO_PAYERS))
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("0.03"), "b": D("0.06")}


@PROVIDERS
def test_the_account_of_the_settings_is_that_of_an_inferred_provider(books: Books, provider: str | None) -> None:
    """Neither call says where it is billed; the settings do. The other payer's tokens are nobody's. (RA-1a)"""
    configure(books, attribution=AttributionSettings(defaults=[Defaults(provider="aws", account="2222")]))
    write(books, spans=spans(plain_call(1, "a", provider)), charges=charges(*TWO_PAYERS))
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.06"), "unallocated": D("0.03")}


@PROVIDERS
def test_two_payers_and_no_account_share_the_price(books: Books, provider: str | None) -> None:
    """Half of what both bill was logged: half of it is paid, half was not logged."""
    write(books, spans=spans(plain_call(1, "a", provider)), charges=charges(*TWO_PAYERS))
    attribute(books)
    assert total(books, "cost_class") == {"metered": D("0.045"), "unallocated": D("0.045")}


# ── late rows and an inferred provider ──────────────────────────────────────────────────────────────────────────────


@PROVIDERS
def test_late_rows_meet_what_the_first_invoice_left_of_an_inferred_provider(books: Books, provider: str | None) -> None:
    """10 000 tokens: October's invoice bills 4 000, November's the other 6 000; nothing is estimated beside them."""
    bill = charges(charge("0.012", tokens_k="4"), charge("0.018", tokens_k="6", billing_month="2026-11"))
    list_prices = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]
    write(
        books,
        spans=spans(plain_call(1, "coder", provider)),
        charges=bill,
        prices=list_prices,
    )
    attribute(books)
    assert rows(books, "month", "basis", "initiator_agent", "effective_cost") == [
        ("2026-10", "billed", "coder", D("0.012")),
        ("2026-11", "billed", "coder", D("0.018")),
    ]


@PROVIDERS
def test_late_rows_that_arrive_later_end_the_estimate_of_an_inferred_provider(books: Books, provider: str | None) -> None:
    """The 31st is on November's invoice alone, which arrives last: October estimates it until then."""
    last = {"start_time": at(12, day=31)}
    list_prices = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]
    first = charges(charge("0.03", tokens_k="10"))
    facts = spans(
        plain_call(1, "a", provider),
        plain_call(2, "b", provider, **last),
    )
    write(books, spans=facts, charges=first, prices=list_prices)
    attribute(books)
    hour = {"charge_period_start": at(12, day=31), "charge_period_end": at(13, day=31)}
    write(books, charges=charges(charge("0.06", tokens_k="10", billing_month="2026-11", **hour)))
    attribute(books)
    assert rows(books, "month", "basis", "initiator_agent", "effective_cost") == [
        ("2026-10", "billed", "a", D("0.03")),
        ("2026-11", "billed", "b", D("0.06")),
    ]


# ── the border of a month ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_held_over_the_border_of_two_months_is_paid_in_both(books: Books) -> None:
    """Half of October's last hour is coder's, half is idle; of November's first hour coder holds 30 minutes, tester 60."""
    november = datetime(2026, 11, 1, tzinfo=UTC)
    machine = {
        "sku_meter": "USE1-BoxUsage:g5.xlarge",
        "consumed_unit": "Hrs",
        "consumed_quantity": D(1),
        "service_name": "Amazon EC2",
        "resource_id": "i-gpu",
    }
    last = {"charge_period_start": november - timedelta(hours=1), "charge_period_end": november}
    first = {"charge_period_start": november, "charge_period_end": november + timedelta(hours=1), "billing_month": "2026-11"}
    write(
        books,
        spans=spans(
            span(
                1,
                1,
                agent_name="coder",
                resource_id="i-gpu",
                start_time=at(23, 30, day=31),
                end_time=november + timedelta(minutes=30),
            ),
            span(2, 1, agent_name="tester", resource_id="i-gpu", start_time=november, end_time=november + timedelta(hours=1)),
        ),
        charges=charges(charge("3", **machine, **last), charge("3", **machine, **first)),
    )
    attribute(books)
    assert total(books, "initiator_agent", month="2026-10") == {"coder": D("1.5"), None: D("1.5")}
    assert total(books, "initiator_agent", month="2026-11") == {"coder": D(1), "tester": D(2)}


# ── pictures and tokens of one call ─────────────────────────────────────────────────────────────────────────────────

PICTURE: dict[str, Any] = {
    "provider": "openai",
    "response_model": "gpt-image-1",
    "usage_scope": "leaf",
    "input_tokens": 50,
    "output_image_tokens": 1000,
    "other_usage": '{"output_images": 1}',
}
BY_TOKEN = [
    price("gpt-image-1", "input_tokens", "0.000005", provider="openai"),
    price("gpt-image-1", "output_image_tokens", "0.00004", provider="openai"),
]
BY_BOTH = [*BY_TOKEN, price("gpt-image-1", "output_images", "0.04", provider="openai")]


def picture_charge(cost: str, sku: str, quantity: str, unit: str) -> dict[str, Any]:
    seller = {"provider_name": "OpenAI", "service_name": "OpenAI API", "sub_account_id": None, "region_id": None}
    return charge(cost, sku_meter=sku, consumed_quantity=D(quantity), consumed_unit=unit, **seller)


@pytest.mark.parametrize("list_prices", [BY_TOKEN, BY_BOTH], ids=["priced by token", "priced by both"])
@pytest.mark.parametrize(
    "bill",
    [
        [picture_charge("0.10", "gpt-image-1, image output", "2000", "tokens")],
        [picture_charge("0.10", "gpt-image-1", "2", "images")],
    ],
    ids=["billed by token", "billed by picture"],
)
def test_a_picture_is_paid_in_the_unit_that_is_billed(
    books: Books, bill: list[dict[str, Any]], list_prices: list[dict[str, Any]]
) -> None:
    """Two calls of a picture each, told as tokens and as a picture: the bill of 0.10 in either unit is halved, and nothing else costs."""
    calls = [span(number, 1, agent_name=f"agent {number}", **PICTURE) for number in (1, 2)]
    write(books, spans=spans(*calls), charges=charges(*bill), prices=list_prices)
    attribute(books)
    assert total(books, "initiator_agent") == {"agent 1": D("0.05"), "agent 2": D("0.05")}


@pytest.mark.parametrize("list_prices", [BY_TOKEN, BY_BOTH], ids=["priced by token", "priced by both"])
def test_a_picture_without_a_bill_is_estimated_once(books: Books, list_prices: list[dict[str, Any]]) -> None:
    """50 tokens of prompt at 0.000005 and 1000 of picture at 0.00004, not a picture at 0.04 beside them."""
    write(books, spans=spans(span(1, 1, agent_name="a", **PICTURE)), prices=list_prices)
    attribute(books)
    assert total(books, "initiator_agent") == {"a": D("0.04025")}
