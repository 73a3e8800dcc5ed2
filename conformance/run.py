"""Runs the conformance cases against any implementation given as a command. Needs Python 3.11 and nothing else.

    python conformance/run.py -- COMMAND…          every case; COMMAND is called as: COMMAND… INPUT OUTPUT
    python conformance/run.py --only F07 -- …      some cases
    python conformance/run.py                      this repository's own implementation

INPUT is a folder with one variant of one case, OUTPUT an empty folder in which the command leaves `costs.csv`. README.md says what
both hold. Exit code 0: nothing that is claimed failed. 1: something did. 2: the runner was called wrongly.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cases import Case, Variant, case_folders, lay_out, read_case
from compare import differences

HERE = Path(__file__).resolve().parent
OUR_OWN = (sys.executable, str(HERE / "rootcost_adapter.py"))
NOT_MET = HERE / "not_met.csv"
NOT_CLAIMED = 77
"""Exit code by which a command says that it does not claim to handle what this input holds."""

Implementation = Callable[[Path, Path], None]
"""Reads INPUT, writes OUTPUT. Raises `NotClaimed`, or anything else, which is a failure."""


class NotClaimed(Exception):
    """The implementation does not claim to handle this input."""


@dataclass
class Outcome:
    """How one variant of one case ended: pass, fail, not claimed or not met (a known gap that is listed, and is one)."""

    case: str
    variant: str
    result: str
    seconds: float = 0.0
    reason: str = ""
    differences: list[str] = field(default_factory=list)


def command(line: Sequence[str], timeout_seconds: float) -> Implementation:
    """The implementation behind a command line."""

    def run(given: Path, out: Path) -> None:
        done = subprocess.run(
            [*line, str(given), str(out)],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == NOT_CLAIMED:
            raise NotClaimed(done.stderr.strip().rpartition("\n")[2])
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-800:] or 'nothing on stderr'}")

    return run


def try_variant(case: Case, variant: Variant, implementation: Implementation, known_gaps: dict[tuple[str, str], str]) -> Outcome:
    """Lays the variant out, has it drawn up, and holds the result against what is expected."""
    outcome = Outcome(case.id, variant.name, "pass")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        given, out = Path(folder, "input"), Path(folder, "output")
        lay_out(case, variant, given)
        out.mkdir()
        try:
            implementation(given, out)
            outcome.differences = differences(variant.expected(case), out, case.decimals)
        except NotClaimed as said:
            outcome.result, outcome.reason = "not claimed", str(said)
        except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as fault:
            outcome.differences = [f"{type(fault).__name__}: {fault}"]
    outcome.seconds = round(time.perf_counter() - started, 2)
    if outcome.differences:
        outcome.result = "fail"
    gap = known_gaps.get((case.id, variant.name), known_gaps.get((case.id, "*"), ""))
    if gap and outcome.result in ("fail", "not claimed"):
        outcome.result, outcome.reason = "not met", gap
    elif gap:
        outcome.reason = "is listed as not met, and is met: take it off the list"
    return outcome


def run_all(
    cases: Sequence[Case], implementation: Implementation, known_gaps: dict[tuple[str, str], str], jobs: int
) -> Iterator[Outcome]:
    """Every variant of every case, in order."""
    work = [(case, variant) for case in cases for variant in case.variants]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(lambda item: try_variant(item[0], item[1], implementation, known_gaps), work)


def gaps(path: Path | None) -> dict[tuple[str, str], str]:
    """(case, variant or `*`) to the reason why it is not met, from a CSV with the columns case, variant, reason."""
    if path is None or not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        return {(row["case"], row["variant"] or "*"): row["reason"] for row in csv.DictReader(lines)}


def overall(outcomes: Sequence[Outcome]) -> str:
    """A case is as good as its worst variant."""
    found = {outcome.result for outcome in outcomes}
    return next(result for result in ("fail", "not met", "not claimed", "pass") if result in found)


def _as_table(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    width = max(len(case.title) for case in cases)
    for case in cases:
        mine = [o for o in outcomes if o.case == case.id]
        passed = sum(o.result == "pass" for o in mine)
        print(
            f"{case.id}  {case.title:<{width}}  {overall(mine):<11}  {passed}/{len(mine)}  {sum(o.seconds for o in mine):5.1f} s"
        )
    for outcome in outcomes:
        if outcome.result == "pass" and not outcome.reason:
            continue
        told = f": {outcome.reason}" if outcome.reason else ""
        print(f"\n{outcome.case} {outcome.variant}, {outcome.result}{told}")
        for line in outcome.differences if outcome.result == "fail" else ():
            print(f"  {line}")
    results = [overall([o for o in outcomes if o.case == case.id]) for case in cases]
    counted = [f"{results.count(r)} {r}" for r in ("pass", "fail", "not met", "not claimed") if r in results]
    print(f"\n{len(cases)} cases, {len(outcomes)} variants: {', '.join(counted)}")


def listed(cases: Sequence[Case]) -> list[str]:
    """The cases as the lines of a Markdown table."""
    head = ["| case | what must hold | rules | variants |", "|---|---|---|---|"]
    return head + [
        f"| [{c.id}]({c.folder.name}/case.toml) {c.title} | {c.invariant} | {', '.join(c.rules)} | {len(c.variants)} |"
        for c in cases
    ]


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", action="append", default=[], metavar="CASE", help="this case (F07, or its folder); repeatable")
    parser.add_argument("--variant", default="", help="of the cases, only this variant")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--not-met", type=Path, metavar="CSV", help="known gaps: case, variant (or *), reason; they fail nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="variants tried at once")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="of one call of the command")
    parser.add_argument("--list", action="store_true", help="the table of cases that stands in README.md, and run nothing")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="lay the inputs out here, and run nothing")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --: the implementation; without it, our own")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """The command line."""
    asked = _arguments(sys.argv[1:] if given is None else given)
    cases = [read_case(folder) for folder in case_folders(HERE)]
    wanted = {name.split("-")[0].upper() for name in asked.only}
    if unknown := wanted - {case.id for case in cases}:
        print(f"no such case: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    cases = [case for case in cases if not wanted or case.id in wanted]
    if asked.variant:
        for case in cases:
            case.variants = [variant for variant in case.variants if variant.name == asked.variant]
        cases = [case for case in cases if case.variants]
    if not cases:
        print(f"no such variant: {asked.variant}", file=sys.stderr)
        return 2
    if asked.list:
        print("\n".join(listed(cases)))
        return 0
    if asked.keep:
        for case in cases:
            for variant in case.variants:
                shutil.rmtree(asked.keep / case.id / variant.name, ignore_errors=True)
                lay_out(case, variant, asked.keep / case.id / variant.name)
        return 0
    known_gaps = gaps(asked.not_met or (None if asked.command else NOT_MET))
    implementation = command(asked.command or OUR_OWN, asked.timeout)
    outcomes = list(run_all(cases, implementation, known_gaps, max(1, asked.jobs)))
    if asked.format == "json":
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        _as_table(cases, outcomes)
    return 1 if any(outcome.result == "fail" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
