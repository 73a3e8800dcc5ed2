"""The state machine of holds in plain Python, which is also the store of a proxy with one worker.

open → committed (final), released (tentative), uncertain. Money counts against a cap while it is open, uncertain or committed, so
``committed + reserved + uncertain <= cap`` after every reserve, whoever asked when. A commit is always booked: the money is spent.
The scripts of the other stores do the same, step by step; `tests/enforcement/` holds all of them against one slow model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rootcost_litellm.operations import Operation, Result, amounts_of

OPEN, COMMITTED, RELEASED, UNCERTAIN = "open", "committed", "released", "uncertain"
LEASE_CALLS = 4
"""A lease is given while it covers at least so many calls like the one that asks; nearer to the cap each call asks the store."""


@dataclass(slots=True)
class Level:
    """One budget in one period."""

    cap: int
    committed: int = 0
    reserved: int = 0
    uncertain: int = 0
    recall: bool = False
    """Somebody was refused what leases of others would have covered: none is given until all are back."""

    @property
    def left(self) -> int:
        """What can still be reserved; negative when overrun."""
        return self.cap - self.committed - self.reserved - self.uncertain

    def sums(self) -> Result:
        """All sums as text."""
        return {name: str(getattr(self, name)) for name in ("cap", "committed", "reserved", "uncertain", "left")}


@dataclass(slots=True)
class Hold:
    """What one call, or one replica's lease, holds at each level."""

    state: str
    amounts: dict[str, int]
    deadline_us: int
    finished_us: int = 0
    sequence: int = 0
    """Of a lease: the last change that was applied, so that one which is sent again is not applied again."""


