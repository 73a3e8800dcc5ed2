"""CA-1a: ids cross sources. Signals of one request are one call, and attempts that share an id are not."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from api import queries
from api.queries import of_operator
from attribution.chains.calls import _connect as connect
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import CALLS, COSTS, PROBLEMS
from tests.support.books_by_hand import SONNET, at, price, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import ROOT

CASES = ROOT / "tests" / "data" / "cases"
D = Decimal
LOG: dict[str, Any] = {"channel": "litellm", "source": "litellm"}
BEDROCK_LOG: dict[str, Any] = {"channel": "bedrock-log", "source": "bedrock-logs"}


def call(number: int, tokens: int | None, **columns: Any) -> dict[str, Any]:
    """A call in a trace of its own."""
    return span(number, number, **SONNET | {"input_tokens": tokens, "output_tokens": 10} | columns)


def used(books: Books) -> list[tuple[Any, ...]]:
    """Channels, input and output of every call, sorted."""
    attribute(books)
    calls = books.store.scan(CALLS).collect()
    return sorted(calls.select("channels", "input_tokens", "output_tokens").rows(), key=str)


def prices(model: str, **rates: str) -> list[dict[str, Any]]:
    return [price(model, meter, rate, provider="anthropic") for meter, rate in rates.items()]


OPUS = {
    "input_tokens": "0.000005",
    "cache_read_tokens": "0.0000005",
    "cache_write_5m_tokens": "0.00000625",
    "output_tokens": "0.000025",
}
SONNET_RATES = {"input_tokens": "0.000003", "output_tokens": "0.000015"}
US_SONNET_RATES = {
    "input_tokens": "0.0000033",
    "cache_read_tokens": "0.00000033",
    "cache_write_5m_tokens": "0.000004125",
    "output_tokens": "0.0000165",
}


@pytest.mark.parametrize(
    ("case", "sources", "rates", "cost"),
    [
        ("one-call-two-sources/claude-code-through-litellm", {"claude-code": "cc", "litellm": "lit"}, OPUS, "0.027515"),
        ("one-call-two-sources/litellm-and-bedrock-log", {"litellm": "lit", "bedrock-logs": "bed"}, US_SONNET_RATES, "0.0181599"),
    ],
)
def test_ca1a_one_call_in_two_logs_costs_once(
    home: Path, case: str, sources: dict[str, str], rates: dict[str, str], cost: str
) -> None:
    model = "claude-opus-4-7" if rates is OPUS else "us.anthropic.claude-sonnet-4-6"
    provider = "anthropic" if rates is OPUS else "bedrock_converse"
    with Books.open(home) as books:
        write(books, prices=[row | {"provider": provider} for row in prices(model, **rates)])
    rootcost = Command(home)
    for source, folder in sources.items():
        rootcost("ingest", source, CASES / case / folder)
    rootcost("attribute")
    with Books.open(home) as books:
        calls = books.store.scan(CALLS).collect()
        assert calls.select("input_tokens", "cache_read_tokens", "output_tokens").rows() == [(3, 20_000, 450)]
        assert books.store.scan(COSTS).collect()["effective_cost"].sum() == D(cost)


def test_ca1a_a_failed_attempt_with_usage_and_the_answer_of_the_fallback_are_two_calls(home: Path) -> None:
    with Books.open(home) as books:
        haiku, sonnet = {"input_tokens": "0.000001", "output_tokens": "0.000005"}, SONNET_RATES
        write(books, prices=[*prices("claude-haiku-4-5", **haiku), *prices("claude-sonnet-4-6", **sonnet)])
    rootcost = Command(home)
    rootcost("ingest", "litellm", CASES / "failed-attempt" / "payloads.jsonl")
    rootcost("attribute")
    with Books.open(home) as books:
        costs = books.store.scan(COSTS).collect().group_by("model").agg(pl.col("effective_cost").sum()).sort("model")
        assert costs.rows() == [("claude-haiku-4-5", D("0.003")), ("claude-sonnet-4-6", D("0.0132"))]
        explanation = queries.explain(of_operator(books), "call-6")
        signals = [[s["span_id"] for s in step.facts["raw_ids"]] for step in explanation.steps if step.step == "span"]
        assert signals == [["call-6_failed"], ["call-6"]], "each attempt has its own log row"


def test_ca1a_a_stream_that_was_cut_counts_what_the_other_source_saw_of_it(books: Books) -> None:
    """The client saw 3 tokens of output and no more; the provider's log has all 900."""
    cut = call(1, 1000, provider_request_id="msg_1", request_ids='["req_1"]', output_tokens=3, agent_name="alpha")
    write(books, spans=spans(cut, call(2, 1000, provider_request_id="req_1", output_tokens=900, **BEDROCK_LOG)))
    assert used(books) == [("bedrock-log+otlp", 1000, 900)]


