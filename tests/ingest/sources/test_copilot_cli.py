"""Copilot CLI's session files: the tokens of each run once, whether totals begin anew on resuming or go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.sources.copilot_cli.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from tests.support.golden import check_golden_folder
from tests.support.log_sources import (
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

SAMPLE = DATA / "copilot_cli/sample.jsonl"


def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SAMPLE.read_text().splitlines()]


def run(seconds: int, messages: list[int], **usage: int) -> str:
    """The answers of a run, with their output, and its shutdown."""
    lines: list[tuple[int, str, dict[str, Any]]] = [
        (number, "assistant.message", {"outputTokens": output}) for number, output in enumerate(messages)
    ]
    lines.append((len(messages), "session.shutdown", {"modelMetrics": {"gpt-5-mini": {"usage": usage}}}))
    return "".join(
        json.dumps(
            {"type": kind, "id": f"{seconds}-{number}", "timestamp": f"2026-10-05T09:00:{seconds + number:02d}Z", "data": data}
        )
        + "\n"
        for number, kind, data in lines
    )


def test_every_run_is_what_an_accountant_would_write() -> None:
    """In the second run every total is larger than in the first; its answers say that it counts for itself."""
    check_golden_folder(SOURCE, SAMPLE.parent)


def test_a_session_is_its_agent_s_and_github_sells_it(books: Books) -> None:
    booked(books, "copilot-cli", [SAMPLE], owners="agent,team\ncopilot-cli,Dev\n")
    frame = calls(books)
    assert (set(frame["provider"]), set(frame["initiator_team"]), frame.height) == ({"GitHub"}, {"Dev"}, 4)
    assert frame["input_tokens"].sum() == 111529 - 86021 - 25483 + 2000 + 20000 + 2100, "cached tokens are a part of the input"


@pytest.mark.parametrize(
    ("second", "used"),
    [
        (run(10, [30], inputTokens=300, outputTokens=30), [100, 300]),  # its answers sum to its total
        (run(10, [30], inputTokens=300, outputTokens=50), [100, 200]),  # the answers of both runs do
        (run(10, [], inputTokens=100, outputTokens=20), [100]),  # nothing was added
        (run(10, [5], inputTokens=40, outputTokens=5), [100, 40]),  # a count fell
        (run(10, [], inputTokens=300, outputTokens=50), [100, 200]),
    ],
)
def test_totals_begin_anew_or_go_on_as_the_answers_say(tmp_path: Path, second: str, used: list[int]) -> None:
    first = run(0, [12, 8], inputTokens=100, outputTokens=20)
    assert written(SOURCE, tmp_path, first + second).frame["input_tokens"].drop_nulls().to_list() == used


def test_a_run_without_a_shutdown_is_a_problem_and_not_nothing(tmp_path: Path) -> None:
    reading = written(SOURCE, tmp_path, "".join(json.dumps(event) + "\n" for event in events()[:-1]))
    assert [(p.place, p.field) for p in reading.problems] == [("end of file", "session.shutdown")]
    assert "1 answers were followed by no shutdown" in reading.problems[0].reason
    assert reading.frame["input_tokens"].drop_nulls().to_list() == [111529, 2000]


def test_counts_that_cannot_be_are_named_or_flagged(tmp_path: Path) -> None:
    bad = run(0, [], inputTokens=-1) + run(10, [], inputTokens=10, cacheReadTokens=90) + run(20, [], inputTokens=10**30)
    reading = written(SOURCE, tmp_path, bad)
    field = "modelMetrics.gpt-5-mini.usage.inputTokens"
    assert [(p.place, p.field) for p in reading.problems] == [("line 1", field), ("line 3", field)]
    [row] = [row for row in reading.frame.to_dicts() if row["usage_scope"]]
    assert (row["input_tokens"], row["cache_read_tokens"], row["input_includes_cache"]) == (10, 90, None)
    with pytest.raises(FormatError, match="no session of Copilot CLI"):
        written(SOURCE, tmp_path, '{"some": "thing"}\n')


def test_files_in_any_order_and_cut_off_anywhere_give_their_rows(tmp_path: Path) -> None:
    other = tmp_path / "events.jsonl"
    other.write_text(run(0, [3], inputTokens=5, outputTokens=3))
    assert same_in_any_order(tmp_path, "copilot-cli", [SAMPLE, other]) == len(rows(SOURCE, SAMPLE)) + 2
    assert survives_cuts(SOURCE, tmp_path, SAMPLE.read_bytes(), SAMPLE.name) > 50
    survives_nonsense(SOURCE, tmp_path, events())


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, SAMPLE), "SECRET")
