"""Decisions of the plug-in: `python -m bench.budgets`. One JSON line: p50 and p99 of a decision from a lease, and trips to the store.

A decision is reserve and commit of a call with three nested budgets, and with the whole way through the gate (scopes, worst case, steps).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins" / "litellm"))

from rootcost_litellm.budgets import Caller, parse
from rootcost_litellm.gate import Gate
from rootcost_litellm.leases import LeasedBudgets
from rootcost_litellm.memory_store import MemoryStore
from rootcost_litellm.operations import Operation, Result
from rootcost_litellm.worst_case import PriceBook

CALLS = 20_000
MODEL = {
    "mode": "chat",
    "input_cost_per_token": 2.5e-06,
    "output_cost_per_token": 1e-05,
    "max_input_tokens": 128_000,
    "max_output_tokens": 16_384,
}
BODY = {"model": "m", "messages": [{"role": "user", "content": "a question of the usual length, " * 40}], "max_tokens": 500}


class Shared:
    """A store that answers at once: what is measured is the plug-in, and how often it asks."""

    def __init__(self) -> None:
        self._store = MemoryStore()

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        return self._store.apply([{**operation, "grace_seconds": 0} for operation in operations])

    async def close(self) -> None:
        pass


def percentiles(nanoseconds: list[int]) -> dict[str, float]:
    sorted_times = sorted(nanoseconds)
    return {"p50_us": sorted_times[len(sorted_times) // 2] / 1000, "p99_us": sorted_times[len(sorted_times) * 99 // 100] / 1000}


async def measure() -> dict[str, object]:
    caps: dict[str, int] = {}

    async def baseline(_key: str) -> int:
        return 0

    store = LeasedBudgets(Shared(), caps.__getitem__, baseline, replicas=2)
    scopes: list[dict[str, str]] = [{}, {"team": "ads"}, {"team": "ads", "agent": "bot"}]
    budgets = [parse({"id": f"b{n}", "amount": 1_000_000, "scope": scope}) for n, scope in enumerate(scopes)]
    gate = Gate(budgets, PriceBook({"m": MODEL}), store, caps=caps)
    client = Caller({"team": frozenset({"ads"}), "agent": frozenset({"bot"})}, "run", "m")
    first = await gate.admit(client, "m", dict(BODY))
    assert first is not None
    gate.commit(first, 1000)
    await asyncio.sleep(0)
    trips, lease_times, whole = store.trips, [], []
    amounts = {key: 5_000_000 for _, key in first.budgets}
    for number in range(CALLS):
        start = time.perf_counter_ns()
        is_granted = store.reserve_here(str(number), amounts)
        lease_times.append(time.perf_counter_ns() - start)
        assert is_granted
        store.commit(str(number), amounts)
    for number in range(CALLS):
        body = dict(BODY)
        start = time.perf_counter_ns()
        call = await gate.admit(client, "m", body)
        whole.append(time.perf_counter_ns() - start)
        assert call is not None
        gate.commit(call, 1000)
        if number % 100 == 0:
            await asyncio.sleep(0)
    trips = store.trips - trips
    await store.close()
    return {
        "decision from a lease": percentiles(lease_times),
        "whole way of a call": percentiles(whole),
        "store trips per 1000 calls": 1000 * trips / (2 * CALLS),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
