"""CH-7a: what a gateway's client sends is its word; the key that the gateway authenticated bounds it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from attribution.run import attribute
from ledger.books import Books
from ledger.tables import COSTS, PROBLEMS
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write
from tests.support.cli_books import Command
from tests.support.paths import ROOT

CASE = ROOT / "tests" / "data" / "cases" / "matching-07"
D = Decimal
LOG: dict[str, Any] = {**SONNET, "channel": "litellm", "source": "litellm"}
OWNERS = "agent,team,credentials\nalice,A,alice-key\nbob,B,bob-key\nbobby,B,\n"


def costs(books: Books) -> pl.DataFrame:
    """Cost by team, agent and whether a claim was dropped."""
    attribute(books)
    rows = books.store.scan(COSTS).collect().with_columns(conflict=pl.col("reason").str.contains("claim_conflict"))
    return (
        rows.group_by("initiator_team", "initiator_agent", "conflict").agg(pl.col("effective_cost").sum()).sort("initiator_team")
    )


@pytest.mark.parametrize("file", ["session", "trace", "agent"])
def test_ch7a_a_client_cannot_move_its_cost_to_another_team(home: Path, file: str) -> None:
    rootcost = Command(home)
    rootcost("agents", "import", CASE / "registry.csv")
    rootcost("ingest", "otlp", CASE / "spans.json")
    rootcost("ingest", "litellm", CASE / f"{file}.jsonl")
    rootcost("ingest", "focus", CASE / "bill.csv")
    with Books.open(home) as books:
        table = costs(books)
        assert table.select("initiator_team", "conflict", "effective_cost").rows() == [("B", True, D("2.00"))]
        problems = books.store.scan(PROBLEMS).collect().filter(pl.col("reason").str.starts_with("claim_conflict"))
        conflicts = books.store.scan(COSTS).filter(pl.col("reason").str.contains("claim_conflict")).collect()
        assert problems.select("cost", "currency").rows() == [(conflicts["effective_cost"].sum(), "USD")]


def test_ch7a_a_client_may_choose_an_agent_of_its_own_team(books: Books) -> None:
    """bobby began the conversation; a key of the same team goes on with it."""
    root = span(1, 1, agent_name="bobby", conversation_id="c")
    log = span(2, 2, input_tokens=1000, conversation_id="c", credential="bob-key", **LOG)
    write(books, spans=spans(root, log), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
    assert costs(books).rows() == [("B", "bobby", False, D("0.003"))]


def test_ch7a_an_id_that_keys_of_several_teams_share_joins_nothing(books: Books) -> None:
    """Both clients say "default". Each pays for its own key, and alice's agent is not everybody's."""
    root = span(1, 1, agent_name="alice", conversation_id="default")
    rows = [
        span(n, n, input_tokens=1000, conversation_id="default", credential=key, gateway_call_id=f"g{n}", **LOG)
        for n, key in ((2, "alice-key"), (3, "bob-key"))
    ]
    write(books, spans=spans(root, *rows), charges=charges(charge("0.006", tokens_k="2")), owners=OWNERS)
    assert costs(books).select("initiator_team", "effective_cost").rows() == [("A", D("0.003")), ("B", D("0.003"))]


def test_ch7a_a_trusted_gateway_is_believed(books: Books) -> None:
    """The operator of the gateway vouches for what its clients send."""
    (books.home / "rootcost.toml").write_text('[ingest]\ntrusted_sources = ["litellm"]\n', encoding="utf-8")
    root = span(1, 1, agent_name="alice", conversation_id="c")
    log = span(2, 2, input_tokens=1000, conversation_id="c", credential="bob-key", **LOG)
    with Books.open(books.home) as ledger:
        write(ledger, spans=spans(root, log), charges=charges(charge("0.003", tokens_k="1")), owners=OWNERS)
        assert costs(ledger).select("initiator_team", "effective_cost").rows() == [("A", D("0.003"))]
