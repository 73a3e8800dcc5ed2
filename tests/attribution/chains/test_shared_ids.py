"""CA-1a, CH-7a: an id names the calls of the caller that used it first; under another key it is another call's."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import COSTS, PROBLEMS, SPANS
from tests.support.books_by_hand import SONNET, at, charge, charges, span, spans, write
from tests.support.cli_books import Command

D = Decimal
LOG: dict[str, Any] = {**SONNET, "channel": "litellm", "source": "litellm", "input_tokens": 1000}
ALICE: dict[str, Any] = {"credential": "alice-key"}
BOB: dict[str, Any] = {"credential": "bob-key"}
OWNERS = "agent,team,credentials\nalice,A,alice-key\nbob,B,bob-key\n"


def teams(books: Books, *rows: dict[str, Any], thousands: int) -> dict[str, tuple[Decimal, bool]]:
    """Cost by team, at 0.003 a thousand tokens, and whether an id of another caller is told."""
    bill = charges(charge(str(D("0.003") * thousands), tokens_k=str(thousands)))
    write(books, spans=spans(*rows), charges=bill, owners=OWNERS)
    attribute(books)
    costs = (
        books.store.scan(COSTS)
        .collect()
        .with_columns(conflict=pl.col("reason").str.contains("id_conflict").fill_null(value=False))
    )
    table = costs.group_by("initiator_team").agg(pl.col("effective_cost").sum(), pl.col("conflict").any())
    return {team: (cost, conflict) for team, cost, conflict in table.iter_rows()}


def second(at_second: int) -> Any:
    return at(10).replace(second=at_second)


def test_ca1a_the_id_of_anothers_call_is_a_call_of_its_own(books: Books) -> None:
    """Bob sends the id of Alice's call, with the same prompt in the same second. Each pays for one call, and it is told with its money."""
    first = span(1, 1, gateway_call_id="g", **LOG, **ALICE)
    copy = span(2, 2, gateway_call_id="g", **LOG, **BOB, start_time=at(10).replace(microsecond=9))
    assert teams(books, first, copy, thousands=2) == {"A": (D("0.003"), False), "B": (D("0.003"), True)}
    problems = books.store.scan(PROBLEMS).filter(pl.col("reason").str.starts_with("id_conflict")).collect()
    assert problems.select("cost", "currency").rows() == [(D("0.003"), "USD")]
    assert "ids of its own" in problems["remedy"][0]


def test_ca1a_the_larger_copy_does_not_win(books: Books) -> None:
    """Bob's record reports more than Alice's, which would have made it the more complete one."""
    first = span(1, 1, gateway_call_id="g", **LOG, **ALICE)
    copy = span(2, 2, gateway_call_id="g", **LOG, **BOB, output_tokens=0, cache_read_tokens=0, start_time=second(1))
    assert teams(books, first, copy, thousands=2)["A"] == (D("0.003"), False)


def test_ca1a_the_id_of_a_call_of_yesterday_is_told_too(books: Books) -> None:
    """Both pay on their own day."""
    first = span(1, 1, gateway_call_id="g", **LOG, **ALICE)
    copy = span(2, 2, gateway_call_id="g", **LOG, **BOB, start_time=at(10, day=6))
    next_day: dict[str, Any] = {"charge_period_start": at(10, day=6), "charge_period_end": at(11, day=6)}
    write(books, charges=charges(charge("0.003", tokens_k="1", scope="next day", **next_day)))
    assert teams(books, first, copy, thousands=1) == {"A": (D("0.003"), False), "B": (D("0.003"), True)}


def test_ca1a_one_key_on_two_channels_is_one_call(books: Books) -> None:
    first = span(1, 1, gateway_call_id="g", **LOG, **ALICE, credential_team="A")
    spend_log = span(2, 2, gateway_call_id="g", **LOG | {"channel": "litellm-spend-logs"}, **ALICE, credential_team="team-id-7")
    without_key = span(3, 3, gateway_call_id="g", **LOG | {"channel": "litellm-callback"})
    assert teams(books, first, spend_log, without_key, thousands=1) == {"A": (D("0.003"), False)}


