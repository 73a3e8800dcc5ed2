"""Memory has a ceiling: 300 000 spans and their bill, files to costs, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rootcost.demo import generate_ledger

CEILING_MB = 900


def test_attribution_of_300_000_spans_stays_under_its_ceiling(tmp_path: Path) -> None:
    generate_ledger(tmp_path, 300_000)
    bench = Path(__file__).parents[1] / "bench" / "files_to_costs.py"
    command = [sys.executable, str(bench), "--side", "ours", "--folder", str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    _, peak_mb = json.loads(told)
    assert peak_mb < CEILING_MB
