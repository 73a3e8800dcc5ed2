"""`make survive`: kills at random operations and moments, power cuts on a file system of its own, flipped bits, killed backups. Seeded.

Each kind prints one line; a failure is printed with its seed, and the exit code is then 1. Power cuts need root and a loop device, else
they are left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from alembic import command as _loaded_before_forks  # noqa: F401

from tests.support.kills import FORK, forked, kill_self_at
from tests.survive import stores
from tests.survive.backups import back_up, listed_backups, restore_newest
from tests.survive.stores import NewHome
from tests.survive.workload import ROUNDS, acknowledge_to, failures, work

HOMES_EVERY = 8
"""Kills and cuts of one home, before a new one has its first start."""


class Worker:
    """A process that works on a home, and what it acknowledged so far."""

    def __init__(self, home: Path, first: int, *, kill_at: int | None = None) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._content = b""
        self.process = FORK.Process(target=_work, args=(home, first, writer, kill_at))
        self.process.start()
        os.close(writer)

    def promises(self) -> list[str]:
        """Every whole line that arrived."""
        while True:
            try:
                piece = os.read(self._reader, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                break
            self._content += piece
        return self._content.decode().splitlines()

    def kill(self) -> None:
        """Ends the process at once, if it has not ended."""
        self.process.kill()
        self.process.join()


def _work(home: Path, first: int, writer: int, kill_at: int | None) -> None:
    if kill_at is not None:
        kill_self_at(kill_at)
    work(home, first, ROUNDS, acknowledge_to(writer))


def checked(home: Path, promises: list[str], *, may_unpublish: bool = False) -> list[str]:
    """`failures`, in a process of its own."""
    receiver, sender = FORK.Pipe(duplex=False)

    def check() -> None:
        try:
            sender.send(failures(home, promises, may_unpublish=may_unpublish))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure of the start
            sender.send([f"{type(error).__name__}: {error}"])

    process = FORK.Process(target=check)
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        return ["the next start is stuck"]
    return receiver.recv() if receiver.poll() else [f"the next start ended with {process.exitcode}"]


def kills(
    count: int, seed: int, folder: Path, *, new_home: NewHome = lambda _number: None, longest_seconds: float = 2.5
) -> list[str]:
    """Half of the kills at a random operation on files or of the database, half at a random moment."""
    losses, home, promises = list[str](), folder, list[str]()
    for number in range(count):
        chance = random.Random(f"kill {seed} {number}")
        if number % HOMES_EVERY == 0:
            shutil.rmtree(home, ignore_errors=True)
            home, promises = folder / f"kill-{number}", []
            new_home(number)
        by_operation = chance.random() < 0.5
        # A first start is some 100 operations, a whole piece of work some 1,500.
        worker = Worker(home, number * 100 + 1, kill_at=int(10 ** chance.uniform(0.3, 3.1)) if by_operation else None)
        if by_operation:
            worker.process.join(120)
        else:
            worker.process.join(chance.uniform(0, longest_seconds))
        worker.kill()
        promises += worker.promises()
        losses += report(f"kill {number} of seed {seed}", checked(home, promises), number)
    return losses


def kills_on_s3(count: int, seed: int, folder: Path) -> list[str]:
    """`kills` of ledgers with their tables on S3."""
    with stores.bucket() as new_home:
        return kills(count, seed, folder, new_home=new_home, longest_seconds=8)


def kills_with_postgres(count: int, seed: int, folder: Path) -> list[str] | None:
    """`kills` of ledgers with their database in PostgreSQL; None where there is none on this machine."""
    if stores.binaries() is None:
        return None
    with stores.postgres() as new_home:
        return kills(count, seed, folder, new_home=new_home, longest_seconds=4)


def report(case: str, failures_of_case: list[str], number: int) -> list[str]:
    """The failures of one case, printed at once: a run may be broken off. Every tenth case says how far it is."""
    lines = [f"{case}: {failure}" for failure in failures_of_case]
    for line in lines or ([f"{case}: whole"] if number % 10 == 9 else []):
        print(f"  {line}", flush=True)
    return lines


def power_cuts(count: int, seed: int, folder: Path) -> list[str] | None:
    """Copies what the disk holds, while a process works on it; the copy must hold what was acknowledged. None without a loop device."""
    losses, worker, home = list[str](), None, Path()
    mount_point = folder / "mount_point"
    promises: list[str] = []
    for number in range(count):
        chance = random.Random(f"cut {seed} {number}")
        if number % HOMES_EVERY == 0:
            if worker is not None:
                worker.kill()
                subprocess.run(["umount", mount_point], check=True)
            if not _mount_new(folder / "disk", mount_point):
                return None
            home, promises = mount_point / "home", []
        if worker is None or number % HOMES_EVERY == 0 or not worker.process.is_alive():
            promises += worker.promises() if worker is not None and number % HOMES_EVERY else []
            worker = Worker(home, number * 100 + 1)
        time.sleep(chance.uniform(0, 1.5))
        os.kill(worker.process.pid or 0, signal.SIGSTOP)
        promises_so_far = promises + worker.promises()
        shutil.copyfile(folder / "disk", folder / "after")
        os.kill(worker.process.pid or 0, signal.SIGCONT)
        after = folder / "mount_point-after"
        after.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", folder / "after", after], check=True)
        try:
            losses += report(f"cut {number} of seed {seed}", checked(after / "home", promises_so_far), number)
        finally:
            subprocess.run(["umount", after], check=True)
    if worker is not None:
        worker.kill()
        subprocess.run(["umount", mount_point], check=True)
    return losses


def _mount_new(image: Path, place: Path) -> bool:
    image.write_bytes(b"")
    os.truncate(image, 96 << 20)
    place.mkdir(exist_ok=True)
    steps: list[list[str | Path]] = [["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, place]]
    try:
        return all(subprocess.run(step, capture_output=True, check=False).returncode == 0 for step in steps)
    except OSError:
        return False


def flips(count: int, seed: int, folder: Path) -> list[str]:
    """Flips one bit of one file of the tables at a time: it must be named, or change nothing."""
    from ledger.store import Store
    from ledger.tables import TABLES
    from ledger.verify import verify_table

    home = folder / "flips"
    worker = Worker(home, 1)
    worker.process.join()
    files = sorted(path for path in (home / "tables").rglob("*") if path.is_file() and path.stat().st_size)
    store, losses = Store(home / "tables"), list[str]()
    for number in range(count):
        chance = random.Random(f"flip {seed} {number}")
        path = chance.choice(files)
        content = path.read_bytes()
        position, bit = chance.randrange(len(content)), chance.randrange(8)
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
        table = TABLES[path.relative_to(home / "tables").parts[0]]
        if path.name not in " ".join(problem.uri for problem in verify_table(store, table).problems) and _is_live(
            store, table, path
        ):
            losses += report(
                f"flip {number} of seed {seed}",
                [f"bit {bit} of byte {position} of {path.relative_to(home)} is not named"],
                number,
            )
        path.write_bytes(content)
    return losses


def _is_live(store: object, table: object, path: Path) -> bool:
    """Whether a file is part of the table: data files that a later commit replaced, and temporary files, are not."""
    if path.suffix != ".parquet" or path.parent.name == "_delta_log":
        return not path.name.endswith((".tmp", "_last_checkpoint"))
    delta = store.delta(table)  # type: ignore[attr-defined]
    return any(uri.endswith(path.name) for uri in delta.file_uris())


def backups(count: int, seed: int, folder: Path) -> list[str]:
    """Kills backups and restores at random operations, while another process works on the home. The next one must be whole."""
    losses, home, target = list[str](), folder / "home", folder / "backups"
    worker, promises, listed_count = Worker(home, 1), list[str](), 0
    for number in range(count):
        chance = random.Random(f"backup {seed} {number}")
        if not worker.process.is_alive():
            promises += worker.promises()
            worker = Worker(home, (number + 1) * 100)
        promises_before = promises + worker.promises()
        # A backup and a restore are some 150 to 600 operations.
        kill_at, second_kill_at = (int(10 ** chance.uniform(0.5, 2.8)) for _ in range(2))
        listed_count += forked(partial(back_up, home, target, kill_at)) == 0
        failures_of_case = [] if len(listed_backups(target)) == listed_count else ["a killed backup is listed"]
        listed_count += 1
        if forked(partial(back_up, home, target)):
            failures_of_case.append("the next backup fails")
        restored_home = folder / f"restored-{number}"
        forked(partial(restore_newest, target, restored_home, second_kill_at))
        is_restored = (restored_home / "rootcost.db").exists() and not (restored_home / "restore-unfinished").exists()
        if not is_restored and forked(partial(restore_newest, target, restored_home)):
            failures_of_case.append("the next restore fails")
        losses += report(f"backup {number} of seed {seed}", failures_of_case + checked(restored_home, promises_before), number)
    worker.kill()
    return losses


def main() -> int:
    """Runs the kinds; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--s3-kills", type=int, default=200)
    parser.add_argument("--postgres-kills", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--backups", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    runs: list[tuple[str, int, Callable[[int, int, Path], list[str] | None]]] = [
        ("kills", options.kills, kills),
        ("kills on S3", options.s3_kills, kills_on_s3),
        ("kills with PostgreSQL", options.postgres_kills, kills_with_postgres),
        ("power cuts", options.cuts, power_cuts),
        ("flipped bits", options.flips, flips),
        ("backups", options.backups, backups),
    ]
    has_failed = False
    for name, count, run in runs:
        if not count:
            continue
        with tempfile.TemporaryDirectory(prefix="rootcost-survive-") as folder, stores.local():
            began = time.monotonic()
            result = run(count, options.seed, Path(folder))
        if result is None:
            print(f"{name}: left out, no {'server' if 'SQL' in name else 'loop device'} here", flush=True)
            continue
        has_failed = has_failed or bool(result)
        print(f"{name}: {count}, failures: {len(result)}, seed {options.seed}, {time.monotonic() - began:.0f} s", flush=True)
    return int(has_failed)


if __name__ == "__main__":
    raise SystemExit(main())
