"""Budgets in PostgreSQL: one function applies a whole batch in one transaction. It is the slowest store, and the one with a journal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from rootcost_litellm.memory_store import LEASE_CALLS
from rootcost_litellm.operations import Operation, Result

_SCHEMA_LOCK = 7268674


class PostgresStore:
    """A store of several replicas, through one connection that is opened again when it broke."""

    def __init__(self, url: str, *, timeout_seconds: float = 3.0) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def apply(self, operations: Sequence[Operation]) -> list[Result]:
        """Applies a batch in order, in one transaction."""
        async with self._lock, asyncio.timeout(self._timeout_seconds):
            try:
                connection = await self._connected()
                cursor = await connection.execute("SELECT rootcost_apply(%s::jsonb, %s)", (json.dumps(operations), LEASE_CALLS))
                results: list[Result] = (await cursor.fetchone())[0]
            except BaseException:
                await self.close()
                raise
        return results

    async def _connected(self) -> Any:
        import psycopg

        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            schema = files("rootcost_litellm").joinpath("apply.sql").read_text(encoding="utf-8")
            async with self._connection.transaction():
                await self._connection.execute(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
                await self._connection.execute(schema)
        return self._connection

    async def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
