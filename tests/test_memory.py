"""Memory has a ceiling: 300 000 spans and their bill, files to costs, and a bill read, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.cur_load import export
from bench.scale import prepare
from tests.support.paths import ROOT

CEILING_MB = 900
BILL_CEILING_MB = 1200


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
