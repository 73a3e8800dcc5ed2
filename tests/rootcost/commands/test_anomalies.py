"""`rootcost anomalies list`: the keys that programs rely on, and drivers that sum to the impact."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from attribution.monitoring import anomalies
from ledger.books import Books
from tests.attribution.monitoring.test_anomalies import SPIKE, write
from tests.support.cli_books import Command


def test_the_list_for_programs_has_the_keys_of_the_contract(home: Path) -> None:
    with Books.open(home) as books:
        assert json.loads(Command(home)("anomalies", "list", "--format", "json").out) == []
        write(books)
        anomalies.detect(books, today=SPIKE)
    (row,) = json.loads(Command(home)("anomalies", "list", "--format", "json").out)
    assert list(row) == ["scope", "start", "kind", "actual", "expected", "impact", "drivers"]
    assert (row["scope"], row["start"], row["kind"], row["actual"]) == ("agent=coder", "2026-10-20", "spike", "50")
    assert sum(map(Decimal, row["drivers"].values())) == Decimal(row["impact"]) == 50 - Decimal(row["expected"])
    assert len(json.loads(Command(home)("anomalies", "list", "--all", "--format", "json").out)) > 1
    (detail_row,) = json.loads(Command(home)("anomalies", "list", "--details", "--format", "json").out)
    assert (detail_row["currency"], detail_row["team"], detail_row["is_open"]) == ("USD", "Dev", False)
    assert "coder" in Command(home)("anomalies", "list").out
