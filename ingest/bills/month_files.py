"""The charges of a month as Parquet files of the table: ids, text as dictionaries, one row group per batch.

A batch is encoded and written by a thread of its own while the next one is read, and is then released: only the 64 bits of each
row's id stay in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch, codes
from ledger.hashing import Hashes, splitmix64
from ledger.ids import hashed
from ledger.money import RATE
from ledger.tables import CHARGES

DIMENSIONS = tuple(name for name, dtype in CHARGES.schema.items() if dtype in (pl.String, pl.Boolean, RATE))
"""Dimension columns of `charges`."""
MEASURES = tuple(name for name in CHARGES.schema if name not in DIMENSIONS)
"""Measure columns: amounts, times, the line number."""
_TABLE_COLUMNS = ("charge_id", *(name for name in CHARGES.schema if name not in ("charge_id", *CHARGES.partition_by)))
_TEXT_COLUMNS = tuple(name for name in _TABLE_COLUMNS if CHARGES.schema[name] == pl.String and name != "charge_id")
_NOT_CONTENT = frozenset({"charge_id", "source", "scope", "raw_id", "line", "final"})
_EMPTY_TEXT = pa.array([], pa.string())
_FILE_ROWS = 2_000_000
_HIGH = np.uint64(0xD6E8FEB86659FD93)
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)


Ordinals = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group as written: the 64 bits of its ids, and the ordinals behind them; None where every id is new."""

    ids: Hashes
    nth: Ordinals | None


class MonthFiles:
    """Files of one month of one dataset below `folder`, named by `stem`."""

    def __init__(self, folder: Path, stem: str, month: str) -> None:
        self._folder, self._stem, self._month = folder, stem, month
        self._written: dict[Path, list[_Group]] = {}
        self._counter = _IdCounter()
        self._has_several_files = False
        self._writer: pq.ParquetWriter | None = None
        self._executor = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def add(self, batch: BillBatch) -> None:
        """Writes the batch as one row group, in the background. An error of the batch before is raised here."""
        self._wait()
        self._pending = self._executor.submit(self._write, batch)

    def absorb(self, other: MonthFiles) -> None:
        """Another's files; it must not be used any more."""
        groups = other._close()
        self._has_several_files = self._has_several_files or other._has_several_files or bool(groups and self._written)
        self._written |= groups
        if not self._has_several_files:
            self._counter = other._counter

    def finish(self) -> list[Path]:
        """All files; identical rows differ by their ordinal in `charge_id`. Nothing can be added afterwards."""
        groups_by_path = self._close()
        if self._has_several_files:
            nth = iter(_ordinals([group.ids for groups in groups_by_path.values() for group in groups]))
            for path, groups in groups_by_path.items():
                _number(path, groups, [next(nth) for _ in groups])
        return list(groups_by_path)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _close(self) -> dict[Path, list[_Group]]:
        self._wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return self._written

    def _write(self, batch: BillBatch) -> None:
        table, ids = to_table(batch, self._month)
        nth = self._counter.ordinals(ids)
        table = table.set_column(0, "charge_id", format_ids(ids, nth))
        path = next(reversed(self._written), None)
        if self._writer is None or path is None or sum(len(group.ids) for group in self._written[path]) >= _FILE_ROWS:
            if self._writer is not None:
                self._writer.close()
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self._stem}-{len(self._written)}.parquet"
            self._writer = _open(path, table.schema)
            self._written[path] = []
        self._writer.write_table(table, row_group_size=len(ids))
        self._written[path].append(_Group(ids, nth))


class _IdCounter:
    """Counts ids, to number repeated ones. A hash table recognises nearly all ids as new without a search."""

    def __init__(self) -> None:
        self._slots = np.zeros(0, np.bool_)
        self._groups: list[Hashes] = []

    def ordinals(self, ids: Hashes) -> Ordinals | None:
        """For each row how many rows had its id up to it; None where every row is the first."""
        if not len(self._slots):
            self._slots = np.zeros(1 << 26, np.bool_)
        slot = ids >> np.uint64(38)
        repeated_ids = np.unique(ids[self._slots[slot]])
        before = sum((_count(group, repeated_ids) for group in self._groups), np.zeros(len(repeated_ids), np.int64))
        self._slots[slot] = True
        sorted_ids = np.sort(ids)
        self._groups.append(sorted_ids)
        nth = _ordinals([ids])[0] if (sorted_ids[1:] == sorted_ids[:-1]).any() else None
        if before.any():
            is_repeated = np.isin(ids, repeated_ids[before > 0])
            nth = np.ones(len(ids), np.int64) if nth is None else nth
            nth[is_repeated] += before[np.searchsorted(repeated_ids, ids[is_repeated])]
        return nth


def _count(sorted_ids: Hashes, ids: Hashes) -> Ordinals:
    """How often each of `ids` is in the sorted `sorted_ids`."""
    return np.asarray(np.searchsorted(sorted_ids, ids, "right") - np.searchsorted(sorted_ids, ids, "left"), np.int64)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Arrow computes minimum and maximum of a dictionary column by scanning every row, which costs more than writing it.
    columns = [name for name in MEASURES if name in _TABLE_COLUMNS]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=list(_TEXT_COLUMNS),
        write_statistics=columns,
        store_schema=False,
    )


