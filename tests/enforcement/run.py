"""Many random schedules, and kills, against one store: `python -m tests.enforcement.run --store memory --schedules 1000000`.

Needs the plug-in and what its store needs, no more: for Redis it runs in the environment of the proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Sequence

from rootcost_litellm import operations
from rootcost_litellm.leases import LeasedBudgets, Store
from rootcost_litellm.memory_store import MemoryStore
from rootcost_litellm.operations import Operation, Result
from tests.enforcement.slow_model import run_schedule

CAP = 200_000
COST = 1000


class _Memory:
    """The memory store behind the interface of the shared ones."""

    def __init__(self) -> None:
        self._store = MemoryStore()

    async def apply(self, batch: Sequence[Operation]) -> list[Result]:
        return self._store.apply(batch)

    async def close(self) -> None:
        self._store = MemoryStore()


def open_store(address: str) -> Store:
    """The store of an address."""
    if address == "memory":
        return _Memory()
    if address.startswith("redis"):
        from rootcost_litellm.redis_store import RedisStore

        return RedisStore(address)
    from rootcost_litellm.postgres_store import PostgresStore

    return PostgresStore(address)


async def run_schedules(address: str, first: int, count: int, steps: int) -> int:
    """Random schedules one after the other; returns the operations made."""
    store, operation_count = open_store(address), 0
    for seed in range(first, first + count):
        operation_count += await run_schedule(store.apply, seed, steps)
        if address == "memory":
            await store.close()
    await store.close()
    return operation_count


async def _work(address: str, level: str, seed: int, pipe: int) -> None:
    """A replica that admits calls and says so before and after each, until it is killed."""
    dice, number = random.Random(seed), 0

    async def baseline(_key: str) -> int:
        return 0

    budgets = LeasedBudgets(open_store(address), lambda _key: CAP, baseline, replicas=2, heartbeat_seconds=0.02)
    running: list[str] = []
    while True:
        name, number = f"{seed}-{uuid.uuid4().hex[:8]}", number + 1
        if (await budgets.reserve(name, {level: COST}, 60)).granted:
            os.write(pipe, b"+")
            running.append(name)
        if running and dice.random() < 0.7:
            hold_id = running.pop(dice.randrange(len(running)))
            chance = dice.random()
            if chance < 0.6:
                os.write(pipe, b"c")
                budgets.commit(hold_id, {level: dice.randint(1, COST)})
            elif chance < 0.8:
                budgets.uncertain(hold_id, {level: COST})
            else:
                os.write(pipe, b"r")
                budgets.release(hold_id)
        await asyncio.sleep(dice.random() / 500)


async def _account(address: str, level: str) -> dict[str, int]:
    store = open_store(address)
    try:
        _, holds_result, read_result = await store.apply(
            [operations.expire(), operations.holds(100_000), operations.read([level])]
        )
    finally:
        await store.close()
    nanos_by_state = {"open": 0, "uncertain": 0}
    for hold in holds_result["holds"]:
        nanos_by_state[hold["state"]] += operations.amounts_of(hold["amounts"]).get(level, 0)
    row = next(iter(read_result["levels"]))
    sums = {name: int(row[name]) for name in ("cap", "committed", "reserved", "uncertain", "left")}
    assert nanos_by_state == {"open": sums["reserved"], "uncertain": sums["uncertain"]}, (
        f"a sum is not that of its holds: {nanos_by_state}, {sums}"
    )
    assert sums["left"] >= 0, f"the cap is passed: {sums}"
    return sums


def run_kills(address: str, first: int, count: int) -> int:
    """Kills replicas at random moments; after each, no cap is passed and all that was admitted is committed, held or uncertain."""
    run_name, admitted_count = uuid.uuid4().hex[:8], 0
    for seed in range(first, first + count):
        level = f"kill-{run_name}-{seed // 20}"  # twenty replicas, one after the other and two at once, share a budget
        if seed % 20 == 0 or seed == first:
            asyncio.run(_define(address, level))
            admitted_count = 0
        reading, writing = os.pipe()
        children = []
        for half in (0, 1):
            child = os.fork()
            if child == 0:
                os.close(reading)
                asyncio.run(_work(address, level, 2 * seed + half, writing))
            children.append(child)
        os.close(writing)
        time.sleep(random.Random(seed).uniform(0.02, 0.25))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        events = b""
        while block := os.read(reading, 65536):
            events += block
        os.close(reading)
        sums = asyncio.run(_account(address, level))
        # What was admitted and neither given back nor committed goes on counting, whoever was killed.
        admitted_count += events.count(b"+") - events.count(b"r") - events.count(b"c")
        counted_nanos = sums["reserved"] + sums["uncertain"]
        assert counted_nanos >= admitted_count * COST, f"seed {seed}: money admitted is not counted: {sums}, {admitted_count}"
    return count


async def _define(address: str, level: str) -> None:
    store = open_store(address)
    epoch, _ = await store.apply([operations.epoch(uuid.uuid4().hex, 0), operations.level(level, CAP, 0)])
    assert epoch["ok"]
    await store.close()


def main() -> int:
    """Says what was made, or fails with the seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="memory")
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start_seconds = time.monotonic()
    operation_count = asyncio.run(run_schedules(options.store, options.seed, options.schedules, options.steps))
    name = options.store.partition(":")[0]
    print(
        f"{name}: {options.schedules} schedules, {operation_count} operations, each as in the slow model; {time.monotonic() - start_seconds:.1f} s"
    )
    if options.kills:
        start_seconds = time.monotonic()
        run_kills(options.store, options.seed, options.kills)
        print(
            f"{name}: {options.kills} kills of two replicas, no cap passed, every hold accounted for; {time.monotonic() - start_seconds:.1f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
