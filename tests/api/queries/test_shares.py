"""What a call bears of a cost row: parts of one row sum to the row, whoever is looked at, and whatever else is in the hour. (MO-1)"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import queries
from api.queries import of_operator, shares
from ledger import money
from ledger.books import Books
from ledger.tables import CALLS
from tests.support.api_examples import (
    CHAIN_1,
    RESEARCH,
    SUPPORT,
    TRACE_1,
    call,
    cost,
    frame,
    publish,
    write_calls,
    write_worked_example,
)


def calls_of(tokens: list[int], **who: Any) -> list[dict[str, Any]]:
    return [call(TRACE_1, f"{0xC0 + n:016x}", CHAIN_1, t, gateway_call_id=f"call-{n}", **who) for n, t in enumerate(tokens)]


def each_costs(books: Books, rows: list[dict[str, Any]]) -> list[Decimal | None]:
    """What each call costs when it is asked about alone."""
    return [queries.explain(of_operator(books), row["gateway_call_id"]).cost.get("USD") for row in rows]


def test_calls_asked_about_one_by_one_sum_to_their_rows(books: Books) -> None:
    """A cent and a credit of a tenth of it over calls of 1, 2 and 4 tokens: 0.009 in all, each row split on its own."""
    write_worked_example(books)
    rows = calls_of([1, 2, 4], **SUPPORT)
    write_calls(books, rows)
    publish(books, [cost("0.01", **SUPPORT), cost("-0.001", charge_category="Credit", **SUPPORT)])
    each = each_costs(books, rows)
    assert each == [Decimal("0.001285714286"), Decimal("0.002571428571"), Decimal("0.005142857143")]
    assert sum(c for c in each if c is not None) == Decimal("0.009")


def test_usage_beyond_the_calls_keeps_its_part(books: Books) -> None:
    """The hour holds 10 tokens, its calls only 4: they bear 4 / 10 of $0.01, and the rest is nobody's."""
    write_worked_example(books)
    rows = calls_of([1, 3], **SUPPORT)
    write_calls(books, [*rows, call(TRACE_1, "00000000000000d0", CHAIN_1, 6, **SUPPORT)])
    books.store.replace(CALLS, frame(CALLS, rows), {"month": "2026-10", "rollup_id": "rollup-1"})
    publish(books, [cost("0.01", **SUPPORT)])
    assert each_costs(books, rows) == [Decimal("0.001"), Decimal("0.003")]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), st.decimals(-1000, 1000, places=12))
def test_a_row_shared_out_is_the_row(weights: list[int], amount: Decimal) -> None:
    """Also for credits, and for shares that are nothing."""
    parts = [Decimal(w) for w in weights]
    if not sum(parts):
        return
    assert sum(money.share_out(amount, parts)) == amount


def test_the_whole_over_shares_that_cancel_out_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        money.share_out(Decimal(1), [Decimal(2), Decimal(-2)])
    assert money.share_out(Decimal(0), [Decimal(2), Decimal(-2)]) == [0, 0]


def fanned(quantity: int) -> pl.DataFrame:
    """A call whose chain has two roots: a third of it for one, two thirds for the other."""
    row = call(TRACE_1, "00000000000000e0", CHAIN_1, quantity, **SUPPORT)
    parts = [{"usage_key": 1, "numerator": 1, "denominator": 3}, {"usage_key": 2, "numerator": 2, "denominator": 3}]
    return CALLS.conform(frame(CALLS, [row | {"shares": parts}]))


def test_a_call_split_over_links_is_in_each_of_its_rows() -> None:
    """10 tokens over 1/3 and 2/3: 3.333… and 6.666…, 10 in all. (CH-1)"""
    parts = shares.usage_of_calls(fanned(10)).filter(pl.col("meter") == "input_tokens").sort("usage_key")
    assert parts.select("usage_key", "quantity").rows() == [
        (1, Decimal("3.333333333333")),
        (2, Decimal("6.666666666667")),
    ]


def test_a_cache_hit_that_two_chains_asked_for_is_in_no_row() -> None:
    """It used nothing at the provider, whoever asked. (CA-4)"""
    hit = fanned(10).with_columns(usage_key=pl.lit(None, dtype=pl.Int64))
    assert shares.usage_of_calls(hit)["usage_key"].to_list() == [None]


def test_a_call_of_the_gateway_s_cache_is_in_no_row(books: Books) -> None:
    write_worked_example(books)
    unbilled = {**RESEARCH, "usage_key": None}
    hit = call(TRACE_1, "00000000000000f0", CHAIN_1, 2000, reason="cache_hit", gateway_call_id="call-f0", **unbilled)
    write_calls(books, [hit])
    story = queries.explain(of_operator(books), "call-f0")
    assert story.cost == {}
    assert story.steps[0].parts[0].sentence == "2,000 input tokens: free, cache hit"
    assert [step.step for step in story.steps] == ["meter", "span"]
