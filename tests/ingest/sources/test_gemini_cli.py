"""Gemini CLI's session files: each answer once, however often its message is written, and sub-agents under their session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.sources.gemini_cli.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.golden import check_golden_folder
from tests.support.log_sources import (
    D,
    booked,
    calls,
    chains,
    no_content,
    read,
    rows,
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

SAMPLE = DATA / "gemini_cli/sample.jsonl"
SESSION = "0f1e2d3c-0000-4000-8000-000000000001"
PRO = {"input_tokens": "0.00000125", "cache_read_tokens": "0.000000125", "output_tokens": "0.00001"}
FLASH = {"input_tokens": "0.0000003", "cache_read_tokens": "0.00000003", "output_tokens": "0.0000025"}
RATES = {"gemini-2.5-pro": ("gemini", PRO), "gemini-2.5-flash": ("gemini", FLASH)}


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SAMPLE.read_text().splitlines()]


def test_every_answer_is_what_an_accountant_would_write() -> None:
    """One answer is written four times, one was rewound, one is only in the list that a compression left, one has no counts."""
    check_golden_folder(SOURCE, SAMPLE.parent)


def test_a_session_and_its_sub_agent_are_one_chain_and_cost_what_they_used(books: Books, tmp_path: Path) -> None:
    child = tmp_path / "chats" / SESSION / "0f1e2d3c-0000-4000-8000-000000000009.jsonl"
    child.parent.mkdir(parents=True)
    message = lines()[4] | {
        "id": "x",
        "tokens": {"input": 100, "output": 10, "cached": 0, "thoughts": 20, "tool": 0, "total": 130},
    }
    head = {"sessionId": child.stem, "projectHash": "abc", "startTime": "2026-10-05T09:00:04.000Z", "kind": "subagent"}
    child.write_text(json.dumps(head) + "\n" + json.dumps(message) + "\n")
    booked(books, "gemini-cli", [SAMPLE, child], rates=RATES, owners="agent,team\ngemini-cli,Dev\n")
    [chain] = chains(books).to_dicts()
    pro = (8000 + 1100 + 100) * D("0.00000125") + 8000 * D("0.000000125") + (420 + 50 + 30) * D("0.00001")
    flash = 1015 * D("0.0000003") + 8000 * D("0.00000003") + 80 * D("0.0000025")
    assert (chain["initiator_team"], chain["calls"], chain["list_cost"]) == ("Dev", 4, pro + flash)
    assert set(calls(books)["provider"]) == {"Google Cloud"}, "nobody else sells Gemini"


def test_the_document_of_older_versions_is_the_same_session(tmp_path: Path) -> None:
    messages = {
        line["id"]: line
        for line in lines()
        if (line.get("type") and line.get("tokens") is not None) or line.get("type") == "user"
    }
    messages |= {line["id"]: line for line in lines()[-1]["$set"]["messages"]}
    document = json.dumps({**lines()[0], "messages": list(messages.values())}, indent=2)
    reading = written(SOURCE, tmp_path, document, "session-2026-10-05T09-00-0f1e2d3c.json")
    assert reading.problems == []
    columns = ["span_id", "start_time", "response_model", "input_tokens", "output_tokens", "reasoning_tokens"]
    assert reading.frame.select(columns).sort("span_id").equals(read(SOURCE, SAMPLE).frame.select(columns).sort("span_id"))


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    bad = lines()[4] | {"id": "bad", "tokens": {"input": -1, "output": 10**30}}
    document = {**lines()[0], "messages": [bad, lines()[4], lines()[6] | {"timestamp": "soon"}]}
    reading = written(SOURCE, tmp_path, json.dumps(document) + "\n" + json.dumps(bad) + "\n")
    assert [(p.place, p.field) for p in reading.problems] == [
        ("line 2", "tokens.input"),
        ("line 1, message 1", "tokens.input"),
        ("line 1, message 3", "timestamp"),
    ]
    assert reading.frame["input_tokens"].drop_nulls().to_list() == [8000]
    with pytest.raises(FormatError, match="no session of Gemini CLI"):
        written(SOURCE, tmp_path, '{"some": "thing"}\n')


@pytest.mark.slow
def test_files_in_any_order_and_cut_off_anywhere_give_their_rows(tmp_path: Path) -> None:
    other = tmp_path / "session-2.jsonl"
    other.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines())))
    assert same_in_any_order(tmp_path, "gemini-cli", [SAMPLE, other]) == len(rows(SOURCE, SAMPLE))
    assert survives_cuts(SOURCE, tmp_path, SAMPLE.read_bytes(), SAMPLE.name) > 50
    survives_nonsense(SOURCE, tmp_path, lines())


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, SAMPLE), "SECRET", "read_file")
