"""The table store: Delta Lake tables in a folder or on S3, read lazily, written atomically.

    append    new rows                                        (logs without a key that is there already)
    merge     new rows, or more complete versions of rows     (logs: delivered at least once, stored once; CA-3)
    replace   one partition                                   (bills: a restated month; conclusions of a run)

Readers see the table before or after a write, never in between. One process writes a table at a time. `sync` makes writes durable.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from ledger import disk, file_sets
from ledger.durability import TableSync
from ledger.errors import StoreUnreachable, TableError
from ledger.filesystem import make_folder
from ledger.opened_tables import OpenedTables, last_commit
from ledger.s3 import s3_client
from ledger.tables import TIME, Table

_WRITER = WriterProperties(compression="ZSTD", compression_level=1)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a table: address, row count, and bounds of its time columns, rounded outwards to milliseconds."""

    address: str
    rows: int
    first: Mapping[str, datetime]
    last: Mapping[str, datetime]


class _LocalDeltaTable(DeltaTable):
    """A Delta table in a folder whose path may need URL encoding (spaces).

    deltalake names files by URL, polars opens them by path: the table's own folder is decoded, partition folders stay as they are.
    """

    def file_uris(self, *args: Any, **kwargs: Any) -> list[str]:
        """Decoded paths of the files."""
        encoded_root = super().table_uri.removeprefix("file://")
        return [unquote(encoded_root) + uri.removeprefix(encoded_root) for uri in super().file_uris(*args, **kwargs)]

    @property
    def table_uri(self) -> str:
        """Decoded path of the folder."""
        return unquote(super().table_uri)


