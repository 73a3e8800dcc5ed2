"""CH-1 and CH-3 where a span has several links: what lies below it belongs to all the chains it is linked to, in equal parts."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest

from attribution.chains import fan_in
from attribution.chains import forest as chain_forest
from attribution.chains.fan_in import Ancestry
from attribution.chains.span_index import SpanIndex
from attribution.pricing import PriceBook
from attribution.usage import rollup
from attribution.usage.rollup_rows import RollupRows
from ledger import registry
from ledger.settings import IngestSettings, Settings
from ledger.tables import PRICES
from tests.support.books_by_hand import SONNET, at, price, span, spans

D = Decimal
BOOK = [price("anthropic.claude-sonnet-4-6", "input_tokens", "0.000003")]


def links(*targets: tuple[int, int]) -> dict[str, Any]:
    """Span links, the first one also in its own columns, as ingest writes them."""
    named = [[f"{trace:032x}", f"{number:016x}"] for trace, number in targets]
    return {"link": targets[0], "links": json.dumps(named)}


def call(trace: int, number: int, parent: int | None, tokens: int, **told: Any) -> dict[str, Any]:
    return span(trace, number, parent, input_tokens=tokens, **{**SONNET, **told})


def draw(*rows: dict[str, Any], month: str | None = "2026-10", trusted: tuple[str, ...] = ()) -> RollupRows:
    book = PriceBook(pl.DataFrame(BOOK, schema_overrides={c: PRICES.schema[c] for c in ("rate", "valid_from", "recorded_at")}))
    settings = Settings(ingest=IngestSettings(trusted_sources=list(trusted)))
    timeline = registry.timeline(pl.DataFrame(schema=registry.SCHEMA))
    return rollup.build_rollup(spans(*rows).lazy(), month, timeline, book, settings, rollup_id="r")


def shares(drawn: RollupRows, by: str = "initiator_agent") -> dict[str, Decimal]:
    """Input tokens by owner."""
    rows = drawn.usage.filter(pl.col("meter") == "input_tokens").group_by(by).agg(pl.col("quantity").sum())
    return dict(rows.sort(by).iter_rows())


TWO = (span(1, 1, agent_name="support-bot"), span(2, 2, agent_name="coder"))


def test_ch1_the_cost_below_a_fan_in_is_split_equally_over_its_links() -> None:
    drawn = draw(*TWO, span(3, 3, agent_name="researcher", **links((1, 1), (2, 2))), call(3, 4, 3, 1001))
    assert shares(drawn) == {"coder": D("500.5"), "support-bot": D("500.5")}
    assert shares(drawn, "executor_agent") == {"researcher": D(1001)}
    assert drawn.usage["reason"].to_list() == ["fan_in", "fan_in"]
    assert sum(drawn.usage["list_cost"]) == D("0.003003")
    assert drawn.usage["calls"].sum() == 1


def test_ch1_a_call_names_all_its_owners_and_stays_one_row() -> None:
    drawn = draw(*TWO, span(3, 3, **links((2, 2), (1, 1))), call(3, 4, 3, 1000))
    row = drawn.calls.row(0, named=True)
    assert (drawn.calls.height, row["initiator_agent"], row["reason"]) == (1, "coder", "fan_in")
    named = [(s["initiator_agent"], s["numerator"], s["denominator"]) for s in row["shares"]]
    assert named == [("coder", 1, 2), ("support-bot", 1, 2)]
    keys = drawn.usage.select("initiator_agent", "usage_key").rows()
    assert sorted((s["initiator_agent"], s["usage_key"]) for s in row["shares"]) == sorted(keys)
    assert row["usage_key"] == row["shares"][0]["usage_key"]
    assert drawn.chains.filter(pl.col("calls") > 0).select("chain_id", "reason").rows() == [(f"{3:032x}:{3:016x}", "fan_in")]


def test_ch1_of_several_links_only_known_ones_count() -> None:
    """One known link is a plain causal parent; one said twice is one link; a link to the span itself leads nowhere."""
    for told in (links((9, 9), (1, 1)), links((1, 1), (1, 1)), links((3, 3), (1, 1))):
        drawn = draw(*TWO, span(3, 3, **told), call(3, 4, 3, 1000))
        assert shares(drawn) == {"support-bot": D(1000)}
        assert drawn.usage["reason"].to_list() == [None]
        assert drawn.calls["shares"].to_list() == [None]
    assert shares(draw(*TWO, span(3, 3, **links((8, 8), (9, 9))), call(3, 4, 3, 1000))) == {"unknown": D(1000)}


def test_ch1_a_parent_counts_before_any_link() -> None:
    drawn = draw(*TWO, span(3, 5, agent_name="own"), span(3, 3, 5, **links((1, 1), (2, 2))), call(3, 4, 3, 1000))
    assert shares(drawn) == {"own": D(1000)}


def test_ch1_weights_multiply_along_fan_ins_of_fan_ins() -> None:
    """A half of support-bot's, and a half of a fan-in that is half support-bot's and half coder's: 3/4 and 1/4."""
    drawn = draw(
        *TWO, span(3, 3, **links((1, 1), (2, 2))), span(4, 4, **links((1, 1), (3, 3))), call(4, 5, 4, 1000), call(3, 6, 3, 10)
    )
    assert shares(drawn) == {"coder": D(255), "support-bot": D(755)}


