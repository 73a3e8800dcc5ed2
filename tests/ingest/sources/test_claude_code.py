"""Claude Code's session files: each message once, sub-agents under the session, and the cost to the last digit."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.run import ingest
from ingest.sources.claude_code.source import SOURCE
from ledger.books import Books
from ledger.errors import FormatError
from ledger.tables import SPANS
from tests.support.cli_books import Command
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

FOLDER = DATA / "claude_code"
SESSION = FOLDER / "5c0375b4-57a5-4f26-b12d-d022ee4e51b7.jsonl"
SONNET = {
    "input_tokens": D("0.000003"),
    "cache_creation_input_tokens": D("0.00000375"),
    "cache_read_input_tokens": D("0.0000003"),
    "output_tokens": D("0.000015"),
}
RATES = {
    "claude-sonnet-4-20250514": (
        "anthropic",
        {
            "input_tokens": "0.000003",
            "cache_write_5m_tokens": "0.00000375",
            "cache_read_tokens": "0.0000003",
            "output_tokens": "0.000015",
        },
    )
}


def told(path: Path) -> list[dict[str, Any]]:
    """Every line of a file that tells of usage, read with json alone."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [line for line in lines if isinstance(line.get("message"), dict) and line["message"].get("usage")]


def cost(usage: dict[str, Any]) -> Decimal:
    return sum((rate * usage[name] for name, rate in SONNET.items()), D(0))


