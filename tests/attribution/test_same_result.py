"""Other names, other pieces and another order change nobody's money, and nobody pays for what another did not log.

A sample; `make oracle` looks at thousands of worlds. These properties need no second implementation: `tests/oracle/same_result.py`.
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.oracle.books import World
from tests.oracle.comparison import engine
from tests.oracle.minimise import minimised
from tests.oracle.same_result import changed_money, overpaid
from tests.oracle.worlds import worlds_of_bills_in_arrival
from tests.support.books_by_hand import at, charge, span

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

DEPTH = int(os.environ.get("ORACLE_DEPTH", "1"))


@settings(max_examples=15 * DEPTH, phases=[Phase.explicit, Phase.generate])
@given(worlds_of_bills_in_arrival(), st.integers(0, 999))
def test_other_names_pieces_and_order_change_nobodys_money(world: World, seed: int) -> None:
    """CA-3, ID-3, RA-1, MO-1: the same facts told otherwise; and RA-2: uncaptured usage is not smeared over those who logged."""
    note(repr(world))
    assert not (difference := changed_money(world, seed)), difference


CALL: dict[str, Any] = {
    "usage_scope": "leaf",
    "provider": "bedrock",
    "response_model": "amazon.nova-pro-v1:0",
    "input_tokens": 1000,
}


def test_who_pays_for_anothers_use_is_found() -> None:
    """The check itself: a thousand tokens at 0.003 a thousand; who is charged for two thousand pays for another."""
    sku = "USE1-NovaPro-input-tokens"
    bill = [charge("0.006", sku_meter=sku, consumed_quantity=Decimal(2))]
    world = World([span(1, 1, agent_name="cx", start_time=at(10), **CALL)], bill)
    result = engine(world)
    assert not overpaid(world, result)
    dear = result._replace(costs=result.costs.with_columns(effective_cost=result.costs["effective_cost"] * 2))
    assert "pays 0.006000000000, its own use costs at most 0.0030" in overpaid(world, dear)


def test_a_world_is_made_as_small_as_its_difference() -> None:
    """Rows and values that the difference does not need are left out."""
    world = World([span(n, n, agent_name="cx", service_name="s", **CALL) for n in range(1, 9)], [charge("1"), charge("2")])
    small = minimised(world, lambda smaller: any(row.get("agent_name") and row["trace_key"] for row in smaller.spans))
    assert len(small.spans) == 1
    assert not small.charges
    assert small.spans[0]["service_name"] is None
