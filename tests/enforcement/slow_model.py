"""A second implementation of holds, slow and obvious: no sums are kept, each question adds everything up again. Needs no library."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rootcost_litellm import operations
from rootcost_litellm.operations import Operation, Result

LEASE_CALLS = 4
Apply = Callable[[Sequence[Operation]], Awaitable[list[Result]]]


@dataclass
class Entry:
    """A hold: what it counts for, by level, and as what."""

    state: str
    amounts: dict[str, int]
    overdue: bool = False
    sequence: int = 0


@dataclass
class SlowModel:
    """Caps, what was spent before, and every hold there ever was."""

    caps: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    used: list[tuple[str, int]] = field(default_factory=list)
    recalled: set[str] = field(default_factory=set)

    def total(self, level: str, *states: str) -> int:
        return sum(entry.amounts.get(level, 0) for entry in self.entries.values() if entry.state in states)

    def committed(self, level: str) -> int:
        return self.before[level] + self.total(level, "committed") + sum(cost for key, cost in self.used if key == level)

    def left(self, level: str) -> int:
        return self.caps[level] - self.committed(level) - self.total(level, "open", "uncertain")

    def leased(self, level: str) -> int:
        return sum(e.amounts.get(level, 0) for name, e in self.entries.items() if name.startswith("lease/") and e.state == "open")

    def sums(self, level: str) -> dict[str, str]:
        amounts = {
            "cap": self.caps[level],
            "committed": self.committed(level),
            "reserved": self.total(level, "open"),
            "uncertain": self.total(level, "uncertain"),
            "left": self.left(level),
        }
        return {name: str(amount) for name, amount in amounts.items()}

    def apply(self, operation: Operation) -> dict[str, Any]:
        """What the operation must come to: whether it is granted, and the state of its hold."""
        match operation["op"]:
            case "level":
                self.caps[operation["level"]] = int(operation["cap"])
                self.before.setdefault(operation["level"], int(operation.get("committed", 0)))
                return {"ok": True}
            case "expire":
                for name, entry in list(self.entries.items()):
                    if entry.state == "open" and entry.overdue:
                        entry.state = "uncertain"
                        if not any(entry.amounts.values()):
                            del self.entries[name]
                return {"ok": True}
            case "lease":
                return self._lease(operation)
        previous = self.entries.get(operation["id"])
        state = previous.state if previous is not None else ""
        amounts = operations.amounts_of(operation.get("amounts", ()))
        match operation["op"], state:
            case "reserve", "":
                return self._take(operation["id"], amounts, {}, overdue=operation["seconds"] == 0)
            case "reserve", _:
                return {"ok": state == "open", "state": state}
            case "resize", "open":
                assert previous is not None
                return self._take(operation["id"], amounts, previous.amounts, overdue=previous.overdue)
            case ("commit", "" | "open" | "released" | "uncertain") | ("settle", "uncertain"):
                self.entries[operation["id"]] = Entry("committed", amounts)
                return {"ok": True, "state": "committed"}
            case "commit", _:
                return {"ok": True, "state": "committed"}
            case "release", "" | "open" | "released":
                self.entries[operation["id"]] = Entry("released", {})
                return {"ok": True, "state": "released"}
            case "uncertain", "" | "open":
                self.entries[operation["id"]] = Entry("uncertain", amounts)
                return {"ok": True, "state": "uncertain"}
            case "uncertain", "uncertain":
                return {"ok": True, "state": "uncertain"}
        return {"ok": False, "state": state}

    def _take(self, name: str, amounts: dict[str, int], earlier: dict[str, int], *, overdue: bool) -> dict[str, Any]:
        for level, amount in amounts.items():
            growth = amount - earlier.get(level, 0)
            if growth > 0 and self.committed(level) + self.total(level, "open", "uncertain") + growth > self.caps[level]:
                if 0 < self.leased(level) >= growth - self.left(level):
                    self.recalled.add(level)
                return {"ok": False, "state": "", "level": level, "leased": str(self.leased(level))}
        self.entries[name] = Entry("open", amounts, overdue)
        return {"ok": True, "state": "open"}

    def _lease(self, operation: Operation) -> dict[str, Any]:
        level = operation["level"]
        entry = self.entries.get(operation["id"])
        if entry is None:
            entry = self.entries[operation["id"]] = Entry("open", {level: 0})
        entry.state, entry.overdue, grant = "open", operation["seconds"] == 0, 0
        if operation["sequence"] > entry.sequence:
            entry.sequence = operation["sequence"]
            entry.amounts[level] -= min(entry.amounts[level], int(operation["returned"]))
            self.used.append((level, int(operation["used"])))
            if not self.leased(level):
                self.recalled.discard(level)
            need = int(operation["need"])
            share = self.left(level) // (2 * operation["replicas"])
            grant = share if need > 0 and share >= LEASE_CALLS * need and level not in self.recalled else 0
            entry.amounts[level] += grant
        return {"ok": True, "recall": level in self.recalled, "granted": str(grant), "amount": str(entry.amounts[level])}


class Schedule:
    """Random operations on a few levels and holds, so that they meet often; a batch is at times sent again, as after a lost answer."""

    LEVELS = ("org@m", "team@m", "agent@m")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = [f"{seed}-{number}" for number in range(12)]
        self.prefix = str(seed)
        self.sequences: dict[str, int] = {}

    def levels(self) -> list[Operation]:
        caps = [self.random.randint(50, 400) for _ in self.LEVELS]
        return [
            operations.level(self.key(level), cap, self.random.randint(0, 60))
            for level, cap in zip(self.LEVELS, caps, strict=True)
        ]

    def key(self, level: str) -> str:
        return f"{self.prefix}/{level}"

    def amounts(self) -> dict[str, int]:
        sample = self.random.sample(self.LEVELS, self.random.randint(1, 3))
        return {self.key(level): self.random.choice((0, 1, 7, 20, 45, 120)) for level in self.LEVELS if level in sample}

    def operation(self) -> Operation:
        name = self.random.choice(self.names)
        kind = self.random.choices(
            ("reserve", "commit", "release", "uncertain", "settle", "resize", "expire", "lease", "level"),
            (8, 4, 3, 2, 2, 2, 1, 2, 1),
        )[0]
        match kind:
            case "reserve":
                return operations.reserve(name, self.amounts(), self.random.choice((0, 3600)))
            case "release":
                return operations.release(name)
            case "expire":
                return operations.expire()
            case "level":
                return operations.level(self.key(self.random.choice(self.LEVELS)), self.random.randint(50, 400))
            case "lease":
                level, replica = self.random.choice(self.LEVELS), self.random.choice("ab")
                replica = f"{self.prefix}{replica}"
                self.sequences[replica + level] = sequence = self.sequences.get(replica + level, 0) + self.random.choice(
                    (0, 1, 1)
                )
                numbers = {name: self.random.choice((0, 0, 3, 20)) for name in ("used", "returned", "need")}
                return operations.lease(
                    replica, self.key(level), sequence, **numbers, replicas=2, seconds=self.random.choice((0, 3600))
                )
        makers: dict[str, Callable[..., Operation]] = {
            "commit": operations.commit,
            "uncertain": operations.uncertain,
            "settle": operations.settle,
            "resize": operations.resize,
        }
        return makers[kind](name, self.amounts())


async def run_schedule(apply: Apply, seed: int, steps: int) -> int:
    """One random schedule against the slow model; returns the operations made. Fails at the first difference, with the seed."""
    schedule, model = Schedule(seed), SlowModel()
    batch = schedule.levels()
    operation_count = 0
    while operation_count < steps:
        results = await apply(batch)
        for operation, result in zip(batch, results, strict=True):
            expected_result = model.apply(operation)
            actual = {name: result.get(name) for name in expected_result}
            assert actual == expected_result, (
                f"seed {seed}, operation {operation_count}: {operation}: {result} instead of {expected_result}"
            )
            operation_count += 1
        keys = [schedule.key(level) for level in Schedule.LEVELS]
        (read_result,) = await apply([operations.read(keys)])
        sums = {
            row["key"]: {name: row[name] for name in ("cap", "committed", "reserved", "uncertain", "left")}
            for row in read_result["levels"]
        }
        assert sums == {key: model.sums(key) for key in keys}, f"seed {seed}, after operation {operation_count}: {batch}"
        repeats = schedule.random.random() < 0.1 and all(operation["op"] != "resize" for operation in batch)
        batch = batch if repeats else [schedule.operation() for _ in range(schedule.random.choice((1, 1, 2, 5)))]
    return operation_count