class Store:
    """The ledger's tables under one root: a folder, or ``s3://bucket/prefix``.

    `storage_options` are those of object_store; on S3 the AWS default chain applies when they are empty.
    """

    def __init__(self, root: str | Path, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = str(root).rstrip("/")
        self.storage_options = dict(storage_options or {})
        self._lock, self._table_sync, self._opened_tables = threading.Lock(), TableSync(self.root), OpenedTables()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the store as its address, for other processes."""
        return Store, (self.root, self.storage_options)

    def uri(self, table: Table) -> str:
        """Address of a table."""
        return f"{self.root}/{table.name}"

    def delta(self, table: Table, *, version: int | None = None) -> DeltaTable | None:
        """The Delta table, or None before the first write."""
        try:
            kind = DeltaTable if "://" in self.root else _LocalDeltaTable
            return kind(self.uri(table), version=version, storage_options=self.storage_options)
        except TableNotFoundError:
            return None
        except OSError as error:
            raise StoreUnreachable(
                str(error), where=self.uri(table), remedy="check the store's address and credentials"
            ) from error

    def newest(self, table: Table) -> DeltaTable | None:
        """As `delta`, to be read only: the object is shared, and made once a commit."""
        if "://" in self.root:
            return self.delta(table)
        return self._opened_tables.newest(Path(self.uri(table)), lambda: self.delta(table))

    def version(self, table: Table) -> int | None:
        """Number of the last commit, None before the first."""
        commit = None if "://" in self.root else last_commit(Path(self.uri(table)))
        delta = self.delta(table) if commit is None else None
        return commit[0] if commit is not None else None if delta is None else delta.version()

    def scan(
        self, table: Table, partitions: Mapping[str, Sequence[str]] | None = None, *, version: int | None = None
    ) -> pl.LazyFrame:
        """The table, lazily; empty before the first write.

        `partitions` selects whole partitions: ``{"billing_month": ["2026-10"]}``. `version` reads it as it was after that commit.
        """
        delta = self.newest(table) if version is None else self.delta(table, version=version)
        if delta is None:
            return table.empty().lazy()
        frame = pl.scan_delta(delta, storage_options=self.storage_options or None)
        for column, values in (partitions or {}).items():
            literals = pl.Series(list(values), dtype=pl.String)
            if table.schema[column] == pl.Date:
                literals = literals.str.to_date()
            frame = frame.filter(pl.col(column).is_in(literals.implode()))
        # A table written by an older version lacks newer columns: they are null.
        column_names = {field.name for field in delta.schema().fields}
        return frame.select(pl.col(c) if c in column_names else pl.lit(None, dtype=t).alias(c) for c, t in table.schema.items())

    def fingerprint(
        self, table: Table, partitions: Mapping[str, Iterable[str]] | None = None, *, version: int | None = None
    ) -> str:
        """Changes exactly when the files of these partitions change, but for compaction and erasure; reads no data. `version`: as it was after that commit."""
        delta = self.delta(table, version=version)
        if delta is None:
            return "empty"
        names = sorted(
            f"{folder}/{file_sets.original_name(name)}" for folder, _, name in (u.rpartition("/") for u in delta.file_uris())
        )
        for column, values in (partitions or {}).items():
            folders = {f"{column}={v}" for v in values}
            names = [n for n in names if folders & set(n.split("/"))]
        file_names = [n.rsplit("/", 1)[-1] for n in names]
        if table.partition_by == ("date",):  # tables whose files are merged
            return file_sets.fingerprint(file_names)
        return hashlib.blake2b("\n".join(file_names).encode(), digest_size=12).hexdigest()

    def files(self, table: Table, partitions: Mapping[str, Sequence[str]] | None = None) -> list[StoredFile]:
        """The files of these partitions with their statistics from the table's log; reads no data."""
        delta = self.delta(table)
        if delta is None:
            return []
        actions = pl.DataFrame(delta.get_add_actions(flatten=True))
        for column, values in (partitions or {}).items():
            actions = actions.filter(
                pl.col(f"partition.{column}").cast(pl.String).is_in(pl.Series(list(values), dtype=pl.String).implode())
            )
        times = [c.name for c in table.columns if c.dtype == TIME]
        return [
            StoredFile(
                f"{self.uri(table)}/{unquote(row['path'])}",
                int(row["num_records"]),
                {t: row[f"min.{t}"] for t in times if row.get(f"min.{t}") is not None},
                {t: row[f"max.{t}"] for t in times if row.get(f"max.{t}") is not None},
            )
            for row in actions.sort("path").iter_rows(named=True)
        ]

    def append(self, table: Table, frame: pl.DataFrame, *, note: str = "") -> int:
        """Adds rows in one commit; returns how many."""
        rows = table.conform(frame)
        if rows.height:
            with self.writing(table):
                self._write(table, rows, mode="append", note=note)
        return rows.height

    def replace(self, table: Table, frame: pl.DataFrame, partition: Mapping[str, str], *, note: str = "") -> int:
        """Replaces one partition by `frame` in one commit; returns its number of rows.

        `partition` maps partition columns to the values of the partition. An empty frame empties the partition.
        """
        rows = table.conform(frame)
        stray = [c for c in partition if c not in table.schema]
        if stray or not partition:
            raise TableError(f"a partition is named by columns of the table, not {sorted(partition)}", where=table.name)
        with self.writing(table):
            if self.delta(table) is None:
                if rows.height:
                    self._write(table, rows, mode="append", note=note)
                return rows.height
            self._write(table, rows, mode="overwrite", predicate=_partition_predicate(partition), note=note)
        return rows.height

    def replace_files(self, table: Table, files: Sequence[Path], partition: Mapping[str, str], *, note: str = "") -> int:
        """`replace` for a partition larger than memory: Parquet files are moved into the table and become visible in one commit.

        The files must be in the table's form (see `Table.conform`) without its partition columns, which `partition` must all name. An
        exception leaves the partition unchanged. Returns its number of rows.

        (Streaming into the partitioned writer of deltalake 1.6 keeps half a kilobyte a row until it is closed.)
        """
        if set(partition) != set(table.partition_by):
            raise TableError(f"a partition in files is named by {table.partition_by}, not {sorted(partition)}", where=table.name)
        with self.writing(table), self._reachable(table):
            delta = self._widened_or_new(table)
            return _move_in(delta, self.uri(table), table, files, partition, self._metadata(note), self.storage_options)

    def add_files(self, table: Table, actions: Sequence[AddAction], *, note: str = "") -> None:
        """Adds files below the table's folder to the table in one commit (see `ledger.staging`)."""
        with self.writing(table), self._reachable(table):
            delta = self._widened_or_new(table)
            self._commit(delta, table, actions, note)

    def replace_actions(self, table: Table, actions: Sequence[AddAction | RemoveAction], *, note: str = "") -> None:
        """Removes files from a table and adds others with the same rows, in one commit (see `ledger.compaction`)."""
        with self.writing(table), self._reachable(table):
            delta = self.delta(table)
            if delta is None:
                raise TableError("has no files to replace", where=table.name)
            self._commit(delta, table, actions, note)

    def _commit(self, delta: DeltaTable, table: Table, actions: Sequence[AddAction | RemoveAction], note: str) -> None:
        """Adds and removes files in one commit."""
        delta.create_write_transaction(
            list(actions), "append", delta.schema(), partition_by=list(table.partition_by), commit_properties=self._metadata(note)
        )

    def merge(self, table: Table, frame: pl.DataFrame, *, prefer: str, note: str = "") -> int:
        """Adds rows with new keys and replaces rows by more complete ones; returns how many rows changed.

        Of two rows with one key the one with the higher `prefer` is kept; ties are broken by content, so that the result
        does not depend on the order or batching of deliveries. Only partitions of the frame's dates are read.
        """
        rows = _fullest(table, table.conform(frame), prefer)
        if not rows.height:
            return 0
        partition = table.partition_by[0]
        days = [str(d) for d in rows[partition].unique().sort()]
        with self.writing(table):
            if self.delta(table) is None:
                self._write(table, rows, mode="append", note=note)
                return rows.height
            candidates, keys = self.scan(table, {partition: days}), rows.lazy().select(table.key)
            # Most deliveries are new: only the columns of the key are read to see it.
            existing_keys = candidates.select(table.key).join(keys, on=list(table.key), how="semi").collect()
            if not existing_keys.height:
                self._write(table, rows, mode="append", note=note)
                return rows.height
            existing_rows = candidates.join(existing_keys.lazy(), on=list(table.key), how="semi").collect()
            winners = _fullest(table, pl.concat([existing_rows, rows]), prefer)
            changed_rows = _rows_not_in(winners, existing_rows)
            if not changed_rows.height:
                return 0
            changed_days = [str(d) for d in changed_rows[partition].unique().sort()]
            other_rows = (
                self.scan(table, {partition: changed_days})
                .join(changed_rows.lazy().select(table.key), on=list(table.key), how="anti")
                .collect()
            )
            day_list = ", ".join(f"'{day}'" for day in changed_days)
            self._write(
                table,
                pl.concat([other_rows, changed_rows]),
                mode="overwrite",
                predicate=f"{partition} IN ({day_list})",
                note=note,
            )
        return changed_rows.height

    @contextmanager
    def writing(self, table: Table) -> Iterator[None]:
        """Held around whatever changes a table, or finds that it need not be changed: one write at a time, and `sync` knows of it."""
        with self._lock:
            try:
                yield
            finally:
                self._table_sync.note(table.name)

    def sync(self) -> None:
        """Returns when every commit of the tables written here is on disk, also those of a process that was killed before it said so.

        Nothing is to be done on S3: an object is durable when its upload is acknowledged.
        """
        self._table_sync.sync()

    def _write(self, table: Table, rows: pl.DataFrame, *, mode: Any, note: str, predicate: str | None = None) -> None:
        options: dict[str, Any] = {
            "partition_by": list(table.partition_by),
            "writer_properties": _WRITER,
            "commit_properties": self._metadata(note),
        }
        if predicate is not None:
            options["predicate"] = predicate
        with self._reachable(table):
            self._widen(table)
            rows.write_delta(
                self.uri(table), mode=mode, storage_options=self.storage_options or None, delta_write_options=options
            )

    def _widened_or_new(self, table: Table) -> DeltaTable:
        if (delta := self._widen(table)) is not None:
            return delta
        schema = table.empty().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        return DeltaTable.create(
            self.uri(table), schema, partition_by=list(table.partition_by), storage_options=self.storage_options or None
        )

    def _widen(self, table: Table) -> DeltaTable | None:
        """The table, if there is one, with the columns that an older version lacks; they are null in its rows."""
        if (delta := self.delta(table)) is None:
            return None
        column_names = {field.name for field in delta.schema().fields}
        if not column_names.issuperset(table.schema):
            arrow = table.empty().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
            delta.alter.add_columns([field for field in Schema.from_arrow(arrow).fields if field.name not in column_names])
        return delta

    def _metadata(self, note: str) -> CommitProperties | None:
        return CommitProperties(custom_metadata={"note": note}) if note else None

    @contextmanager
    def _reachable(self, table: Table) -> Iterator[None]:
        try:
            if not self.root.startswith("s3://"):
                make_folder(Path(self.root))
            yield
        except (OSError, DeltaError) as error:
            disk_error = None if "://" in self.root else disk.error_of(error, self.uri(table))
            if disk_error is None and not isinstance(error, OSError):
                raise
            raise disk_error or StoreUnreachable(
                str(error), where=self.uri(table), remedy="check the store's address and credentials"
            ) from error


def _move_in(
    delta: DeltaTable,
    root: str,
    table: Table,
    files: Sequence[Path],
    partition: Mapping[str, str],
    metadata: CommitProperties | None,
    storage_options: Mapping[str, str],
) -> int:
    # As deltalake lays files out: values escaped in folder names (it escapes those names once more in its log).
    folder = "/".join(f"{column}={quote(partition[column], safe='')}" for column in table.partition_by)
    actions: list[AddAction | RemoveAction] = []
    total = 0
    for file in files:
        path = f"{folder}/part-{uuid.uuid4()}.zstd.parquet"
        size, rows = file.stat().st_size, pl.scan_parquet(file).select(pl.len()).collect().item()
        place_file(file, root, path, storage_options)
        file.unlink()
        actions.append(AddAction(path, size, dict(partition), int(time.time() * 1000), True, json.dumps({"numRecords": rows})))
        total += rows
    delta.create_write_transaction(
        actions,
        "overwrite",
        delta.schema(),
        partition_by=list(table.partition_by),
        partition_filters=[(column, "=", value) for column, value in partition.items()],
        commit_properties=metadata,
    )
    return total


def place_file(file: Path, root: str, path: str, storage_options: Mapping[str, str]) -> None:
    """Copies a file below a table's root. It becomes part of the table with the commit, and is vacuumed if there is none."""
    if not root.startswith("s3://"):
        target = Path(root) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(file)  # files of tables are never modified, so a hard link is safe
        except OSError:
            shutil.copyfile(file, target)
        return
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(storage_options)
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    try:
        client.upload_file(str(file), bucket, f"{prefix}/{path}".lstrip("/"))
    except (BotoCoreError, ClientError) as error:
        raise OSError(str(error)) from error


def _partition_predicate(partition: Mapping[str, str]) -> str:
    return " AND ".join(f"{column} = '{value.replace(chr(39), chr(39) * 2)}'" for column, value in partition.items())


def _fullest(table: Table, rows: pl.DataFrame, prefer: str) -> pl.DataFrame:
    """One row per key: the most complete one; ties are broken by content, never by position."""
    if rows.select(table.key).is_unique().all():
        return rows
    content = pl.concat_str(
        [pl.col(c).cast(pl.String).fill_null("\x00") for c in rows.columns if c != "raw_id"], separator="\x1f"
    )
    return (
        rows.with_columns(__content=content)
        .sort([prefer, "__content"], descending=True, nulls_last=True)
        .unique(list(table.key), keep="first", maintain_order=True)
        .drop("__content")
    )


def _rows_not_in(winners: pl.DataFrame, existing_rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `winners` that are not in `existing_rows`, ignoring the file they were read from."""
    columns = [c for c in winners.columns if c != "raw_id"]
    return winners.join(existing_rows, on=columns, how="anti", nulls_equal=True)