def once(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last line of each message."""
    return {(line["message"]["id"], line["requestId"]): line for line in told(path)}


def test_a_session_costs_what_its_messages_cost_not_what_its_lines_say(books: Books) -> None:
    naive = sum((cost(line["message"]["usage"]) for line in told(SESSION)), D(0))
    right = sum((cost(line["message"]["usage"]) for line in once(SESSION).values()), D(0))
    assert (round(naive, 6), round(right, 6)) == (D("0.499062"), D("0.331151"))

    assert booked(books, "claude-code", [SESSION], rates=RATES) == []
    found = calls(books)
    assert found["list_cost"].sum() == right == D("0.33115095")
    assert found.height == len(once(SESSION)) == 20


def test_sub_agents_belong_to_the_session_that_asked_for_them(books: Books) -> None:
    by_agent: dict[bool, Decimal] = defaultdict(Decimal)
    for line in once(SESSION).values():
        by_agent[line["isSidechain"]] += cost(line["message"]["usage"])
    booked(books, "claude-code", [SESSION], rates=RATES, owners="agent,team\nclaude-code,Dev\n")
    [chain] = chains(books).to_dicts()
    assert (chain["initiator_agent"], chain["initiator_team"], chain["calls"]) == ("claude-code", "Dev", 20)
    got = dict(calls(books).group_by("executor_agent").agg(pl.col("list_cost").sum()).iter_rows())
    assert got == {"claude-code": by_agent[False], "general-purpose": by_agent[True]}
    assert calls(books)["initiator_agent"].unique().to_list() == ["claude-code"]


def test_sessions_of_a_folder_are_chains_of_their_own(books: Books) -> None:
    files = sorted(FOLDER.glob("*.jsonl"))
    booked(books, "claude-code", [FOLDER], rates=RATES)
    assert chains(books).height == len(files) == 3
    expected = sum((cost(line["message"]["usage"]) for file in files[:2] for line in once(file).values()), D(0))
    priced = calls(books).filter(pl.col("provider_request_id").str.starts_with("req_"))
    assert priced["list_cost"].sum() == expected


def line(kind: str, seconds: int, *, uuid: str = "u", output: int = 1, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": output, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 0}
    message = {"id": f"msg_{uuid}", "role": "assistant", "model": "claude-sonnet-4-20250514", "content": [], "usage": usage}
    if kind == "user":
        message = {"role": "user", "content": "do it"}
    base = {"type": kind, "uuid": uuid, "parentUuid": None, "isSidechain": False, "sessionId": "s-1", "message": message}
    return base | {"timestamp": f"2026-10-05T10:00:{seconds:02d}.000Z", "requestId": f"req_{uuid}"} | more


def lines(*told_lines: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in told_lines)


def test_a_sub_agent_in_a_file_of_its_own_hangs_where_it_was_asked_for(books: Books, tmp_path: Path) -> None:
    asked = line("assistant", 1, uuid="a")
    asked["message"]["content"] = [
        {"type": "tool_use", "id": "toolu_1", "name": "Task", "input": {"subagent_type": "reviewer", "prompt": "SECRET TASK"}}
    ]
    answered = line("user", 9, uuid="b", toolUseResult={"agentId": "ae1", "totalTokens": 5})
    answered["message"]["content"] = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "SECRET RESULT"}]
    main = tmp_path / "s-1.jsonl"
    main.write_text(lines(asked, answered))
    (tmp_path / "s-1" / "subagents").mkdir(parents=True)
    own = tmp_path / "s-1" / "subagents" / "agent-ae1.jsonl"
    own.write_text(
        lines(
            line("user", 2, uuid="c", isSidechain=True, agentId="ae1"),
            line("assistant", 3, uuid="d", isSidechain=True, agentId="ae1", parentUuid="c", output=40),
        )
    )
    no_content(read(SOURCE, main), "SECRET")
    booked(books, "claude-code", [tmp_path], rates=RATES)
    assert chains(books).select("initiator_agent", "calls").rows() == [("claude-code", 2)]
    assert sorted(calls(books)["executor_agent"]) == ["claude-code", "reviewer"]


def test_files_in_any_order_are_the_same_rows(tmp_path: Path) -> None:
    assert same_in_any_order(tmp_path, "claude-code", sorted(FOLDER.glob("*.jsonl"))) == 23 + 8 + 4


def test_a_message_that_telemetry_told_of_too_is_one_call(books: Books, tmp_path: Path) -> None:
    attributes = {"request_id": "req_a", "model": "claude-sonnet-4-20250514", "input_tokens": 3, "output_tokens": 5}
    attributes |= {"cache_read_tokens": 10, "cache_creation_tokens": 0, "session.id": "s-1"}
    told = [
        {"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for k, v in attributes.items()
    ]
    span = {"traceId": f"{7:032x}", "spanId": f"{7:016x}", "name": "claude_code.llm_request", "kind": 3, "attributes": told}
    span |= {"startTimeUnixNano": "1791194400000000000", "endTimeUnixNano": "1791194401000000000"}
    scope = {"name": "com.anthropic.claude_code.tracing"}
    export = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": scope, "spans": [span]}]}]}
    (tmp_path / "t.json").write_text(json.dumps(export))
    ingest(books, "otlp", [str(tmp_path / "t.json")])
    (tmp_path / "s.jsonl").write_text(lines(line("assistant", 1, uuid="a", output=5)))
    booked(books, "claude-code", [tmp_path / "s.jsonl"], rates=RATES)
    assert calls(books)["channels"].to_list() == ["claude-code+otlp"]


@pytest.mark.slow
def test_from_the_command_line(tmp_path: Path) -> None:
    rootcost = Command(tmp_path / "home")
    assert rootcost("ingest", "claude-code", FOLDER).code == 0
    assert rootcost("attribute").code == 0
    assert rootcost("ingest", "claude-code", tmp_path / "nowhere").code == 1


def test_a_resumed_session_repeats_the_same_calls(books: Books, tmp_path: Path) -> None:
    first = [line("assistant", 1, uuid="a", output=5), line("assistant", 2, uuid="b", output=7)]
    (tmp_path / "one.jsonl").write_text(lines(*first))
    again = [one | {"sessionId": "s-2"} for one in first] + [line("assistant", 9, uuid="c", output=9, sessionId="s-2")]
    (tmp_path / "two.jsonl").write_text(lines(*again))
    booked(books, "claude-code", [tmp_path], rates=RATES)
    assert sorted(calls(books)["output_tokens"]) == [5, 7, 9]


def test_a_session_read_while_it_is_written_ends_with_its_last_word(books: Books, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(lines(line("assistant", 1, output=3)))
    ingest(books, "claude-code", [str(path)])
    whole = lines(line("assistant", 1, output=3), line("assistant", 2, output=263))
    path.write_text(whole)
    ingest(books, "claude-code", [str(path)])
    path.write_text(lines(line("assistant", 1, output=3)))
    ingest(books, "claude-code", [str(path)])
    assert books.store.scan(SPANS).collect()["output_tokens"].drop_nulls().to_list() == [263]


def test_the_line_that_got_furthest_counts() -> None:
    found = rows(SOURCE, SESSION)
    assert len(found) == 23, "a session, two sub-agents, twenty messages"
    last = sum(line["message"]["usage"]["output_tokens"] for line in once(SESSION).values())
    assert sum(row["output_tokens"] or 0 for row in found) == last


def test_what_claude_code_writes_itself_is_no_call(tmp_path: Path) -> None:
    fault = line("assistant", 1)
    fault["message"]["model"] = "<synthetic>"
    summary = {"type": "summary", "summary": "SECRET", "leafUuid": "x"}
    reading = written(SOURCE, tmp_path, lines(summary, fault, {"type": "file-history-snapshot", "sessionId": "s-1"}))
    assert reading.problems == []
    assert reading.frame["usage_scope"].drop_nulls().is_empty()


def test_providers_tiers_and_searches_are_told_apart(tmp_path: Path) -> None:
    one = line("assistant", 1, uuid="a")
    one["message"] |= {"id": "msg_bdrk_01"}
    one["message"]["usage"] |= {"speed": "fast", "service_tier": "standard", "server_tool_use": {"web_search_requests": 2}}
    [row] = [r for r in written(SOURCE, tmp_path, lines(one)).frame.to_dicts() if r["usage_scope"]]
    assert (row["provider"], row["service_tier"], row["other_usage"]) == ("aws.bedrock", "fast", '{"web_searches": "2"}')


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    bad = line("assistant", 1, uuid="bad")
    bad["message"]["usage"]["output_tokens"] = -4
    content = (
        lines(bad, line("assistant", 2, uuid="late", timestamp=None), line("assistant", 3, uuid="good")) + '{"type": "assist'
    )
    reading = written(SOURCE, tmp_path, content)
    assert [row["span_id"] for row in reading.frame.to_dicts()] == ["s-1", "s-1/msg_good/req_good"]
    assert sorted((p.place, p.field) for p in reading.problems) == [
        ("line 1", "usage.output_tokens"),
        ("line 2", "timestamp"),
        ("line 4", "line"),
    ]
    with pytest.raises(FormatError, match="no session of Claude Code"):
        written(SOURCE, tmp_path, '{"some": "thing"}\n')


def test_a_session_cut_off_anywhere_gives_its_whole_lines(tmp_path: Path) -> None:
    grows = ["output_tokens", "end_time", "other_usage", "start_time", "agent_name"]
    assert survives_cuts(SOURCE, tmp_path, SESSION.read_bytes(), "s.jsonl", grows=grows) > 50


def test_nothing_that_was_said_gets_in() -> None:
    no_content(read(SOURCE, SESSION), "CLAUDE.md", "subtasks", "/path/to/Demo")


def test_nonsense_anywhere_is_told_or_refused(tmp_path: Path) -> None:
    survives_nonsense(SOURCE, tmp_path, [json.loads(one) for one in SESSION.read_text().splitlines()[:24]])
