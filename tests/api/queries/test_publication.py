"""An answer is of one publication: what is published while it is computed changes no part of it."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

import polars as pl
import pytest

from api import queries
from api.models import CostTable
from api.queries import of_operator
from ledger.books import Books
from ledger.errors import StoreUnreachable
from ledger.published import published_months
from ledger.tables import COSTS
from tests.support.amounts import sum_of
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


@pytest.mark.slow
def test_every_answer_asks_what_is_published_when_it_begins_and_when_it_ends(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_worked_example(books)
    counts = dict.fromkeys(_ADDRESSES, 0)
    address = ""

    def noted(database: Any) -> Any:
        counts[address] += 1
        return genuine(database)

    genuine = published_months
    monkeypatch.setattr("api.queries.publication.published_months", noted)
    with reach(books) as http:
        for address in _ADDRESSES:
            assert http.get(address).status_code == 200, address
    assert {address: number for address, number in counts.items() if number > 2} == {}
    assert sum(counts.values()) >= 10


@pytest.mark.parametrize("is_deleted", [False, True])
def test_figures_and_the_runs_they_are_of_belong_together(
    books: Books, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    """Also where the rows of the superseded run are deleted before they are read, as those of the runs that `serve` starts are."""
    write_worked_example(books)

    def publish_meanwhile(*arguments: Any, **options: Any) -> Any:
        if arguments[0] is not COSTS:
            return scan(*arguments, **options)
        monkeypatch.setattr(books.store, "scan", scan)
        publish(books, [*WORKED_EXAMPLE, cost("1.000", cost_class="unallocated", reason="uncaptured_usage")], run="run-2")
        if is_deleted:
            books.store.replace(COSTS, COSTS.empty(), {"month": "2026-10", "run_id": RUN})
        return scan(*arguments, **options)

    scan = books.store.scan
    for answer in (queries.cost_table, queries.explain_cell, queries.costs):
        publish(books, WORKED_EXAMPLE)
        monkeypatch.setattr(books.store, "scan", publish_meanwhile)
        figure = answer(of_operator(books), queries.CostQuery(by=("team",)))
        if isinstance(figure, pl.DataFrame):
            assert sum_of(figure["cost"]) == Decimal("1.03")
        elif isinstance(figure, CostTable):
            assert (figure.runs["2026-10"], figure.totals["USD"]) == ("run-2", Decimal("1.03"))
        else:
            assert figure.cost["USD"] == Decimal("1.03")


def test_an_answer_that_cannot_keep_up_is_refused(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    write_worked_example(books)
    runs = (f"run-{number}" for number in count(2))

    def publish_meanwhile(*arguments: Any, **options: Any) -> Any:
        publish(books, [], run=next(runs))
        return scan(*arguments, **options)

    scan = books.store.scan
    monkeypatch.setattr(books.store, "scan", publish_meanwhile)
    with pytest.raises(StoreUnreachable, match="faster than they can be read"):
        queries.costs(of_operator(books), queries.CostQuery())
