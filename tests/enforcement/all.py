"""The big run over all three stores, each with a server of its own (`make budgets`): `python -m tests.enforcement.all`.

The memory store takes all schedules; the shared ones, where each operation is a round trip, one in a hundred.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.proxy.process import venv
from tests.support.paths import ROOT
from tests.support.postgres_server import binaries, postgres_server
from tests.support.redis_server import binary, redis_server

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'plugins' / 'litellm'}:{ROOT}"}


def run(store: str, schedules: int, kills: int, seed: int) -> int:
    """One store, in the environment of the proxy."""
    command = [str(venv() / "bin" / "python"), "-m", "tests.enforcement.run", "--store", store]
    command += ["--schedules", str(schedules), "--kills", str(kills), "--seed", str(seed)]
    return subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, check=False).returncode


def main() -> int:
    """Zero if every store came to the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shared_count = max(1, options.schedules // 100)
    codes = [run("memory", options.schedules, 0, options.seed)]
    with tempfile.TemporaryDirectory() as folder:
        if binary() is None:
            print("redis: no redis-server on this machine, left out")
        else:
            with redis_server(Path(folder)) as server:
                codes.append(run(server.url, shared_count, options.kills, options.seed))
        if binaries() is None:
            print("postgresql: not installed, left out")
        else:
            with postgres_server() as url:
                codes.append(
                    run(url.replace("postgresql+psycopg://", "postgresql://"), shared_count, options.kills, options.seed)
                )
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
