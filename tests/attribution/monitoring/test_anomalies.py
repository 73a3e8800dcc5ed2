"""From published costs to anomalies with drivers, one for each cause, to their alerts, and what becomes of them when the figures change."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import sqlalchemy as sa

from attribution.monitoring import anomalies
from ledger.alert_tables import Alert
from ledger.books import Books
from ledger.tables import ANOMALIES
from tests.support.api_examples import CODER, SUPPORT, cost, publish

FIRST = datetime(2026, 9, 14, tzinfo=UTC)
SPIKE = date(2026, 10, 20)


def write(books: Books, spike: str = "50", *, spike_day: date = SPIKE, run: str = "run-1") -> None:
    """Six weeks of two agents; on one day one of them costs more."""
    months: dict[str, list[dict[str, object]]] = {"2026-09": [], "2026-10": []}
    for number in range(40):
        hour = FIRST + timedelta(days=number, hours=10)
        amount = spike if hour.date() == spike_day else str(10 + number % 3)
        times = {"period_start": hour, "period_end": hour + timedelta(hours=1), "usage_hour": hour}
        rows = [cost(amount, quantity=Decimal(100), **CODER) | times, cost("8", quantity=Decimal(80), **SUPPORT) | times]
        months[f"{hour:%Y-%m}"] += rows
    for month, rows in months.items():
        publish(books, rows, month=month, run=run, rollup=None)


def table(books: Books) -> pl.DataFrame:
    return books.store.scan(ANOMALIES).collect().sort("anomaly_id")


def test_a_spike_is_one_anomaly_with_drivers_an_alert_and_an_end(books: Books) -> None:
    write(books)
    today = SPIKE + timedelta(days=3)
    assert anomalies.detect(books, today=today) == len(table(books)) > 1
    rows = table(books)
    (cause_row,) = rows.filter(pl.col("part_of").is_null()).to_dicts()
    assert (cause_row["scope"], cause_row["scope_name"], cause_row["kind"], cause_row["day"], cause_row["team"]) == (
        "agent",
        "coder",
        "spike",
        SPIKE,
        "Dev",
    )
    assert (cause_row["actual"], cause_row["excess"], cause_row["is_open"]) == (Decimal(50), 50 - cause_row["expected"], False)
    assert set(rows.filter(pl.col("part_of") == cause_row["anomaly_id"])["scope"]) >= {"team", "model", "provider"}
    for row in rows.to_dicts():
        assert sum(map(Decimal, json.loads(row["drivers"]).values())) == row["excess"]
    assert anomalies.detect(books, ["2026-10"], today=today) and table(books).equals(rows), "the same ledger, the same rows"

    with books.database.session() as session:
        (alert,) = session.scalars(sa.select(Alert).where(Alert.kind == "anomaly")).all()
        assert (alert.alert_id, alert.team, alert.state) == (cause_row["anomaly_id"], "Dev", "open")
        assert "Agent coder (team Dev): far more than usual. It cost USD 50.00 on 2026-10-20" in alert.text

    write(books, "11", run="run-2")
    assert anomalies.detect(books, today=today) == 0
    with books.database.session() as session:
        assert session.scalars(sa.select(Alert.state)).all() == ["withdrawn"]
