"""Rows written first and made visible later: many files, by many hands, in one commit.

A part is a file below its table's folder that no reader sees. `commit` adds any number of them in one atomic step; parts that are never
committed are no part of the table and are vacuumed away. So a pass cut into slices, here or on other machines, publishes all or nothing.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from deltalake.transaction import AddAction

from ledger.store import Store, place_file
from ledger.tables import TIME, Table

_STATS = "rootcost.stats"


@dataclass(frozen=True, slots=True)
class Part:
    """One written file: where, how large, which partition, and the statistics by which readers skip it."""

    path: str
    size_bytes: int
    partition: dict[str, str]
    stats: str


def stage(store: Store, table: Table, frame: pl.DataFrame) -> list[Part]:
    """Writes rows as parts of `table`, one file a partition; nothing is visible yet."""
    rows = table.conform(frame)
    if not rows.height:
        return []
    pieces = _pieces(rows, table.partition_by)
    out = []
    with tempfile.TemporaryDirectory(prefix="rootcost-part-", dir=_scratch(store)) as folder:
        for values, piece in pieces.items():
            file = Path(folder) / "part.parquet"
            write(table, piece, file)
            out.append(place(store, table, file, dict(zip(table.partition_by, map(str, values), strict=True))))
            file.unlink()
    return out


def write(table: Table, rows: pl.DataFrame, path: Path) -> None:
    """Rows of one partition as a file of the table, which knows its own statistics."""
    file_rows = rows.drop(table.partition_by)
    file_rows.write_parquet(
        path, compression="zstd", compression_level=1, row_group_size=250_000, metadata={_STATS: _stats(file_rows)}
    )


def place(store: Store, table: Table, file: Path, partition: Mapping[str, str]) -> Part:
    """Puts a file made by `write` into a partition, where no reader sees it yet. The file itself stays where it is."""
    # As deltalake lays files out: values escaped in folder names (it escapes those names once more in its log).
    folder = "/".join(f"{column}={quote(partition[column], safe='')}" for column in table.partition_by)
    path = f"{folder}/part-{uuid.uuid4()}.zstd.parquet"
    stats = pl.read_parquet_metadata(file)[_STATS]
    size = file.stat().st_size
    place_file(file, store.uri(table), path, store.storage_options)
    return Part(path, size, dict(partition), stats)


def commit(store: Store, table: Table, parts: Sequence[Part], *, note: str = "") -> None:
    """Makes parts visible, all in one commit."""
    if not parts:
        return
    actions = [AddAction(p.path, p.size_bytes, dict(p.partition), int(time.time() * 1000), True, p.stats) for p in parts]
    store.add_files(table, actions, note=note)


def _pieces(rows: pl.DataFrame, by: Sequence[str]) -> Mapping[tuple[Any, ...], pl.DataFrame]:
    """The rows of each partition; most frames are of one, and need no copy to be cut."""
    edges = rows.select(*(pl.col(c).min().alias(f"min_{c}") for c in by), *(pl.col(c).max().alias(f"max_{c}") for c in by)).row(0)
    if edges[: len(by)] == edges[len(by) :]:
        return {edges[: len(by)]: rows}
    return rows.partition_by(list(by), as_dict=True, maintain_order=True)


def _scratch(store: Store) -> str | None:
    """A folder on the table's own disk, so that placing a file is a rename."""
    if "://" in store.root:
        return None
    Path(store.root).mkdir(parents=True, exist_ok=True)
    return store.root


def _stats(rows: pl.DataFrame) -> str:
    """Row count, and first and last of every time column."""
    times = [name for name, dtype in rows.schema.items() if dtype == TIME]
    edges = rows.select(*(pl.col(t).min().alias(f"min_{t}") for t in times), *(pl.col(t).max().alias(f"max_{t}") for t in times))
    bounds = edges.row(0, named=True) if times else {}
    # Delta keeps milliseconds: the lower edge is rounded down, the upper one up.
    low = {t: _millis(bounds[f"min_{t}"], up=False) for t in times if bounds[f"min_{t}"] is not None}
    high = {t: _millis(bounds[f"max_{t}"], up=True) for t in times if bounds[f"max_{t}"] is not None}
    nulls = {t: rows[t].null_count() for t in times}
    return json.dumps({"numRecords": rows.height, "minValues": low, "maxValues": high, "nullCount": nulls})


def _millis(at: datetime, *, up: bool) -> str:
    exact = at.replace(microsecond=at.microsecond // 1000 * 1000)
    if up and exact != at:
        exact += timedelta(milliseconds=1)
    return exact.strftime("%Y-%m-%dT%H:%M:%S.") + f"{exact.microsecond // 1000:03d}Z"
