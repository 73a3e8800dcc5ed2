"""A call that reports no usage costs nothing in the books, and that is told with what its emitter says it cost. (CA-4, CA-6)"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import PROBLEMS
from tests.support.books_by_hand import span, spans, write


def test_calls_without_usage_are_a_finding_with_their_reported_cost(books: Books) -> None:
    """Two pictures at $0.04 without a count; a failed call and a cached answer used nothing."""
    picture: dict[str, Any] = {
        "provider": "openai",
        "response_model": "dall-e-3",
        "usage_scope": "leaf",
        "reported_cost": Decimal("0.04"),
    }
    calls = [
        span(1, 1, **picture),
        span(2, 2, **picture),
        span(3, 3, **picture, status="error"),
        span(4, 4, **picture, cache_hit=True),
        span(5, 5, **picture, input_tokens=10),
    ]
    attribute(write(books, spans=spans(*calls)))
    findings = books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("usage_absent")).collect()
    assert findings.select("place", "rows", "cost").rows() == [("otlp dall-e-3", 2, Decimal("0.08"))]
    assert "2 calls report no usage" in findings["reason"][0]