@dataclass
class MemoryStore:
    """Levels and holds of one process; `now_us` is its clock."""

    now_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000
    levels: dict[str, Level] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    epoch: str = ""
    ready_us: int = 0
    """Until then nothing is granted: a store that lost its data waits for the replicas to enter what they hold."""

    def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Applies a batch in order; one result each."""
        return [getattr(self, f"_{operation['op']}")(operation) for operation in operations]

    def _level(self, operation: Operation) -> Result:
        key, committed = operation["level"], operation.get("committed")
        level = self.levels.get(key)
        if level is None:
            if committed is None:
                return {"ok": False, "missing": [key]}
            level = self.levels[key] = Level(0, int(committed))
        elif operation.get("reset"):
            level.committed = int(committed or 0)
        level.cap = int(operation["cap"])
        return {"ok": True, **level.sums()}

    def _reserve(self, operation: Operation) -> Result:
        hold = self.holds.get(operation["id"])
        if hold is not None:
            return {"ok": hold.state == OPEN, "state": hold.state}
        amounts = amounts_of(operation["amounts"])
        if refusal := self._refusal(amounts):
            return refusal
        self.holds[operation["id"]] = Hold(OPEN, amounts, self.now_us() + operation["seconds"] * 1_000_000)
        self._add("reserved", amounts)
        return {"ok": True, "state": OPEN}

    def _resize(self, operation: Operation) -> Result:
        hold = self.holds.get(operation["id"])
        if hold is None or hold.state != OPEN:
            return {"ok": False, "state": hold.state if hold else ""}
        amounts = amounts_of(operation["amounts"])
        growth = {key: amount - hold.amounts.get(key, 0) for key, amount in amounts.items()}
        if refusal := self._refusal({key: amount for key, amount in growth.items() if amount > 0}):
            return refusal
        self._add("reserved", hold.amounts, sign=-1)
        self._add("reserved", amounts)
        hold.amounts = amounts
        return {"ok": True, "state": OPEN}

    def _commit(self, operation: Operation) -> Result:
        hold = self.holds.get(operation["id"])
        if hold is not None and hold.state == COMMITTED:
            return {"ok": True, "state": COMMITTED}
        return self._book(operation, hold)

    def _settle(self, operation: Operation) -> Result:
        hold = self.holds.get(operation["id"])
        if hold is None or hold.state != UNCERTAIN:
            return {"ok": False, "state": hold.state if hold else ""}
        return self._book(operation, hold)

    def _release(self, operation: Operation) -> Result:
        hold = self.holds.get(operation["id"])
        if hold is not None and hold.state != OPEN:
            return {"ok": hold.state == RELEASED, "state": hold.state}
        self._finish(operation["id"], hold, RELEASED, {})
        return {"ok": True, "state": RELEASED}

    def _uncertain(self, operation: Operation) -> Result:
        hold = self.holds.get(operation["id"])
        if hold is not None and hold.state != OPEN:
            return {"ok": hold.state == UNCERTAIN, "state": hold.state}
        amounts = amounts_of(operation["amounts"])
        if missing := self._missing(amounts):
            return missing
        if hold is not None:
            self._add("reserved", hold.amounts, sign=-1)
        self.holds[operation["id"]] = Hold(UNCERTAIN, amounts, hold.deadline_us if hold else self.now_us())
        self._add("uncertain", amounts)
        return {"ok": True, "state": UNCERTAIN}

    def _expire(self, operation: Operation) -> Result:
        now_us, moved = self.now_us(), 0
        for hold_id, hold in list(self.holds.items()):
            if hold.state == OPEN and hold.deadline_us <= now_us and not any(hold.amounts.values()):
                del self.holds[hold_id]
            elif hold.state == OPEN and hold.deadline_us <= now_us:
                self._add("reserved", hold.amounts, sign=-1)
                self._add("uncertain", hold.amounts)
                hold.state = UNCERTAIN
                moved += 1
            elif hold.state in (COMMITTED, RELEASED) and hold.finished_us + operation["keep"] * 1_000_000 <= now_us:
                del self.holds[hold_id]
        return {"ok": True, "moved": moved}

    def _lease(self, operation: Operation) -> Result:
        key = operation["level"]
        level = self.levels.get(key)
        if level is None:
            return {"ok": False, "missing": [key]}
        hold = self.holds.get(operation["id"])
        if hold is None or hold.state in (COMMITTED, RELEASED):
            hold = self.holds[operation["id"]] = Hold(OPEN, {key: 0}, 0)
        elif hold.state == UNCERTAIN:
            level.uncertain -= hold.amounts[key]
            level.reserved += hold.amounts[key]
            hold.state = OPEN
        granted = 0
        if operation["sequence"] > hold.sequence:
            hold.sequence = operation["sequence"]
            level.committed += int(operation["used"])
            back = min(hold.amounts[key], int(operation["returned"]))
            hold.amounts[key] -= back
            level.reserved -= back
            level.recall = level.recall and self._leased(key) > 0
            need, share = int(operation["need"]), level.left // (2 * operation["replicas"])
            plenty = need > 0 and share >= LEASE_CALLS * need and not level.recall and self.now_us() >= self.ready_us
            granted = share if plenty else 0
            hold.amounts[key] += granted
            level.reserved += granted
        hold.deadline_us = self.now_us() + operation["seconds"] * 1_000_000
        numbers = {"amount": str(hold.amounts[key]), "granted": str(granted), "leased": str(self._leased(key))}
        return {"ok": True, "recall": level.recall, **numbers, **level.sums()}

    def _epoch(self, operation: Operation) -> Result:
        if not self.epoch:
            self.epoch = operation["proposed"]
            self.ready_us = self.now_us() + operation["grace_seconds"] * 1_000_000
        return {"ok": True, "epoch": self.epoch}

    def _holds(self, operation: Operation) -> Result:
        listed = sorted(
            (hold.deadline_us, hold_id, hold)
            for hold_id, hold in self.holds.items()
            if hold.state in (OPEN, UNCERTAIN) and any(hold.amounts.values())
        )[: operation["limit"]]
        return {
            "ok": True,
            "holds": [
                {
                    "id": hold_id,
                    "state": hold.state,
                    "amounts": [[key, str(amount)] for key, amount in hold.amounts.items()],
                    "deadline_us": str(deadline_us),
                }
                for deadline_us, hold_id, hold in listed
            ],
        }

    def _read(self, operation: Operation) -> Result:
        return {
            "ok": True,
            "levels": [{"key": key, **self.levels[key].sums()} for key in operation["levels"] if key in self.levels],
        }

    def _refusal(self, amounts: dict[str, int]) -> Result | None:
        """Why not all levels have room; None if they have. Nothing is added before every level was looked at."""
        if missing := self._missing(amounts):
            return missing
        if self.now_us() < self.ready_us:
            return {"ok": False, "state": "", "wait": True}
        for key, amount in amounts.items():
            if amount > 0 and amount > self.levels[key].left:
                level, leased = self.levels[key], self._leased(key)
                level.recall = level.recall or (leased > 0 and amount <= level.left + leased)
                return {"ok": False, "state": "", "level": key, "leased": str(leased), **level.sums()}
        return None

    def _leased(self, key: str) -> int:
        """What replicas have of a level and may give back."""
        leases = (hold for hold_id, hold in self.holds.items() if hold_id.startswith("lease/") and hold.state == OPEN)
        return sum(hold.amounts.get(key, 0) for hold in leases)

    def _missing(self, amounts: dict[str, int]) -> Result | None:
        missing = [key for key in amounts if key not in self.levels]
        return {"ok": False, "state": "", "missing": missing} if missing else None

    def _book(self, operation: Operation, hold: Hold | None) -> Result:
        costs = amounts_of(operation["amounts"])
        if missing := self._missing(costs):
            return missing
        self._finish(operation["id"], hold, COMMITTED, costs)
        return {"ok": True, "state": COMMITTED}

    def _finish(self, hold_id: str, hold: Hold | None, state: str, costs: dict[str, int]) -> None:
        if hold is not None and hold.state in (OPEN, UNCERTAIN):
            self._add("reserved" if hold.state == OPEN else "uncertain", hold.amounts, sign=-1)
        self._add("committed", costs)
        self.holds[hold_id] = Hold(state, costs, hold.deadline_us if hold else 0, self.now_us())

    def _add(self, column: str, amounts: dict[str, int], sign: int = 1) -> None:
        for key, amount in amounts.items():
            if level := self.levels.get(key):
                setattr(level, column, getattr(level, column) + sign * amount)
