"""Golden folders: a sample file of a source and the rows it must give.

``sample.csv`` (or another ending) is what a provider delivers; ``expected.csv`` has one line per row, and only the columns worth checking.
"""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from ingest.bills.dictionary import DIMENSIONS_ROW
from ingest.source import RawObject, Reading, Source
from ledger.problems import Problem
from ledger.settings import IngestSettings


def read_all(source: Source, path: Path) -> tuple[list[dict[str, object]], list[Problem]]:
    """All rows of a file as the ledger stores them, and its problems."""
    item = RawObject(uri=path.name, path=path, raw_id="sample", size=path.stat().st_size)
    readings = list(source.read(item, IngestSettings()))
    rows = [row for reading in readings for row in _whole_rows(reading).to_dicts()]
    return rows, [problem for reading in readings for problem in reading.problems]


def check_golden_folder(source: Source, folder: Path) -> None:
    """The sample gives exactly the expected rows, in order, and no problem."""
    (sample,) = folder.glob("sample.*")
    rows, problems = read_all(source, sample)
    assert problems == []
    with (folder / "expected.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert expected, "expected.csv lists no row"
    assert [{name: "" if row[name] is None else str(row[name]) for name in expected[0]} for row in rows] == expected


def _whole_rows(reading: Reading) -> pl.DataFrame:
    """The rows of a bill with their dimensions beside them."""
    if reading.dimensions is None:
        return reading.frame
    return pl.concat([reading.frame, reading.dimensions[reading.frame[DIMENSIONS_ROW]]], how="horizontal")
