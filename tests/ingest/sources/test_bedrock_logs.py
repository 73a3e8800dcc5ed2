"""Bedrock's model invocation logs: tokens and identity of every call, joined with what told of it elsewhere."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ingest.run import ingest
from ingest.source import Batch, ListedObject, RawObject, Window
from ingest.sources.bedrock_logs.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.settings import IngestSettings
from ledger.tables import SPANS
from tests.support.log_sources import (
    PLAIN,
    D,
    booked,
    calls,
    no_content,
    read,
    rows,
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

LOG = next((DATA / "bedrock_logs").glob("*.jsonl"))
SONNET = {"input_tokens": "0.000003", "cache_read_tokens": "0.0000003", "cache_write_5m_tokens": "0.00000375"}
SONNET |= {"cache_write_1h_tokens": "0.000006", "output_tokens": "0.000015"}
RATES = {
    "anthropic.claude-sonnet-4-6-v1:0": ("bedrock_converse", SONNET),
    "amazon.titan-embed-text-v2:0": ("bedrock", {"input_tokens": "0.00000002"}),
}


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()]


def test_every_call_is_what_an_accountant_would_write() -> None:
    with (LOG.parent / "expected.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = rows(SOURCE, LOG)
    assert len(found) == len(expected) == 7
    for row, told in zip(found, expected, strict=True):
        got = {name: row[name] for name in told if name in row} | {"model": row["request_model"]}
        got |= {"request_id": row["provider_request_id"], "principal": row["principal"].rsplit("/")[-1]}
        assert {k: "" if v is None else str(v) for k, v in got.items()} == told


def test_calls_cost_what_their_tokens_cost(books: Books) -> None:
    booked(books, "bedrock-logs", [LOG], rates=RATES, owners="agent,team,principals\n")
    expected = (
        (2000 + 12 + 500 + 700 + 90000) * D("0.000003")
        + 1000 * D("0.0000003")
        + 50 * D("0.00000375")
        + 300 * D("0.000006")
        + (100 + 80 + 40 + 60 + 900) * D("0.000015")
        + 90 * D("0.00000002")
    )
    assert calls(books)["list_cost"].sum() == expected
    assert calls(books).filter(calls(books)["status"] == "error")["input_tokens"].to_list() == [None]


def test_who_called_owns_the_call(books: Books) -> None:
    role = "arn:aws:sts::111122223333:assumed-role/agents"
    owners = f"agent,team,principals\nsupport-bot,Care,{role}/support-bot\ncoder,Dev,{role}/coder\n"
    booked(books, "bedrock-logs", [LOG], rates=RATES, owners=owners)
    by_team = dict(
        calls(books).group_by("initiator_team", "method").len().sort("len").select("initiator_team", "len").iter_rows()
    )
    assert by_team == {None: 1, "Care": 2, "Dev": 4}
    assert calls(books).filter(calls(books)["initiator_team"] == "Dev")["method"].unique().to_list() == ["principal"]


def test_what_the_caller_wrote_is_a_claim_and_counts_where_it_is_trusted() -> None:
    first = rows(SOURCE, LOG)[0]
    assert (first["claimed_agent"], first["claimed_team"], first["conversation_id"]) == ("support-bot", "Care", "s-1")
    assert json.loads(first["attributes"])["labels"]["team"] == "Care"
    other = read(SOURCE, LOG, IngestSettings(agent_tags=["bot"], team_tags=["unit"])).frame.row(0, named=True)
    assert (other["claimed_agent"], other["claimed_team"]) == (None, None)


def test_profiles_are_resources_and_regions_those_of_the_call() -> None:
    _, profile, own, *_ = rows(SOURCE, LOG)
    assert profile["resource_id"].endswith(":inference-profile/us.anthropic.claude-sonnet-4-6-v1:0")
    assert (profile["region"], json.loads(profile["attributes"])["inference_region"]) == ("us-east-1", "us-west-2")
    assert own["resource_id"].endswith(":application-inference-profile/a1b2c3")
    assert (own["response_model"], own["account_id"]) == ("claude-sonnet-4-6", "111122223333")
    assert (profile["end_time"] - profile["start_time"]).total_seconds() == 0.9


def test_a_call_that_a_span_told_of_too_is_one_call_under_that_span(books: Books, tmp_path: Path) -> None:
    """The span has no identity, the log no chain: together they have both."""
    request = records()[1]["requestId"]
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "aws.bedrock",
        "gen_ai.request.model": "us.anthropic.claude-sonnet-4-6-v1:0",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 1000,
        "gen_ai.usage.cache_write.input_tokens": 300,
        "gen_ai.usage.output_tokens": 80,
        "aws.request_id": request,
    }
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "support-bot"}

    def span(number: int, parent: int | None, name: str, found: dict[str, Any]) -> dict[str, Any]:
        start = 1791194520 * 10**9
        attributes = [
            {"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for k, v in found.items()
        ]
        made = {"traceId": f"{1:032x}", "spanId": f"{number:016x}", "name": name, "kind": 3, "attributes": attributes}
        made |= {"startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 10**9)}
        return made | ({"parentSpanId": f"{parent:016x}"} if parent else {})

    scope = {"name": "opentelemetry.instrumentation.botocore.bedrock-runtime"}
    spans = [span(1, None, "invoke_agent support-bot", agent), span(2, 1, "chat", told)]
    (tmp_path / "t.json").write_text(
        json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
    )
    ingest(books, "otlp", [str(tmp_path / "t.json")])
    booked(books, "bedrock-logs", [LOG], rates=RATES, owners="agent,team\nsupport-bot,Care\n")
    [joined] = calls(books).filter(calls(books)["provider_request_id"] == request).to_dicts()
    assert joined["channels"] == "bedrock-log+otlp"
    assert (joined["initiator_team"], joined["method"]) == ("Care", "path")
    assert joined["principal"].endswith("/support-bot")
    assert joined["cache_write_1h_tokens"] == 300, "only the log knows the lifetime"
    assert calls(books).height == 7


def test_a_traceparent_in_the_metadata_puts_the_call_below_its_span(tmp_path: Path) -> None:
    record = records()[0]
    record["requestMetadata"] = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    [row] = written(SOURCE, tmp_path, json.dumps(record)).frame.to_dicts()
    assert (row["trace_id"], row["parent_span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def forms() -> dict[str, bytes]:
    """The records as they leave S3 and CloudWatch."""
    told = [json.dumps(record) for record in records()]
    events = [{"id": str(n), "timestamp": 1791194400000 + n, "message": message} for n, message in enumerate(told)]
    firehose = {"messageType": "DATA_MESSAGE", "owner": "111122223333", "logGroup": "bedrock", "logEvents": events}
    return {
        "s3.json.gz": gzip.compress("\n".join(told).encode()),
        "pretty.json": "\n".join(json.dumps(record, indent=2) for record in records()).encode(),
        "export.gz": gzip.compress("".join(f"2026-10-05T10:00:00.000Z {message}\n" for message in told).encode()),
        "firehose": (json.dumps({"messageType": "CONTROL_MESSAGE", "logEvents": []}) + json.dumps(firehose)).encode(),
        "filter.json": json.dumps({"events": events, "searchedLogStreams": []}, indent=4).encode(),
        "insights.json": json.dumps({"results": [[{"field": "@message", "value": message}] for message in told]}).encode(),
    }


@pytest.mark.parametrize("name", list(forms()))
def test_the_same_records_in_every_form_are_the_same_calls(name: str, tmp_path: Path) -> None:
    expected = read(SOURCE, LOG).frame.drop("raw_id").sort("span_id")
    reading = written(SOURCE, tmp_path, forms()[name], name)
    assert reading.problems == []
    assert reading.frame.drop("raw_id").sort("span_id").equals(expected)


def test_records_in_any_order_and_any_files_are_the_same_rows(tmp_path: Path) -> None:
    paths = []
    for number, part in enumerate((records()[4:], records()[:5])):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text("".join(json.dumps(record) + "\n" for record in reversed(part)))
    assert same_in_any_order(tmp_path, "bedrock-logs", paths) == 7


class Store:
    """An S3 prefix in memory, which notes what was fetched and which folders were looked into."""

    def __init__(self, keys: dict[str, datetime], mark: str | None = None, window: Window | None = None) -> None:
        self.keys, self.marked, self.window = keys, mark, window or Window()
        self.got, self.seen = list[str](), list[str]()

    def level(self, uri: str) -> tuple[list[str], list[ListedObject]]:
        stem = uri.rstrip("/") + "/"
        self.seen.append(stem)
        below = [k for k in self.keys if k.startswith(stem)]
        folders = sorted({stem + k[len(stem) :].split("/")[0] + "/" for k in below if "/" in k[len(stem) :]})
        return folders, [ListedObject(k, 10, "v", self.keys[k]) for k in below if "/" not in k[len(stem) :]]

    def list(self, uri: str) -> list[ListedObject]:
        return []

    def get(self, uri: str) -> RawObject:
        self.got.append(uri)
        return RawObject(uri, LOG, "x", 10)

    def checkpoint(self, key: str) -> str | None:
        return self.marked


BASE = "s3://logs/bedrock/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1"


def planned(store: Store) -> list[Batch]:
    found: Iterator[Any] = SOURCE.plan(store, "s3://logs/bedrock")  # type: ignore[arg-type]
    return [one for one in found if isinstance(one, Batch)]


def test_of_a_bucket_only_what_is_new_is_fetched_and_bodies_never() -> None:
    def at(day: int, hour: int) -> datetime:
        return datetime(2026, 10, day, hour, 5, tzinfo=UTC)

    keys = {f"{BASE}/2026/10/{day:02d}/{hour:02d}/{day}{hour}_a.json.gz": at(day, hour) for day in (1, 2, 5) for hour in (9, 10)}
    keys |= {
        f"{BASE}/2026/10/05/10/data/x_input.json.gz": at(5, 10),
        "s3://logs/bedrock/amazon-bedrock-logs-permission-check": at(1, 1),
    }
    first = Store(keys)
    slices = planned(first)
    assert len(first.got) == 6
    assert not [uri for uri in first.got if "/data/" in uri]
    [(prefix, mark)] = slices[-1].checkpoints.items()
    assert (prefix, mark) == ("s3://logs/bedrock", at(5, 10).isoformat())
    late = f"{BASE}/2026/10/05/11/511_a.json.gz"
    second = Store(keys | {late: at(5, 11)}, mark)
    planned(second)
    assert second.got == [f"{BASE}/2026/10/05/10/510_a.json.gz", late], "the last object again, for the overlap"
    assert not [uri for uri in second.seen if "/10/01/" in uri or "/10/02/" in uri]
    window = Store(keys, mark, Window(date(2026, 10, 2), date(2026, 10, 3)))
    assert not [one for one in planned(window) if one.checkpoints]
    assert {uri.split("/")[10] for uri in window.got} == {"01", "02"}, "a day before, for calls that began then"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("ENDPOINT_URL", f"http://{host}:{port}")):
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="logs")
    yield client
    server.stop()


@pytest.mark.clock
def test_through_s3_twice_is_once_and_bodies_stay_where_they_are(books: Books, bucket: Any) -> None:
    key = f"{BASE.removeprefix('s3://logs/')}/{datetime.now(UTC):%Y/%m/%d}/10/written_0f.json.gz"
    bucket.put_object(Bucket="logs", Key=key, Body=gzip.compress(LOG.read_bytes()))
    bucket.put_object(Bucket="logs", Key=key.replace("/written", "/data/written"), Body=b"SECRET")
    first = ingest(books, "bedrock-logs", ["s3://logs/bedrock"])
    assert (first.rows, first.problems) == (7, [])
    again = ingest(books, "bedrock-logs", ["s3://logs/bedrock"])
    assert (again.rows_changed, again.problems) == (0, [])
    more = json.dumps(records()[0] | {"requestId": "later"})
    bucket.put_object(Bucket="logs", Key=key.replace("_0f", "_10"), Body=gzip.compress(more.encode()))
    assert ingest(books, "bedrock-logs", ["s3://logs/bedrock"]).rows_changed == 1
    assert books.store.scan(SPANS).collect().height == 8


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    told = records()[:4]
    told[0]["requestId"] = None
    told[1]["timestamp"] = "later"
    told[2]["input"]["inputTokenCount"] = -4
    reading = written(SOURCE, tmp_path, "".join(json.dumps(r) + "\n" for r in told) + '{"schemaType": "Mod')
    assert reading.frame.height == 1
    assert [p.field for p in reading.problems] == ["requestId", "timestamp", "inputTokenCount", "line"]
    assert [p.place for p in reading.problems] == ["line 1", "line 2", "line 3", "line 5"]
    with pytest.raises(FormatError, match="no model invocation log"):
        written(SOURCE, tmp_path, '{"some": "thing"}\n')


def test_tokens_that_are_only_counted_are_no_call(tmp_path: Path) -> None:
    record = records()[0] | {"operation": "CountTokens"}
    [row] = written(SOURCE, tmp_path, json.dumps(record)).frame.to_dicts()
    assert row["usage_scope"] is None


def test_a_log_cut_off_anywhere_gives_its_whole_records(tmp_path: Path) -> None:
    assert survives_cuts(SOURCE, tmp_path, LOG.read_bytes(), "log.jsonl") > 50
    survives_cuts(SOURCE, tmp_path, gzip.compress(LOG.read_bytes()), "log.json.gz")
    survives_cuts(SOURCE, tmp_path, forms()["export.gz"], "export.gz")


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, LOG, PLAIN), "SECRET")


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, records())
