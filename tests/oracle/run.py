"""Many worlds: the engine against the oracle and against itself, seed by seed.

`make oracle WORLDS=10000` spreads the worlds over seeds and processes. A seed that passed is written down in `build/oracle`, together with
the code it passed with, and is not run again; so a run that was broken off goes on where it was. A world that differs is made small and
printed with its seed, and the command ends with 1. With ORACLE_LATE_ROWS=1 some
worlds have late rows on the next invoice (RA-2a).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "build" / "oracle"
WORLDS_PER_SEED = 50
SAME_RESULT_EVERY = 3
"""Of how many worlds one is also computed with other names, in pieces and in another order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the seeds that have not passed yet; 1 if any of their worlds differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, help="runs this seed alone, in this process")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the processes of its seeds as well
    if options.seed is not None:
        return run_seed(options.seed)
    seeds = range(options.first_seed, options.first_seed - (-options.worlds // WORLDS_PER_SEED))
    state = STATE / f"{_code()}.jsonl"
    state.parent.mkdir(parents=True, exist_ok=True)
    worlds_by_seed = {json.loads(line)["seed"]: json.loads(line)["worlds"] for line in _lines(state)}
    failures = 0
    for seed, result, output in _results([s for s in seeds if s not in worlds_by_seed], options.processes):
        if result:
            failures += 1
            print(output, flush=True)
        else:
            worlds_by_seed[seed] = json.loads(output)["worlds"]
            with state.open("a", encoding="utf-8") as file:
                file.write(output.strip() + "\n")
        print(
            f"{sum(worlds_by_seed[s] for s in seeds if s in worlds_by_seed)} worlds without a difference, {failures} seeds with one",
            flush=True,
        )
    return 1 if failures else 0


def _results(seeds: list[int], processes: int) -> Iterator[tuple[int, int, str]]:
    """Each seed with the code its process ended with and what it printed, as they end."""
    # Worlds are small: one thread each, and as many processes as there are processors. Bytecode is kept, as each seed imports everything.
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(STATE / "bytecode")}
    running: dict[int, subprocess.Popen[str]] = {}
    waiting = list(reversed(seeds))
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                seed = waiting.pop()
                command = [sys.executable, "-m", "tests.oracle.run", "--seed", str(seed)]
                running[seed] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            time.sleep(0.2)
            for seed, process in list(running.items()):
                if process.poll() is not None:
                    yield seed, process.returncode, running.pop(seed).communicate()[0]
    finally:
        for process in running.values():
            process.terminate()


def run_seed(number: int) -> int:
    """Runs the worlds of one seed and prints a line about them, or the first that differs."""
    warnings.simplefilter("ignore")
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.oracle.books import World
    from tests.oracle.comparison import differences, engine
    from tests.oracle.minimise import minimised
    from tests.oracle.same_result import changed_money
    from tests.oracle.worlds import worlds_of_bills_in_arrival

    count, differing = 0, list[tuple[World, str]]()

    def check(world: World) -> str:
        try:
            result = engine(world)
            is_checked_twice = count % SAME_RESULT_EVERY == 0
            return differences(world, result) or (changed_money(world, number + count, result) if is_checked_twice else "")
        except Exception:  # noqa: BLE001 - the world that breaks the engine is made small, too
            return traceback.format_exc(limit=-2)

    @seed(number)
    @settings(
        max_examples=WORLDS_PER_SEED,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(worlds_of_bills_in_arrival(late_rows="ORACLE_LATE_ROWS" in os.environ))
    def look(world: World) -> None:
        nonlocal count
        if not differing:
            count += 1
            if difference := check(world):
                differing.append((world, difference))

    start_seconds = time.process_time()
    look()
    if differing:
        world, difference = differing[0]
        small = minimised(world, lambda smaller: bool(check(smaller)))
        print(f"seed {number}, world {count}:\n{_first(difference)}\n\nmade small:\n{small}\n{_first(check(small))}")
        return 1
    print(json.dumps({"seed": number, "worlds": count, "seconds": round(time.process_time() - start_seconds, 2)}))
    return 0


def _first(text: str, lines: int = 12) -> str:
    return "\n".join(text.splitlines()[:lines])


def _code() -> str:
    """A hash of the code that the worlds are computed with."""
    from ledger import code
    from ledger.hashing import fingerprint

    files = sorted((ROOT / "tests" / "oracle").glob("*.py"))
    return fingerprint(
        str("ORACLE_LATE_ROWS" in os.environ), code.digest() + "".join(file.read_text(encoding="utf-8") for file in files)
    )[:16]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    raise SystemExit(main())
