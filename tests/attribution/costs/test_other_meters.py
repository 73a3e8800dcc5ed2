"""What calls use beside tokens (searches, pictures), and charges that name a model and no meter: matched with the calls that caused them. (RA-2, RA-3)"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.costs import month
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import COSTS
from tests.support.books_by_hand import at, charge, charges, price, span, spans, write

D = Decimal
BY = ("executor_team", "model", "meter", "quantity", "effective_cost", "cost_class", "basis", "reason")


def line(cost: str, sku: str, **columns: Any) -> dict[str, Any]:
    """A charge of Anthropic's for an hour."""
    about = {"provider_name": "Anthropic", "service_name": "Claude API", "sub_account_id": None, "region_id": None}
    return charge(cost, **{**about, "sku_meter": sku, "consumed_unit": None, **columns})


def generation(cost: str, **columns: Any) -> dict[str, Any]:
    """A charge of OpenRouter's: it names a model, and not what of it was used."""
    names = {"provider_name": "OpenRouter", "service_name": "OpenRouter"}
    return line(cost, "anthropic/claude-4.6-sonnet-20260217", **names, **columns)


def call(number: int, team: str, **columns: Any) -> dict[str, Any]:
    """A call of a team's agent in hour 10."""
    about = {"provider": "anthropic", "response_model": "claude-sonnet-4-6", "usage_scope": "leaf", "agent_name": f"{team} bot"}
    return span(number, number, **{**about, "input_tokens": 100, "output_tokens": 0, **columns})


OWNERS = "agent,team,principals\nCare bot,Care,care-key\nDev bot,Dev,dev-key\n"
PRICES = [
    price("claude-sonnet-4-6", meter, rate, provider="anthropic")
    for meter, rate in (("input_tokens", "0.00001"), ("output_tokens", "0.00005"), ("web_searches", "0.01"))
]


def costs(books: Books, *calls: dict[str, Any], bill: list[dict[str, Any]], meter: str | None = None) -> list[tuple[Any, ...]]:
    """The costs of these calls and charges; with `meter` only what calls used of it, and what is nobody's."""
    write(books, spans=spans(*calls), charges=charges(*bill) if bill else None, owners=OWNERS, prices=PRICES)
    run = attribute(books)
    frame = books.store.scan(COSTS, {"run_id": [run.run_id]}).collect()
    if meter:
        frame = frame.filter(pl.col("meter") == meter)
    return frame.select(BY).sort(BY, nulls_last=True).rows()


def searches(number: int) -> dict[str, Any]:
    return {"other_usage": f'{{"web_searches": {number}}}'}


def test_searches_of_the_web_are_paid_by_who_made_them(books: Books) -> None:
    """Ten searches billed at $0.10, of whatever model; Care made six and Dev three: one is on the bill only."""
    bill = [line("0.10", "web_search", consumed_quantity=D(10), consumed_unit="requests")]
    assert costs(books, call(1, "Care", **searches(6)), call(2, "Dev", **searches(3)), bill=bill, meter="web_searches") == [
        ("Care", "claude-sonnet-4-6", "web_searches", D(6), D("0.06"), "metered", "billed", None),
        ("Dev", "claude-sonnet-4-6", "web_searches", D(3), D("0.03"), "metered", "billed", None),
        (None, None, "web_searches", D(1), D("0.01"), "unallocated", "billed", "uncaptured_usage"),
    ]


def test_searches_without_a_quantity_are_split_by_number(books: Books) -> None:
    bill = [line("0.09", "web_search")]
    rows = costs(books, call(1, "Care", **searches(2)), call(2, "Dev", **searches(1)), bill=bill, meter="web_searches")
    assert [(row[0], row[4]) for row in rows] == [("Care", D("0.06")), ("Dev", D("0.03"))]


def test_searches_that_no_log_knows_are_told_as_such(books: Books) -> None:
    bill = [line("0.09", "web_search", consumed_quantity=D(9), consumed_unit="requests")]
    rows = costs(books, call(1, "Care"), bill=bill, meter="web_searches")
    assert rows == [(None, None, "web_searches", D(9), D("0.09"), "unallocated", "billed", "no_logged_use")]


