"""AgentCore's spans and usage logs: which session used which model, and how long its processor and memory."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ingest.run import ingest
from ingest.sources.agentcore.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import COSTS, SPANS
from tests.support.books_by_hand import charge, charges, write
from tests.support.log_sources import (
    D,
    booked,
    calls,
    chains,
    read,
    rows,
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

SPAN_LOG = DATA / "agentcore" / "aws-spans-000000.log"
USAGE = DATA / "agentcore" / "usage.jsonl"
RUNTIME = "arn:aws:bedrock-agentcore:us-east-1:111122223333:runtime/support_bot-a1B2"
RATES = {"anthropic.claude-sonnet-4-6-v1:0": ("bedrock_converse", {"input_tokens": "0.000003", "output_tokens": "0.000015"})}


def usage() -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=Decimal) for line in USAGE.read_text().splitlines()]


def used(metric: str, session: str | None = None) -> Decimal:
    """Seconds of a metric, added up from the records alone."""
    told = [r for r in usage() if session in (None, r["attributes"]["session.id"])]
    return sum((D(r["metrics"][metric]) * 3600 for r in told), D(0))


def test_the_innermost_request_counts_and_belongs_to_the_agent(books: Books) -> None:
    """Strands' own spans and its counter repeat what botocore's spans say: 600 + 900 in, 50 + 40 out."""
    booked(books, "agentcore", [SPAN_LOG], rates=RATES, owners="agent,team\nSupport,Care\n")
    [chain] = chains(books).to_dicts()
    assert (chain["spans"], chain["calls"]) == (7, 2)
    assert chain["list_cost"] == 1500 * D("0.000003") + 90 * D("0.000015")
    found = calls(books)
    assert found["provider_request_id"].to_list() == [f"00000000-0000-4000-8000-00000000010{n}" for n in (1, 2)]
    assert found["executor_agent"].unique().to_list() == ["Support"]


def test_spans_keep_runtime_session_and_region() -> None:
    by_id = {int(row["span_id"], 16): row for row in rows(SOURCE, SPAN_LOG)}
    assert (by_id[1]["agent_id"], by_id[1]["parent_span_id"]) == (RUNTIME, None)
    assert {row["conversation_id"] for row in by_id.values()} == {"session-1"}
    assert {row["region"] for row in by_id.values()} == {"us-east-1"}
    assert [by_id[n]["usage_scope"] for n in (2, 3, 4)] == ["cumulative", "aggregate", "leaf"]


def test_usage_sums_to_the_records_second_by_second() -> None:
    found = [json.loads(row["other_usage"]) for row in rows(SOURCE, USAGE) if row["other_usage"]]
    assert sum((D(u.get("vcpu_seconds", "0")) for u in found), D(0)) == used("agent.runtime.vcpu.hours.used")
    assert sum((D(u["gb_seconds"]) for u in found), D(0)) == used("agent.runtime.memory.gb_hours.used")


def test_a_session_is_one_chain_however_many_seconds_it_has(books: Books) -> None:
    booked(books, "agentcore", [USAGE], owners=f"agent,team,aliases\nsupport-bot,Care,{RUNTIME}\n")
    found = chains(books)
    assert sorted(found["calls"]) == [1, 3]
    assert found["initiator_agent"].unique().to_list() == ["support-bot"]
    assert found["reason"].drop_nulls().is_empty()


def test_a_bill_of_a_runtime_goes_to_who_used_it_in_that_hour(books: Books) -> None:
    ingest(books, "agentcore", [str(USAGE)])
    hours = used("agent.runtime.vcpu.hours.used") / 3600
    bill = charge(
        "8.95",
        service_name="AmazonBedrockAgentCore",
        sku_meter="USE1-Runtime:Consumption-based:vCPU",
        consumed_unit="vCPU-Hours",
        consumed_quantity=round(hours, 12),
        sub_account_id="111122223333",
        resource_id=RUNTIME,
    )
    write(books, charges=charges(bill), owners=f"agent,team,aliases\nsupport-bot,Care,{RUNTIME}\n")
    attribute(books)
    costs = books.store.scan(COSTS).collect()
    assert costs.group_by("initiator_team").agg(pl.col("billed_cost").sum()).rows() == [("Care", D("8.95"))]


def forms() -> dict[str, bytes]:
    """The span records as they leave CloudWatch."""
    told = [line.partition(" ")[2] for line in SPAN_LOG.read_text().splitlines()]
    events = [{"timestamp": n, "message": message} for n, message in enumerate(told)]
    return {
        "export.gz": gzip.compress(SPAN_LOG.read_bytes()),
        "lines.jsonl": "\n".join(reversed(told)).encode(),
        "filter.json": json.dumps({"events": events}, indent=4).encode(),
        "firehose.gz": gzip.compress(json.dumps({"messageType": "DATA_MESSAGE", "logEvents": events}).encode()),
    }


@pytest.mark.parametrize("name", list(forms()))
def test_the_same_records_in_every_form_are_the_same_spans(name: str, tmp_path: Path) -> None:
    expected = read(SOURCE, SPAN_LOG).frame.drop("raw_id").sort("span_id")
    reading = written(SOURCE, tmp_path, forms()[name], name)
    assert reading.problems == []
    assert reading.frame.drop("raw_id").sort("span_id").equals(expected)


def test_logs_of_what_was_said_are_passed_by(tmp_path: Path) -> None:
    said = {"body": {"input": {"messages": ["SECRET"]}}, "traceId": "a", "spanId": "b", "timeUnixNano": 1}
    plain = "2026-10-05T10:00:00.000Z Starting server\n"
    content = f"2026-10-05T10:00:00.000Z {json.dumps(said)}\n{plain}{SPAN_LOG.read_text()}"
    reading = written(SOURCE, tmp_path, content, "log.log")
    assert (reading.frame.height, reading.problems) == (7, [])
    assert "SECRET" not in reading.frame.write_csv()
    with pytest.raises(FormatError, match="neither spans nor usage"):
        written(SOURCE, tmp_path, json.dumps(said), "said.json")


@pytest.mark.slow
def test_spans_and_usage_in_one_folder_are_booked_once(books: Books) -> None:
    booked(books, "agentcore", [SPAN_LOG.parent / "*.*"], rates=RATES)
    assert books.store.scan(SPANS).collect().height == 7 + 2 + 4


def test_files_in_any_order_are_the_same_rows(tmp_path: Path) -> None:
    assert same_in_any_order(tmp_path, "agentcore", [SPAN_LOG, USAGE]) == 7 + 2 + 4


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    told = usage()
    told[0]["resource_arn"] = None
    told[1]["event_timestamp"] = "later"
    told[2]["metrics"]["agent.runtime.vcpu.hours.used"] = -1
    content = "".join(json.dumps(record, default=str) + "\n" for record in told) + '{"resource_arn": "arn'
    reading = written(SOURCE, tmp_path, content)
    assert reading.frame.height == 2
    assert [(p.place, p.field) for p in reading.problems] == [
        ("line 1", "resource_arn"),
        ("line 2", "event_timestamp"),
        ("line 3", "metrics"),
        ("line 5", "line"),
    ]


@pytest.mark.slow
def test_cut_off_anywhere_its_whole_records_are_read(tmp_path: Path) -> None:
    assert survives_cuts(SOURCE, tmp_path, SPAN_LOG.read_bytes(), "aws.log") > 50
    assert survives_cuts(SOURCE, tmp_path, USAGE.read_bytes(), "usage.jsonl") > 50
    survives_cuts(SOURCE, tmp_path, forms()["firehose.gz"], "f.gz")


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [json.loads(line) for line in USAGE.read_text().splitlines()])