@pytest.mark.parametrize("other", [{"input_tokens": 2000}, {"response_model": "amazon.nova-pro-v1:0"}])
def test_ca1a_a_shared_id_with_another_prompt_or_model_is_another_call(books: Books, other: dict[str, Any]) -> None:
    first = call(1, 1000, provider_request_id="1", request_ids='["x"]')
    write(books, spans=spans(first, call(2, 1000, **{"provider_request_id": "x", **BEDROCK_LOG, **other})))
    assert len(used(books)) == 2


def test_ca1a_a_span_without_usage_is_the_call_that_has_its_request_id(books: Books) -> None:
    """The client's span knows the chain and the request id only."""
    silent = span(1, 1, usage_scope="leaf", agent_name="alpha", provider_request_id="req_1")
    write(books, spans=spans(silent, call(2, 1000, provider_request_id="req_1", **BEDROCK_LOG)))
    assert used(books) == [("bedrock-log+otlp", 1000, 10)]
    assert books.store.scan(CALLS).collect()["initiator_agent"].to_list() == ["alpha"]


def test_ca1a_two_calls_under_one_id_that_the_client_chose_are_two(books: Books) -> None:
    """Equal in everything but the start: the client sent one prompt twice under one call id; each span belongs to the nearer one."""
    rows = []
    for n, minute in ((1, 0), (2, 30)):
        ids = {"gateway_call_id": "job", "start_time": at(10, minute)}
        rows.append(call(n, 1000, **ids, **LOG, provider_request_id=f"r{n}"))
        rows.append(call(n + 10, 1000, **ids | {"start_time": at(10, minute) - timedelta(seconds=3)}, agent_name=f"agent-{n}"))
    write(books, spans=spans(*rows))
    assert used(books) == [("litellm+otlp", 1000, 10)] * 2
    assert set(books.store.scan(CALLS).collect()["initiator_agent"]) == {"agent-1", "agent-2"}


def test_ca1a_payload_and_spend_row_of_an_attempt_are_one_call_each(books: Books) -> None:
    """A failure with usage and the answer, each in both of the gateway's channels, and a span of the answer."""
    failure = {"gateway_call_id": "g", "status": "error", "request_model": "a", "output_tokens": 400}
    answer = {"gateway_call_id": "g", "status": "ok", "request_model": "b", "start_time": at(10, 1)}
    spend = {"channel": "litellm-spend-logs", "source": "litellm"}
    rows = [call(1, 1000, **LOG, **failure), call(2, 1000, **spend, **failure), call(3, 1000, **LOG, **answer)]
    rows += [call(4, 1000, **spend, **answer), call(5, 1000, gateway_call_id="g", start_time=at(10, 1))]
    write(books, spans=spans(*rows))
    assert used(books) == [("litellm+litellm-spend-logs", 1000, 400), ("litellm+litellm-spend-logs+otlp", 1000, 10)]


@pytest.mark.parametrize("tokens", [1000, None])
def test_ca1a_a_span_that_names_the_ids_of_two_calls_joins_neither(books: Books, tokens: int | None) -> None:
    """Hostile: an agent's span claims the ids of other teams' calls to make them one. Both go on being counted."""
    calls = [call(n, 1000, **LOG, gateway_call_id=f"g{n}", provider_request_id=f"r{n}") for n in (1, 2)]
    bridge = call(9, tokens, request_ids='["r1", "r2"]', output_tokens=None, agent_name="evil")
    write(books, spans=spans(*calls, bridge))
    assert sum(row[1] or 0 for row in used(books) if "litellm" in row[0]) == 2000


