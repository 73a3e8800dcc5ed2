"""Codex's session files: each answer once, copies of what came before left out, sub-agents under the session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.sources.codex.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
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

FOLDER = DATA / "codex"
PARENT, CHILD = sorted(FOLDER.glob("rollout-*.jsonl"))
RATES = {
    "gpt-5.3-codex": ("openai", {"input_tokens": "0.000002", "cache_read_tokens": "0.0000002", "output_tokens": "0.000014"}),
    "gpt-5.1-codex-mini": (
        "openai",
        {"input_tokens": "0.00000025", "cache_read_tokens": "0.000000025", "output_tokens": "0.000002"},
    ),
}


def totals(path: Path) -> list[dict[str, int]]:
    """The totals a file tells, in order, read with json alone."""
    payloads = [json.loads(line)["payload"] for line in path.read_text().splitlines()]
    return [p["info"]["total_token_usage"] for p in payloads if p.get("type") == "token_count" and p.get("info")]


def test_answers_sum_to_the_sessions_last_total() -> None:
    answers = [row for row in rows(SOURCE, PARENT) if row["usage_scope"]]
    last = totals(PARENT)[-1]
    assert len(totals(PARENT)) == 3, "one of them told twice"
    assert [row["input_tokens"] for row in answers] == [4000, 5000]
    for column, name in (
        ("input_tokens", "input_tokens"),
        ("cache_read_tokens", "cached_input_tokens"),
        ("output_tokens", "output_tokens"),
        ("reasoning_tokens", "reasoning_output_tokens"),
    ):
        assert sum(row[column] for row in answers) == last[name]
    assert {(row["input_includes_cache"], row["output_includes_reasoning"]) for row in answers} == {(True, True)}


def test_a_sub_agents_copy_of_its_session_is_not_counted_again() -> None:
    answers = [row for row in rows(SOURCE, CHILD) if row["usage_scope"]]
    first, last = totals(PARENT)[-1], totals(CHILD)[-1]
    assert sum(row["input_tokens"] for row in answers) == last["input_tokens"] - first["input_tokens"] == 13000
    assert {row["response_model"] for row in answers} == {"gpt-5.1-codex-mini"}


def test_session_and_sub_agent_are_one_chain_and_cost_what_they_used(books: Books) -> None:
    booked(books, "codex", [PARENT, CHILD], rates=RATES, owners="agent,team\ncodex,Dev\n")
    [chain] = chains(books).to_dicts()
    mine = 2500 * D("0.000002") + 6500 * D("0.0000002") + 500 * D("0.000014")
    theirs = 1000 * D("0.00000025") + 12000 * D("0.000000025") + 500 * D("0.000002")
    assert (chain["initiator_agent"], chain["initiator_team"], chain["calls"]) == ("codex", "Dev", 4)
    assert chain["list_cost"] == mine + theirs
    assert sorted(calls(books)["executor_agent"].to_list()) == ["codex", "codex", "explorer", "explorer"]


def test_files_in_any_order_are_the_same_rows(tmp_path: Path) -> None:
    assert same_in_any_order(tmp_path, "codex", [PARENT, CHILD, FOLDER / "session-alpha.jsonl"]) == 3 + 3 + 3


def test_a_file_without_its_first_line_is_named_by_itself() -> None:
    """The fixture of ccusage: no session line, and totals that count reasoning beside the output."""
    session, first, second = rows(SOURCE, FOLDER / "session-alpha.jsonl")
    assert session["span_id"] == "session-alpha"
    assert (first["response_model"], first["output_tokens"], first["output_includes_reasoning"]) == ("gpt-5.2-codex", 125, False)
    assert (second["response_model"], second["input_tokens"], second["reasoning_tokens"]) == ("gpt-5.3-codex", 2500, 200)


def count(seconds: int, total: int, last: int | None) -> str:
    def told(tokens: int) -> dict[str, int]:
        return {
            "input_tokens": tokens,
            "cached_input_tokens": 0,
            "output_tokens": 0,
            "reasoning_output_tokens": 0,
            "total_tokens": tokens,
        }

    info: dict[str, Any] = {"total_token_usage": told(total)} | ({} if last is None else {"last_token_usage": told(last)})
    payload = {"type": "token_count", "info": info}
    return json.dumps({"timestamp": f"2026-10-05T10:00:{seconds:02d}Z", "type": "event_msg", "payload": payload}) + "\n"


def test_what_a_total_leaves_out_is_the_difference_and_a_total_that_falls_began_anew(tmp_path: Path) -> None:
    content = count(1, 100, None) + count(2, 250, None) + count(3, 250, None) + count(4, 30, 30)
    assert written(SOURCE, tmp_path, content).frame["input_tokens"].drop_nulls().to_list() == [100, 150, 30]


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    reading = written(SOURCE, tmp_path, count(1, -5, None) + count(2, 10, 10) + count(3, 20, 10)[:40])
    assert reading.frame["input_tokens"].drop_nulls().to_list() == [10]
    assert sorted((p.place, p.field) for p in reading.problems) == [
        ("line 1", "total_token_usage.input_tokens"),
        ("line 3", "line"),
    ]
    with pytest.raises(FormatError, match="no session of Codex"):
        written(SOURCE, tmp_path, '{"some": "thing"}\n')


def test_a_session_cut_off_anywhere_gives_its_whole_lines(tmp_path: Path) -> None:
    assert survives_cuts(SOURCE, tmp_path, PARENT.read_bytes(), PARENT.name) > 50


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, PARENT), "SECRET", "/path/to/demo")


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [json.loads(one) for one in CHILD.read_text().splitlines()])
