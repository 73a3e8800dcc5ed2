"""The gate of queries: an answer is of one publication, and every reading of all teams' rows is known."""

from __future__ import annotations

import importlib
import re
from decimal import Decimal
from typing import Any

import pytest

from api import queries
from ledger.books import Books
from ledger.tables import COSTS
from tests.support.api_examples import CHAIN_1, RUN, WORKED_EXAMPLE, cost, publish, reach, write_worked_example
from tests.support.paths import ROOT

QUERIES = ROOT / "api/queries"
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

    module = importlib.import_module("api.queries.gate")
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
    answers = [queries.cost_table(queries.of_operator(books), queries.CostQuery(by=("team",))) for _ in range(2)]
    assert [(answer.runs["2026-10"], answer.totals["USD"]) for answer in answers] == [
        (RUN, Decimal("0.03")),
        ("run-2", Decimal("1.03")),
    ]


WHOLE_READS = {
    "audit.py": 1,
    "calls.py": 1,
    "chains.py": 3,
    "converted.py": 1,
    "costs.py": 1,
    "evidence/emitters.py": 1,
    "evidence/figure.py": 4,
    "evidence/findings.py": 1,
    "explain/__init__.py": 1,
    "explain/bill_steps.py": 6,
    "explain/estimate_steps.py": 2,
    "explain/lookup.py": 4,
    "explain/rule_steps.py": 4,
    "explain/set_aside.py": 1,
    "explain/usage_steps.py": 2,
    "gaps.py": 2,
    "gate.py": 5,
    "own_names.py": 1,
    "pricing.py": 1,
    "redaction.py": 1,
    "shares.py": 2,
    "sources.py": 3,
    "state.py": 12,
}
"""Readings of all teams' rows in each file of `api/queries`. A new one is looked at: what it shows of other teams must be one sum, or nothing."""


def test_every_reading_of_all_rows_is_known() -> None:
    """`.whole` and WHOLE pass the gate by, for arithmetic over a pool and for ids; nothing else in the package reads tables."""
    counts = {}
    for file in sorted(QUERIES.rglob("*.py")):
        code = re.sub(r'""".*?"""', "", file.read_text(), flags=re.DOTALL)
        counts[str(file.relative_to(QUERIES))] = len(re.findall(r"\.whole\b|\bWHOLE\)|\bWHOLE, month_column", code))
    assert {name: count for name, count in counts.items() if count} == WHOLE_READS
