"""Plain tables: a declaration reads bills and logs, and what a source hands over is checked in words."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from ingest.bills.handover import check_reading
from ingest.plain_table import Column, PlainTable
from ingest.source import Reading
from ledger.errors import FormatError, TableError
from tests.support.golden import read_all

BILL = PlainTable(
    name="acme",
    kind="bill",
    title="Acme",
    columns={
        "billed_cost": Column("amount"),
        "billing_currency": Column("currency", default="USD"),
        "charge_period_start": Column("day"),
        "provider_name": Column(default="Acme"),
    },
)
LOG = PlainTable(
    name="acme-log",
    kind="log",
    title="Acme",
    columns={
        "span_id": Column("id"),
        "start_time": Column("at"),
        "input_tokens": Column("input"),
        "usage_scope": Column(default="leaf"),
    },
)


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_bad_values_of_a_bill_are_problems_and_the_other_rows_are_read(tmp_path: Path) -> None:
    rows, problems = read_all(
        BILL, table(tmp_path, "day,amount,currency\n2026-10-01,1.5,EUR\n2026-10-02,soon,\n2026-10-03,-2,\n")
    )
    assert [(row["billing_currency"], row["billed_cost"]) for row in rows] == [("EUR", Decimal("1.5")), ("USD", Decimal(-2))]
    assert [(problem.place, problem.field) for problem in problems] == [("line 3", "amount")]


def test_bad_values_of_a_log_are_problems_and_absent_ones_are_null(tmp_path: Path) -> None:
    text = "id,at,input\na,2026-10-01T09:00:00Z,12\nb,2026-10-01T09:00:00Z,\nc,2026-10-01,1.5\n,2026-10-01,3\n"
    rows, problems = read_all(LOG, table(tmp_path, text))
    assert [(row["span_id"], row["input_tokens"], row["usage_scope"]) for row in rows] == [("a", 12, "leaf"), ("b", None, "leaf")]
    assert [(problem.place, problem.field) for problem in problems] == [("line 4", "input"), ("line 5", "id")]


def test_a_declared_header_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="columns are missing: amount"):
        read_all(BILL, table(tmp_path, "day,currency\n2026-10-01,USD\n"))


@pytest.mark.parametrize(
    ("frame", "dimensions", "says"),
    [
        ({"billed_cost": [1.5]}, None, "source acme, column billed_cost: amounts arrived as Float64"),
        ({"cost": ["1"]}, None, "source acme, column cost: is no column of charges"),
        ({"line": [1], "__word": [0], "service_name": ["x"]}, {"tags": ["{}"]}, "column service_name: is in `frame` beside"),
        ({"line": [1], "__word": [1]}, {"tags": ["{}"]}, "column __word: names a row that `dimensions` lacks"),
        ({"line": [1]}, {"tags": ["{}"]}, "column __word: is missing"),
        ({"line": [1]}, None, "column billing_month: is missing"),
    ],
)
def test_a_reading_of_another_form_is_refused_by_source_column_and_remedy(
    frame: dict[str, list[object]], dimensions: dict[str, list[object]] | None, says: str
) -> None:
    reading = Reading(pl.DataFrame(frame), dimensions=None if dimensions is None else pl.DataFrame(dimensions))
    with pytest.raises(TableError) as refused:
        check_reading(reading, source="acme")
    assert says in refused.value.what and refused.value.remedy
