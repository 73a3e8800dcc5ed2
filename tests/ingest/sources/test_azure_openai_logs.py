"""Azure OpenAI's and API Management's request logs: tokens, key and caller of one request, from records that each have a part of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingest import azure_blobs
from ingest.run import ingest
from ingest.sources.azure_openai_logs.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import SPANS
from tests.support.golden import check_golden_folder
from tests.support.log_sources import (
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
from tests.support.provider_server import SAS, Provider, serving

LOG = DATA / "azure_openai_logs/sample.jsonl"
RATES = {
    "gpt-4o-2024-08-06": ("azure", {"input_tokens": "0.0000025", "cache_read_tokens": "0.00000125", "output_tokens": "0.00001"}),
    "claude-sonnet-4-6": (
        "azure_ai",
        {"input_tokens": "0.000003", "cache_read_tokens": "0.0000003", "output_tokens": "0.000015"},
    ),
    "gpt-5-mini-2025-08-07": (
        "azure",
        {"input_tokens": "0.00000025", "cache_read_tokens": "0.000000025", "output_tokens": "0.000002"},
    ),
    "gpt-4o-mini-2024-07-18": ("azure", {"input_tokens": "0.00000015", "output_tokens": "0.0000006"}),
    "text-embedding-3-small": ("azure", {"input_tokens": "0.00000002"}),
}
OWNERS = "agent,team,credentials\nsupport-bot,Care,support-key\ncoder,Dev,coder-key\n"


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()]


def test_every_request_is_what_an_accountant_would_write() -> None:
    check_golden_folder(SOURCE, LOG.parent)
    account = next(row for row in rows(SOURCE, LOG) if row["principal"])
    assert account["resource_id"].endswith("/microsoft.cognitiveservices/accounts/acme-openai"), (
        "as on the bill, in small letters"
    )
    assert (account["account_id"], account["region"]) == ("00000000-aaaa-4000-8000-000000000001", "westeurope")
    assert account["start_time"] == datetime(2026, 10, 5, 9, 0, 1, tzinfo=UTC), "the ticks; the log's own time is later"


def test_tokens_and_key_of_one_request_are_one_call_and_its_cost_goes_to_the_key_s_owner(books: Books) -> None:
    booked(books, "azure-openai-logs", [LOG], rates=RATES, owners=OWNERS)
    frame = calls(books)
    by_team = {team: frame.filter(frame["initiator_team"] == team)["list_cost"].sum() for team in ("Care", "Dev")}
    chat = 176 * D("0.0000025") + 1024 * D("0.00000125") + 80 * D("0.00001")
    reasoning = 372 * D("0.00000025") + 128 * D("0.000000025") + 60 * D("0.000002")
    assert by_team["Care"] == chat + reasoning, (
        "of OpenAI's input the cached tokens are a part; the gateway's own answer costs nothing"
    )
    assert by_team["Dev"] == 26 * D("0.000003") + 48854 * D("0.0000003") + 1085 * D("0.000015"), "of Claude's they are not"
    assert sorted(frame["channels"]) == [
        "apim",
        "apim",
        "apim",
        "apim+apim-llm",
        "apim+apim-llm",
        "apim-llm",
        "apim-llm",
        "azure-openai-log",
    ]
    error_calls = frame.filter(frame["status"] == "error")
    assert error_calls["input_tokens"].to_list() == [None], "absent, not 0"


def test_a_gateway_in_front_that_passes_the_request_s_id_on_is_the_same_call(books: Books, tmp_path: Path) -> None:
    """LiteLLM has the chain's session and the tokens, the account who called."""
    payload = {
        "id": "chatcmpl-8",
        "litellm_call_id": "l-1",
        "call_type": "acompletion",
        "status": "success",
        "startTime": "2026-10-05T09:00:01Z",
        "endTime": "2026-10-05T09:00:02Z",
        "model": "azure/gpt-4o-2024-08-06",
        "custom_llm_provider": "azure",
        "prompt_tokens": 1000,
        "completion_tokens": 10,
        "hidden_params": {"additional_headers": {"llm_provider-apim-request-id": "00000000-0000-4000-8000-000000000008"}},
    }
    (tmp_path / "payload.json").write_text(json.dumps(payload))
    ingest(books, "litellm", [str(tmp_path / "payload.json")])
    booked(
        books,
        "azure-openai-logs",
        [LOG],
        rates=RATES,
        owners="agent,team,principals\nops,Ops,11111111-2222-4333-8444-555555555555\n",
    )
    [call] = calls(books).filter(calls(books)["channels"] == "azure-openai-log+litellm").to_dicts()
    assert (call["initiator_team"], call["method"]) == ("Ops", "principal")
    assert call["list_cost"] == 1000 * D("0.0000025") + 10 * D("0.00001")


