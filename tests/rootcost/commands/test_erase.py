"""`rootcost erase`: a plan by default, a report for machines, and nothing is said that names the person."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attribution import removal
from attribution.run import attribute
from ledger.books import Books
from ledger.tables import SPANS
from tests.support.books_by_hand import SONNET, charge, charges, span, spans, write
from tests.support.cli_books import Command

ANN = "ann@example.com"


def test_the_plan_changes_nothing_and_a_yes_erases(home: Path) -> None:
    with Books.open(home) as books:
        write(books, spans=spans(span(1, 1, end_user=ANN), span(2, 2, end_user="bob@example.com")))
    rootcost = Command(home)
    plan = rootcost("erase", "person", ANN)
    assert (plan.code, plan.out.splitlines()[0].split()) == (0, ["spans", "1", "row"])
    assert "Nothing was changed. To erase: the same command with --yes" in plan.err
    assert rootcost("erase", "person", "nn@example.com").out.strip() == "No record names this person."
    for arguments, expected_text in ((["an"], "too short"), ([ANN, "--reason", f"{ANN} asked"], "names the person")):
        refusal = rootcost("erase", "person", *arguments, "--yes")
        assert refusal.code == 2
        assert expected_text in refusal.err
    report = json.loads(rootcost("erase", "person", ANN, "--yes", "--reason", "asked for", "--format", "json").out)
    assert (report["rows"], report["is_purged"]) == ({"spans": 1}, True)
    with Books.open(home) as books:
        users = books.store.scan(SPANS).collect().sort("trace_key")["end_user"].to_list()
    assert users[0].startswith("erased-")
    assert users[1] == "bob@example.com"
    assert ANN not in rootcost("audit", "list", "--format", "json").out


@pytest.mark.slow
def test_a_period_is_planned_erased_and_told_by_verify_and_attribute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "now", lambda: datetime(2027, 1, 15, tzinfo=UTC))
    with Books.open(home) as books:
        facts = spans(span(1, 1, agent_name="bot"), span(1, 2, 1, input_tokens=7000, **SONNET))
        write(books, spans=facts, charges=charges(charge("0.03", tokens_k="10.0")))
        attribute(books)
    rootcost = Command(home)
    period = ("erase", "period", "--from", "2026-10", "--to", "2026-11", "--source", "otlp")
    plan = rootcost(*period)
    assert [line.split() for line in plan.out.splitlines()[:3]] == [
        ["calls", "1", "row"],
        ["chains", "1", "row"],
        ["spans", "2", "rows"],
    ]
    assert "The costs of 2026-10 stay as they are published, and are not computed again." in plan.out
    assert "Nothing was changed. To erase: the same command with --yes" in plan.err
    assert json.loads(rootcost(*period, "--yes", "--format", "json").out)["settled"] == ["2026-10"]
    assert "There are no such facts." in rootcost(*period, "--yes").out
    assert "Not rebuilt, since facts of theirs were removed: 2026-10" in rootcost("attribute", "--again").err
    assert "2026-10: control totals agree (facts removed on 2027-01-15 by erasure)" in rootcost("verify").out
    for arguments, expected_text in (
        (("--from", "2026-11", "--to", "2026-10"), "the period is empty"),
        (("--from", "2026-10", "--to", "2027-02"), "the period is not over"),
        (("--from", "2026-10", "--to", "2026-11", "--source", "oltp"), "did you mean otlp?"),
    ):
        refusal = rootcost("erase", "period", *arguments)
        assert (refusal.code, expected_text in refusal.err) == (2, True), refusal.err
