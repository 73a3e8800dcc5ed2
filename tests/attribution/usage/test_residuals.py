"""CA-2: what wrappers stand for beyond the calls below them. Tokens worked out by hand; F1, F2, F4 of the failure modes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from attribution.monitoring.count_findings import set_aside
from ledger.tables import TOKEN_METERS
from tests.attribution.chains.test_fan_in import call, draw, links
from tests.support.books_by_hand import SONNET, at, span

D = Decimal


def wrapper(trace: int, number: int, parent: int | None, tokens: int | None, **told: Any) -> dict[str, Any]:
    """An agent's span that sums up what was called below it."""
    said = {**SONNET, "usage_scope": "aggregate", "agent_name": "coder", **told}
    return span(trace, number, parent, input_tokens=tokens, **said)


def silent(trace: int, number: int, parent: int | None, **told: Any) -> dict[str, Any]:
    """A call that says nothing of its usage."""
    return span(trace, number, parent, **{**SONNET, **told})


def booked(*rows: dict[str, Any]) -> dict[int, tuple[dict[str, int], str | None]]:
    """What each span is charged with, and why, without what every call here is."""
    calls = draw(*rows).calls
    return {
        row["span_key"]: (
            {m: row[m] for m in TOKEN_METERS if row[m] is not None},
            ",".join(w for w in (row["reason"] or "").split(",") if w not in ("unpriced", "no_identity")) or None,
        )
        for row in calls.iter_rows(named=True)
    }


ONLY, REST = "aggregate_only", "aggregate_residual"


def test_a_wrapper_all_of_whose_calls_report_is_ignored() -> None:
    assert booked(wrapper(1, 1, None, 5000), call(1, 2, 1, 1000), call(1, 3, 1, 2000)).keys() == {2, 3}


def test_a_wrapper_without_reporting_calls_is_the_whole() -> None:
    assert booked(wrapper(1, 1, None, 3000)) == {1: ({"input_tokens": 3000}, ONLY)}
    assert booked(wrapper(1, 1, None, 3000), silent(1, 2, 1)) == {2: ({"input_tokens": 3000}, ONLY)}


def test_ca2a_a_rest_belongs_to_the_silent_call() -> None:
    facts = booked(wrapper(1, 1, None, 3000), call(1, 2, 1, 1000), silent(1, 3, 1))
    assert facts == {2: ({"input_tokens": 1000}, None), 3: ({"input_tokens": 2000}, REST)}


def test_ca2a_several_silent_calls_take_equal_parts_that_sum_to_the_rest() -> None:
    """2000 tokens in and 100 out among three, whatever their order; and among a thousand, of whom most get nothing."""
    rows = [wrapper(1, 1, None, 3000, output_tokens=100), call(1, 2, 1, 1000), *(silent(1, n, 1) for n in (3, 4, 5))]
    facts = booked(*rows)
    parts = [(666, 33), (667, 33), (667, 34)]
    assert [facts[n] for n in (3, 4, 5)] == [({"input_tokens": i, "output_tokens": o}, REST) for i, o in parts]
    assert booked(*reversed(rows)) == facts
    thousand = booked(wrapper(1, 1, None, 10), *(silent(1, n, 1) for n in range(2, 1002)))
    assert (len(thousand), sum(tokens["input_tokens"] for tokens, _ in thousand.values())) == (1000, 10)


def test_ca2a_a_silent_call_has_its_own_model_or_the_one_of_its_wrapper() -> None:
    nova = {"response_model": "amazon.nova-pro-v1:0"}
    no_model = {"response_model": None, "provider": None}
    calls = draw(
        wrapper(1, 1, None, 3000, agent_name="lead"), silent(1, 2, 1, **nova, agent_name="helper"), silent(1, 3, 1, **no_model)
    ).calls
    assert calls.sort("span_key").select("provider", "model", "input_tokens", "executor_agent").rows() == [
        ("AWS", "nova-pro", 1500, "helper"), ("AWS", "claude-sonnet-4-6", 1500, "lead"),
    ]  # fmt: skip


def test_ca2a_usage_without_tokens_goes_to_the_one_silent_call_or_stays_whole() -> None:
    searches = wrapper(1, 1, None, 300, other_usage='{"web_searches": 3}')
    one = draw(searches, silent(1, 2, 1)).calls
    assert one.select("span_key", "input_tokens", "other_usage").rows() == [(2, 300, '{"web_searches":3}')]
    two = draw(searches, silent(1, 2, 1), silent(1, 3, 1)).calls.sort("span_key")
    assert two["input_tokens"].to_list() == [None, 150, 150]
    assert two["other_usage"].to_list() == ['{"web_searches":3}', None, None]