def forms() -> dict[str, str]:
    log = records()
    names = sorted({name for record in log for name in record})
    table = {"name": "PrimaryResult", "columns": [{"name": name, "type": "string"} for name in names]}
    return {
        "eventhub.json": "\n".join(json.dumps({"records": log[n : n + 4]}) for n in range(0, len(log), 4)),
        "array.json": json.dumps(log, indent=1),
        "query.json": json.dumps({"tables": [table | {"rows": [[record.get(name) for name in names] for record in log]}]}),
    }


@pytest.mark.parametrize("name", list(forms()))
def test_the_same_records_in_every_form_are_the_same_rows(name: str, tmp_path: Path) -> None:
    rows_of_log = read(SOURCE, LOG).frame.drop("raw_id").sort("span_id", "channel")
    reading = written(SOURCE, tmp_path, forms()[name], name)
    assert reading.problems == []
    assert reading.frame.drop("raw_id").sort("span_id", "channel").equals(rows_of_log)


def test_records_in_any_order_are_the_same_rows(tmp_path: Path) -> None:
    paths = []
    for number, part in enumerate((records()[7:], records()[:9])):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text("".join(json.dumps(record) + "\n" for record in reversed(part)))
    assert same_in_any_order(tmp_path, "azure-openai-logs", paths) == 10


def test_a_path_that_other_apis_have_too_is_a_call_only_where_tokens_are_told(books: Books, tmp_path: Path) -> None:
    """A survey's responses are no answers of a model; the request of Claude is one, since `GatewayLlmLogs` says so."""
    survey = records()[2] | {"correlationId": "survey"}
    survey["properties"] = {"url": "https://acme-apim.azure-api.net/surveys/7/responses", "responseCode": 200, "apiId": "surveys"}
    (tmp_path / "survey.json").write_text(json.dumps(survey))
    booked(books, "azure-openai-logs", [LOG, tmp_path / "survey.json"], rates=RATES, owners=OWNERS)
    assert calls(books).height == 8


def test_counts_that_contradict_the_model_s_family_are_flagged_and_nonsense_is_named(tmp_path: Path) -> None:
    def record(**properties: Any) -> str:
        return json.dumps(records()[1] | {"properties": records()[1]["properties"] | properties}) + "\n"

    [row] = written(SOURCE, tmp_path, record(promptTokens=10)).frame.to_dicts()
    assert (row["input_tokens"], row["cache_read_tokens"], row["input_includes_cache"]) == (10, 1024, None)
    bad = (
        record(promptTokens=-1)
        + record(completionTokens=10**30)
        + json.dumps(records()[1] | {"time": "soon"})
        + "\n"
        + json.dumps(records()[1] | {"correlationId": None})
        + "\n"
        + json.dumps({"records": [records()[1] | {"correlationId": ["x"]}, "x", records()[1]]})
    )
    reading = written(SOURCE, tmp_path, bad)
    assert [(p.place, p.field) for p in reading.problems] == [
        ("line 1", "promptTokens"),
        ("line 2", "completionTokens"),
        ("line 3", "time"),
        ("line 4", "correlationId"),
        ("line 5, record 1", "correlationId"),
        ("line 5, record 2", "record"),
    ]
    assert reading.frame.height == 1, "what is whole beside it is read"
    with pytest.raises(FormatError, match="no request log of Azure OpenAI") as error:
        written(
            SOURCE,
            tmp_path,
            json.dumps({"category": "AzureOpenAIRequestUsage", "time": "2026-10-05T09:00:00Z", "properties": {}}),
        )
    assert "GatewayLlmLogs" in error.value.remedy


def test_logs_cut_off_or_spoilt_anywhere_give_what_is_whole(tmp_path: Path) -> None:
    assert survives_cuts(SOURCE, tmp_path, LOG.read_bytes(), LOG.name) > 50
    survives_nonsense(SOURCE, tmp_path, records())


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, LOG), "SECRET", "192.0.2")


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv(azure_blobs.KEY, f"?{SAS}")
    monkeypatch.setattr("ingest.http.FIRST_PAUSE_SECONDS", 0.001)
    with serving() as provider:
        yield provider


def test_a_container_is_read_from_blob_storage_and_then_only_what_is_new(books: Books, azure: Provider) -> None:
    hour = "insights-logs-gatewayllmlogs/resourceId=/X/y=2026/m=10/d=05/h={:02d}/m=00/PT1H.json"
    lines = LOG.read_text().splitlines(keepends=True)
    azure.blobs = {hour.format(9): "".join(lines[:4]).encode(), hour.format(10): "".join(lines[4:]).encode()}
    report = ingest(books, "azure-openai-logs", [f"{azure.address}/insights-logs-gatewayllmlogs"])
    assert (report.problems, books.store.scan(SPANS).collect().height) == ([], 10)
    second = ingest(books, "azure-openai-logs", [f"{azure.address}/insights-logs-gatewayllmlogs"])
    assert (second.rows_changed, second.problems) == (0, [])
