"""All benchmarks, one after the other: `python -m bench [--spans N] [--rows N]`. Each prints one JSON line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def best_seconds(command: list[str], repeat: int = 5) -> float:
    """Wall time of the fastest of several runs."""
    found = []
    for _ in range(repeat):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    """Runs what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    print(f'{{"machine": "{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"}}', flush=True)
    subprocess.run([sys.executable, str(HERE / "scale.py"), "--spans", str(given.spans)], check=True)
    subprocess.run([sys.executable, str(HERE / "cur_ingest.py"), "--rows", str(given.rows)], check=True)
    subprocess.run([sys.executable, "-m", "bench.pricing"], check=True, cwd=HERE.parent)
    subprocess.run([sys.executable, "-m", "bench.sync_cost"], check=True, cwd=HERE.parent)
    helped = best_seconds([str(Path(sys.executable).parent / "rootcost"), "--help"])
    bare = best_seconds([sys.executable, "-c", "pass"])
    print(f'{{"rootcost --help seconds": {helped:.2f}, "of it starting Python": {bare:.2f}}}')


if __name__ == "__main__":
    main()
