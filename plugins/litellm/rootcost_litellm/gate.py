"""The way of a call through its budgets, whatever gateway it comes from: admit, attempts, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from rootcost_litellm.amounts import MAX_EXACT, from_nanos, money
from rootcost_litellm.budgets import Budget, Caller, matching
from rootcost_litellm.leases import Decision
from rootcost_litellm.operations import Amounts
from rootcost_litellm.worst_case import PriceBook, UnboundedError, WorstCase

logger = logging.getLogger("rootcost_litellm")

HOLD_SECONDS = 900
"""How long a call may take with all its attempts; a hold that is older becomes uncertain."""
NO_LIMIT = MAX_EXACT // 2
_CHAINS_KEPT = 100_000
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class Budgets(Protocol):
    """Where holds are decided: in this process, or by leases over a shared store."""

    @property
    def sums(self) -> Any:
        """Sums of levels as last known."""
        ...

    @property
    def epoch(self) -> str:
        """The life of the store: one that lost its data begins another."""
        ...

    async def reserve(self, hold_id: str, amounts: Amounts, seconds: int) -> Decision:
        """Holds amounts at every level, or at none."""
        ...

    def commit(self, hold_id: str, costs: Amounts) -> None:
        """Books what a call cost."""
        ...

    def release(self, hold_id: str) -> None:
        """Gives a hold back."""
        ...

    def uncertain(self, hold_id: str, amounts: Amounts) -> None:
        """Keeps a hold counted until it is settled."""
        ...


class RefusedError(Exception):
    """A call that a budget does not let through."""

    def __init__(self, kind: str, message: str, *, status: int = 402) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status


@dataclass
class Call:
    """One request on its way; `hold` is what its current attempt holds, in the price book's currency `bound`."""

    id: str
    caller: Caller
    budgets: list[tuple[Budget, str]]
    worst: WorstCase
    model: str
    priced: str = ""
    """The provider's model that the hold was priced for, after a fallback."""
    hold: str = ""
    amounts: dict[str, int] = field(default_factory=dict)
    state: str = "open"
    sent: bool = False
    """Whether an attempt went to the provider."""
    streams: bool = False
    attempt: int = 1
    started: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class Gate:
    """Budgets, prices and decisions of one gateway process."""

    budgets: list[Budget]
    book: PriceBook
    store: Budgets
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    models_of: Callable[[str], Sequence[str]] = lambda model: (model,)
    """The models in the price book that one name of the gateway may stand for."""
    calls: OrderedDict[str, Call] = field(default_factory=OrderedDict)
    caps: dict[str, int] = field(default_factory=dict)
    overruns: int = 0
    _chains: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _notified: set[tuple[str, Decimal]] = field(default_factory=set)

    def replace(self, budgets: Sequence[Budget]) -> None:
        """Other budgets, limits and spend elsewhere are in force from now on; what is held stays held."""
        now = self.now()
        self.budgets = list(budgets)
        for budget in budgets:
            if budget.period == "run":
                continue
            key = budget.level(now, "")
            if key in self.caps:
                self.caps[key] = _room(budget)

    async def admit(self, caller: Caller, model: str, body: MutableMapping[str, Any], call_type: str = "") -> Call | None:
        """Reserves the worst case of a call; None if no budget concerns it. Raises `RefusedError`. May lower limits or change the model in `body`."""
        self.expire()
        now = self.now()
        levels = [(budget, budget.level(now, caller.chain)) for budget in matching(self.budgets, caller)]
        if not levels:
            return None
        for budget, key in levels:
            self.caps[key] = _room(budget)
        call = Call(uuid.uuid4().hex, caller, levels, WorstCase(0, 0), model, started=self.clock())
        call.hold = call.id
        clamps = await self._steps(call, body)
        call.worst = self._bound(call, body, call_type)
        if clamps:
            self._clamp(call, body, min(self._left(budget, key) for budget, key in clamps), call_type)
        if await self._hold(call, body, call_type):
            self.calls[call.id] = call
        if caller.chain:
            self._chains[caller.chain] = None
            if len(self._chains) > _CHAINS_KEPT:
                self._chains.popitem(last=False)
        return call

    async def attempt(self, call: Call, model: str, body: MutableMapping[str, Any]) -> None:
        """Before each attempt: what a dearer fallback, or an attempt after one that may be billed, needs is held too. Raises `RefusedError`."""
        call.sent = True
        if call.state == "open" and (not model or model == call.priced):
            return
        try:
            worst = self.book.worst_case(model, body) if model else call.worst
        except UnboundedError:
            worst = call.worst
        needs = {key: budget.in_currency(worst.nanos) for budget, key in call.budgets}
        if call.state == "open" and all(amount <= call.amounts.get(key, 0) for key, amount in needs.items()):
            return
        self._end(call, "release")
        call.attempt += 1
        call.hold, call.worst, call.state, call.priced = f"{call.id}/{call.attempt}", worst, "refused", model
        if await self._hold(call, body, ""):
            self.calls[call.id] = call
        call.state = "open"

    def attempt_failed(self, call: Call, *, may_be_billed: bool) -> None:
        """After an attempt: one that the provider may bill keeps its hold, and the next one holds for itself."""
        if may_be_billed:
            self._end(call, "uncertain")

    def commit(self, call: Call, nanos: int) -> None:
        """Books what a call cost, in the price book's currency. Once."""
        if call.state == "committed":
            return
        costs = {key: budget.in_currency(nanos) for budget, key in call.budgets}
        if call.worst.nanos and any(cost > call.amounts.get(key, 0) for key, cost in costs.items()):
            self.overruns += 1
            logger.warning(
                "a call of %s cost %s, more than the %s that was held",
                call.model,
                from_nanos(nanos),
                from_nanos(call.worst.nanos),
            )
        self.store.commit(call.hold, costs)
        call.state = "committed"
        self.calls.pop(call.id, None)

    def release(self, call: Call) -> None:
        """Gives back what a call holds that cost nothing."""
        self._end(call, "release")

    def leave(self, call: Call) -> None:
        """Keeps counted what a call may have cost, until the token log or the bill settles it."""
        self._end(call, "uncertain")

    def expire(self) -> None:
        """Calls that nobody reported the end of become uncertain."""
        while self.calls:
            call = next(iter(self.calls.values()))
            if self.clock() - call.started < HOLD_SECONDS:
                return
            self._end(call, "uncertain")
            self.calls.pop(call.id, None)

    def _end(self, call: Call, how: str) -> None:
        if call.state != "open":
            return
        if how == "release":
            self.store.release(call.hold)
            call.state = "released"
        else:
            self.store.uncertain(
                call.hold, call.amounts or {key: budget.in_currency(call.worst.nanos) for budget, key in call.budgets}
            )
            call.state = "uncertain"
        self.calls.pop(call.id, None)

    # -- reserving --------------------------------------------------------------------------------------------------------

    def _bound(self, call: Call, body: MutableMapping[str, Any], call_type: str) -> WorstCase:
        try:
            bounds = [self.book.worst_case(model, body, call_type) for model in self.models_of(call.model)]
            return max(bounds, key=lambda bound: bound.nanos)
        except UnboundedError as error:
            hard = next((budget for budget, _ in call.budgets if budget.enforcement == "hard"), None)
            if hard is None:
                return WorstCase(0, 0)
            raise RefusedError("budget_unbounded_call", f"Budget {hard.name} is a hard limit, and {error}.") from error

    async def _hold(self, call: Call, body: MutableMapping[str, Any], call_type: str) -> bool:
        """Reserves; after a refusal that a smaller answer avoids, once more if the budget clamps. False if admitted without a hold."""
        for clamped in (False, True):
            amounts = {key: budget.in_currency(call.worst.nanos) for budget, key in call.budgets}
            decision = await self.store.reserve(call.hold, amounts, HOLD_SECONDS)
            if decision.granted:
                call.amounts = amounts
                return True
            if decision.outage:
                return self._outage(call)
            budget = next(budget for budget, key in call.budgets if key == decision.level)
            may_clamp = any(step.action == "clamp" for step in budget.steps)
            if clamped or not may_clamp or not self._clamp(call, body, _in_book(budget, decision.left), call_type):
                raise RefusedError("budget_exceeded", _refusal(budget, decision, call))
            call.hold += "/clamped"
        raise AssertionError("a call is decided in two rounds")

    def _outage(self, call: Call) -> bool:
        closed = next((budget for budget, _ in call.budgets if budget.enforcement == "hard" and not budget.fail_open), None)
        if closed is not None:
            raise RefusedError(
                "budget_store_unreachable",
                f"What is left of budget {closed.name} cannot be read now, and it is set to refuse calls then (on_outage: closed). "
                f"{_who(closed)} can set on_outage to open; otherwise try again in a minute.",
                status=503,
            )
        call.notes["x-rootcost-unchecked"] = ",".join(budget.name for budget, _ in call.budgets)
        return False

    def _clamp(self, call: Call, body: MutableMapping[str, Any], nanos: int, call_type: str) -> bool:
        """Lowers the limit of the answer to what an amount pays for; False if that is no token, or no change."""
        if call.worst.nanos <= nanos:
            return False
        tokens = call.worst.tokens_for(nanos)
        if tokens < 1 or tokens >= call.worst.output_tokens:
            return False
        names = [name for name in _LIMITS if name in body] or [
            "max_output_tokens" if "input" in body and "messages" not in body else "max_tokens"
        ]
        for name in names:
            body[name] = tokens
        call.worst = self._bound(call, body, call_type)
        call.notes["x-rootcost-max-tokens"] = str(tokens)
        return True

    # -- graduated steps --------------------------------------------------------------------------------------------------

    async def _steps(self, call: Call, body: MutableMapping[str, Any]) -> list[tuple[Budget, str]]:
        """What each budget does at the share that is spent or held; returns the budgets that clamp. Raises `RefusedError`."""
        clamps = []
        for budget, key in call.budgets:
            share = self._share(budget, key)
            for step in budget.steps:
                if share < step.at:
                    break
                match step.action:
                    case "notify":
                        self._notify(budget, key, step.at, share)
                        call.notes["x-rootcost-budget-used"] = f"{budget.name}={share:.2f}"
                    case "clamp":
                        clamps.append((budget, key))
                    case "degrade":
                        self._degrade(call, body, step.models)
                    case "throttle":
                        await asyncio.sleep(step.seconds)
                    case "approve" if budget.approved_until is None or budget.approved_until <= self.now():
                        raise RefusedError(
                            "budget_needs_approval",
                            f"{_used(budget, share)} and needs approval to go on. {_who(budget)} can approve it.",
                        )
                    case "refuse_new_chains" if call.caller.chain not in self._chains:
                        raise RefusedError(
                            "budget_new_chains",
                            f"{_used(budget, share)}: runs that have begun go on, new ones are refused. {_who(budget)} can raise it.",
                        )
                    case "stop":
                        raise RefusedError(
                            "budget_exceeded", f"{_used(budget, share)} and takes no more calls. {_who(budget)} can raise it."
                        )
        return clamps

    def _degrade(self, call: Call, body: MutableMapping[str, Any], models: Any) -> None:
        model = models.get(call.model) or models.get("*")
        allowed = call.caller.models_allowed
        if not model or model == call.model or (allowed and model not in allowed):
            return
        call.notes["x-rootcost-degraded"] = f"{call.model} -> {model}"
        call.model = body["model"] = model

    def _notify(self, budget: Budget, key: str, at: Decimal, share: Decimal) -> None:
        if (key, at) not in self._notified:
            self._notified.add((key, at))
            logger.warning("%s of %s", _used(budget, share), money(budget.cap, budget.currency))

    def _sum(self, budget: Budget, key: str) -> int:
        """What is spent, uncertain or held by calls at a level, as last known; leases that wait to be used are not counted."""
        sums = self.store.sums.get(key)
        return budget.spent or 0 if sums is None else int(sums["cap"]) - int(sums["left"]) - int(sums.get("leased", 0))

    def _share(self, budget: Budget, key: str) -> Decimal:
        return Decimal(self._sum(budget, key) + budget.elsewhere) / budget.cap if budget.cap > 0 else Decimal(1)

    def _left(self, budget: Budget, key: str) -> int:
        return _in_book(budget, budget.room - self._sum(budget, key))