def test_a_rest_is_never_negative_and_none_is_no_call() -> None:
    assert booked(wrapper(1, 1, None, 900), call(1, 2, 1, 1000), silent(1, 3, 1)).keys() == {2, 3}
    facts = booked(wrapper(1, 1, None, 900, output_tokens=50), call(1, 2, 1, 1000, output_tokens=20), silent(1, 3, 1))
    assert facts[3] == ({"input_tokens": 0, "output_tokens": 30}, REST)


def test_wrappers_in_wrappers_hand_their_rests_on() -> None:
    """Outer 5000 = inner 3000 (1000 reported, 2000 silent) + 500 reported + 1500 of another silent call."""
    facts = booked(
        wrapper(1, 1, None, 5000), wrapper(1, 2, 1, 3000), call(1, 3, 2, 1000), silent(1, 4, 2), call(1, 5, 1, 500), silent(1, 6, 1)
    )  # fmt: skip
    assert facts[4] == ({"input_tokens": 2000}, REST)
    assert facts[6] == ({"input_tokens": 1500}, REST)
    assert booked(wrapper(1, 1, None, 5000), wrapper(1, 2, 1, 3000), silent(1, 3, 2)) == {
        1: ({"input_tokens": 2000}, REST), 3: ({"input_tokens": 3000}, ONLY),
    }  # fmt: skip


def test_an_inner_wrapper_that_stands_for_its_calls_reports_for_the_outer() -> None:
    assert booked(wrapper(1, 1, None, 5000), wrapper(1, 2, 1, 3000)) == {2: ({"input_tokens": 3000}, ONLY)}


def test_ca2_a_wrapper_is_ignored_where_a_call_below_it_reports_by_another_record() -> None:
    """The client's span in trace 2 has only the request's id, the span of trace 1, which started first, its usage: one call, below the wrapper.

    A wrapper above both of two such traces counts it once: of its 900 tokens, 400 are of the silent call.
    """
    ids = {"provider_request_id": "r1"}
    gateway = call(1, 1, None, 500, **ids)
    client = silent(2, 3, 2, start_time=at(10, 5), **ids)
    assert booked(gateway, wrapper(2, 2, None, 550), client) == {1: ({"input_tokens": 500}, None)}
    inner = wrapper(1, 4, 9, 500)
    gateway = call(1, 1, 4, 500, **ids)
    client = silent(1, 3, 2, start_time=at(9, 59), **ids)
    rows = [wrapper(1, 9, None, 900), inner, gateway, wrapper(1, 2, 9, 500), client, silent(1, 5, 9)]
    assert booked(*rows) == {1: ({"input_tokens": 500}, None), 5: ({"input_tokens": 400}, "aggregate_residual")}


def test_a_wrapper_that_says_nothing_is_no_call() -> None:
    assert booked(wrapper(1, 1, None, None), silent(1, 2, 1)).keys() == {2}


def test_what_a_wrapper_does_not_tell_apart_is_in_its_whole() -> None:
    """Two calls of 1000 in all; the one that reports had 900 in, 800 of them from the cache, and 50 out, 40 of them reasoning."""
    reported = call(1, 2, 1, 900, cache_read_tokens=800, output_tokens=50, reasoning_tokens=40)
    facts = booked(wrapper(1, 1, None, 1000, output_tokens=70), reported, silent(1, 3, 1))
    assert facts[3] == ({"input_tokens": 100, "output_tokens": 20}, REST)


def test_a_wrapper_that_counts_without_the_cache_is_held_against_what_was_not_cached() -> None:
    reported = call(1, 2, 1, 900, cache_read_tokens=800)
    facts = booked(wrapper(1, 1, None, 300, input_includes_cache=False), reported, silent(1, 3, 1))
    assert facts[3] == ({"input_tokens": 200}, REST)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_f2_running_totals_of_one_agent_are_differences_and_not_triangles(count: int) -> None:
    """Every invocation adds 100: 100, 200, 300, … is 100 each. The counter starts anew where it falls."""
    counters = [
        wrapper(1, n, None, 100 * n, usage_scope="cumulative", start_time=at(10, n), conversation_id="c")
        for n in range(1, count + 1)
    ]
    again = wrapper(2, 90, None, 70, usage_scope="cumulative", start_time=at(11), conversation_id="c")
    facts = booked(*counters, again)
    assert sum(tokens["input_tokens"] for tokens, _ in facts.values()) == 100 * count + 70
    assert facts[1] == ({"input_tokens": 100}, ONLY)


def test_f2_counters_of_two_agents_services_or_conversations_are_their_own() -> None:
    counter = {"usage_scope": "cumulative", "conversation_id": "c"}
    facts = booked(
        wrapper(1, 1, None, 100, **counter),
        wrapper(2, 2, None, 150, **counter, service_name="b", start_time=at(10, 1)),
        wrapper(3, 3, None, 170, **{**counter, "conversation_id": "d"}, start_time=at(10, 2)),
        wrapper(4, 4, None, 190, **{**counter, "agent_name": "other"}, start_time=at(10, 3)),
    )
    assert [facts[n][0]["input_tokens"] for n in (1, 2, 3, 4)] == [100, 150, 170, 190]


