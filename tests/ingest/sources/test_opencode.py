"""OpenCode's sessions: each request once, whether a database, a file or an export has it; copies in a fork are none."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.run import ingest
from ingest.sources.opencode.source import SOURCE
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

SAMPLE = DATA / "opencode/sample.jsonl"
SONNET = {
    "input_tokens": "0.000003",
    "cache_read_tokens": "0.0000003",
    "cache_write_5m_tokens": "0.00000375",
    "output_tokens": "0.000015",
}
RATES = {
    "claude-sonnet-4-6": ("anthropic", SONNET),
    "gpt-5-mini": ("openai", {"input_tokens": "0.00000025", "output_tokens": "0.000002"}),
    "anthropic.claude-haiku-4-5-20251001-v1:0": ("bedrock", {"input_tokens": "0.000001", "output_tokens": "0.000005"}),
}


def exports() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SAMPLE.read_text().splitlines()]


def database(path: Path) -> Path:
    """The same sessions as OpenCode's database has them."""
    with closing(sqlite3.connect(path)) as store:
        store.execute("CREATE TABLE session (id TEXT, parent_id TEXT, title TEXT, time_created INTEGER)")
        store.execute("CREATE TABLE message (id TEXT, session_id TEXT, data TEXT)")
        store.execute("CREATE TABLE part (id TEXT, message_id TEXT, session_id TEXT, data TEXT)")
        for export in exports():
            info = export["info"]
            store.execute(
                "INSERT INTO session VALUES (?, ?, ?, ?)",
                (info["id"], info.get("parentID"), info["title"], info["time"]["created"]),
            )
            for message in export["messages"]:
                data = {k: v for k, v in message["info"].items() if k not in ("id", "sessionID")}
                store.execute("INSERT INTO message VALUES (?, ?, ?)", (message["info"]["id"], info["id"], json.dumps(data)))
                for part in message["parts"]:
                    data = {k: v for k, v in part.items() if k not in ("id", "sessionID", "messageID")}
                    store.execute(
                        "INSERT INTO part VALUES (?, ?, ?, ?)", (part["id"], part["messageID"], info["id"], json.dumps(data))
                    )
        store.commit()
    return path


def storage(folder: Path) -> Path:
    """The same sessions as the files of older versions have them: requests within a message are files that are not read."""
    for export in exports():
        info = export["info"]
        files = {f"session/p/{info['id']}.json": info, f"session_diff/{info['id']}.json": [], f"todo/{info['id']}.json": []}
        files |= {f"message/{info['id']}/{m['info']['id']}.json": m["info"] for m in export["messages"]}
        files |= {f"part/{p['messageID']}/{p['id']}.json": p for m in export["messages"] for p in m["parts"]}
        for name, content in files.items():
            path = folder / "storage" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=2))
    return folder


def test_every_request_is_what_an_accountant_would_write() -> None:
    """A message of two requests, one whose output has reasoning in it, a failed one, a sub-agent's, a fork with a copy."""
    check_golden_folder(SOURCE, SAMPLE.parent)


def test_requests_cost_what_they_used_and_a_sub_agent_s_belong_to_the_session(books: Books) -> None:
    booked(books, "opencode", [SAMPLE], rates=RATES, owners="agent,team\nopencode,Dev\n")
    sonnet = (3000 + 10 + 900) * D("0.000003") + 9000 * D("0.0000003") + 1000 * D("0.00000375") + (100 + 80 + 70) * D("0.000015")
    mini = 100 * D("0.00000025") + 60 * D("0.000002")
    haiku = 500 * D("0.000001") + 40 * D("0.000005")
    frame = calls(books)
    assert frame["list_cost"].sum() == sonnet + mini + haiku
    assert frame["initiator_team"].unique().to_list() == ["Dev"]
    assert sorted(frame["executor_agent"].unique()) == ["explore", "opencode"]
    assert set(frame["provider"]) == {"Anthropic", "OpenAI", "AWS"}


def test_the_database_an_export_and_files_are_the_same_requests(books: Books, tmp_path: Path) -> None:
    columns = [c for c in SPANS.schema if c not in ("raw_id", "rank")]
    from_export = read(SOURCE, SAMPLE).frame.select(columns).sort("span_id")
    from_database = read(SOURCE, database(tmp_path / "opencode.db"))
    assert from_database.problems == []
    assert from_database.frame.select(columns).sort("span_id").equals(from_export)
    for uri in (tmp_path / "opencode.db", storage(tmp_path / "old"), SAMPLE):
        assert ingest(books, "opencode", [str(uri)]).problems == []
    spans = books.store.scan(SPANS).collect()
    # Only files cannot tell that a message of a fork is older than it: its session lies in another file.
    assert sorted(spans.filter(pl.col("span_id") != "ses_c/msg_0006")["span_id"]) == sorted(from_export["span_id"])


def test_faults_are_named_and_cost_only_themselves(tmp_path: Path) -> None:
    export = exports()[0]
    export["messages"][1]["parts"][1]["tokens"]["input"] = -5
    export["messages"][2]["info"]["time"] = {"created": "soon"}
    reading = written(SOURCE, tmp_path, json.dumps(export), "session.json")
    assert [(p.place, p.field) for p in reading.problems] == [
        ("line 1, message 2", "tokens.input"),
        ("line 1, message 3", "time.created"),
    ]
    assert sorted(reading.frame["span_id"]) == ["ses_a", "ses_a/msg_0002", "ses_a/msg_0004"]
    path = database(tmp_path / "opencode.db")
    with closing(sqlite3.connect(path)) as store:
        store.execute("UPDATE message SET data = '{' WHERE id = 'msg_0003'")
        store.commit()
    assert [(p.place, p.field) for p in read(SOURCE, path).problems] == [("message 3", "data")]
    for content in (b"SQLite format 3\x00 and no more", path.read_bytes()[:6000]):
        (tmp_path / "cut.db").write_bytes(content)
        with pytest.raises(FormatError, match="no readable database of OpenCode"):
            read(SOURCE, tmp_path / "cut.db")
    with pytest.raises(FormatError, match="no session of OpenCode"):
        written(SOURCE, tmp_path, '{"some": "thing"}\n')


@pytest.mark.slow
def test_files_in_any_order_and_cut_off_anywhere_give_their_rows(tmp_path: Path) -> None:
    other = tmp_path / "session-2.json"
    other.write_text("".join(json.dumps(line) + "\n" for line in reversed(exports())))
    assert same_in_any_order(tmp_path, "opencode", [SAMPLE, other]) == len(rows(SOURCE, SAMPLE))
    assert survives_cuts(SOURCE, tmp_path, SAMPLE.read_bytes(), SAMPLE.name) > 20
    survives_nonsense(SOURCE, tmp_path, exports())


def test_nothing_that_was_said_gets_in(tmp_path: Path) -> None:
    for path in (SAMPLE, database(tmp_path / "opencode.db")):
        no_content(read(SOURCE, path), "SECRET")
