"""Leases: budget that the shared store has set aside for this replica, so that most decisions need no round trip.

A lease is reserved in the store, so the cap holds whatever becomes of the replica; a lease whose replica is gone becomes uncertain at its
deadline. Far from the cap calls are decided here. Nearer to it each call is a hold of its own in the store: one batch for all that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rootcost_litellm import operations
from rootcost_litellm.operations import Amounts, Operation, Result

logger = logging.getLogger("rootcost_litellm")

HEARTBEAT_SECONDS = 1.0
LEASE_SECONDS = 120
MARGIN_SECONDS = 10
"""A replica stops using a lease so long before its deadline."""
GRACE_SECONDS = 3
"""A store that begins anew grants nothing for so long, while replicas enter what they hold."""
IDLE_SECONDS = 30
"""A lease that nobody used for so long is given back."""
_BATCH = 500
_TRIES = 2


class Store(Protocol):
    """A shared store."""

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Applies a batch at once, in order."""
        ...

    async def close(self) -> None:
        """Ends it."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a reserve; of a refusal, the level that has too little."""

    granted: bool
    level: str = ""
    left: int = 0
    outage: bool = False
    """The store did not answer, or has lost its data and nobody can say what was spent."""


GRANTED = Decision(granted=True)


@dataclass(slots=True)
class Lease:
    """What this replica has of one level."""

    amount: int = 0
    """As the store last confirmed."""
    sent: int = 0
    """Returned in batches that are not confirmed yet."""
    used: int = 0
    """Costs that the store has yet to book."""
    returned: int = 0
    """What the lease has yet to shrink by."""
    open: int = 0
    sequence: int = 0
    unconfirmed: int = 0
    valid_until: float = 0.0
    touched: float = 0.0

    @property
    def idle(self) -> int:
        """What the next call may take."""
        return self.amount - self.sent - self.returned - self.open


@dataclass(slots=True)
class _Waiter:
    hold_id: str
    amounts: Amounts
    seconds: int
    answer: asyncio.Future[Result]
    failures: int = 0