BY_PROCESS = f"{ONLY},counter_by_process"


def counters(*tokens: tuple[int, dict[str, Any]]) -> list[tuple[int, str | None]]:
    """What each of these stands of one agent's counter is charged, in traces of their own, one a minute."""
    rows = [
        wrapper(n, n, None, count, **{"usage_scope": "cumulative", "service_name": "app", "start_time": at(10, n)} | columns)
        for n, (count, columns) in enumerate(tokens, 1)
    ]
    facts = booked(*reversed(rows))
    return [(facts[n][0]["input_tokens"], facts[n][1]) for n in range(1, len(rows) + 1)]


def test_ca2a_a_counter_without_a_conversation_is_read_against_its_process() -> None:
    pod, other = {"process": "pod-1"}, {"process": "pod-2"}
    assert counters((100, pod), (100, other), (250, pod)) == [(100, ONLY), (100, ONLY), (150, BY_PROCESS)]
    assert counters((100, {}), (250, {})) == [(100, ONLY), (150, BY_PROCESS)]
    assert counters((100, pod), (250, pod | {"service_name": "b"}), (300, pod | {"agent_name": "b"}))[1:] == [
        (250, ONLY),
        (300, ONLY),
    ]
    nameless = {"service_name": None}
    assert counters((100, nameless), (250, nameless)) == [(100, ONLY), (250, ONLY)], "nothing says that it is one process"


def test_ca2a_a_stand_with_a_conversation_and_one_without_are_of_one_counter() -> None:
    chat, other = {"conversation_id": "c"}, {"conversation_id": "d"}
    assert counters((100, chat), (200, {}), (300, chat)) == [(100, ONLY), (100, BY_PROCESS), (100, BY_PROCESS)]
    assert counters((100, chat), (150, other)) == [(100, ONLY), (150, ONLY)]
    assert counters((900, other), (100, chat), (950, {}), (160, chat)) == [
        (900, ONLY), (100, ONLY), (850, BY_PROCESS), (60, ONLY),
    ], "a stand above a counter is none of its own"  # fmt: skip


def test_f2_a_counter_above_reporting_calls_is_ignored() -> None:
    counter = {"usage_scope": "cumulative", "conversation_id": "c"}
    facts = booked(
        wrapper(1, 1, None, 100, **counter), call(1, 2, 1, 100), wrapper(2, 3, None, 250, **counter, start_time=at(10, 5)), call(2, 4, 3, 150)
    )  # fmt: skip
    assert facts.keys() == {2, 4}


def test_f4_two_instrumentations_of_one_request_are_one_call_and_the_inner_counts() -> None:
    assert booked(call(1, 1, None, 900), call(1, 2, 1, 900)) == {2: ({"input_tokens": 900}, None)}
    deep = [call(1, n, n - 1 if n > 1 else None, 900, output_tokens=7) for n in range(1, 6)]
    assert booked(*deep).keys() == {5}
    exclusive = call(1, 2, 1, 100, cache_read_tokens=800, input_includes_cache=False)
    assert booked(call(1, 1, None, 900, cache_read_tokens=800), exclusive).keys() == {2}


@pytest.mark.slow
def test_ca2b_an_outer_call_with_another_model_or_other_usage_is_a_call() -> None:
    assert booked(call(1, 1, None, 1000), call(1, 2, 1, 900)).keys() == {1, 2}
    assert booked(call(1, 1, None, 900, output_tokens=5), call(1, 2, 1, 900, output_tokens=6)).keys() == {1, 2}
    assert booked(call(1, 1, None, 900, response_model="amazon.nova-pro-v1:0"), call(1, 2, 1, 900)).keys() == {1, 2}
    assert booked(call(1, 1, None, 900, provider_request_id="a"), call(1, 2, 1, 900, provider_request_id="b")).keys() == {1, 2}
    request = {"provider_request_id": "r"}
    assert booked(call(1, 1, None, 1000, **request), call(1, 2, 1, 900, **request)).keys() == {1, 2}


def test_ca2b_an_agent_or_a_tool_between_two_calls_makes_them_two() -> None:
    outer, inner = call(1, 1, None, 900, agent_name="lead"), call(1, 3, 2, 900)
    for columns in (
        {"operation": "execute_tool"},
        {"tool_name": "search"},
        {"operation": "invoke_agent"},
        {"agent_name": "helper"},
    ):
        assert booked(outer, span(1, 2, 1, **columns), inner).keys() == {1, 3}, columns
    for columns in ({}, {"agent_name": "lead"}, {"operation": "chat"}):
        assert booked(outer, span(1, 2, 1, **columns), inner).keys() == {3}, columns