def to_table(batch: BillBatch, month: str) -> tuple[pa.Table, Hashes]:
    """The batch as an Arrow table, and the 64 bits of each row's id.

    The id is a sum over columns of hashes of the values, so that it does not depend on the file, the line, the
    dataset, the batch, or on which columns a report repeats. A null adds nothing.
    """
    number = batch.rows[DIMENSIONS_ROW].to_numpy()
    dimension_hashes = np.full(batch.dimensions.height, hashed(month) % 2**64, np.uint64)
    columns: dict[str, pa.Array] = {}
    for name in DIMENSIONS:
        if name in CHARGES.partition_by or name == "charge_id":
            continue
        if name in _TEXT_COLUMNS:
            if batch.dimensions[name].null_count() == batch.dimensions.height:
                columns[name] = pa.DictionaryArray.from_arrays(pa.nulls(len(number), pa.int32()), _EMPTY_TEXT)
                continue
            encoded = batch.dimensions[name].to_arrow().cast(pa.string()).dictionary_encode()
            code = codes(encoded)[number]
            absent = code == len(encoded.dictionary) if encoded.null_count else None
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(code, mask=absent), encoded.dictionary, safe=False)
            if name not in _NOT_CONTENT:
                dimension_hashes += _hash_texts(encoded, name)
        else:
            columns[name] = batch.dimensions[name].gather(batch.rows[DIMENSIONS_ROW]).to_arrow()
            if name not in _NOT_CONTENT:
                dimension_hashes += _hash_numbers(batch.dimensions[name].to_arrow(), name)
    ids = dimension_hashes[number]
    for name in MEASURES:
        columns[name] = batch.rows[name].to_arrow()
        if name not in _NOT_CONTENT:
            ids += _hash_numbers(columns[name], name)
    ids = splitmix64(ids)
    columns["charge_id"] = format_ids(ids)
    return pa.table({name: columns[name] for name in _TABLE_COLUMNS}), ids


def format_ids(ids: Hashes, nth: Ordinals | None = None) -> pa.Array:
    """Ids as 16 hex digits; repeated ones have their ordinal behind.

    >>> format_ids(np.array([255, 255], np.uint64), np.array([1, 2])).to_pylist()
    ['00000000000000ff', '00000000000000ff-2']
    """
    digits = _HEX[ids.astype(">u8").view(np.uint8)]
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * 16
    plain = pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(digits))
    if nth is None:
        return plain
    with_ordinals = pc.binary_join_element_wise(plain, pa.array(nth).cast(pa.string()), "-")
    return pc.if_else(pa.array(nth > 1), with_ordinals, plain)


def _hash_texts(encoded: pa.DictionaryArray, column: str) -> Hashes:
    salt = np.uint64(_text_bits(column))
    text_hashes = np.fromiter(map(_text_bits, encoded.dictionary.to_pylist()), np.uint64, len(encoded.dictionary))
    of_code = np.append(splitmix64(text_hashes ^ salt), np.uint64(0))
    return np.asarray(of_code[codes(encoded)])


@lru_cache(1 << 17)
def _text_bits(text: str) -> int:
    return hashed(text) % 2**64


def _hash_numbers(array: pa.Array, column: str) -> Hashes:
    if pa.types.is_decimal(array.type):
        halves = np.frombuffer(array.buffers()[1], np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
        bits = halves[:, 0] + halves[:, 1] * _HIGH
    else:
        bits = array.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    hashes = splitmix64(bits + np.uint64(_text_bits(column)))
    if array.null_count:
        hashes[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return hashes


def _ordinals(groups: Sequence[Hashes]) -> list[Ordinals | None]:
    """For each row group, how many rows had its id up to each; None where every row is the first."""
    sorted_ids = np.sort(np.concatenate(groups))
    repeated_ids = np.unique(sorted_ids[1:][sorted_ids[1:] == sorted_ids[:-1]])
    if not len(repeated_ids):
        return [None] * len(groups)
    at = np.concatenate(groups)
    among = np.flatnonzero(np.isin(at, repeated_ids))
    nth = pl.DataFrame({"id": at[among]}).select(pl.int_range(1, pl.len() + 1).over("id")).to_series().to_numpy()
    ordinal = np.ones(len(at), np.int64)
    ordinal[among] = nth
    parts = np.split(ordinal, np.cumsum([len(group) for group in groups])[:-1])
    return [part if (part > 1).any() else None for part in parts]


def _number(path: Path, groups: Sequence[_Group], ordinals: Sequence[Ordinals | None]) -> None:
    """Rewrites a file whose rows have other ordinals now that the files before it are counted."""
    if all(np.array_equal(1 if a.nth is None else a.nth, 1 if b is None else b) for a, b in zip(groups, ordinals, strict=True)):
        return
    temporary_path = path.with_suffix(".numbered")
    with pq.ParquetFile(path, read_dictionary=list(_TEXT_COLUMNS)) as file, _open(temporary_path, file.schema_arrow) as writer:
        for number, (group, nth) in enumerate(zip(groups, ordinals, strict=True)):
            table = file.read_row_group(number).set_column(0, "charge_id", format_ids(group.ids, nth))
            writer.write_table(table, row_group_size=len(group.ids))
    temporary_path.replace(path)
