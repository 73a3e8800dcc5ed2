"""Spans nobody should send: every one is bounded, named where it bends a figure, and the books balance all the same."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import BALANCE, CHAINS, COSTS, PROBLEMS, SPANS
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans, write

OWNERS = "agent,team\nalpha,Care\n"


def told(books: Books) -> set[str]:
    """The names of what was told as a problem."""
    return {reason.split(":")[0] for reason in books.store.scan(PROBLEMS).collect()["reason"]}


def metered(books: Books, run_id: str) -> dict[str | None, Decimal]:
    costs = books.store.scan(COSTS, {"run_id": [run_id]}).filter(pl.col("cost_class") == "metered").collect()
    return dict(costs.group_by("initiator_agent").agg(pl.col("effective_cost").sum()).iter_rows())


def concluded(books: Books) -> str:
    report = attribute(books)
    assert report.published
    assert books.store.scan(BALANCE, {"run_id": [report.run_id]}).collect()["difference"].abs().sum() == 0
    return report.run_id


def test_a_chain_of_ten_thousand_spans_keeps_its_initiator(books: Books) -> None:
    """Ten thousand spans under one another: the call at the bottom is the first agent's."""
    deep = [span(1, n, n - 1 if n > 1 else None, **({"agent_name": "alpha"} if n == 1 else {})) for n in range(1, 10_001)]
    call = span(1, 10_001, 10_000, input_tokens=10_000, **SONNET)
    write(books, spans=spans(*deep, call), charges=charges(charge("0.03", tokens_k="10")), owners=OWNERS)
    run = concluded(books)
    assert metered(books, run) == {"alpha": Decimal("0.03")}
    assert books.store.scan(CHAINS).collect()["spans"].to_list() == [10_001]


def test_a_trace_of_two_hundred_thousand_spans_is_one_chain(books: Books) -> None:
    """A session that never ends its trace."""
    count = 200_000
    root = span(1, 1, agent_name="alpha")
    leaves = pl.select(n=pl.int_range(2, count + 1, dtype=pl.Int64))
    one = spans(span(1, 2, 1, input_tokens=5, **SONNET))
    many = leaves.join(one.drop("span_key", "span_id"), how="cross").select(
        pl.exclude("n"), span_key="n", span_id=pl.col("n").cast(pl.String).str.zfill(16)
    )
    write(
        books,
        spans=pl.concat([spans(root), SPANS.conform(many)]),
        charges=charges(charge("3", tokens_k="999.995")),
        owners=OWNERS,
    )
    run = concluded(books)
    assert metered(books, run) == {"alpha": Decimal(3)}
    assert books.store.scan(CHAINS).collect()["calls"].to_list() == [count - 1]


def test_its_own_parent_and_circles(books: Books) -> None:
    """A span that is its own parent, and three in a circle, opened above the one that began last: named, and whole."""
    rows = [
        span(1, 1, 1, agent_name="alpha", input_tokens=4000, **SONNET),
        span(2, 2, 4, start_time=at(10, 1)),
        span(2, 3, 2, start_time=at(10, 2)),
        span(2, 4, 3, start_time=at(10, 3), agent_name="alpha"),
        span(2, 5, 4, input_tokens=6000, **SONNET),
    ]
    write(books, spans=spans(*rows), charges=charges(charge("0.03", tokens_k="10")), owners=OWNERS)
    run = concluded(books)
    assert metered(books, run) == {"alpha": Decimal("0.03")}
    assert "cycle" in told(books)


@pytest.mark.parametrize("tokens", [-5, 10**15])
def test_counts_nobody_can_believe(books: Books, tokens: int) -> None:
    """They are absent, not 0 and not summed; what they cost is uncaptured, and they are named."""
    write(
        books,
        spans=spans(
            span(1, 1, agent_name="alpha", input_tokens=tokens, **SONNET),
            span(1, 2, 1, input_tokens=4000, agent_name="alpha", **SONNET | {"provider_request_id": "r"}),
        ),
        charges=charges(charge("0.03", tokens_k="10")),
        owners=OWNERS,
    )
    run = concluded(books)
    assert metered(books, run) == {"alpha": Decimal("0.012")}


def test_clocks_years_apart(books: Books) -> None:
    """A child that says it began in 1999: it belongs to its month, its parent to its own; ids decide who owns it, never the clock."""
    rows = [
        span(1, 1, agent_name="alpha", input_tokens=10_000, **SONNET),
        span(
            1,
            2,
            1,
            start_time=datetime(1999, 12, 31, 23, 59, tzinfo=UTC),
            end_time=datetime(2031, 1, 1, tzinfo=UTC),
            agent_name="alpha",
            input_tokens=7,
            **SONNET | {"provider_request_id": "r"},
        ),
    ]
    write(books, spans=spans(*rows), charges=charges(charge("0.03", tokens_k="10")), owners=OWNERS)
    run = concluded(books)
    october = books.store.scan(COSTS, {"run_id": [run], "month": ["2026-10"]}).filter(pl.col("basis") == "billed").collect()
    assert october.select("initiator_agent", "effective_cost").rows() == [("alpha", Decimal("0.03"))]