def test_ca2b_an_outer_call_that_sums_the_calls_below_it_is_an_echo() -> None:
    parts = call(1, 2, 1, 400, output_tokens=7), call(1, 3, 1, 500, output_tokens=8)
    assert booked(call(1, 1, None, 900, output_tokens=15), *parts).keys() == {2, 3}
    assert booked(call(1, 1, None, 900, output_tokens=16), *parts).keys() == {1, 2, 3}


def test_ca2b_another_instrumentation_may_estimate_the_prompt() -> None:
    inner = call(1, 2, 1, 900, output_tokens=7, emitter="botocore")
    assert booked(call(1, 1, None, 1100, output_tokens=7, emitter="openinference"), inner).keys() == {2}
    assert booked(call(1, 1, None, 1100, output_tokens=7, emitter="botocore"), inner).keys() == {1, 2}
    assert booked(call(1, 1, None, 1100, output_tokens=0, emitter="openinference"), inner | {"output_tokens": 0}).keys() == {1, 2}


def test_ca2b_what_is_set_aside_is_counted_with_its_money() -> None:
    """At 3 USD a million: an echo of 900; a wrapper of 3000 over calls of 1000, and 1100 beyond them; one of 2000 with 500 silent."""
    rollup = draw(
        call(1, 1, None, 900), call(1, 2, 1, 900),
        wrapper(2, 3, None, 2100, emitter="adk"), call(2, 4, 3, 1000),
        wrapper(3, 5, None, 2000, emitter="adk"), call(3, 6, 5, 1500), silent(3, 7, 5),
    )  # fmt: skip
    assert rollup.calls["input_tokens"].sum() == 900 + 1000 + 2000
    sums = ["echo_spans", "echo_cost", "wrapper_spans", "wrapper_cost", "wrapper_excess_spans", "wrapper_excess_cost"]
    rows = rollup.evidence.sort("emitter").select("emitter", "calls", *sums).rows()
    assert rows == [
        ("adk", 0, None, None, 2, D("0.0075"), 1, D("0.0033")),
        ("otlp", 4, 1, D("0.0027"), None, None, None, None),
    ]
    reasons = [p.reason.partition(":")[0] for p in set_aside(rollup.evidence, "USD", "attribution:2026-10")]
    assert reasons == ["wrapper", "wrapper_excess", "echo"]


def test_an_aggregate_between_two_requests_is_no_proof_that_they_are_one() -> None:
    outer, inner = call(1, 1, None, 900, provider_request_id="a"), call(1, 3, 2, 500, provider_request_id="b")
    assert booked(outer, wrapper(1, 2, 1, 500), inner).keys() == {1, 3}


def test_f15_a_link_is_no_containment() -> None:
    """A span that waits for two calls and is linked to them; what it calls itself is not what they called."""
    facts = booked(
        span(1, 1, agent_name="coder"), call(1, 2, 1, 1000), call(1, 3, 1, 1000), span(1, 4, **links((1, 2), (1, 3))), call(1, 5, 4, 3000),
        span(1, 6, link=(1, 2)), call(1, 7, 6, 50),
    )  # fmt: skip
    assert sorted(tokens["input_tokens"] for tokens, _ in facts.values()) == [50, 1000, 1000, 3000]


def test_f1_wrappers_change_no_total_however_deep() -> None:
    """A chain of 300 wrappers over one call, and over one silent one beside it."""
    nest = [wrapper(1, n, n - 1 if n > 1 else None, 1000) for n in range(1, 301)]
    assert booked(*nest, call(1, 400, 300, 1000)).keys() == {400}
    facts = booked(*nest, call(1, 400, 300, 600), silent(1, 401, 300))
    assert {n: tokens for n, (tokens, _) in facts.items() if tokens} == {400: {"input_tokens": 600}, 401: {"input_tokens": 400}}


def test_a_wrapper_never_meets_a_context_tier() -> None:
    """A sum of 300 000 tokens is no request of that size."""
    calls = draw(wrapper(1, 1, None, 300_000)).calls
    assert calls.select("context_above", "input_tokens").rows() == [(0, 300_000)]


def test_a_cache_hit_reports() -> None:
    facts = booked(wrapper(1, 1, None, 1000), call(1, 2, 1, 1000, cache_hit=True))
    assert facts == {2: ({"input_tokens": 1000}, "cache_hit")}


def test_hourly_sums_hold_what_calls_hold() -> None:
    drawn = draw(wrapper(1, 1, None, 3000), call(1, 2, 1, 1000), silent(1, 3, 1), call(2, 4, None, 5, agent_name="coder"))
    sums = drawn.usage.filter(pl.col("meter") == "input_tokens")["quantity"].sum()
    assert sums == drawn.calls["input_tokens"].sum() == D(3005)
