"""One chain drawn out: the tree of the worked example, with the dollars of the published costs on it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from api import queries
from api.models import ChainTree, SpanNode
from api.queries import ChainQuery, of_operator
from ledger.books import Books
from ledger.errors import ObjectMissingError, UsageError
from ledger.tables import CHAINS, COST_COLUMNS, COSTS, SPANS
from tests.support.api_examples import (
    CALL_ROWS,
    CHAIN_1,
    CHAIN_2,
    CHAIN_ROWS,
    CODER,
    HOUR,
    RESEARCH,
    ROLLUP,
    SUPPORT,
    TRACE_1,
    TRACE_2,
    WORKED_EXAMPLE,
    call,
    cost,
    frame,
    publish,
    span,
    write_calls,
    write_worked_example,
)


@pytest.fixture
def example(books: Books) -> Books:
    write_worked_example(books)
    return books


def drawn(tree: ChainTree) -> list[tuple[int, str | None, str, str]]:
    """The tree as (depth, name, own, subtree)."""
    return [(n.depth, n.name, usd(n.own_cost), usd(n.subtree_cost)) for n in tree.nodes]


def usd(costs: dict[str, Decimal]) -> str:
    assert set(costs) <= {"USD"}
    return format(costs.get("USD", Decimal(0)).normalize(), "f")


def test_the_tree_carries_the_dollars(example: Books) -> None:
    """2 000 tokens of support-bot and 4 000 of researcher at $0.003 the thousand; only own costs may be summed."""
    tree = queries.chain(of_operator(example), CHAIN_1)
    assert drawn(tree) == [
        (0, "invoke_agent support-bot", "0", "0.018"),
        (1, "chat M", "0.006", "0.006"),
        (1, "invoke_agent researcher", "0", "0.012"),
        (2, "chat M", "0.012", "0.012"),
    ]
    assert tree.cost == {"USD": Decimal("0.018")}
    assert (tree.basis, tree.unpriced_calls) == ("billed", 0)


def test_a_call_told_of_twice_is_one_node(example: Books) -> None:
    node = queries.chain(of_operator(example), CHAIN_1).nodes[3]
    assert node.channels == "litellm+otlp"
    assert [c.gateway_call_id for c in node.calls] == ["call-a4"]


def test_the_chain_page_and_the_finance_page_agree(example: Books) -> None:
    """What the chains of a team cost, call by call, is what the cost query says it is metered."""
    chains = queries.chains(of_operator(example), ChainQuery()).page().rows
    by_chain = sum(queries.chain(of_operator(example), c.chain_id).cost["USD"] for c in chains)
    metered = queries.costs(of_operator(example), queries.CostQuery(filters={"cost_class": ("metered",)}))["cost"].sum()
    assert by_chain == metered == Decimal("0.027")


def test_credits_follow_the_usage_and_move_the_price(books: Books) -> None:
    """$0.012 of usage and $0.002 of credit on 4 000 tokens: a call of 4 000 costs $0.010. (RA-5)"""
    write_worked_example(books)
    credit = cost("-0.002", quantity=Decimal(4000), charge_category="Credit", **RESEARCH)
    publish(books, [*WORKED_EXAMPLE, credit], run="run-2")
    assert usd(queries.chain(of_operator(books), CHAIN_1).nodes[3].own_cost) == "0.01"


def test_one_of_several_calls_of_the_hour_pays_its_part(books: Books) -> None:
    """Two calls, 1 and 2 tokens, share 0.01: a third and two thirds, at twelve places."""
    write_worked_example(books)
    one = call(TRACE_1, "00000000000000a2", CHAIN_1, 1, **SUPPORT)
    two = call(TRACE_1, "00000000000000a4", CHAIN_1, 2, gateway_call_id="call-a4", **SUPPORT)
    write_calls(books, [one, two])
    publish(books, [cost("0.01", quantity=Decimal(3), **SUPPORT)])
    assert [usd(n.own_cost) for n in queries.chain(of_operator(books), CHAIN_1).nodes] == [
        "0",
        "0.003333333333",
        "0",
        "0.006666666667",
    ]


def test_a_daily_bill_prices_the_hours_in_it(books: Books) -> None:
    """What the costs name counts, not how long their period is; what no cost names has no price."""
    write_worked_example(books)
    day = HOUR.replace(hour=0)
    publish(books, [cost("0.012", quantity=Decimal(4000), period_start=day, period_end=day + timedelta(days=1), **RESEARCH)])
    tree = queries.chain(of_operator(books), CHAIN_1)
    assert usd(tree.cost) == "0.012"
    assert tree.unpriced_calls == 1
    assert tree.nodes[1].calls[0].meters[0].own_cost is None
    assert tree.nodes[1].calls[0].meters[0].reason == "no published cost names this usage"


def test_a_bill_of_two_lines_is_one_price(books: Books) -> None:
    """$0.010 on demand and $0.002 of surcharge, both on the same 4 000 tokens."""
    write_worked_example(books)
    publish(books, [cost(c, quantity=Decimal(4000), pool_id=c, **RESEARCH) for c in ("0.010", "0.002")])
    assert usd(queries.chain(of_operator(books), CHAIN_1).nodes[3].own_cost) == "0.012"


def test_a_call_the_price_book_does_not_know_is_unpriced_never_free(books: Books) -> None:
    write_worked_example(books)
    publish(books, [cost("0", basis="estimated", reason="unpriced", **SUPPORT) | dict.fromkeys(COST_COLUMNS)])
    meter = queries.chain(of_operator(books), CHAIN_1).nodes[1].calls[0].meters[0]
    assert (meter.own_cost, meter.reason) == (None, "unpriced")


def test_an_answer_from_the_gateway_s_cache_costs_nothing(books: Books) -> None:
    write_worked_example(books)
    hit = call(TRACE_1, "00000000000000a2", CHAIN_1, 2000, reason="cache_hit", **{**SUPPORT, "usage_key": None})
    write_calls(books, [hit, CALL_ROWS[1]])
    tree = queries.chain(of_operator(books), CHAIN_1)
    assert (tree.unpriced_calls, tree.nodes[1].own_cost, tree.nodes[1].calls[0].meters[0].own_cost) == (0, {}, Decimal(0))


def test_half_billed_half_estimated_is_called_mixed(books: Books) -> None:
    write_worked_example(books)
    estimate = cost("0.006", quantity=Decimal(2000), basis="estimated", **SUPPORT)
    publish(books, [estimate, cost("0.012", quantity=Decimal(4000), **RESEARCH)])
    assert queries.chain(of_operator(books), CHAIN_1).basis == "mixed"


def shape(books: Books, rows: list[dict[str, Any]], trace_ids: list[str]) -> list[tuple[int, str | None, str]]:
    """The tree of these spans alone, as (depth, span id, edge)."""
    books.store.append(SPANS, frame(SPANS, rows))
    slice_ = {"month": "2026-10", "rollup_id": ROLLUP}
    held = {**CHAIN_ROWS[0], "trace_ids": trace_ids}
    books.store.replace(CHAINS, frame(CHAINS, [held], **slice_, start_time=HOUR, end_time=HOUR + timedelta(hours=1)), slice_)
    publish(books, [])
    return [(n.depth, n.span_id, n.edge) for n in queries.chain(of_operator(books), CHAIN_1).nodes]


def ids(name: str) -> str:
    return name.rjust(16, "0")


def test_links_join_traces(books: Books) -> None:
    from ledger.ids import span_key, trace_key

    link: dict[str, Any] = {"link_trace_key": trace_key(TRACE_1), "link_span_key": span_key(ids("a1"))}
    rows = [span(TRACE_1, ids("a1")), span(TRACE_2, ids("b1"), minute=1, **link), span(TRACE_2, ids("b2"), ids("b1"), minute=2)]
    assert shape(books, rows, [TRACE_1, TRACE_2]) == [(0, ids("a1"), "root"), (1, ids("b1"), "link"), (2, ids("b2"), "parent")]


def test_a_cycle_is_cut_at_the_span_that_started_last(books: Books) -> None:
    rows = [
        span(TRACE_1, ids("a1"), ids("a3")),
        span(TRACE_1, ids("a2"), ids("a1"), minute=1),
        span(TRACE_1, ids("a3"), ids("a2"), minute=2),
    ]
    assert shape(books, rows, [TRACE_1]) == [(0, ids("a3"), "cut"), (1, ids("a1"), "parent"), (2, ids("a2"), "parent")]


def test_a_span_that_is_its_own_parent_is_a_root(books: Books) -> None:
    assert shape(books, [span(TRACE_1, ids("a1"), ids("a1"))], [TRACE_1]) == [(0, ids("a1"), "cut")]


def test_a_chain_of_three_thousand_agents_is_drawn(books: Books) -> None:
    rows = [span(TRACE_1, f"{0xA1 + n:016x}", f"{0xA0 + n:016x}" if n else None) for n in range(3000)]
    tree = shape(books, rows, [TRACE_1])
    assert (len(tree), tree[-1][0]) == (3000, 2999)


def test_another_chain_of_the_same_trace_is_left_out(books: Books) -> None:
    """Its parent is missing, so it is a chain of its own. (CH-2)"""
    rows = [span(TRACE_1, ids("a1")), span(TRACE_1, ids("c1"), ids("ff"), minute=1)]
    assert shape(books, rows, [TRACE_1]) == [(0, ids("a1"), "root")]


def test_chains_are_listed_dearest_first(example: Books) -> None:
    page = queries.chains(of_operator(example), ChainQuery()).page(limit=1)
    assert ([c.chain_id for c in page.rows], page.total) == ([CHAIN_1], 2)
    assert [c.chain_id for c in queries.chains(of_operator(example), ChainQuery(team="Dev")).page().rows] == [CHAIN_2]
    assert queries.chains(of_operator(example), ChainQuery(team="De")).totals().rows == 0
    assert queries.chains(of_operator(example), ChainQuery(search="coder")).totals().rows == 1
    assert queries.chains(of_operator(example), ChainQuery(team="")).totals().rows == 0
    assert queries.chains(of_operator(example), ChainQuery(end=HOUR)).totals().rows == 0
    with pytest.raises(UsageError):
        queries.chains(of_operator(example), ChainQuery(start=HOUR, end=HOUR))


def test_a_chain_nobody_knows(example: Books) -> None:
    with pytest.raises(ObjectMissingError, match="no such chain"):
        queries.chain(of_operator(example), "nope")


def test_the_example_is_the_specification_s() -> None:
    assert sum(row["effective_cost"] for row in WORKED_EXAMPLE) == Decimal("0.03")
    assert len(CALL_ROWS) == 3
    assert CODER["initiator_team"] == "Dev"
    assert set(WORKED_EXAMPLE[0]) <= set(COSTS.schema)
    assert "own_cost" in SpanNode.model_fields
