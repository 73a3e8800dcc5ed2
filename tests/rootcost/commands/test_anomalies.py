"""`rootcost anomalies`: the keys that programs rely on, drivers that sum to the impact, and answers."""

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


def test_an_anomaly_is_shown_muted_and_answered(home: Path) -> None:
    with Books.open(home) as books:
        write(books)
        anomalies.detect(books, today=SPIKE)
    run = Command(home)
    (row,) = json.loads(run("anomalies", "list", "--details", "--format", "json").out)
    key = row["anomaly_id"][:12]
    assert "State: open" in run("anomalies", "show", key).out
    assert json.loads(run("anomalies", "show", key, "--format", "json").out)["impact"] == row["impact"]
    assert "agent coder: muted until" in run("anomalies", "mute", key, "--for", "2d", "--reason", "migration").out
    assert "migration" in run("anomalies", "show", key).out
    assert "Not muted" in run("anomalies", "unmute", key).out
    assert "it is not muted" in run("anomalies", "unmute", key).err
    assert "--reason" in run("anomalies", "answer", key, "fixed", "--reason", "").err
    assert "State: planned by" in run("anomalies", "answer", key, "planned", "--for", "5d", "--reason", "load test").out
    assert "no such anomaly" in run("anomalies", "show", "nothing").err
