"""`make faults`: a full disk and input/output errors at random calls. Seeded; needs a C compiler, else it is left out, and that is said.

`faults.c` is loaded before the C library: from the n-th call that writes below a home on, one or all fail with ENOSPC or EIO, whether Python,
SQLite, Polars or deltalake makes them. Each fault must be told in one sentence with a remedy, or have been made good on the spot; and once
the disk is whole again the next start must hold what was acknowledged, and come to the figures of a home that never had a fault.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alembic import command as _loaded_before_forks  # noqa: F401

from ledger import disk
from ledger.errors import RootCostError
from tests.support.kills import FORK
from tests.survive import stores
from tests.survive.run import HOMES_EVERY, checked, report
from tests.survive.workload import ROUNDS, work

_SOURCE = Path(__file__).with_name("faults.c")
_LIBRARY = "rootcost-faults.so"
_USUAL_CALLS = 1_050
"""Calls of the whole work on a new home."""


def compiled(folder: Path) -> Path | None:
    """The shared library, or None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / _LIBRARY
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def faults(count: int, seed: int, folder: Path) -> list[str]:
    """Runs the work with a fault each; returns the failures, and prints how many ended how."""
    failures, outcomes, home, promises = list[str](), Counter[str](), folder, list[str]()
    for number in range(count):
        chance = random.Random(f"fault {seed} {number}")
        if number % HOMES_EVERY == 0:
            shutil.rmtree(home, ignore_errors=True)
            home, promises = folder / f"fault-{number}", []
        error = chance.choice((errno.ENOSPC, errno.EIO))
        is_lasting = chance.random() < 0.5
        call = int(10 ** chance.uniform(0.3, 3.02)) if chance.random() < 0.5 else chance.randrange(1, _USUAL_CALLS)
        outcome, news = _struck(home, number * 100 + 1, call, error, is_lasting=is_lasting)
        promises += news
        outcomes[outcome.partition(":")[0]] += 1
        case = f"fault {number} of seed {seed} ({errno.errorcode[error]} at call {call}{' and after' if is_lasting else ''})"
        untold = [outcome] if outcome.startswith("not told") else []
        failures += report(case, [*untold, *checked(home, promises)], number)
    print("  " + ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common()), flush=True)
    return failures


def _struck(home: Path, first: int, call: int, error_number: int, *, is_lasting: bool) -> tuple[str, list[str]]:
    """Works on a home until a fault ends it; how it ended, and what was acknowledged."""
    receiver, sender = FORK.Pipe(duplex=False)

    def strike() -> None:
        home.mkdir(parents=True, exist_ok=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # deltalake's threads write panics of their own there
        news = list[str]()
        shim = ctypes.CDLL(None)
        shim.faults_arm(str(home).encode(), ctypes.c_long(call), error_number, int(is_lasting))
        try:
            work(home, first, ROUNDS, news.append)
            outcome = "made good on the spot" if shim.faults_hit() else "not reached"
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told or not
            outcome = told(error, home)
        finally:
            shim.faults_arm(b"", ctypes.c_long(0), 0, 0)
        sender.send((outcome, news))

    process = FORK.Process(target=strike)
    process.start()
    answer: tuple[str, list[str]] = receiver.recv() if receiver.poll(180) else ("not told: stuck or ended without a word", [])
    process.join(10)
    process.kill()
    return answer


def told(error: BaseException, home: Path) -> str:
    """How the command line would tell an error: in a sentence with a remedy that names the place, or not."""
    known_error = error if isinstance(error, RootCostError) else disk.error_of(error, home)
    if known_error is None or not known_error.what or not known_error.remedy or "\n" in str(known_error):
        frames = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        return f"not told: {type(error).__name__}: {str(error)[:400]} at {' > '.join(frames[-8:])}"
    return "told in a sentence"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles the library and starts itself again with it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rootcost-faults-") as folder:
        if _LIBRARY not in os.environ.get("LD_PRELOAD", ""):
            library = compiled(Path(folder))
            if library is None:
                print("faults: left out, no C compiler here")
                return 0
            command = [sys.executable, "-m", "tests.survive.faults", "--count", str(options.count), "--seed", str(options.seed)]
            return subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(library)}, check=False).returncode
        began = time.monotonic()
        with stores.local():
            failures = faults(options.count, options.seed, Path(folder))
    print(
        f"faults: {options.count}, failures: {len(failures)}, seed {options.seed}, {time.monotonic() - began:.0f} s", flush=True
    )
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