@pytest.mark.parametrize(("own", "passed_on", "tokens"), [("r1", ["r2"], 1000), ("r2", ["r1"], 700), (None, ["r1", "r2"], 700)])
def test_ca1a_a_span_of_two_ids_is_the_call_of_its_own_id_else_the_nearest(
    books: Books, own: str | None, passed_on: list[str], tokens: int
) -> None:
    """Whatever the ids are called: the call of the other one stays a call by itself."""
    answers = call(1, 1000, **LOG, provider_request_id="r1"), call(2, 700, **BEDROCK_LOG, provider_request_id="r2")
    silent = call(3, None, output_tokens=None, provider_request_id=own, request_ids=json.dumps(passed_on))
    rows = [
        {**row, "start_time": at(10, minute), "end_time": at(11)}
        for minute, row in zip((0, 20, 15), (*answers, silent), strict=True)
    ]
    write(books, spans=spans(*rows))
    assert [row[1] for row in used(books) if "otlp" in row[0]] == [tokens]


def test_ra1d_the_providers_own_log_knows_the_account_that_is_billed(books: Books) -> None:
    """The gateway's row is more complete, and names the account that it was configured with."""
    log = call(1, None, output_tokens=None, **BEDROCK_LOG, provider_request_id="r1", account_id="2222", usage_scope="leaf")
    write(books, spans=spans(log, call(2, 1000, **LOG, provider_request_id="r1", account_id="1111", region="eu-west-1")))
    attribute(books)
    [row] = books.store.scan(CALLS).collect().to_dicts()
    assert (row["channels"], row["account"], row["region"]) == ("bedrock-log+litellm", "2222", "eu-west-1")


def test_ca1_of_a_call_that_only_gateway_rows_report_the_earliest_trace_has_it(books: Books) -> None:
    """The trace that came first has the call, whatever its id is; a later one repeats it."""
    for number in (1, 2):
        first, later = (call(10 * number + n, 1000, **LOG, provider_request_id=f"r{number}") for n in (number, 3 - number))
        rows = [first | {"start_time": at(9)}, later | {"start_time": at(11)}]
        write(books, spans=spans(*({**row, "end_time": row["start_time"]} for row in rows)))
    attribute(books)
    assert {start.hour for start in books.store.scan(CALLS).collect()["start_time"]} == {9}


def test_ca2b_a_gateways_call_without_a_span_is_beside_nested_calls_of_spans(books: Books) -> None:
    """Of the gateway's call nobody knows whether it is an agent or a tool: the nested calls of another trace are told apart all the same."""
    nested = [span(1, 1, **SONNET, input_tokens=900), span(1, 2, 1, **SONNET, input_tokens=400)]
    write(books, spans=spans(*nested, call(3, 1000, **LOG)))
    assert [row[1] for row in used(books)] == [1000, 400, 900]


def test_ca1a_ids_without_end_are_bounded(home: Path) -> None:
    """Hostile: an id of 10 MB and a hundred thousand headers. The call counts, under what can be its ids."""
    item: dict[str, Any] = {
        "id": "x" * 10_000_000,
        "litellm_call_id": "call-1",
        "call_type": "acompletion",
        "startTime": 1791198000,
    }
    item |= {"model": "gpt-4.1", "prompt_tokens": 1000, "completion_tokens": 1, "custom_llm_provider": "openai"}
    item["hidden_params"] = {"additional_headers": {f"h{n}-request-id": f"r{n}" for n in range(100_000)}}
    path = home.parent / "payloads.jsonl"
    path.write_text(json.dumps(item) + "\n", encoding="utf-8")
    rootcost = Command(home)
    rootcost("ingest", "litellm", path)
    with Books.open(home) as books:
        attribute(books)
        assert books.store.scan(CALLS).collect().select("gateway_call_id", "input_tokens").rows() == [("call-1", 1000)]
        [problem] = books.store.scan(PROBLEMS).collect().filter(pl.col("field") == "id").to_dicts()
        assert problem["reason"].startswith("longer than 4096 characters")


def test_ca1a_a_chain_of_a_hundred_thousand_ids_is_followed_in_a_moment() -> None:
    """Hostile: each record has an id of its own and that of the next one; with as many rounds as records this would not end today."""
    count = 100_000
    ids = pl.select(row=pl.int_range(count, dtype=pl.Int64)).with_columns(proof=pl.concat_list("row", pl.col("row") + 1))
    proofs = ids.explode("proof").with_columns(pl.col("proof").cast(pl.String)).sample(fraction=1, shuffle=True, seed=3)
    labels = connect(proofs).sort("row")
    assert labels["row"].to_list() == list(range(count))
    assert labels["label"].unique().to_list() == [0]