def test_searches_are_estimated_until_the_bill_is_there(books: Books) -> None:
    rows = costs(books, call(1, "Care", **searches(3)), bill=[])
    assert [(row[0], row[2], row[4], row[6]) for row in rows] == [
        ("Care", "input_tokens", D("0.001"), "estimated"),
        ("Care", "web_searches", D("0.03"), "estimated"),
    ]


def test_a_line_of_searches_does_not_say_that_tokens_are_billed(books: Books) -> None:
    """A bill of searches has come; that of the tokens is still awaited."""
    bill = [line("0.03", "web_search", consumed_quantity=D(3), consumed_unit="requests")]
    rows = costs(books, call(1, "Care", **searches(3)), bill=bill)
    assert [(row[2], row[4], row[6]) for row in rows] == [
        ("input_tokens", D("0.001"), "estimated"),
        ("web_searches", D("0.03"), "billed"),
    ]


@pytest.mark.parametrize("day_by_day", [False, True])
def test_a_charge_that_names_only_a_model_is_split_by_list_cost(
    books: Books, monkeypatch: pytest.MonkeyPatch, day_by_day: bool
) -> None:
    """At list Care's 100 and 100 tokens are $0.006, Dev's 100 are $0.001; $0.0035 was paid for all."""
    if day_by_day:
        monkeypatch.setattr(month, "BATCH_ROWS", 1)
    about = {"provider": "openrouter", "response_model": "anthropic/claude-sonnet-4.6"}
    calls = call(1, "Care", output_tokens=100, **about), call(2, "Dev", **about)
    list_prices = [
        price("anthropic/claude-sonnet-4.6", m, r, provider="openrouter")
        for m, r in (("input_tokens", "0.00001"), ("output_tokens", "0.00005"))
    ]
    write(books, prices=list_prices)
    assert costs(books, *calls, bill=[generation("0.0035")]) == [
        ("Care", "claude-sonnet-4-6", "input_tokens", D(100), D("0.0005"), "metered", "billed", "split_by_list_cost"),
        ("Care", "claude-sonnet-4-6", "output_tokens", D(100), D("0.0025"), "metered", "billed", "split_by_list_cost"),
        ("Dev", "claude-sonnet-4-6", "input_tokens", D(100), D("0.0005"), "metered", "billed", "split_by_list_cost"),
    ]


def test_a_model_without_a_price_is_split_by_tokens(books: Books) -> None:
    about = {"provider": "openrouter", "response_model": "anthropic/claude-sonnet-4.6"}
    rows = costs(books, call(1, "Care", **about), call(2, "Dev", **{**about, "input_tokens": 300}), bill=[generation("0.004")])
    assert [(row[0], row[4]) for row in rows] == [("Care", D("0.001")), ("Dev", D("0.003"))]


def test_the_charge_of_a_key_is_for_the_calls_of_its_team(books: Books) -> None:
    """Care's key paid $0.05, Dev's $0.01; each had a call of the same size."""
    about = {"provider": "openrouter", "response_model": "anthropic/claude-sonnet-4.6"}
    bill = [generation("0.05", principal="care-key"), generation("0.01", principal="dev-key")]
    rows = costs(books, call(1, "Care", **about), call(2, "Dev", **about), bill=bill)
    assert [(row[0], row[4], row[5]) for row in rows] == [("Care", D("0.05"), "metered"), ("Dev", D("0.01"), "metered")]


def test_a_month_of_a_model_takes_the_calls_of_its_days(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The month's charge is split over calls of two days, however many batches the month has."""
    monkeypatch.setattr(month, "BATCH_ROWS", 1)
    about = {"provider": "openrouter", "response_model": "anthropic/claude-sonnet-4.6"}
    bill = [generation("0.04", charge_period_start=at(0, day=1), charge_period_end=at(0, day=31))]
    later = {**about, "input_tokens": 300, "start_time": at(10, day=9)}
    rows = costs(books, call(1, "Care", **about), call(2, "Dev", **later), bill=bill)
    assert [(row[0], row[4]) for row in rows] == [("Care", D("0.01")), ("Dev", D("0.03"))]