def test_ch1_links_into_one_chain_have_one_owner() -> None:
    """A join of two branches of one agent's work: all of it is the agent's."""
    drawn = draw(
        span(1, 1, agent_name="coder"), span(1, 2, 1), span(1, 3, 1), span(1, 4, **links((1, 2), (1, 3))), call(1, 5, 4, 7)
    )
    assert shares(drawn) == {"coder": D(7)}
    assert drawn.calls.select("reason", "shares").rows() == [("fan_in", None)]


def test_ch4_each_way_is_asked_for_its_own_owner() -> None:
    """Topmost and nearest go over the link; where one way names nobody, the tree's own agent started that part."""
    drawn = draw(
        span(1, 1, agent_name="support-bot"), span(2, 2), span(3, 3, **links((1, 1), (2, 2))), span(3, 4, 3, agent_name="worker"), call(3, 5, 4, 10),
        call(3, 6, 3, 100),
    )  # fmt: skip
    assert shares(drawn) == {"support-bot": D(55), "unknown": D(50), "worker": D(5)}
    assert shares(drawn, "executor_agent") == {"support-bot": D(50), "unknown": D(50), "worker": D(10)}


def test_ch2_a_way_with_a_missing_parent_says_so() -> None:
    drawn = draw(
        span(1, 1, agent_name="support-bot"),
        span(2, 2, 77, agent_name="coder"),
        span(3, 3, **links((1, 1), (2, 2))),
        call(3, 4, 3, 10),
    )
    assert dict(drawn.usage.select("initiator_agent", "reason").iter_rows()) == {
        "support-bot": "fan_in",
        "coder": "missing_parent,fan_in",
    }  # fmt: skip


def test_ch7_a_trusted_claim_on_one_way_owns_that_way() -> None:
    claim = span(2, 2, claimed_agent="coder")
    facts = (span(1, 1, agent_name="support-bot"), claim, span(3, 3, **links((1, 1), (2, 2))), call(3, 4, 3, 10))
    assert shares(draw(*facts)) == {"support-bot": D(5), "unknown": D(5)}
    assert shares(draw(*facts, trusted=("otlp",))) == {"support-bot": D(5), "coder": D(5)}


def test_ra3_time_held_below_a_fan_in_is_split_too() -> None:
    machine = span(3, 4, 3, resource_id="i-gpu", end_time=at(10, 1))
    drawn = draw(*TWO, span(3, 3, **links((1, 1), (2, 2))), machine)
    held = drawn.usage.filter(pl.col("meter") == "seconds").select("initiator_agent", "quantity").sort("initiator_agent").rows()
    assert held == [("coder", D(30)), ("support-bot", D(30))]
    assert drawn.usage.filter(pl.col("meter") == "requests")["quantity"].sum() == 1


def test_mo1_odd_parts_sum_to_the_call() -> None:
    three = [span(n, n, agent_name=f"a{n}") for n in (1, 2, 3)]
    drawn = draw(*three, span(4, 4, **links((1, 1), (2, 2), (3, 3))), call(4, 5, 4, 1), call(4, 6, 4, 2, cache_hit=True))
    assert sum(shares(drawn).values()) == D(1)
    assert sum(drawn.usage["list_cost"]) == D("0.000003")
    assert drawn.calls.filter(pl.col("usage_key").is_null())["reason"].to_list() == ["fan_in,cache_hit"]


@pytest.mark.parametrize("latest", [3, 4])
def test_ch3_a_cycle_through_fan_ins_is_cut_where_the_latest_span_started(latest: int) -> None:
    """Two fan-ins linked to each other: the later loses that link and hangs on what is left to it."""
    first = span(3, 3, **links((1, 1), (4, 4)), start_time=at(10, 5 if latest == 3 else 1))
    second = span(4, 4, **links((2, 2), (3, 3)), start_time=at(10, 5 if latest == 4 else 1))
    drawn = draw(*TWO, first, second, call(3, 5, 3, 4), call(4, 6, 4, 400))
    expected = {3: {"support-bot": D(204), "coder": D(200)}, 4: {"support-bot": D(2), "coder": D(402)}}
    assert shares(drawn) == expected[latest]
    late = {3: (3, "cycle"), 4: (4, "cycle")}[latest]
    assert (late[0], late[1]) in [(row["span_key"] - 2, row["reason"]) for row in drawn.calls.iter_rows(named=True)]


