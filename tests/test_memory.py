"""Memory has a ceiling: 300 000 spans and their bill, files to costs, a bill read, and files of chains, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bench.cur_load import export
from bench.scale import prepare
from ledger.books import Books
from ledger.tables import CHAINS
from tests.support.api_examples import CHAIN_ROWS, HOUR, ROLLUP, frame, publish
from tests.support.paths import ROOT

CEILING_MB = 900
BILL_CEILING_MB = 1200
FILE_GROWTH_MB = 100


@pytest.mark.slow
def test_attribution_of_300_000_spans_stays_under_its_ceiling(tmp_path: Path) -> None:
    prepare(tmp_path, 300_000)
    bench = ROOT / "bench" / "scale.py"
    command = [sys.executable, str(bench), "--step", "ours", "--folder", str(tmp_path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert told["spans_read"] == 300_000
    assert told["peak_mb"] < CEILING_MB


def test_a_bill_of_500_000_lines_stays_under_its_ceiling(tmp_path: Path) -> None:
    export(tmp_path, 500_000)
    bench = ROOT / "bench" / "cur_ingest.py"
    command = [sys.executable, str(bench), "--side", "ours", "--folder", str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    peak_mb = json.loads(told)[-1]
    assert peak_mb < BILL_CEILING_MB


@pytest.mark.slow
def test_files_of_400_000_chains_stay_under_their_ceiling(tmp_path: Path) -> None:
    """Whatever their format, and though all rows are in one row group. Held whole they would take 300 MB."""
    with Books.open(tmp_path) as books:
        publish(books, [])
        rows = frame(CHAINS, CHAIN_ROWS[:1], month="2026-10", rollup_id=ROLLUP, start_time=HOUR)
        many_rows = pl.concat([rows] * 400_000).with_columns(chain_id=pl.format("{}-{}", "chain_id", pl.int_range(400_000)))
        books.store.append(CHAINS, many_rows)
    command = [sys.executable, "-m", "tests.support.stream_memory", str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()[-1]
    growth_and_size = json.loads(printed)
    assert len(growth_and_size) == 4
    assert max(growth for growth, _ in growth_and_size.values()) < FILE_GROWTH_MB, growth_and_size
    assert growth_and_size["csv"][1] > 50
