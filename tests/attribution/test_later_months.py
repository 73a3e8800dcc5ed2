"""TI-2: a month that leans on a rebuilt one is rebuilt with it, or named as stale."""

from __future__ import annotations

from decimal import Decimal

import pytest

from attribution.run import attribute
from ledger.books import Books
from tests.attribution.test_rules import rows
from tests.support.books_by_hand import price, write
from tests.support.cli_books import Command
from tests.support.paths import DATA

D = Decimal
CASE = DATA / "cases" / "matching-17"


@pytest.mark.slow
def test_a_correction_follows_the_month_it_corrects_or_its_month_is_named_as_stale(books: Books) -> None:
    write(books, prices=[price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003")])
    rootcost = Command(books.settings.home)
    rootcost("agents", "import", CASE / "registry.csv")
    rootcost("ingest", "otlp", CASE / "spans.json")
    rootcost("ingest", "focus", CASE / "bill.csv")
    attribute(books)
    rootcost("ingest", "otlp", CASE / "late.json")

    october = attribute(books, ["2026-10"])
    assert (october.months, october.stale) == (["2026-10"], ["2026-11"])
    november = attribute(books)
    assert (november.months, november.unchanged, november.stale) == (["2026-11"], ["2026-10"], [])
    assert sorted(rows(books, "initiator_agent", "effective_cost", month="2026-11")) == [
        ("w", D(-2)),
        ("x", D("-0.5")),
        ("y", D("-1.5")),
    ]
