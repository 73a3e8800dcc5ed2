"""`rootcost erase`: a plan by default, a report for machines, and nothing is said that names the person."""

from __future__ import annotations

import json
from pathlib import Path

from ledger.books import Books
from ledger.tables import SPANS
from tests.support.books_by_hand import span, spans, write
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
