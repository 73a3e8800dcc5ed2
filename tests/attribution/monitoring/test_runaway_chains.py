"""Chains that run away are found by their spans, once each, while those that only do much are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from api import queries
from api.queries import of_operator
from attribution.monitoring import runaway_chains
from attribution.monitoring.runaway_chains import RunawayWatch, raise_alerts, usual_costs
from attribution.run import attribute
from ledger.books import Books
from ledger.db import Alert
from ledger.settings import RunawaySettings
from tests.attribution.test_rules import call, configure
from tests.support.books_by_hand import at, price, span, spans, write

NOON = at(12)
LIMITS = RunawaySettings(same_tool_calls=5, failures=5, depth=8, fan_out=10, least_chains=20)
OWNERS = "agent,team,valid_from,valid_to\nbot,Care,2026-01-01,\n"
Row = dict[str, Any]


def tool(
    number: int, name: str = "search", arguments: str | None = "beef", *, trace: int = 1, parent: int = 1, **columns: Any
) -> Row:
    attributes = {} if arguments is None else {"attributes": json.dumps({"arguments_digest": arguments})}
    minute = number % 50
    fields = (
        {"operation": "execute_tool", "tool_name": name, "start_time": at(11, minute), "agent_name": "bot"} | attributes | columns
    )
    return span(trace, number, parent, **fields)


def nested(levels: int) -> list[Row]:
    return [span(1, n, n - 1, start_time=at(11, 30), agent_name="bot") for n in range(2, levels + 2)]


RUNAWAYS: dict[str, list[Row]] = {
    "same_tool_calls": [tool(n) for n in range(2, 8)],
    "failures": [tool(n, arguments=f"{n:04x}", status="error", parent=n + 100) for n in range(2, 8)],
    "depth": nested(9),
    "fan_out": [tool(n, arguments=None) for n in range(2, 13)],
}
ORDINARY: dict[str, list[Row]] = {
    "other arguments": [tool(n, arguments=f"{n:04x}", parent=n + 100) for n in range(2, 40)],
    "arguments that nobody told": [tool(n, arguments=None, parent=n + 100) for n in range(2, 40)],
    "other tools": [tool(n, name=f"tool {n}", parent=n + 100) for n in range(2, 40)],
    "other chains": [tool(n, trace=n) for n in range(2, 40)],
    "long ago": [tool(n, start_time=at(10, n)) for n in range(2, 40)],
    "failures of many steps": [span(1, n, n + 100, name=f"step {n}", status="error", start_time=at(11, 5)) for n in range(2, 40)],
    "documents": [span(1, n, 1, operation="embeddings", start_time=at(11, 5)) for n in range(2, 60)],
    "one call in two channels": [tool(n % 4 + 2, channel=f"channel {n}") for n in range(40)],
    "a cycle": [span(1, 2, 3, start_time=at(11)), span(1, 3, 2, start_time=at(11)), *nested(7)],
}


def look(books: Books, rows: Iterable[Row]) -> list[Alert]:
    configure(books, runaway=LIMITS)
    write(books, spans=spans(*rows), owners=OWNERS)
    return raise_alerts(books, NOON, {})


@pytest.mark.parametrize("cause", RUNAWAYS)
def test_each_cause_is_found_once_and_told_with_number_limit_chain_and_next_step(books: Books, cause: str) -> None:
    (alert,) = look(books, RUNAWAYS[cause])
    number = {"same_tool_calls": 6, "failures": 6, "depth": 9, "fan_out": 11}[cause]
    assert (alert.kind, alert.severity, alert.subject, alert.team, alert.chain_id) == (
        "runaway",
        "critical",
        "bot",
        "Care",
        f"{1:032x}",
    )
    assert (alert.payload["cause"], alert.payload["actual"]) == (cause, str(number))
    assert (int(alert.figure.split()[0]), int(alert.limit_text.split()[0])) == (number, getattr(LIMITS, cause))
    assert alert.figure.split()[0] in alert.text and "stop the run" in alert.next_step
    assert raise_alerts(books, NOON, {}) == [], "what was told is not told again, by whichever process"


@pytest.mark.parametrize("name", ORDINARY)
def test_much_work_is_no_runaway(books: Books, name: str) -> None:
    assert look(books, ORDINARY[name]) == []


def test_two_causes_of_one_chain_and_one_cause_of_two_are_told_apart(books: Books) -> None:
    rows = [*RUNAWAYS["same_tool_calls"], *nested(9)[6:], *nested(9)[:6], *(tool(n, trace=2) for n in range(2, 9))]
    alerts = look(books, rows)
    assert {(alert.chain_id, alert.payload["cause"]) for alert in alerts} >= {
        (f"{1:032x}", "same_tool_calls"), (f"{2:032x}", "same_tool_calls"),
    }  # fmt: skip
    assert len({alert.alert_id for alert in alerts}) == len(alerts)


def a_chain(number: int, tokens: int, *, minute: int, day: int = 5) -> Row:
    return call(number, 1, None, tokens, start_time=at(11, minute, day=day), operation="chat", agent_name="bot")


def test_cost_beyond_what_the_agents_chains_cost_is_told_and_the_dearest_of_usual_ones_are_not(books: Books) -> None:
    configure(books, runaway=LIMITS)
    usual = [a_chain(n, 1_000_000 * (1 + n % 4), minute=n % 50, day=4) for n in range(1, 31)]
    today = [a_chain(101, 4_000_000, minute=20), a_chain(102, 20_000_000, minute=30)]
    write(
        books,
        spans=spans(*usual, *today),
        owners=OWNERS,
        prices=[price("anthropic.claude-sonnet-4-6-v1:0", "input_tokens", "0.000003")],
    )
    attribute(books)
    costs = usual_costs(books, NOON)
    assert costs == {"bot": Decimal(12)}
    (alert,) = raise_alerts(books, NOON, costs)
    assert (alert.payload["cause"], alert.chain_id, alert.team) == ("cost", f"{102:032x}", "Care")
    assert (Decimal(str(alert.payload["actual"])), alert.figure, alert.limit_text) == (Decimal(60), "USD 60.00", "USD 36.00")

    # The link leads to the chain, whose own id nobody knows before its root has ended.
    assert alert.chain_id is not None
    assert queries.chain(of_operator(books), alert.chain_id).chain.chain_id == f"{102:032x}:{1:016x}"


def test_a_round_without_anything_new_reads_nothing(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(books, runaway=LIMITS)
    monkeypatch.setattr(runaway_chains, "now", lambda: NOON)
    watch = RunawayWatch(books)
    assert watch.look() == []
    write(books, spans=spans(*RUNAWAYS["same_tool_calls"]))
    watch._due_at = 0
    assert len(watch.look()) == 1
    monkeypatch.setattr(runaway_chains, "raise_alerts", lambda *_: pytest.fail("nothing has arrived"))
    watch._due_at = 0
    assert watch.look() == []


def test_memory_is_bounded_by_the_largest_traces(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runaway_chains, "_MAX_TRACES", 1)
    monkeypatch.setattr(runaway_chains, "_MAX_SPANS", 20)
    rows = [tool(n, trace=2) for n in range(2, 30)] + RUNAWAYS["same_tool_calls"]
    alerts = look(books, rows)
    assert {alert.chain_id for alert in alerts} == {f"{2:032x}"}
    assert isinstance(runaway_chains._candidates(books, at(11), NOON), pl.DataFrame)
    assert runaway_chains._candidates(books, NOON - timedelta(hours=1), NOON).height == 20
