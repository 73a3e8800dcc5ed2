"""`make audit`: two processes append thousands of entries each, and then the log is damaged in every way; each damage must be named.

python -m tests.audit_run --events 10000 --damages 200 [--seed 1] [--postgres]
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

from ledger.audit_verify import read_head, verify_audit
from ledger.db import Database
from tests.support.audit_damage import DAMAGES, damage, write_from_two_processes
from tests.support.postgres_server import copied_database, fresh_database, running_server


def main() -> int:
    """Runs it; returns the number of damages that were not named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of its own instead of SQLite")
    arguments = parser.parse_args()
    if arguments.postgres:
        with running_server() as server:
            return _run(fresh_database(server.url, "whole"), _copied_database, arguments)
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        return _run(f"sqlite:///{folder}/whole.db", _copied_file, arguments)


def _copied_file(url: str) -> str:
    copy_url = url.replace("whole.db", "copy.db")
    shutil.copyfile(url.removeprefix("sqlite:///"), copy_url.removeprefix("sqlite:///"))
    return copy_url


def _copied_database(url: str) -> str:
    return copied_database(url, "copy")


def _run(url: str, copy_of: Callable[[str], str], arguments: argparse.Namespace) -> int:
    draw, missed_damages = random.Random(arguments.seed), 0
    Database(url).close()
    start_seconds = time.monotonic()
    write_from_two_processes(url, arguments.events)
    end_seconds = time.monotonic()
    database = Database(url)
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
        kind, database = list(DAMAGES)[number % len(DAMAGES)], Database(copy_of(url))
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
