"""Other names, other pieces and another order change nobody's money, and nobody pays for what another did not log.

A sample; `make oracle` looks at thousands of worlds. These properties need no second implementation: `tests/oracle/same_result.py`.
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from ledger.settings import AttributionSettings, Settings, SharedRule
from tests.oracle.books import World
from tests.oracle.comparison import engine
from tests.oracle.minimise import minimised
from tests.oracle.same_result import TEAMS, changed_money, moved_money, overpaid
from tests.oracle.worlds import worlds_of_bills_in_arrival
from tests.support.books_by_hand import at, charge, span

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

DEPTH = int(os.environ.get("ORACLE_DEPTH", "1"))


@pytest.mark.slow
@settings(max_examples=5 * DEPTH, phases=[Phase.explicit, Phase.generate])
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


def test_a_large_tax_on_a_tiny_charge_may_move_by_its_last_digits() -> None:
    """Three thirds of 0.00000103921 are a last digit apart, and a tax of a million times as much is so by a million of them. (MO-1)"""
    settings = Settings(
        attribution=AttributionSettings(shared=[SharedRule(name="evenly", method="even", teams=sorted(TEAMS)[:3])])
    )
    base = charge(
        "0.000001039210", sku_meter="USE1-NovaPro-input-tokens", consumed_quantity=Decimal("0.001"), invoice_id="inv-1111"
    )
    tax = charge("1.325730570265", charge_category="Tax", sku_meter="Tax", service_name="Tax", invoice_id="inv-1111")
    world = World([], [base, tax], settings=settings)
    assert not changed_money(world, 1)
    costs = engine(world).costs
    dearer_taxes = costs.with_columns(
        effective_cost=pl.when(pl.col("rule") == "RA-5")
        .then(pl.col("effective_cost") * Decimal("1.0001"))
        .otherwise("effective_cost")
    )
    assert costs.filter(pl.col("rule") == "RA-5").height
    assert moved_money(world, costs, dearer_taxes)


def test_a_world_is_made_as_small_as_its_difference() -> None:
    """Rows and values that the difference does not need are left out."""
    world = World([span(n, n, agent_name="cx", service_name="s", **CALL) for n in range(1, 9)], [charge("1"), charge("2")])
    small = minimised(world, lambda smaller: any(row.get("agent_name") and row["trace_key"] for row in smaller.spans))
    assert len(small.spans) == 1
    assert not small.charges
    assert small.spans[0]["service_name"] is None