@dataclass
class LeasedBudgets:
    """Decisions of one replica over a shared store."""

    store: Store
    caps: Callable[[str], int]
    """Cap of a level."""
    baseline: Callable[[str], Awaitable[int | None]]
    """What the ledger says was spent at a level that the store does not know; None if nobody can say."""
    replicas: int = 2
    with_leases: bool = True
    """Without, each call is a hold of its own in the store, and waits for it."""
    replica: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    clock: Callable[[], float] = time.monotonic
    trips: int = 0
    """Batches sent to the store."""
    leases: dict[str, Lease] = field(default_factory=dict)
    sums: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The sums of each level as the store last told them."""
    _local: dict[str, Amounts] = field(default_factory=dict)
    _central: dict[str, Amounts] = field(default_factory=dict)
    _outbox: list[Operation] = field(default_factory=list)
    _waiters: list[_Waiter] = field(default_factory=list)
    _caps_sent: dict[str, int] = field(default_factory=dict)
    _unmade: set[str] = field(default_factory=set)
    _epoch: str = ""
    _wake: asyncio.Event | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> str:
        """The life of the store, as it last said; empty before the first exchange."""
        return self._epoch

    def reserve_here(self, hold_id: str, amounts: Amounts) -> bool:
        """Takes a call's worst case from the leases; False if one of them has too little. Never waits."""
        now = self.clock()
        for key, amount in amounts.items():
            lease = self.leases.get(key)
            if lease is None or amount > lease.idle or now > lease.valid_until:
                return False
        for key, amount in amounts.items():
            lease = self.leases[key]
            lease.open += amount
            lease.touched = now
        self._local[hold_id] = amounts
        return True

    async def reserve(self, hold_id: str, amounts: Amounts, seconds: int) -> Decision:
        """Decides here, or asks the store. After a refusal it asks once more when other replicas had time to return what they do not use."""
        if self.reserve_here(hold_id, amounts):
            return GRANTED
        deadline = self.clock() + GRACE_SECONDS + 2 * self.heartbeat_seconds
        asked_again = False
        while True:
            result = await self._ask(hold_id, amounts, seconds)
            if result.get("ok"):
                self._central[hold_id] = amounts
                return GRANTED
            if result.get("wait") and self.clock() < deadline:
                await asyncio.sleep(self.heartbeat_seconds / 4)
                continue
            if "level" not in result:
                return Decision(granted=False, outage=True)
            key, left = result["level"], int(result["left"])
            if asked_again or amounts[key] > left + int(result["leased"]) or int(result["leased"]) <= 0:
                return Decision(granted=False, level=key, left=left)
            asked_again = True
            await asyncio.sleep(self.heartbeat_seconds * 2)

    def commit(self, hold_id: str, costs: Amounts) -> None:
        """Books what a call cost; the store hears of it with the next batch."""
        amounts = self._local.pop(hold_id, None)
        if amounts is not None:
            for key, amount in amounts.items():
                lease, cost = self.leases[key], costs.get(key, 0)
                lease.open -= amount
                lease.used += cost
                lease.returned += min(cost, amount)
            return
        self._central.pop(hold_id, None)
        self._send(operations.commit(hold_id, costs))

    def release(self, hold_id: str) -> None:
        """Gives a hold back."""
        amounts = self._local.pop(hold_id, None)
        if amounts is not None:
            for key, amount in amounts.items():
                self.leases[key].open -= amount
            return
        self._central.pop(hold_id, None)
        self._send(operations.release(hold_id))

    def uncertain(self, hold_id: str, amounts: Amounts) -> None:
        """Keeps a hold counted, and listed in the store, until it is settled."""
        local_amounts = self._local.pop(hold_id, None)
        self._central.pop(hold_id, None)
        self._send(operations.uncertain(hold_id, amounts))
        if local_amounts is not None:
            for key, amount in local_amounts.items():
                self.leases[key].open -= amount
                self.leases[key].returned += amount

    async def close(self) -> None:
        """Sends what is pending, gives leases back and ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            for lease in self.leases.values():
                lease.returned += max(0, lease.idle)
            try:
                await self._exchange([])
            except Exception:
                logger.exception("the store of budgets did not take the last batch; leases become uncertain at their deadline")
        await self.store.close()

    # -- the exchange with the store --------------------------------------------------------------------------------------

    async def _ask(self, hold_id: str, amounts: Amounts, seconds: int) -> Result:
        waiter = _Waiter(hold_id, amounts, seconds, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._kick()
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            self._send(operations.release(hold_id))
            raise

    def _send(self, operation: Operation) -> None:
        self._outbox.append(operation)
        self._kick()

    def _kick(self) -> None:
        if self._task is None or self._task.done():
            self._wake = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._wake is not None:
            self._wake.set()

    async def _run(self) -> None:
        assert self._wake is not None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.heartbeat_seconds):
                    await self._wake.wait()
            self._wake.clear()
            waiters, self._waiters = self._waiters[:_BATCH], self._waiters[_BATCH:]
            try:
                await self._exchange(waiters)
            except Exception as error:  # noqa: BLE001 - whatever a client library raises: the budget's on_outage decides
                logger.warning("the store of budgets does not answer: %s: %s", type(error).__name__, error)
                self._try_again(waiters)
                await asyncio.sleep(self.heartbeat_seconds / 4)
            if self._return_idle() or self._waiters:
                self._wake.set()

    def _try_again(self, waiters: Sequence[_Waiter]) -> None:
        """Each caller's question is sent once more, since an answer may have got lost; after that it is an outage."""
        for waiter in waiters:
            waiter.failures += 1
            if waiter.failures < _TRIES:
                self._waiters.append(waiter)
            else:
                self._outbox.append(operations.release(waiter.hold_id))
                _tell(waiter, {"ok": False})

    def _return_idle(self) -> bool:
        """Gives back what nobody uses here, where the store recalls leases or nobody has asked for a while. Whether there is any."""
        long_ago, returned = self.clock() - IDLE_SECONDS, False
        for key, lease in list(self.leases.items()):
            if lease.idle > 0 and (self.sums.get(key, {}).get("recall") or lease.touched < long_ago):
                lease.returned += lease.idle
                returned = True
            if lease.touched < long_ago and not (lease.amount or lease.sent or lease.used or lease.open or lease.unconfirmed):
                del self.leases[key]
                self._caps_sent.pop(key, None)
        return returned

    async def _exchange(self, waiters: Sequence[_Waiter]) -> None:
        """One batch: what happened since the last, what is asked for, and new leases where there is plenty."""
        needs: dict[str, int] = {}
        for waiter in waiters:
            for key, amount in waiter.amounts.items():
                needs[key] = max(needs.get(key, 0), amount)
        for key in needs:
            lease = self.leases.setdefault(key, Lease())
            lease.returned += max(0, lease.idle)
            lease.touched = self.clock()
        for key, lease in self.leases.items():
            if lease.used or lease.returned or (lease.amount and not lease.unconfirmed):
                self._outbox.append(self._lease(key, lease))
        sent_at, pending, count = self.clock(), self._levels(needs) + self._outbox, len(self._outbox)
        asked = [operations.reserve(waiter.hold_id, waiter.amounts, waiter.seconds) for waiter in waiters]
        wanted = [self._lease(key, self.leases[key], need) for key, need in needs.items()] if self.with_leases else []
        batch = [operations.epoch(uuid.uuid4().hex, GRACE_SECONDS), operations.expire(), *pending, *asked, *wanted]
        self.trips += 1
        try:
            results = await self.store.apply(batch)
            if self._begins_anew(str(results[0]["epoch"])):
                self._outbox += wanted
                self._answer(waiters, [{"ok": False, "wait": True}] * len(asked))
                return
            confirmed = results[2 : 2 + len(pending)] + results[len(results) - len(wanted) :]
            later = await self._created(pending + wanted, confirmed)
        except BaseException:
            self._outbox += wanted  # sent again as they are: the store applies what it has seen only once
            raise
        self._outbox[:count] = later
        self._confirm(batch, results, sent_at)
        self._answer(waiters, results[2 + len(pending) : 2 + len(pending) + len(asked)])

    def _levels(self, needs: Mapping[str, int]) -> list[Operation]:
        """Caps that the store has not heard of, or not as they are now."""
        changed = {key: self.caps(key) for key in {*needs, *self.leases}}
        changed = {key: cap for key, cap in changed.items() if self._caps_sent.get(key) != cap}
        return [operations.level(key, cap) for key, cap in changed.items()]

    def _lease(self, key: str, lease: Lease, need: int = 0) -> Operation:
        lease.sequence += 1
        operation = operations.lease(
            self.replica, key, lease.sequence, used=lease.used, returned=lease.returned, need=need, replicas=self.replicas, seconds=LEASE_SECONDS
        )  # fmt: skip
        lease.sent += lease.returned
        lease.used = lease.returned = 0
        lease.unconfirmed += 1
        return operation

    def _begins_anew(self, epoch: str) -> bool:
        """Whether the store lost its data since the last batch. Then everything that runs here is entered again, as uncertain."""
        lost, self._epoch = self._epoch not in ("", epoch), epoch
        if lost:
            logger.error(
                "the store of budgets has lost its data; what runs here is entered again, and what was spent is read from the ledger"
            )
            self._caps_sent.clear()
            for hold_id, amounts in {**self._local, **self._central}.items():
                self._outbox.append(operations.uncertain(hold_id, amounts))
                self._central[hold_id] = amounts
            self._local.clear()
            for lease in self.leases.values():
                lease.amount = lease.open = 0
                lease.valid_until = 0.0
        return lost

    async def _created(self, sent: Sequence[Operation], results: Sequence[Result]) -> list[Operation]:
        """Has levels made that the store does not know, with what the ledger says; returns the operations that must be sent again."""
        missing = {key for result in results for key in result.get("missing") or ()}
        spent = {key: await self.baseline(key) for key in sorted(missing)}
        self._unmade = {key for key, amount in spent.items() if amount is None}
        if made := [operations.level(key, self.caps(key), amount) for key, amount in spent.items() if amount is not None]:
            self.trips += 1
            await self.store.apply(made)
        return [
            operation
            for operation, result in zip(sent, results, strict=True)
            if result.get("missing") and operation["op"] != "level"
        ]

    def _confirm(self, batch: Sequence[Operation], results: Sequence[Result], sent_at: float) -> None:
        for operation, result in zip(batch, results, strict=True):
            if operation["op"] == "lease" and result.get("ok"):
                lease = self.leases[operation["level"]]
                lease.sent -= int(operation["returned"])
                lease.unconfirmed -= 1
                lease.amount = int(result["amount"])
                lease.valid_until = sent_at + LEASE_SECONDS - MARGIN_SECONDS
                self.sums[operation["level"]] = result
            elif operation["op"] == "level" and result.get("ok"):
                self._caps_sent[operation["level"]] = int(operation["cap"])
                self.sums[operation["level"]] = result

    def _answer(self, waiters: Sequence[_Waiter], answers: Sequence[Result]) -> None:
        """Tells each caller; one whose level was just made asks once more."""
        for waiter, answer in zip(waiters, answers, strict=True):
            missing = set(answer.get("missing") or ())
            for key in missing:
                self._caps_sent.pop(key, None)
            _tell(waiter, {"ok": False, "wait": not missing & self._unmade} if missing else answer)


