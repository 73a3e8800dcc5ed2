"""The ratchet: counts that may only fall, kept in `tests/ratchet.json`.

python -m tests.support.ratchet                           lowers the numbers to what is counted now (`make ratchet`)
python -m tests.support.ratchet vague_names attribution   lists the places of one number
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Any

from tests.support.code_counts import COUNTS, names
from tests.support.paths import ROOT

FILE = ROOT / "tests" / "ratchet.json"
PACKAGES = ("ledger", "ingest", "attribution", "api", "ui", "rootcost")
COUNTED_PACKAGES = {name: (*PACKAGES, "tests", "bench") if name == "vague_names" else PACKAGES for name in COUNTS}
"""Tests and benchmarks are held to clear names; they may repeat themselves and be long."""

Numbers = dict[str, dict[str, int]]


def limits() -> Numbers:
    """The committed numbers: the most that each package may have."""
    limit_by_count: Numbers = json.loads(FILE.read_text(encoding="utf-8"))["at_most"]
    return limit_by_count


def goal_percent() -> Decimal:
    """The share of vague names among locals and parameters that the repository aims at."""
    return Decimal(json.loads(FILE.read_text(encoding="utf-8"))["goal"]["vague_names_percent"])


def count_all() -> Numbers:
    """What the code has now."""
    return {count: {package: len(COUNTS[count](package)) for package in COUNTED_PACKAGES[count]} for count in COUNTS}


def vague_share_percent(*packages: str) -> Decimal:
    """Vague names among all locals and parameters of the packages, in percent with one decimal."""
    vague = sum(len(COUNTS["vague_names"](package)) for package in packages)
    total = sum(sum(1 for _ in names(package)) for package in packages)
    return round(Decimal(100 * vague) / max(total, 1), 1)


def higher(limit_by_count: Numbers, current: Numbers) -> list[str]:
    """Counts above their limit, each with how to list its places.

    >>> higher({"long_files": {"api": 1, "ui": 0}}, {"long_files": {"api": 2, "ui": 0}})
    ['long_files in api: 2, at most 1 (list them: .venv/bin/python -m tests.support.ratchet long_files api)']
    """
    return [
        f"{count} in {package}: {number}, at most {limit_by_count[count][package]} "
        f"(list them: .venv/bin/python -m tests.support.ratchet {count} {package})"
        for count, by_package in current.items()
        for package, number in by_package.items()
        if number > limit_by_count[count][package]
    ]


def lower(limit_by_count: Numbers, current: Numbers) -> list[str]:
    """Counts below their limit: the committed number can be lowered.

    >>> lower({"long_files": {"api": 3, "ui": 0}}, {"long_files": {"api": 2, "ui": 0}})
    ['long_files in api: 2 instead of 3']
    """
    return [
        f"{count} in {package}: {number} instead of {limit_by_count[count][package]}"
        for count, by_package in current.items()
        for package, number in by_package.items()
        if number < limit_by_count[count][package]
    ]


def write_lowered() -> list[str]:
    """Lowers the committed numbers; never raises one. Returns the counts that rose."""
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    limit_by_count, current = document["at_most"], count_all()
    document["at_most"] = {
        count: {package: min(number, limit_by_count[count][package]) for package, number in by_package.items()}
        for count, by_package in current.items()
    }
    FILE.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return higher(limit_by_count, current)


def main(arguments: list[str]) -> int:
    """Lists the places of one count, or lowers the numbers."""
    if arguments:
        count, *only = arguments
        print(*(place for package in only or COUNTED_PACKAGES[count] for place in COUNTS[count](package)), sep="\n")
        return 0
    risen = write_lowered()
    shares = {package: vague_share_percent(package) for package in COUNTED_PACKAGES["vague_names"]}
    print("Vague names among locals and parameters:", ", ".join(f"{name} {share} %" for name, share in shares.items()))
    packages, everything = (vague_share_percent(*counted) for counted in (PACKAGES, COUNTED_PACKAGES["vague_names"]))
    print(f"The packages together {packages} %, with tests and benchmarks {everything} %; the goal is {goal_percent()} %")
    print(*risen, sep="\n", end="\n" if risen else "")
    return 1 if risen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