def _room(budget: Budget) -> int:
    return budget.room if budget.enforcement == "hard" else NO_LIMIT


def _in_book(budget: Budget, nanos: int) -> int:
    """An amount of the budget's currency in the price book's, rounded down."""
    return int(nanos / budget.rate)


def _used(budget: Budget, share: Decimal) -> str:
    return f"Budget {budget.name} has used {share * 100:.0f} % of its limit"


def _who(budget: Budget) -> str:
    owner = budget.owner or "Whoever administers the budgets of this gateway"
    return f"{owner} ({budget.raise_at})" if budget.raise_at else owner


def _refusal(budget: Budget, decision: Decision, call: Call) -> str:
    scope = ", ".join(f"{kind} {name}" for kind, name in budget.scope.items()) or "all calls"
    need = money(budget.in_currency(call.worst.nanos), budget.currency)
    smaller = f", or ask for an answer of fewer than {call.worst.output_tokens} tokens" if call.worst.output_tokens else ""
    return (
        f"Budget {budget.name} ({scope}; {decision.level.partition('@')[2]}, by {budget.period}) has {money(max(0, decision.left), budget.currency)} left of "
        f"{money(budget.cap, budget.currency)}, and this call may cost up to {need}. {_who(budget)} can raise it{smaller}."
    )
