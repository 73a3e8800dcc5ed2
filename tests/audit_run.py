"""`make audit`: two processes append thousands of entries each, and then the log is damaged in every way; each damage must be named.

python -m tests.audit_run --events 10000 --damages 200 [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from ledger.audit_verify import read_head, verify_audit
from ledger.db import Database
from tests.support.audit_damage import DAMAGES, damage, write_from_two_processes


def main() -> int:
    """Runs it; returns the number of damages that were not named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        return _run(Path(folder), arguments)


def _run(folder: Path, arguments: argparse.Namespace) -> int:
    path, draw, missed_damages = folder / "whole.db", random.Random(arguments.seed), 0
    Database(f"sqlite:///{path}").close()
    start_seconds = time.monotonic()
    write_from_two_processes(f"sqlite:///{path}", arguments.events)
    end_seconds = time.monotonic()
    database = Database(f"sqlite:///{path}")
    with database.session() as session:
        head = read_head(session)
    report = verify_audit(database, [head])
    database.close()
    print(
        f"{report.entries:,} entries by 2 writers in {end_seconds - start_seconds:.1f} s, verified in {time.monotonic() - end_seconds:.1f} s"
    )
    if (report.entries, report.verified, report.damages) != (2 * arguments.events, 2 * arguments.events, []):
        print(f"NOT one chain: {report.verified:,} verified, {report.damages[:3]}")
        return 1
    for number in range(arguments.damages):
        copy, kind = folder / "copy.db", list(DAMAGES)[number % len(DAMAGES)]
        shutil.copyfile(path, copy)
        database = Database(f"sqlite:///{copy}")
        damaged_entries = damage(database, kind, draw)
        report = verify_audit(database, [head])
        database.close()
        named_entries = {n for d in report.damages for n in range(d.first, d.last + 1)}
        if not damaged_entries <= named_entries or len(named_entries) > len(damaged_entries) + 1:
            missed_damages += 1
            print(
                f"NOT named, seed {arguments.seed}, number {number}: {kind} of {sorted(damaged_entries)}; named {sorted(named_entries)}"
            )
    print(f"{arguments.damages} damages ({', '.join(DAMAGES)}): {arguments.damages - missed_damages} named")
    return missed_damages


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
