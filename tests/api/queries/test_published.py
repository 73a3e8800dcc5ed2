"""An answer is of one publication: what is published while it is computed changes no part of it."""

from __future__ import annotations

import importlib
from decimal import Decimal
from typing import Any

import pytest

from api import queries
from ledger.books import Books
from ledger.tables import COSTS
from tests.support.api_examples import CHAIN_1, RUN, WORKED_EXAMPLE, cost, publish, reach, write_worked_example

_ADDRESSES = (
    "/v1/costs?by=team",
    "/v1/overview",
    f"/v1/chains/{CHAIN_1}",
    f"/v1/explain/{CHAIN_1}",
    "/v1/explain/charge-1",
    "/v1/explain/cell?by=team",
    "/v1/evidence",
    "/v1/agents",
    "/v1/runs",
    "/v1/gaps",
    "/v1/freshness",
)


def test_every_answer_asks_once_what_is_published(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    write_worked_example(books)
    counts = dict.fromkeys(_ADDRESSES, 0)
    address = ""

    def count(database: Any) -> Any:
        counts[address] += 1
        return genuine(database)

    module = importlib.import_module("api.queries.published")  # the package has a function of that name
    genuine = module.published_months
    monkeypatch.setattr(module, "published_months", count)
    with reach(books) as http:
        for address in _ADDRESSES:
            assert http.get(address).status_code == 200, address
    assert {address: number for address, number in counts.items() if number > 1} == {}
    assert sum(counts.values()) >= 10


def test_figures_and_the_runs_they_are_of_belong_together(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    write_worked_example(books)

    def publish_meanwhile(*arguments: Any, **options: Any) -> Any:
        frame = scan(*arguments, **options)
        if arguments[0] is COSTS:
            monkeypatch.setattr(books.store, "scan", scan)
            publish(books, [*WORKED_EXAMPLE, cost("1.000", cost_class="unallocated", reason="uncaptured_usage")], run="run-2")
        return frame

    scan = books.store.scan
    monkeypatch.setattr(books.store, "scan", publish_meanwhile)
    answers = [queries.cost_table(books, queries.CostQuery(by=("team",))) for _ in range(2)]
    assert [(answer.runs["2026-10"], answer.totals["USD"]) for answer in answers] == [
        (RUN, Decimal("0.03")),
        ("run-2", Decimal("1.03")),
    ]
