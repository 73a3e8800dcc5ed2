"""`make contract`: every request that the API describes, and many that it does not, against a running service. All checks of schemathesis.

A company's month is served on loopback; schemathesis sends valid and invalid requests to every operation, alone and one after another. An
answer with 500, with a status, a type or a shape that is not described, or to a request that should have been refused, is a failure; so are
a traceback in the log, a service that ends, and a ledger that `rootcost verify` finds damaged afterwards. Nothing is random but the seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.served import Served, serving

_CONFIG = Path(__file__).with_name("schemathesis.toml")


def run(home: Path, *, examples: int, seed: int, seconds: int) -> list[str]:
    """Serves a home and lets schemathesis ask; returns what went wrong, in words. What schemathesis prints is printed."""
    failures = []
    with serving(home) as service:
        code = subprocess.run(_command(service, examples, seed, seconds), cwd=home.parent, check=False).returncode
        if code:
            failures.append(f"schemathesis ended with {code}")
    if "Traceback" in (home / "rootcost.log").read_text():
        failures.append("there are tracebacks in the log")
    if _rootcost(home, "verify"):
        failures.append("`rootcost verify` finds the ledger damaged")
    return failures


def _command(service: Served, examples: int, seed: int, seconds: int) -> list[str]:
    options = {
        "--header": f"Authorization: Bearer {service.token()}",
        "--checks": "all",
        "--max-examples": str(examples),
        "--max-time": str(seconds),
        "--seed": str(seed),
        "--request-timeout": "120",
        "--max-response-time": "120",
        "--generation-database": "none",
    }
    flags = ["--continue-on-failure", "--no-shrink", "--no-color"]
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG), "run"]
    return [*command, f"{service.url}/openapi.json", *flags, *(text for option in options.items() for text in option)]


def _rootcost(home: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "rootcost.cli", "--home", str(home), *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50, help="of each operation and phase")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rootcost-contract-") as folder:
        home = Path(folder) / "home"
        if _rootcost(home, "demo", "--scale", "0.02"):
            raise SystemExit("the demo failed")
        failures = run(home, examples=options.examples, seed=options.seed, seconds=options.seconds)
    print(*failures, sep="\n", end="\n" if failures else "")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
