"""Exports of Portkey, Helicone and LangSmith: each request once, by the provider's own counts where they are there, and estimates that never book."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.source import Source
from ingest.sources import helicone, langsmith, portkey
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
    same_in_any_order,
    survives_cuts,
    survives_nonsense,
    written,
)
from tests.support.paths import DATA

SOURCES: dict[str, Source] = {source.name: source for source in (portkey.SOURCE, helicone.SOURCE, langsmith.SOURCE)}
GPT4O = {"input_tokens": "0.0000025", "cache_read_tokens": "0.00000125", "output_tokens": "0.00001"}
SONNET = {
    "input_tokens": "0.000003",
    "cache_read_tokens": "0.0000003",
    "cache_write_5m_tokens": "0.00000375",
    "output_tokens": "0.000015",
}
RATES = {"gpt-4o-2024-08-06": ("openai", GPT4O), "claude-sonnet-4-6": ("anthropic", SONNET)}
PLAIN = D("0.0038")
"""1200 tokens in and 80 out of gpt-4o."""
CACHED = 176 * D("0.0000025") + 1024 * D("0.00000125") + 80 * D("0.00001")
CLAUDE = 26 * D("0.000003") + 48854 * D("0.0000003") + 85 * D("0.000015")


def sample(name: str) -> Path:
    return DATA / name / "sample.jsonl"


def records(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sample(name).read_text().splitlines()]


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_request_is_what_an_accountant_would_write(name: str) -> None:
    check_golden_folder(SOURCES[name], DATA / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOURCES))
def test_pages_and_lines_in_any_order_cut_off_or_spoilt_give_what_is_whole(name: str, tmp_path: Path) -> None:
    source, content = SOURCES[name], sample(name).read_bytes()
    page = tmp_path / "page.json"
    page.write_text(json.dumps({"data": list(reversed(records(name)))}, indent=1))
    assert read(source, page).problems == []
    assert same_in_any_order(tmp_path, name, [sample(name), page]) == len(records(name))
    assert survives_cuts(source, tmp_path, content, "cut.jsonl") > 20
    survives_nonsense(source, tmp_path, records(name), tries=30)
    no_content(read(source, sample(name)), "SECRET")


def test_portkey_s_own_counts_give_way_to_the_provider_s_and_keys_own_their_requests(books: Books) -> None:
    """Portkey counts 48 880 in; Anthropic's own usage in the answer says that 48 854 of them were read from the cache."""
    owners = "agent,team,credentials\nsupport-bot,Care,support-key\ncoder,Dev,coder-key\n"
    booked(books, "portkey", [sample("portkey")], rates=RATES, owners=owners)
    frame = calls(books).filter(pl.col("model").is_in(["gpt-4o", "claude-sonnet-4-6"]))
    costs = dict(frame.group_by("initiator_team").agg(pl.col("list_cost").sum()).iter_rows())
    assert costs == {"Care": PLAIN, "Dev": CLAUDE}, "what the gateway's cache answered costs nothing"


def test_a_client_of_portkey_cannot_charge_another_team(books: Books) -> None:
    """The first request's metadata names the agent of another team than its key's."""
    owners = "agent,team,credentials\nsupport-bot,Growth,\nhelpdesk,Care,support-key\n"
    booked(books, "portkey", [sample("portkey")], rates=RATES, owners=owners)
    assert "Growth" not in calls(books)["initiator_team"].to_list()


def test_helicone_s_counts_are_read_as_its_cost_requires(books: Books) -> None:
    """Of two requests with 1024 cached tokens one counts them in its prompt, the other beside it; the latter's cost says so."""
    booked(books, "helicone", [sample("helicone")], rates=RATES)
    frame = calls(books)
    assert frame["list_cost"].drop_nulls().to_list() == [PLAIN, CLAUDE, CACHED, 0, PLAIN + 976 * D("0.00000125")]
    assert frame.filter(pl.col("status") == "error")["input_tokens"].to_list() == [None]


def test_runs_of_langsmith_are_a_chain_and_only_models_have_usage(books: Books, tmp_path: Path) -> None:
    rows = [
        {
            name: json.dumps(value)
            if isinstance(value, (dict, list))
            else str(value)
            if name == "total_cost" and value
            else value
            for name, value in record.items()
        }
        for record in records("langsmith")
    ]
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "runs.parquet")
    columns = [
        "span_id",
        "parent_span_id",
        "operation",
        "input_tokens",
        "cache_read_tokens",
        "reported_cost",
        "claimed_team",
        "conversation_id",
    ]
    exported, paged = (
        read(langsmith.SOURCE, path).frame.select(columns) for path in (tmp_path / "runs.parquet", sample("langsmith"))
    )
    assert exported.equals(paged)
    booked(books, "langsmith", [sample("langsmith")], rates=RATES)
    [chain] = chains(books).to_dicts()
    assert (chain["calls"], chain["list_cost"]) == (
        4,
        CACHED + 40 * D("0.000003") + 50 * D("0.0000003") + 20 * D("0.00000375") + 35 * D("0.000015"),
    )


def test_a_field_that_an_export_lacks_is_named_with_the_remedy(tmp_path: Path) -> None:
    first = records("portkey")[0]
    reading = written(
        portkey.SOURCE,
        tmp_path,
        "".join(
            json.dumps(record) + "\n"
            for record in (
                {name: value for name, value in first.items() if name != "id"},
                first | {"created_at": "soon"},
                first | {"req_units": -5},
                first | {"cost": "dear"},
                first,
            )
        ),
    )
    assert [(p.place, p.field) for p in reading.problems] == [
        ("line 1", "id"),
        ("line 2", "created_at"),
        ("line 3", "req_units"),
        ("line 4", "cost"),
    ]
    assert reading.problems[0].remedy == "request the export with the field id"
    assert reading.frame.height == 1
    with pytest.raises(FormatError, match="no export of Helicone's requests") as error:
        written(helicone.SOURCE, tmp_path, "response_id,model,prompt_tokens\nr-1,gpt-4o,5\n", "helicone.csv")
    assert "--format jsonl" in error.value.remedy
    for source in SOURCES.values():
        with pytest.raises(FormatError):
            written(source, tmp_path, '{"some": "thing"}\n')
