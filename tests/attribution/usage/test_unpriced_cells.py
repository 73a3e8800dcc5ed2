"""ES-2: a cell of a report is priced only if every call in it that used something is."""

from __future__ import annotations

import itertools
from decimal import Decimal

import polars as pl
import pytest

from attribution.run import attribute
from attribution.usage.reader import merge_duplicate_keys
from ledger.books import Books
from ledger.money import MONEY
from ledger.tables import SPANS
from tests.attribution.test_rules import call, rows
from tests.support.books_by_hand import price, spans, write
from tests.support.cli_books import Command
from tests.support.paths import DATA

D = Decimal
CASE = DATA / "cases" / "unpriced-zero"
HOUSE = {"provider": "vllm", "request_model": "house-llm-9", "response_model": "house-llm-9", "agent_name": "helper"}
OTHER = [price("another-llm", "input_tokens", "0.000002", provider="vllm")]
PRICES = [
    price("house-llm-9", "input_tokens", "0.000002", provider="vllm"),
    price("house-llm-9", "output_tokens", "0.000008", provider="vllm"),
]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["one.otlp.json", "both.otlp.json"])
def test_a_meter_without_a_price_is_unpriced_whatever_another_call_of_the_hour_used(books: Books, file: str) -> None:
    write(books, prices=OTHER)
    Command(books.settings.home)("ingest", "otlp", CASE / file)
    attribute(books)
    assert rows(books, "reason", "effective_cost", meter="cache_read_tokens") == [("unpriced", None)]


def cached(number: int, tokens: int | None, output: int = 100) -> dict[str, object]:
    return call(
        number, number, None, 1_000_000, cache_read_tokens=tokens, output_tokens=output, input_includes_cache=True, **HOUSE
    )


@pytest.mark.slow
@pytest.mark.parametrize("order", list(itertools.permutations((0, None, 900_000))))
def test_calls_that_used_none_of_a_meter_do_not_price_it_in_any_order(books: Books, order: tuple[int | None, ...]) -> None:
    write(books, spans=spans(*(cached(number, tokens) for number, tokens in enumerate(order, 1))), prices=OTHER)
    attribute(books)
    assert rows(books, "reason", "effective_cost", meter="cache_read_tokens") == [("unpriced", None)]
    assert books.store.scan(SPANS).collect().height == 3


def test_calls_that_used_none_of_a_meter_leave_the_others_priced(books: Books) -> None:
    write(books, spans=spans(cached(1, 0), cached(2, None)), prices=PRICES)
    attribute(books)
    assert rows(books, "effective_cost", meter="input_tokens") == [(D(4),)]
    assert not rows(books, "effective_cost", meter="cache_read_tokens")


def test_rollups_that_share_a_cell_are_priced_together_or_not_at_all() -> None:
    part = pl.DataFrame({"usage_key": [1], "meter": ["m"], "quantity": [D(5)], "calls": [1], "list_cost": [D(2)]})
    part = part.with_columns(pl.col("quantity", "list_cost").cast(MONEY))
    part_unpriced = part.with_columns(list_cost=pl.lit(None, dtype=MONEY))
    for parts in ([part, part_unpriced], [part_unpriced, part]):
        assert merge_duplicate_keys(pl.concat(parts))["list_cost"].to_list() == [None]
    assert merge_duplicate_keys(pl.concat([part, part]))["list_cost"].to_list() == [D(4)]
