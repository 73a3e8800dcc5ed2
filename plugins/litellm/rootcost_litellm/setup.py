"""From the budget file to a gate: store, prices and what was spent before."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootcost_litellm.amounts import to_nanos
from rootcost_litellm.budgets import Budget, BudgetFileError, read_file
from rootcost_litellm.gate import Gate
from rootcost_litellm.leases import LeasedBudgets, MemoryBudgets, Store
from rootcost_litellm.memory_store import MemoryStore
from rootcost_litellm.worst_case import PriceBook

logger = logging.getLogger("rootcost_litellm")

_SETTINGS = ("store", "replicas", "leases", "bounds", "models")


class Baseline:
    """What was spent at a level before the store knew it: `spent` of the budget file, or nothing for a level that this process never saw."""

    def __init__(self, budgets: Mapping[str, Budget]) -> None:
        self._budgets = budgets
        self._seen: set[str] = set()

    async def __call__(self, key: str) -> int | None:
        """None, so that the budget's `on_outage` decides, for a level that the store knew and has lost."""
        if key in self._seen:
            return None
        self._seen.add(key)
        spent = self._budgets[key.partition("@")[0]].spent
        return spent if spent is not None else 0


def gate_of_file(path: Path, model_cost: Mapping[str, Mapping[str, Any]]) -> Gate:
    """The gate of a budget file. Raises `BudgetFileError`."""
    budgets, settings = read_file(path)
    if unknown := sorted(set(settings) - set(_SETTINGS)):
        raise BudgetFileError(f"{path}: {unknown[0]!r} is none of budgets, {', '.join(_SETTINGS)}")
    bounds = {str(model): to_nanos(str(amount)) for model, amount in (settings.get("bounds") or {}).items()}
    models = ChainMap(dict(settings.get("models") or {}), model_cost)  # type: ignore[arg-type]
    caps: dict[str, int] = {}
    baseline = Baseline({budget.id: budget for budget in budgets})
    address = str(settings.get("store") or "memory")
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
    logger.info("%d budgets of %s are in force; store %s", len(budgets), path, address.partition("://")[0])
    return Gate(budgets, PriceBook(models, bounds), store, caps=caps)


def _shared(address: str, path: Path) -> Store:
    if address.startswith(("redis://", "rediss://", "unix://")):
        from rootcost_litellm.redis_store import RedisStore

        return RedisStore(address)
    if address.startswith(("postgres://", "postgresql://")):
        from rootcost_litellm.postgres_store import PostgresStore

        return PostgresStore(address)
    raise BudgetFileError(f"{path}: store: {address.partition('://')[0]!r} is none of memory, redis://…, postgresql://…")
