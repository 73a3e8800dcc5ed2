"""Slices of a table are its rows, few at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
from deltalake import write_deltalake
from polars.testing import assert_frame_equal

from ledger.slices import slices
from ledger.store import Store
from ledger.tables import CHAINS

AT = datetime(2026, 10, 5, tzinfo=UTC)


def chains(rollup: str, count: int, month: str = "2026-10") -> pl.DataFrame:
    numbers = range(count)
    return CHAINS.conform(
        pl.DataFrame(
            {
                "rollup_id": rollup, "month": month, "chain_id": [f"{rollup}-{n}" for n in numbers], "start_time": AT, "spans": 1,
                "calls": list(numbers), "list_cost": [Decimal(n).scaleb(-12) for n in numbers],
                "trace_ids": [[f"a{n}", "b"] if n % 2 else [] for n in numbers],
                "root_name": [None if n % 3 else "=ü" for n in numbers],
            }
        )
    )  # fmt: skip


def test_slices_are_the_rows_of_the_partitions(tmp_path: Path) -> None:
    """In parts that are not larger, over several files, with partitions of any name, and nulls for columns that an older file lacks."""
    store = Store(tmp_path / "the tables")
    assert all(frame.is_empty() for frame in slices(store, CHAINS, {"month": ["2026-10"]}, 4))
    older = chains("r 1/ü=%", 9).drop("tokens", "initiator_team")
    write_deltalake(store.uri(CHAINS), older, partition_by=list(CHAINS.partition_by))
    for frame in (chains("r 1/ü=%", 3), chains("r2", 11), chains("r2", 2, "2026-11"), chains("r3", 5)):
        store.append(CHAINS, frame)
    partitions = {"month": ["2026-10"], "rollup_id": ["r 1/ü=%", "r2"]}
    parts = list(slices(store, CHAINS, partitions, 4))
    assert max(part.height for part in parts) == 4
    key = ["rollup_id", "chain_id", "tokens", "calls"]
    assert_frame_equal(pl.concat(parts).sort(key), store.scan(CHAINS, partitions).collect().sort(key))
    assert sum(part.height for part in parts) == 9 + 3 + 11
