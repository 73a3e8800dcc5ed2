"""The check of what a bill source hands over: a `Reading` as `ingest.source` describes it, or an error that says what to change."""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from ingest.bills import month_files
from ingest.bills.dictionary import DIMENSIONS_ROW
from ingest.source import Batch, Reading
from ledger.errors import TableError
from ledger.plurals import counted
from ledger.problems import Problem
from ledger.tables import CHARGES, COST_COLUMNS

WRITTEN: Final = tuple(f"{name}__written" for name in COST_COLUMNS)
_SET_BY_INGEST: Final = frozenset({"charge_id", "source", "scope", "raw_id"})
_REQUIRED: Final = tuple(column.name for column in CHARGES.columns if column.required and column.name not in _SET_BY_INGEST)
_MONTH: Final = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])\Z")


def check_reading(reading: Reading, *, source: str) -> None:
    """Raises `TableError` that names the source, the column and the remedy where a bill's reading cannot be stored.

    >>> from ledger.money import MONEY
    >>> frame = pl.DataFrame({"billing_month": ["2026-10"], "billed_cost": [1.5]})
    >>> check_reading(Reading(frame), source="acme")
    Traceback (most recent call last):
    ...
    ledger.errors.TableError: source acme, column billed_cost: amounts arrived as Float64 —
    parse text with `charges.parse_types`, or cast to ledger.money.MONEY
    """
    frame, dimensions = reading.frame, reading.dimensions
    if frame.is_empty():
        return  # the last reading carries problems only
    columns = set(frame.columns) | set(() if dimensions is None else dimensions.columns)
    _check_columns(frame, dimensions, source)
    if "billing_month" not in columns:
        raise _violation(source, "billing_month", "is missing", "`charges.to_charges` fills it from billing_period_start")
    for name in _REQUIRED:
        if name not in columns:
            raise _violation(source, name, "is missing, and the table charges requires it", "fill it in every row")
    for name in WRITTEN:
        if name not in frame.columns:
            raise _violation(
                source, name, "is missing", "`charges.to_charges` adds it; it is null where twelve decimals hold the amount"
            )
        if frame.schema[name] not in (pl.String, pl.Null):
            raise _violation(source, name, f"is {frame.schema[name]}", "hand over the amount as text, as the file writes it")
    months = frame["billing_month"] if "billing_month" in frame.columns else pl.Series([None])
    bad = next((month for month in months.unique().to_list() if month is None or not _MONTH.match(str(month))), "")
    if bad != "":
        raise _violation(source, "billing_month", f"holds {bad!r}", "write the invoice month of every row as YYYY-MM")


def _check_columns(frame: pl.DataFrame, dimensions: pl.DataFrame | None, source: str) -> None:
    """Each column is in one place, under a name and a type that the table charges has."""
    dimension_names = set(() if dimensions is None else dimensions.columns)
    for name in [*frame.columns, *dimension_names]:
        if name not in CHARGES.schema and name not in WRITTEN and name != DIMENSIONS_ROW:
            raise _violation(source, name, "is no column of charges", "rename it (docs/tables.md lists them), or drop it")
    for name, dtype in frame.schema.items():
        if dtype.is_float():
            remedy = "parse text with `charges.parse_types`, or cast to ledger.money.MONEY"
            raise _violation(source, name, f"amounts arrived as {dtype}", remedy)
        if name in dimension_names:
            raise _violation(source, name, "is in `frame` and in `dimensions`", "keep it in one of the two")
        if dimensions is not None and name in month_files.DIMENSIONS and name != "billing_month":
            raise _violation(source, name, "is in `frame` beside `dimensions`", "move it to `dimensions`")
    if dimensions is not None:
        _check_dimensions(frame, dimensions, source)


def _check_dimensions(frame: pl.DataFrame, dimensions: pl.DataFrame, source: str) -> None:
    """`dimensions` holds dimensions only, and every row of `frame` names one of its rows."""
    for name in dimensions.columns:
        if name not in month_files.DIMENSIONS:
            raise _violation(source, name, "is a measure, and is in `dimensions`", "move it to `frame`: each row has its own")
    if DIMENSIONS_ROW not in frame.columns:
        remedy = "each row of `frame` states the number of its row of `dimensions`; see `dictionary.encode`"
        raise _violation(source, DIMENSIONS_ROW, "is missing", remedy)
    numbers = frame[DIMENSIONS_ROW]
    if not numbers.dtype.is_integer() or numbers.null_count() or int(str(numbers.max())) >= dimensions.height:
        remedy = f"number its {counted(dimensions.height, 'row')} from 0"
        raise _violation(source, DIMENSIONS_ROW, "names a row that `dimensions` lacks", remedy)


def _violation(source: str, column: str, what: str, remedy: str) -> TableError:
    return TableError(f"source {source}, column {column}: {what}", remedy=remedy)


def of_stated_month(frame: pl.DataFrame, batch: Batch, uri: str, *, source: str) -> tuple[pl.DataFrame, list[Problem]]:
    """The rows of the month the batch states. Rows of other months are a problem: they would be lost when those months' own files come."""
    if batch.billing_month is None or not frame.height:
        return frame, []
    stray = frame.filter(pl.col("billing_month") != batch.billing_month)
    if not stray.height:
        return frame, []
    problem = Problem(
        source,
        uri,
        counted(stray.height, "row"),
        "billing_month",
        f"rows of {', '.join(stray['billing_month'].unique().sort())} in the files of {batch.billing_month} left out",
        "wait for the exporter to deliver again; that month's own files should hold them",
        stray.height,
    )
    return frame.filter(pl.col("billing_month") == batch.billing_month), [problem]
