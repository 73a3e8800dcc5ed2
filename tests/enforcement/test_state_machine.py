"""The state machine of holds: against a slow model, step by step, and the sentences that the documentation says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rootcost_litellm import operations
from rootcost_litellm.memory_store import MemoryStore
from rootcost_litellm.operations import Operation, Result
from tests.enforcement.slow_model import SlowModel, run_schedule

LEVELS = ("org", "team", "agent")
NAMES = strategies.sampled_from(["a", "b", "c", "d"])
AMOUNTS = strategies.dictionaries(strategies.sampled_from(LEVELS), strategies.sampled_from([0, 1, 30, 60, 100]), min_size=1)


class Holds(RuleBasedStateMachine):
    """Every sequence of events: nothing is admitted above a cap, nothing that fits is refused, and no event counts twice."""

    def __init__(self) -> None:
        super().__init__()
        self.clock_us = 0
        self.store, self.model = MemoryStore(now_us=lambda: self.clock_us), SlowModel()
        for level, cap in zip(LEVELS, (200, 150, 100), strict=True):
            self.do(operations.level(level, cap, 0))

    def do(self, operation: Operation) -> Result:
        (result,) = self.store.apply([operation])
        expected_result = self.model.apply(operation)
        assert {name: result.get(name) for name in expected_result} == expected_result
        return result

    @rule(name=NAMES, amounts=AMOUNTS, seconds=strategies.sampled_from([0, 60]))
    def reserve(self, name: str, amounts: dict[str, int], seconds: int) -> None:
        is_new = name not in self.model.entries
        result = self.do(operations.reserve(name, amounts, seconds))
        if is_new and result["ok"]:
            assert all(self.model.left(level) >= 0 for level, amount in amounts.items() if amount)

    @rule(
        kind=strategies.sampled_from([operations.commit, operations.uncertain, operations.settle, operations.resize]),
        name=NAMES,
        amounts=AMOUNTS,
    )
    def change(self, kind: Any, name: str, amounts: dict[str, int]) -> None:
        first = self.do(kind(name, amounts))
        if kind is not operations.settle and first["ok"]:
            assert self.do(kind(name, amounts))["ok"], "the same event again changes nothing"

    @rule(name=NAMES)
    def release(self, name: str) -> None:
        self.do(operations.release(name))

    @rule(level=strategies.sampled_from(LEVELS), cap=strategies.integers(0, 250))
    def change_cap(self, level: str, cap: int) -> None:
        self.do(operations.level(level, cap))

    @rule()
    def expire(self) -> None:
        before = {level: self.model.left(level) for level in LEVELS}
        self.do(operations.expire())
        assert {level: self.model.left(level) for level in LEVELS} == before, "expiry frees nothing"

    @invariant()
    def sums_are_those_of_the_holds(self) -> None:
        assert {level: self.store.levels[level].sums() for level in LEVELS} == {level: self.model.sums(level) for level in LEVELS}


TestHolds = Holds.TestCase
TestHolds.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


def test_random_schedules_come_to_the_same_as_the_slow_model() -> None:
    async def apply(batch: Sequence[Operation]) -> list[Result]:
        return store.apply(batch)

    for seed in range(20):
        store = MemoryStore()
        asyncio.run(run_schedule(apply, seed, 100))


def one(store: MemoryStore, operation: Operation) -> Result:
    (result,) = store.apply([operation])
    return result


def test_all_levels_are_looked_at_before_any_is_added_to() -> None:
    store = MemoryStore()
    store.apply([operations.level("org", 100, 0), operations.level("team", 10, 0)])
    refusal = one(store, operations.reserve("a", {"org": 50, "team": 11}, 60))
    assert (refusal["ok"], refusal["level"], refusal["left"]) == (False, "team", "10")
    assert store.levels["org"].reserved == 0


def test_a_commit_after_a_release_adds_back_and_one_above_its_hold_is_booked() -> None:
    store = MemoryStore()
    store.apply([operations.level("org", 100, 0), operations.reserve("a", {"org": 50}, 60), operations.release("a")])
    assert one(store, operations.commit("a", {"org": 70}))["state"] == "committed"
    assert (store.levels["org"].committed, store.levels["org"].left) == (70, 30)


def test_what_is_overdue_is_uncertain_and_settled_by_what_it_cost() -> None:
    store = MemoryStore()
    store.apply([operations.level("org", 100, 0), operations.reserve("a", {"org": 60}, 0), operations.expire()])
    assert store.levels["org"].sums() == {"cap": "100", "committed": "0", "reserved": "0", "uncertain": "60", "left": "40"}
    assert [hold["id"] for hold in one(store, operations.holds())["holds"]] == ["a"]
    assert not one(store, operations.release("a"))["ok"], "a late release does not free what may have been spent"
    store.apply([operations.settle("a", {"org": 20})])
    assert (store.levels["org"].left, one(store, operations.holds())["holds"]) == (80, [])


def test_a_release_that_comes_before_its_reserve_keeps_it_from_holding() -> None:
    store = MemoryStore()
    store.apply([operations.level("org", 100, 0), operations.release("a")])
    assert one(store, operations.reserve("a", {"org": 60}, 60)) == {"ok": False, "state": "released"}
    assert store.levels["org"].left == 100


def test_a_level_that_the_store_does_not_know_takes_nothing() -> None:
    store = MemoryStore()
    assert one(store, operations.reserve("a", {"org": 1}, 60))["missing"] == ["org"]
    assert one(store, operations.commit("a", {"org": 1}))["missing"] == ["org"]
    assert store.holds == {}