def _tell(waiter: _Waiter, answer: Result) -> None:
    if not waiter.answer.done():
        waiter.answer.set_result(answer)


@dataclass
class MemoryBudgets:
    """Decisions of a proxy with one worker: the state machine itself."""

    store: Any
    caps: Callable[[str], int]
    baseline: Callable[[str], Awaitable[int | None]]
    epoch: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Its only life: it ends with the process."""

    async def reserve(self, hold_id: str, amounts: Amounts, seconds: int) -> Decision:
        """Decides at once."""
        self.store.apply([operations.expire()])
        for key in amounts:
            if not self.store.apply([operations.level(key, self.caps(key))])[0]["ok"]:
                spent = await self.baseline(key)
                if spent is None:
                    return Decision(granted=False, outage=True)
                self.store.apply([operations.level(key, self.caps(key), spent)])
        (result,) = self.store.apply([operations.reserve(hold_id, amounts, seconds)])
        return (
            GRANTED if result["ok"] else Decision(granted=False, level=result.get("level", ""), left=int(result.get("left", 0)))
        )

    def commit(self, hold_id: str, costs: Amounts) -> None:
        """Books what a call cost."""
        self.store.apply([operations.commit(hold_id, costs)])

    def release(self, hold_id: str) -> None:
        """Gives a hold back."""
        self.store.apply([operations.release(hold_id)])

    def uncertain(self, hold_id: str, amounts: Amounts) -> None:
        """Keeps a hold counted until it is settled."""
        self.store.apply([operations.uncertain(hold_id, amounts)])

    @property
    def sums(self) -> dict[str, Result]:
        """The sums of each level."""
        return {key: level.sums() for key, level in self.store.levels.items()}

    async def close(self) -> None:
        """Nothing is left to do."""