def test_ca1a_a_span_belongs_to_the_first_caller_of_its_id(books: Books) -> None:
    """Alice's agent tells of its call; Bob's copy starts nearer to the span, and does not take its place in Alice's chain."""
    agent = span(7, 1, agent_name="alice", start_time=at(10))
    own = span(7, 2, 1, gateway_call_id="g", **SONNET, input_tokens=1000, start_time=second(1))
    log = span(8, 8, gateway_call_id="g", **LOG, **ALICE, start_time=at(10))
    copy = span(9, 9, gateway_call_id="g", **LOG, **BOB, start_time=second(1))
    assert teams(books, agent, own, log, copy, thousands=2) == {"A": (D("0.003"), False), "B": (D("0.003"), True)}


def test_ca1a_a_gateways_own_span_belongs_to_the_caller_that_it_names(books: Books) -> None:
    """The gateway's spans of both calls name the key: four records are two calls."""
    rows = [
        span(n, n, gateway_call_id="g", **LOG | {"channel": channel}, **key, start_time=start)
        for n, (key, channel, start) in enumerate(
            [(ALICE, "litellm", second(0)), (ALICE, "otlp", second(0)), (BOB, "litellm", second(1)), (BOB, "otlp", second(1))], 1
        )
    ]
    assert teams(books, *rows, thousands=2) == {"A": (D("0.003"), False), "B": (D("0.003"), True)}


def test_ca1a_the_response_id_of_another_key_joins_nothing(books: Books) -> None:
    """Alice's span and log are one call by the id of the request, though Bob's log bears that id under a call id of his own."""
    agent = span(7, 1, agent_name="alice")
    own = span(7, 2, 1, provider_request_id="r", **SONNET, input_tokens=1000)
    log = span(8, 8, gateway_call_id="g", provider_request_id="r", **LOG, **ALICE)
    copy = span(9, 9, gateway_call_id="h", provider_request_id="r", **LOG, **BOB, start_time=second(1))
    assert teams(books, agent, own, log, copy, thousands=2) == {"A": (D("0.003"), False), "B": (D("0.003"), True)}


@pytest.mark.parametrize("order", [1, -1])
def test_ca1a_a_batch_is_that_of_the_key_which_began_it(books: Books, order: int) -> None:
    """Bob polls Alice's batch before and after her: it is used once, and hers, since she created it."""
    batch = {**LOG, "gateway_call_id": "b_batch_cost", "provider_request_id": "b"}
    creation = span(1, 1, **{**LOG, "input_tokens": None}, **ALICE, provider_request_id="b", start_time=at(10))
    polls = [span(2, 2, **batch, **BOB, start_time=second(1)), span(3, 3, **batch, **ALICE, start_time=second(2))]
    assert teams(books, *[creation, *polls][::order], thousands=1) == {"A": (D("0.003"), True)}


def test_ca1a_a_call_id_that_looks_like_a_batchs_is_no_batch(books: Books) -> None:
    batch = span(1, 1, **LOG, **ALICE, gateway_call_id="b_batch_cost", provider_request_id="b")
    call = span(2, 2, **LOG, **BOB, gateway_call_id="b_batch_cost", provider_request_id="chatcmpl-1", start_time=second(1))
    assert teams(books, batch, call, thousands=2) == {"A": (D("0.003"), False), "B": (D("0.003"), True)}


def _payload(key: str, tokens: int = 1000) -> dict[str, Any]:
    return {
        "id": "call-1",
        "litellm_call_id": "call-1",
        "trace_id": "trace-1",
        "call_type": "acompletion",
        "model": "claude-sonnet-4-6",
        "custom_llm_provider": "bedrock",
        "startTime": 1790000000.0,
        "endTime": 1790000001.0,
        "prompt_tokens": tokens,
        "completion_tokens": 1,
        "total_tokens": tokens + 1,
        "response_cost": 0.003,
        "metadata": {"user_api_key_alias": key},
    }


def test_ca1a_records_of_two_keys_are_both_stored(home: Path, tmp_path: Path) -> None:
    """All ids and the second are equal; the second file does not replace the first, and a repeated file adds nothing."""
    rootcost = Command(home)
    for number, key in enumerate(["alice-key", "bob-key", "alice-key"]):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(json.dumps(_payload(key)) + "\n", encoding="utf-8")
        rootcost("ingest", "litellm", file)
    with Books.open(home) as books:
        rows = books.store.scan(SPANS).collect()
        assert sorted(rows["credential"]) == ["alice-key", "bob-key"]
