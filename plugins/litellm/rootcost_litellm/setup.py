"""From the budget file to a gate: store, prices and what was spent before."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rootcost_litellm.amounts import to_nanos
from rootcost_litellm.budgets import Budget, BudgetFileError, read_file
from rootcost_litellm.gate import Gate
from rootcost_litellm.leases import LeasedBudgets, MemoryBudgets, Store
from rootcost_litellm.ledger import REFRESH_SECONDS, Ledger, Refresher, ledger_of, unknown_budgets
from rootcost_litellm.memory_store import MemoryStore
from rootcost_litellm.worst_case import PriceBook

logger = logging.getLogger("rootcost_litellm")

_SETTINGS = ("store", "replicas", "leases", "bounds", "models", "ledger")


@dataclass
class Baseline:
    """What was spent at a level before the store knew it: `spent` of the budget file, or nothing for a level that this process never saw.

    Of a budget of the ledger what was spent counts as spent elsewhere; a store that lost its data begins another life, which the ledger is told
    before anything is granted.
    """

    gate_budgets: Callable[[], Sequence[Budget]]
    ledger: Ledger | None = None
    refresh: Callable[[], bool] = lambda: False
    _seen: set[str] = field(default_factory=set)

    async def __call__(self, key: str) -> int | None:
        """None, so that the budget's `on_outage` decides, for a level that the store knew and has lost."""
        is_lost = key in self._seen
        self._seen.add(key)
        if self.ledger is not None and self.ledger.owns(key):
            return 0 if not is_lost or await asyncio.to_thread(self.refresh) else None
        spent = next((budget.spent for budget in self.gate_budgets() if budget.id == key.partition("@")[0]), None)
        return None if is_lost else spent or 0


def gate_of_file(
    path: Path | None, model_cost: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str] = MappingProxyType({})
) -> Gate:
    """The gate of a budget file, of the ledger's budgets, or of both. Raises `BudgetFileError`."""
    file_budgets, settings = read_file(path) if path is not None else ([], {})
    if unknown := sorted(set(settings) - set(_SETTINGS)):
        raise BudgetFileError(f"{path}: {unknown[0]!r} is none of budgets, {', '.join(_SETTINGS)}")
    bounds = {str(model): to_nanos(str(amount)) for model, amount in (settings.get("bounds") or {}).items()}
    models = ChainMap(dict(settings.get("models") or {}), model_cost)  # type: ignore[arg-type]
    about_ledger = settings.get("ledger") or {}
    ledger = ledger_of(about_ledger, environment, path.parent if path is not None else Path.cwd())
    caps: dict[str, int] = {}
    baseline = Baseline(lambda: gate.budgets, ledger)
    address = str(settings.get("store") or environment.get("ROOTCOST_BUDGET_STORE") or "memory")
    store: MemoryBudgets | LeasedBudgets
    if address == "memory":
        if multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules:
            raise BudgetFileError(
                f"{path}: store: memory holds for one worker, and this proxy has several: use redis://… or postgresql://…"
            )
        store = MemoryBudgets(MemoryStore(), caps.__getitem__, baseline)
    else:
        shared, replicas = _shared(address, path), int(settings.get("replicas") or 2)
        store = LeasedBudgets(
            shared, caps.__getitem__, baseline, replicas=replicas, with_leases=settings.get("leases") is not False
        )
    gate = Gate(file_budgets, PriceBook(models, bounds), store, caps=caps)
    if ledger is not None:
        _follow(gate, ledger, file_budgets, about_ledger, baseline)
    logger.info("%d budgets are in force; store %s", len(gate.budgets), address.partition("://")[0])
    return gate


def _follow(
    gate: Gate, ledger: Ledger, file_budgets: Sequence[Budget], about_ledger: Mapping[str, Any], baseline: Baseline
) -> None:
    """Puts the ledger's budgets in force beside those of the file, as they are now and from then on."""
    ledger.store_is_lost_at_restart = isinstance(gate.store, MemoryBudgets)
    refresher = Refresher(
        ledger,
        lambda: gate.store.epoch,
        lambda: gate.store.sums,
        lambda budgets: gate.replace([*budgets, *file_budgets]),
        float(about_ledger.get("refresh_seconds") or REFRESH_SECONDS),
    )
    baseline.refresh = refresher.once
    if not refresher.once():
        kept = ledger.kept()
        is_closed = str(about_ledger.get("on_outage") or "closed") == "closed"
        if kept is None:
            logger.error("the ledger never said which budgets there are: calls are %s", "refused" if is_closed else "let through")
        gate.replace([*(unknown_budgets(closed=is_closed) if kept is None else kept), *file_budgets])
    refresher.start()


def _shared(address: str, path: Path | None) -> Store:
    if address.startswith(("redis://", "rediss://", "unix://")):
        from rootcost_litellm.redis_store import RedisStore

        return RedisStore(address)
    if address.startswith(("postgres://", "postgresql://")):
        from rootcost_litellm.postgres_store import PostgresStore

        return PostgresStore(address)
    raise BudgetFileError(f"{path}: store: {address.partition('://')[0]!r} is none of memory, redis://…, postgresql://…")
