"""Leases: several replicas over one store, kills and outages among them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from rootcost_litellm.leases import Decision, LeasedBudgets
from rootcost_litellm.memory_store import MemoryStore
from rootcost_litellm.operations import Operation, Result

BEAT = 0.02
COST = 1000


@dataclass
class SharedStore:
    """A store of several replicas in this process, which can be cut off, lose an answer, or lose everything."""

    inner: MemoryStore = field(default_factory=MemoryStore)
    cut: bool = False
    lost_answers: int = 0

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        await asyncio.sleep(0)
        if self.cut:
            raise ConnectionError("cut")
        results = self.inner.apply([{**operation, "grace_seconds": 0} for operation in operations])
        if self.lost_answers:
            self.lost_answers -= 1
            raise TimeoutError("the answer got lost")
        return results

    async def close(self) -> None:
        pass


def replicas(store: SharedStore, cap: int, count: int, *, spent: int | None = 0) -> list[LeasedBudgets]:
    async def baseline(_key: str) -> int | None:
        return spent

    return [LeasedBudgets(store, lambda _key: cap, baseline, replicas=count, heartbeat_seconds=BEAT) for _ in range(count)]


async def close(*budgets: LeasedBudgets) -> None:
    await asyncio.gather(*(one.close() for one in budgets))


async def ask(budgets: LeasedBudgets, name: str, amount: int = COST) -> Decision:
    return await budgets.reserve(name, {"team": amount}, 60)


def test_two_replicas_admit_exactly_what_fits() -> None:
    async def run() -> tuple[int, MemoryStore]:
        store = SharedStore()
        pair = replicas(store, 37 * COST, 2)
        decisions = await asyncio.gather(*(ask(pair[n % 2], f"call-{n}") for n in range(200)))
        grant_count = [n for n, decision in enumerate(decisions) if decision.granted]
        for n in grant_count:
            pair[n % 2].commit(f"call-{n}", {"team": COST})
        await close(*pair)
        return len(grant_count), store.inner

    grant_count, store = asyncio.run(run())
    assert grant_count == 37
    assert store.levels["team"].sums() == {"cap": "37000", "committed": "37000", "reserved": "0", "uncertain": "0", "left": "0"}


def test_small_calls_are_not_refused_because_of_giants() -> None:
    async def run() -> int:
        pair = replicas(SharedStore(), 37 * COST, 2)
        sizes = [COST] * 37 + [COST * 100] * 163
        random.Random(1).shuffle(sizes)
        decisions = await asyncio.gather(*(ask(pair[n % 2], f"call-{n}", size) for n, size in enumerate(sizes)))
        await close(*pair)
        assert not any(decision.granted for decision, size in zip(decisions, sizes, strict=True) if size > COST)
        return sum(decision.granted for decision in decisions)

    assert asyncio.run(run()) == 37


def test_far_from_the_cap_a_thousand_calls_need_few_trips() -> None:
    async def run() -> int:
        store = SharedStore()
        (budgets,) = replicas(store, 10**9, 1)
        await ask(budgets, "first")
        trips = budgets.trips
        for n in range(5000):
            assert budgets.reserve_here(f"call-{n}", {"team": COST})
            budgets.commit(f"call-{n}", {"team": COST // 2})
        more = budgets.trips - trips
        budgets.commit("first", {"team": 0})
        await close(budgets)
        assert store.inner.levels["team"].committed == 5000 * COST // 2
        return more

    assert asyncio.run(run()) <= 5


def test_what_one_replica_does_not_use_the_other_can() -> None:
    async def run() -> list[bool]:
        pair = replicas(SharedStore(), 40 * COST, 2)
        assert (await ask(pair[0], "warm-up")).granted  # takes a lease of a quarter
        assert pair[0].leases["team"].idle > 0
        decisions = [await ask(pair[1], f"call-{n}") for n in range(39)]
        refusal = await ask(pair[1], "one-too-many")
        await close(*pair)
        return [*(decision.granted for decision in decisions), refusal.granted]

    assert asyncio.run(run()) == [True] * 39 + [False]


def test_a_lost_answer_books_nothing_twice() -> None:
    async def run() -> MemoryStore:
        store = SharedStore()
        (budgets,) = replicas(store, 1000 * COST, 1)
        await ask(budgets, "first")
        for n in range(100):
            store.lost_answers = n % 2
            assert (await ask(budgets, f"call-{n}")).granted
            budgets.commit(f"call-{n}", {"team": 10})
            await asyncio.sleep(0)
        store.lost_answers = 0
        budgets.release("first")
        await close(budgets)
        return store.inner

    assert asyncio.run(run()).levels["team"].sums() == {
        "cap": "1000000", "committed": "1000", "reserved": "0", "uncertain": "0", "left": "999000"
    }  # fmt: skip


def test_while_the_store_is_cut_leases_go_on_and_what_they_do_not_cover_is_an_outage() -> None:
    async def run() -> tuple[list[bool], Decision, MemoryStore]:
        store = SharedStore()
        (budgets,) = replicas(store, 100 * COST, 1)
        await ask(budgets, "first")
        store.cut = True
        local_grants = [(await ask(budgets, f"call-{n}")).granted for n in range(10)]
        too_large = await ask(budgets, "beyond", 99 * COST)
        for n in range(10):
            budgets.commit(f"call-{n}", {"team": COST})
        store.cut = False
        budgets.release("first")
        await asyncio.sleep(3 * BEAT)
        await close(budgets)
        return local_grants, too_large, store.inner

    local_grants, too_large, store = asyncio.run(run())
    assert local_grants == [True] * 10
    assert (too_large.granted, too_large.outage) == (False, True)
    assert (store.levels["team"].committed, store.levels["team"].reserved) == (10 * COST, 0)


@pytest.mark.parametrize("spent", [None, 30 * COST])
def test_a_store_that_lost_everything_is_rebuilt_from_ledger_and_open_holds(spent: int | None) -> None:
    async def run() -> tuple[int, bool, MemoryStore]:
        store = SharedStore()
        (budgets,) = replicas(store, 37 * COST, 1)
        assert (await ask(budgets, "running")).granted
        store.inner = MemoryStore()

        async def baseline(_key: str) -> int | None:
            return spent

        budgets.baseline = baseline
        await asyncio.sleep(2 * BEAT)
        decisions = [await ask(budgets, f"call-{n}") for n in range(10)]
        await close(budgets)
        return sum(decision.granted for decision in decisions), any(decision.outage for decision in decisions), store.inner

    grant_count, outage, store = asyncio.run(run())
    if spent is None:  # nobody can say what was spent: the budget's on_outage decides
        assert (grant_count, outage) == (0, True)
    else:  # 30 are spent, 1 runs: 6 of 37 are left
        assert (grant_count, outage) == (6, False)
        assert store.levels["team"].uncertain == COST


def test_a_replica_that_is_killed_frees_nothing() -> None:
    async def run() -> tuple[int, MemoryStore]:
        store = SharedStore()
        dead, alive = replicas(store, 40 * COST, 2)
        for n in range(5):
            assert (await ask(dead, f"dead-{n}")).granted
        assert dead._task is not None
        dead._task.cancel()
        lease_amount = dead.leases["team"].amount
        assert lease_amount > 0
        decisions = [await ask(alive, f"call-{n}") for n in range(45)]
        await close(alive)
        grant_count = sum(decision.granted for decision in decisions)
        assert grant_count * COST + lease_amount + COST <= 40 * COST  # its first call is a hold of its own
        return grant_count, store.inner

    grant_count, store = asyncio.run(run())
    assert grant_count > 0
    assert store.levels["team"].left >= 0
