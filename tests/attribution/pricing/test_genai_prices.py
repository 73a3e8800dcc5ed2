"""genai-prices' own expectations: real usage of many providers, its price book, our metering and our pricer.

Each expectation is what one provider asks for the input and for the output of one recorded response. Those we do not reproduce are
listed with a reason in `tests/data/genai_prices/differences.csv`, and asserted exactly.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.pricing import PriceBook
from ingest.prices.books import read_prices
from ingest.prices.updates import apply_update, compare
from ledger.books import Books
from ledger.tables import PRICES
from tests.support import genai_usages
from tests.support.paths import DATA

DATA = DATA / "genai_prices"
EXACT = Decimal("1e-9")
MADE = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")


@dataclass(frozen=True)
class Expectation:
    """What one provider is expected to ask for one response."""

    case: int
    provider: str
    flavour: str
    model: str
    input: Decimal
    output: Decimal
    body: dict[str, Any]


def expectations() -> Iterator[Expectation]:
    for number, line in enumerate((DATA / "usages.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        case = json.loads(line)
        for provider, flavour, given, made, *_total in case["expected"]:
            yield Expectation(number, provider, flavour, case["model"], Decimal(given), Decimal(made), case["body"])


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """The list's own prices, through the front door: read, checked, compared, entered, looked up."""
    names = {e.model for e in expectations()}
    with Books.open(tmp_path_factory.mktemp("home")) as books:
        done = apply_update(books, compare(books, read_prices(DATA / "prices.json", model_names=lambda: names)))
        assert (done.staged, done.problems) == (0, ())
        assert apply_update(books, compare(books, read_prices(DATA / "prices.json", model_names=lambda: names))).added == 0
        return PriceBook(books.store.scan(PRICES).collect())


def costs(book: PriceBook, rows: list[dict[str, Any]]) -> list[tuple[Decimal | None, Decimal | None]]:
    """What input and output cost; None where unpriced."""
    priced = genai_usages.priced(rows, book)
    made = pl.sum_horizontal(pl.col(f"__cost_{m}").fill_null(0) for m in MADE)
    return priced.select(given=pl.col("list_cost") - made, made=pl.when(pl.col("list_cost").is_not_null()).then(made)).rows()


def test_at_least_99_percent_of_the_expectations_are_reproduced_and_the_rest_is_listed(book: PriceBook) -> None:
    wanted = list(expectations())
    rows = [
        genai_usages.reader(e.provider, e.flavour)(e.body) | {"provider": e.provider, "response_model": e.model} for e in wanted
    ]
    missed = {
        (str(e.case), e.provider, e.flavour, e.model): (given, made)
        for e, (given, made) in zip(wanted, costs(book, rows), strict=True)
        if given is None or made is None or abs(given - e.input) > EXACT or abs(made - e.output) > EXACT
    }
    with (DATA / "differences.csv").open(encoding="utf-8", newline="") as file:
        listed = {(r["case"], r["provider"], r["flavour"], r["model"]): r for r in csv.DictReader(file)}
    assert missed.keys() == listed.keys()
    for key, (given, made) in missed.items():
        row = listed[key]
        assert (given, made) == tuple(Decimal(row[c]) if row[c] else None for c in ("our_input", "our_output")), key
        assert row["reason"]
    assert len(wanted) == 1731
    assert len(missed) <= len(wanted) // 100


def test_the_providers_are_the_dozen_and_more_they_were_recorded_from() -> None:
    assert len({e.provider for e in expectations()}) >= 20
    assert len({e.model for e in expectations()}) >= 80


def usage(model: str, provider: str, at: datetime, **tokens: int) -> dict[str, Any]:
    return {"response_model": model, "provider": provider, "start_time": at, "input_includes_cache": True, **tokens}


def test_a_dated_price_holds_from_its_day(book: PriceBook) -> None:
    """o3 cost 10 and 40 dollars a million until 10 June 2025, 2 and 8 from then on."""
    days = [datetime(2025, 6, 9, 23, 59, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC)]
    rows = [usage("o3", "openai", day, input_tokens=1000, output_tokens=1000) for day in days]
    assert costs(book, rows) == [(Decimal("0.01"), Decimal("0.04")), (Decimal("0.002"), Decimal("0.008"))]


def test_a_tier_reprices_the_whole_request_and_ends_with_the_price_it_belongs_to(book: PriceBook) -> None:
    """Sonnet 4.6 cost twice as much above 200 000 tokens, until 13 March 2026."""
    before, after = datetime(2026, 3, 12, tzinfo=UTC), datetime(2026, 3, 13, tzinfo=UTC)
    rows = [
        usage("claude-sonnet-4-6", "anthropic", at, input_tokens=tokens, output_tokens=1000)
        for at, tokens in ((before, 200_000), (before, 200_001), (after, 200_001))
    ]
    assert costs(book, rows) == [
        (Decimal("0.6"), Decimal("0.015")),
        (Decimal("1.200006"), Decimal("0.0225")),
        (Decimal("0.600003"), Decimal("0.015")),
    ]


def test_hours_of_the_day_have_their_own_price(book: PriceBook) -> None:
    """DeepSeek's chat costs 0.27 from 00:30 to 16:30 UTC, and half of it in the other hours."""
    moments = [datetime(2026, 8, 21, h, m, tzinfo=UTC) for h, m in ((0, 29), (0, 30), (16, 29), (16, 30))]
    rows = [usage("deepseek-chat", "deepseek", at, input_tokens=1_000_000) for at in moments]
    assert [given for given, _ in costs(book, rows)] == [Decimal("0.135"), Decimal("0.27"), Decimal("0.27"), Decimal("0.135")]
