"""What logs count apart and the bill sells together: thinking is billed as output, and finds its charge there."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import COSTS
from tests.support.books_by_hand import charge, charges, price, span, spans, write

D = Decimal


def openai(cost: str, meter: str, tokens: int) -> dict[str, Any]:
    return charge(
        cost,
        provider_name="OpenAI",
        service_name="OpenAI",
        sub_account_id=None,
        region_id=None,
        sku_meter=f"gpt-5, {meter}",
        consumed_unit="Tokens",
        consumed_quantity=D(tokens),
    )


def call(number: int, agent: str, **tokens: int) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "provider": "openai",
        "response_model": "gpt-5",
        "usage_scope": "leaf",
        "output_includes_reasoning": True,
    }
    return span(number, number, agent_name=agent, **columns, **tokens)


def costs(books: Books) -> list[tuple[Any, ...]]:
    run = attribute(books)
    frame = books.store.scan(COSTS, {"run_id": [run.run_id]}).collect()
    columns = ("initiator_agent", "meter", "quantity", "effective_cost", "cost_class", "reason")
    return frame.select(columns).sort(columns, nulls_last=True).rows()


def test_thinking_is_paid_where_output_is_billed(books: Books) -> None:
    """1 500 tokens of output for $3: coder wrote 200 and thought 800, tester wrote 500. $0.002 a token."""
    write(
        books,
        spans=spans(call(1, "coder", output_tokens=1000, reasoning_tokens=800), call(2, "tester", output_tokens=500)),
        charges=charges(openai("3", "output", 1500)),
    )
    assert costs(books) == [
        ("coder", "output_tokens", D(200), D("0.4"), "metered", None),
        ("coder", "reasoning_tokens", D(800), D("1.6"), "metered", None),
        ("tester", "output_tokens", D(500), D("1"), "metered", None),
    ]


def test_thinking_that_the_bill_sells_apart_stays_apart(books: Books) -> None:
    write(
        books,
        spans=spans(call(1, "coder", output_tokens=1000, reasoning_tokens=800)),
        charges=charges(openai("1", "output", 200), openai("2", "reasoning output", 800)),
    )
    assert [(meter, cost) for _, meter, _, cost, _, _ in costs(books)] == [("output_tokens", D(1)), ("reasoning_tokens", D(2))]


def test_what_the_book_prices_apart_is_expected_on_a_line_of_its_own(books: Books) -> None:
    """Cached tokens have a price: an input line is not theirs, and a bill that does not name them yet says so."""
    write(
        books,
        spans=spans(call(1, "coder", input_tokens=900, cache_read_tokens=100, total_tokens=900)),
        charges=charges(openai("8", "input", 800)),
        prices=[
            price("gpt-5", "input_tokens", "0.00000125", provider="openai"),
            price("gpt-5", "cache_read_tokens", "0.000000125", provider="openai"),
        ],
    )
    assert [(meter, cost, reason) for _, meter, _, cost, _, reason in costs(books) if meter == "cache_read_tokens"] == [
        ("cache_read_tokens", D(0), "not_on_bill")
    ]


def test_without_a_price_of_their_own_cached_tokens_are_input(books: Books) -> None:
    """900 tokens of prompt, 100 of them cached, are billed as 900 of input: $9."""
    write(
        books,
        spans=spans(call(1, "coder", input_tokens=900, cache_read_tokens=100) | {"input_includes_cache": True}),
        charges=charges(openai("9", "input", 900)),
        prices=[price("gpt-5", "input_tokens", "0.00000125", provider="openai")],
    )
    assert [(meter, quantity, cost) for _, meter, quantity, cost, _, _ in costs(books)] == [
        ("cache_read_tokens", D(100), D(1)),
        ("input_tokens", D(800), D(8)),
    ]


@pytest.mark.parametrize("rows", [0, 150_000], ids=["cut into days", "whole"])
def test_a_bill_of_the_month_takes_thinking_too(books: Books, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A charge of the whole month is rated with all its usage, under whatever meter that was logged."""
    monkeypatch.setattr("attribution.costs.month.BATCH_ROWS", rows)
    month = {"charge_period_start": "2026-10-01", "charge_period_end": "2026-11-01"}
    bill = charges(openai("3", "output", 1500)).with_columns(
        pl.lit(at).str.to_datetime(time_unit="us", time_zone="UTC").alias(name) for name, at in month.items()
    )
    write(books, spans=spans(call(1, "coder", output_tokens=1500, reasoning_tokens=500)), charges=bill)
    assert [(meter, cost) for _, meter, _, cost, _, _ in costs(books)] == [("output_tokens", D(2)), ("reasoning_tokens", D(1))]
