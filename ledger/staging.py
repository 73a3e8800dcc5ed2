"""Staged writes: files of several processes become visible in one commit.

A part is a file below its table's folder that readers do not see. `commit` adds any number of parts atomically; parts that are never
committed are vacuumed. So a partitioned job, on one or several machines, publishes all of its rows or none.
"""

from __future__ import annotations

import base64
import errno
import json
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

from ledger.scratch import scratch_folder
from ledger.store import Store, place_file
from ledger.tables import TIME, Table

_STATS = "rootcost.stats"
_PARQUET_END = b"PAR1"


@dataclass(frozen=True, slots=True)
class Part:
    """One staged file: path, size, partition, and the statistics by which readers skip it."""

    path: str
    size_bytes: int
    partition: dict[str, str]
    stats: str


def stage(store: Store, table: Table, frame: pl.DataFrame) -> list[Part]:
    """Writes rows as parts of `table`, one file a partition; they are not visible yet."""
    rows = table.conform(frame)
    if not rows.height:
        return []
    pieces = _pieces(rows, table.partition_by)
    out = []
    with scratch_folder("part", scratch(store)) as folder:
        for values, piece in pieces.items():
            file = folder / "part.parquet"
            write(table, piece, file)
            out.append(place(store, table, file, dict(zip(table.partition_by, map(str, values), strict=True))))
            file.unlink()
    return out


def write(table: Table, rows: pl.DataFrame, path: Path) -> None:
    """Writes rows of one partition as a file of the table, with its statistics in the file's metadata.

    Columns without a value are left out: readers of Delta tables take them as null. Text encoded as Enum is written by its codes, and
    read as text; so is text that is the same in every row.
    """
    file_rows = rows.drop(table.partition_by)
    null_counts = file_rows.null_count().row(0, named=True)
    filled_columns = file_rows.select(name for name, count in null_counts.items() if count < file_rows.height)
    filled_columns.with_columns(
        pl.lit(text[0], dtype=pl.Enum([text[0]])).alias(text.name)
        for text in filled_columns.select(pl.selectors.string())
        if _is_constant(text)
    ).write_parquet(
        path,
        compression="zstd",
        compression_level=1,
        row_group_size=250_000,
        metadata={_STATS: _stats(file_rows), "ARROW:schema": _arrow_schema(table, filled_columns.columns)},
    )
    _require_whole(path)


def _require_whole(path: Path) -> None:
    """Raises `OSError` for a file that does not end as Parquet: a disk that fails while it is closed says so to nobody."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_PARQUET_END)))
        if file.read() != _PARQUET_END:
            raise OSError(errno.EIO, "the end of the file was not written", str(path))


def _is_constant(text: pl.Series) -> bool:
    """Whether all rows have the same text, and none is null; the first and last row nearly always tell."""
    return bool(text[0] == text[-1]) and not text.null_count() and bool((text == text[0]).all())


def scan(table: Table, files: Sequence[str], *, storage_options: dict[str, str] | None) -> pl.LazyFrame:
    """The rows of files of a table, without the columns it is partitioned by.

    A column that a file lacks, because it has no value in it or was added later, is null.
    """
    return pl.scan_parquet(
        list(files),
        storage_options=storage_options,
        hive_partitioning=False,
        schema={name: dtype for name, dtype in table.schema.items() if name not in table.partition_by},
        missing_columns="insert",
        extra_columns="ignore",
    )


def place(store: Store, table: Table, file: Path, partition: Mapping[str, str], *, name: str = "") -> Part:
    """Copies a file made by `write` into a partition, by default under a new name, not yet visible to readers. The file itself is kept."""
    # As deltalake lays files out: values escaped in folder names (it escapes those names once more in its log).
    folder = "/".join(f"{column}={quote(partition[column], safe='')}" for column in table.partition_by)
    path = f"{folder}/{name or f'part-{uuid.uuid4()}.zstd.parquet'}"
    stats = pl.read_parquet_metadata(file)[_STATS]
    size = file.stat().st_size
    place_file(file, store.uri(table), path, store.storage_options)
    return Part(path, size, dict(partition), stats)


def commit(store: Store, table: Table, parts: Sequence[Part], *, note: str = "") -> None:
    """Makes parts visible in one commit."""
    if not parts:
        return
    actions = [AddAction(p.path, p.size_bytes, dict(p.partition), int(time.time() * 1000), True, p.stats) for p in parts]
    store.add_files(table, actions, note=note)


def _pieces(rows: pl.DataFrame, by: Sequence[str]) -> Mapping[tuple[Any, ...], pl.DataFrame]:
    """The rows by partition; a frame of one partition, the usual case, is not copied."""
    edges = rows.select(*(pl.col(c).min().alias(f"min_{c}") for c in by), *(pl.col(c).max().alias(f"max_{c}") for c in by)).row(0)
    if edges[: len(by)] == edges[len(by) :]:
        return {edges[: len(by)]: rows}
    return rows.partition_by(list(by), as_dict=True, maintain_order=True)


def scratch(store: Store) -> str | None:
    """A folder on the table's own disk, so that a file can be hard-linked into the table."""
    if "://" in store.root:
        return None
    Path(store.root).mkdir(parents=True, exist_ok=True)
    return store.root


def _stats(rows: pl.DataFrame) -> str:
    """Delta statistics as JSON: row count, and minimum, maximum and null count of every time column."""
    times = [name for name, dtype in rows.schema.items() if dtype == TIME]
    edges = rows.select(*(pl.col(t).min().alias(f"min_{t}") for t in times), *(pl.col(t).max().alias(f"max_{t}") for t in times))
    bounds = edges.row(0, named=True) if times else {}
    # Delta keeps milliseconds: the lower edge is rounded down, the upper one up.
    low = {t: _millis(bounds[f"min_{t}"], up=False) for t in times if bounds[f"min_{t}"] is not None}
    high = {t: _millis(bounds[f"max_{t}"], up=True) for t in times if bounds[f"max_{t}"] is not None}
    nulls = {t: rows[t].null_count() for t in times}
    return json.dumps({"numRecords": rows.height, "minValues": low, "maxValues": high, "nullCount": nulls})


def _arrow_schema(table: Table, columns: Sequence[str]) -> str:
    """The types of a file's columns as Parquet files keep them for readers by Arrow: those of the table, whatever they were encoded as."""
    schema = table.empty().select(columns).to_arrow().schema
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _millis(at: datetime, *, up: bool) -> str:
    exact = at.replace(microsecond=at.microsecond // 1000 * 1000)
    if up and exact != at:
        exact += timedelta(milliseconds=1)
    return exact.strftime("%Y-%m-%dT%H:%M:%S.") + f"{exact.microsecond // 1000:03d}Z"
