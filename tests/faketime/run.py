"""Runs the tests with the clock at days on which calendars break things; `make test-calendar` calls it.

By default the tests marked `clock` that are not slow; with `--full`, all but those that cannot run so. The system is not touched: libfaketime stands
between a process and its clock. The monotonic clock is left alone, so timeouts and deadlines mean what they mean elsewhere.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARIES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")

LEFT_OUT = {
    "proxy": "LiteLLM is started with an environment of its own, without the library and the shim: it keeps the real clock.",
    "browser": "Chromium's processes are not made to run under the library: a first page did not come up within 100 seconds.",
}
"""Marks of tests that do not run here, and why. `make test` runs them with the real clock."""


@dataclass(frozen=True)
class Day:
    """Where the clock stands when the tests begin; an instant, or a distance from now."""

    name: str
    at: datetime | timedelta
    zone: str = "UTC"

    def offset(self) -> int:
        """Seconds that the clock is put forward by."""
        if isinstance(self.at, timedelta):
            return int(self.at.total_seconds())
        return int(self.at.timestamp() - time.time())


DAYS = (
    Day("+1 day", timedelta(days=1)),
    Day("+40 days", timedelta(days=40)),
    Day("+400 days", timedelta(days=400)),
    Day("31 December", datetime(2026, 12, 31, 22, 30, tzinfo=UTC)),
    Day("29 February", datetime(2028, 2, 29, 12, tzinfo=UTC)),
    # Two minutes before the first of a month: "an hour ago" and "now" lie in two months, and the tests run across midnight.
    Day("into a new month", datetime(2027, 2, 28, 23, 58, tzinfo=UTC)),
    # 01:59:30 in Berlin: half a minute later it is 03:00. And 02:45 in autumn, which comes again a quarter of an hour later.
    Day("summer time begins", datetime(2027, 3, 28, 0, 59, 30, tzinfo=UTC), "Europe/Berlin"),
    Day("summer time ends", datetime(2027, 10, 31, 0, 45, tzinfo=UTC), "Europe/Berlin"),
)


def library() -> Path | None:
    """The libfaketime for processes with threads, where it is installed."""
    for folder in LIBRARIES:
        found = sorted(Path("/").glob(f"{folder[1:]}/libfaketimeMT.so.1"))
        if found:
            return found[0]
    return None


def environment(day: Day, preload: Path) -> dict[str, str]:
    """What a process must be started with to see that day; it hands the same on to those that it starts."""
    faked = {
        "LD_PRELOAD": str(preload),
        "FAKETIME": f"+{day.offset()}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(HERE),  # sitecustomize.py
        "TZ": day.zone,
    }
    return os.environ | faked


def sample() -> list[str]:
    """The files that hold tests marked `clock`: only these are imported."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        str(path.relative_to(ROOT))
        for path in files
        if re.search(r"^@pytest\.mark\.clock$", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def run(day: Day, preload: Path, *, full: bool, workers: int) -> tuple[Day, int, str, float]:
    """The tests on one day: exit code, what was printed, seconds."""
    others = " and ".join(f"not {mark}" for mark in LEFT_OUT)
    line = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    if full:
        line += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder", "-m", others]
    else:
        line += ["-m", f"clock and not slow and {others}", *sample()]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rootcost-calendar-") as folder:
        done = subprocess.run(
            [*line, f"--basetemp={folder}/tests"], cwd=ROOT, env=environment(day, preload), check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
        )  # fmt: skip
    return day, done.returncode, done.stdout, time.monotonic() - began


def main() -> int:
    """Exit code 1 where a test failed on any of the days."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--full", action="store_true", help="the whole suite, not the tests marked clock alone")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--day", action="append", choices=[day.name for day in DAYS], help="this day only; may be repeated")
    asked = options.parse_args()
    preload = library()
    if preload is None:
        print("No libfaketime on this machine (Debian: apt-get install faketime): the tests are not run on other days")
        return 0
    days = [day for day in DAYS if not asked.day or day.name in asked.day]
    failed = []
    # The whole suite shares a day's work between processes; the sample gives each process a day.
    with ThreadPoolExecutor(1 if asked.full else asked.workers) as pool:
        for day, code, said, seconds in pool.map(lambda d: run(d, preload, full=asked.full, workers=asked.workers), days):
            if code:
                failed.append(day.name)
                print(said)
            last = said.strip().splitlines()[-1] if said.strip() else "nothing was printed"
            print(f"{day.name}: {last.strip('= ')} ({seconds:.0f} s)", flush=True)
    if failed:
        print(f"Tests failed on: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
