"""`rootcost audit`: the contract for machines, the head, and what `rootcost verify` says of a damaged log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.books import Books
from tests.support.audit_damage import append
from tests.support.cli_books import Command


@pytest.fixture
def rootcost(home: Path) -> Command:
    with Books.open(home) as books:
        append(books.database, "ann", 5)
    return Command(home)


def test_the_log_is_verified_listed_and_its_head_is_kept(rootcost: Command, home: Path) -> None:
    whole = rootcost("audit", "verify", "--format", "json")
    document = json.loads(whole.out)
    assert (whole.code, document["entries"], document["verified"], document["first_bad"]) == (0, 5, 5, None)
    head = rootcost("audit", "head").out.strip()
    assert head == document["head"]
    entry_rows = json.loads(rootcost("audit", "list", "--actor", "ann", "--limit", "2", "--format", "json").out)
    assert [(entry["sequence"], entry["object"]) for entry in entry_rows] == [(5, "b-4"), (4, "b-3")]
    with Books.open(home) as books, books.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit WHERE sequence = 5")
        connection.exec_driver_sql("UPDATE audit_head SET sequence = 4, hash = (SELECT hash FROM audit WHERE sequence = 4)")
        connection.exec_driver_sql("UPDATE audit SET actor = 'bob' WHERE sequence = 2")
    damage_output = rootcost("audit", "verify", "--head", head, "--format", "json")
    document = json.loads(damage_output.out)
    assert (damage_output.code, document["entries"], document["verified"], document["first_bad"]) == (1, 4, 3, 2)
    assert [(d["first"], d["last"], d["reason"]) for d in document["damages"]] == [
        (2, 2, "is not as it was written: its hash differs"),
        (5, 5, "is missing"),
    ]
    verification = rootcost("verify", "--format", "json")
    assert (verification.code, [(p["uri"], p["place"]) for p in json.loads(verification.out)["problems"]]) == (
        1,
        [("audit", "entry 2")],
    )