def test_ch3_a_fan_in_linked_to_its_own_descendants_is_cut_below() -> None:
    """The join links to a child of its own that started later: the child's parent edge goes, and it is a root beside the other."""
    join = span(3, 3, **links((1, 1), (3, 5)))
    child = span(3, 5, 3, start_time=at(10, 5))
    drawn = draw(*TWO, join, child, call(3, 6, 5, 8), call(3, 7, 3, 100))
    assert shares(drawn) == {"support-bot": D(50), "unknown": D(58)}
    assert drawn.calls.sort("span_key")["reason"].to_list() == ["no_identity,cycle", "fan_in"]
    assert sum(drawn.usage["quantity"]) == D(108)


def test_a_hundred_layers_of_pairs_are_not_two_to_the_hundred_ways() -> None:
    rows = list(TWO)
    left, right = (1, 1), (2, 2)
    for layer in range(100):
        trace = 10 + layer
        rows += [span(trace, 2 * trace, **links(left, right)), span(trace, 2 * trace + 1, **links(left, right))]
        left, right = (trace, 2 * trace), (trace, 2 * trace + 1)
    drawn = draw(*rows, call(109, 999, 218, 1000))
    assert shares(drawn) == {"coder": D(500), "support-bot": D(500)}


def test_weights_that_would_outgrow_64_bits_are_rounded_and_sum_to_one() -> None:
    """Forty layers of three links, unlike at each layer: thirds of thirds."""
    parent = np.arange(82, dtype=np.int32)
    fans: dict[int, tuple[int, ...]] = {0 + 41: (0, 1, 2)}
    for layer in range(1, 38):
        fans[41 + layer] = (41 + layer - 1, layer + 1, layer + 2)
    none = np.zeros(82, dtype=bool)
    forest = chain_forest.Forest(parent=parent, root=parent.copy(), missing_parent=none, cycle=none, linked=none, fans=fans)
    top = np.where(parent < 41, parent, -1).astype(np.int32)
    empty = np.full(82, -1, dtype=np.int32)
    ways = fan_in.fan_in_paths(forest, Ancestry(top=top, near=top, claim=empty, has_untrusted_claim=none, has_cycle=none), parent)
    for _, some in ways.group_by("root"):
        weights = [Fraction(n, d) for n, d in some.select("numerator", "denominator").iter_rows()]
        assert sum(weights) == 1
        assert some["denominator"].n_unique() == 1
    assert ways["denominator"].max() <= fan_in.MAX_DENOMINATOR  # type: ignore[operator]


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [*TWO, span(3, 3, **links((1, 1), (2, 2))), call(3, 4, 3, 1001), span(4, 4, **links((3, 4), (2, 2))), call(4, 5, 4, 7)]
    columns = ["initiator_agent", "executor_agent", "meter", "quantity", "calls", "list_cost", "usage_key"]
    seen = [draw(*order).usage.select(columns).sort(columns).rows() for order in (rows, rows[::-1], rows[3:] + rows[:3])]
    assert seen[0] == seen[1] == seen[2]


def test_without_a_month_each_row_is_in_the_month_of_its_own_start() -> None:
    early: dict[str, Any] = {"start_time": at(10, day=31).replace(month=8)}
    facts = (span(1, 1, agent_name="coder", **early), call(1, 2, 1, 5, **early), call(1, 3, 1, 7))
    drawn = draw(*facts, month=None)
    assert sorted(drawn.calls["month"]) == ["2026-08", "2026-10"]
    assert sorted(drawn.usage["month"]) == ["2026-08", "2026-10"]
    assert drawn.chains["month"].to_list() == ["2026-08"]
    one = draw(*facts)
    assert (one.calls.height, one.usage.height, one.chains.height) == (1, 1, 0)


def test_keys_that_share_a_slot_are_told_apart() -> None:
    traces, numbers = np.arange(5000, dtype=np.int64) % 7, np.arange(5000, dtype=np.int64)
    rows = SpanIndex(traces, numbers)
    assert rows.find(traces, numbers).tolist() == list(range(5000))
    assert set(rows.find(traces + 7, numbers).tolist()) == {-1}
    twice = SpanIndex(np.concatenate([traces, traces]), np.concatenate([numbers, numbers]))
    assert twice.duplicates.tolist() == list(range(5000, 10000))
