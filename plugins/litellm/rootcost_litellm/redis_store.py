"""Budgets in Redis or Valkey: one Lua script applies a whole batch at once. All keys lie in one hash slot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from rootcost_litellm.amounts import MAX_EXACT
from rootcost_litellm.memory_store import LEASE_CALLS
from rootcost_litellm.operations import Operation, Result

PREFIX = "{rootcost}:"


class RedisStore:
    """A store of several replicas. Calls wait for a connection; they do not fail because the pool is full."""

    def __init__(self, url: str, *, timeout_seconds: float = 3.0, connections: int = 8) -> None:
        from redis.asyncio import BlockingConnectionPool, Redis

        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )
        self._redis: Any = Redis(connection_pool=pool)
        self._script = self._redis.register_script(files("rootcost_litellm").joinpath("apply.lua").read_text(encoding="utf-8"))

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Applies a batch in order. Raises `ValueError` for a cap too large to be calculated exactly."""
        for operation in operations:
            if operation["op"] == "level" and abs(int(operation["cap"])) > MAX_EXACT // 2:
                raise ValueError(
                    f"the cap of {operation['level']} is too large for Redis, which is exact to 4.5 million units: use PostgreSQL"
                )
        answer = await self._script(keys=[PREFIX], args=[json.dumps(operations), LEASE_CALLS])
        results: list[Result] = json.loads(answer)
        return results

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
