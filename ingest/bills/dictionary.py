"""Dictionary encoding of a bill: dimensions once per distinct combination, measures row by row.

A month of hourly rows repeats the same resources, prices and tags hour after hour. Files store such columns as dictionaries, so that
combinations are compared by their codes, without reading the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ledger.hashing import GOLDEN_GAMMA, Hashes, splitmix64

DIMENSIONS_ROW = "__word"
"""Column of `BillBatch.rows`: the number of the row of `BillBatch.dimensions` that belongs to the row."""


@dataclass(frozen=True, slots=True)
class BillBatch:
    """A bounded part of a bill. The dimensions of row i of `rows` are ``dimensions[rows[i].__word]``; a combination may occur twice."""

    rows: pl.DataFrame
    dimensions: pl.DataFrame

    def expand(self, expression: pl.Expr) -> pl.Series:
        """An expression of dimensions, evaluated once per combination and repeated for each row."""
        return self.dimensions.select(expression).to_series().gather(self.rows[DIMENSIONS_ROW])

    def filter(self, mask: pl.Series) -> BillBatch:
        """The rows of the mask; the dimensions stay as they are."""
        return BillBatch(self.rows.filter(mask), self.dimensions)


def encode(dimensions: Mapping[str, pa.Array], rows: pl.DataFrame) -> BillBatch:
    """A batch of dimensions (text, or maps of text) and measures.

    >>> batch = encode({"team": pa.array(["care", "data", "care"])}, pl.DataFrame({"cost": [1, 2, 3]}))
    >>> batch.dimensions["team"].to_list(), batch.rows["__word"].to_list(), batch.expand(pl.col("team")).to_list()
    (['care', 'data'], [0, 1, 0], ['care', 'data', 'care'])
    """
    row_hashes = np.zeros(rows.height, np.uint64)
    for place, array in enumerate(dimensions.values()):
        salt = splitmix64(np.array([place + 1], np.uint64))[0]
        column_hashes = _hash_entries(array, salt) if pa.types.is_nested(array.type) else _hash_text(array, salt)
        if column_hashes is not None:
            row_hashes += column_hashes
    # 64 bits suffice: among a quarter of a million combinations, two collide once in 10^8 batches.
    first = (
        pl.DataFrame({"looks": row_hashes}).with_row_index("at").select(pl.col("at").first().over("looks")).to_series().to_numpy()
    )
    is_first = first == np.arange(rows.height, dtype=np.uint32)
    number = np.cumsum(is_first, dtype=np.uint32) - np.uint32(1)
    at = pa.array(np.flatnonzero(is_first))
    distinct = {name: _to_series(array.take(at)) for name, array in dimensions.items()}
    return BillBatch(rows.with_columns(pl.Series(DIMENSIONS_ROW, number[first], dtype=pl.UInt32)), pl.DataFrame(distinct))


def _hash_text(array: pa.Array, salt: np.uint64) -> Hashes | None:
    """A hash per row, equal for equal text; None where all rows are equal."""
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    if len(encoded.dictionary) <= 1 and not encoded.null_count:
        return None
    return np.asarray(_hash_codes(len(encoded.dictionary), salt)[codes(encoded)])


def _hash_entries(array: pa.Array, salt: np.uint64) -> Hashes | None:
    """The same for maps and lists of keys and values: a sum over the entries, independent of their order."""
    if pa.types.is_struct(array.type):
        texts = pl.Series(pl.from_arrow(array)).struct.json_encode()
        return _hash_text(texts.to_arrow(), salt)
    is_map = pa.types.is_map(array.type)
    fields = [array.keys, array.items] if is_map else _fields(array.values)
    offsets = array.offsets.to_numpy()
    if offsets[-1] == offsets[0] and not array.null_count:
        return None
    first, last = int(offsets[0]), int(offsets[-1])
    entries = _hash_values(fields[0].slice(first, last - first), salt)
    for field in fields[1:]:
        entries *= _hash_values(field.slice(first, last - first), ~salt) | np.uint64(1)
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(entries, dtype=np.uint64)])
    alike = splitmix64(running[offsets[1:] - first] - running[offsets[:-1] - first] + salt)
    if array.null_count:
        alike[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return alike


def _hash_values(field: pa.Array, salt: np.uint64) -> Hashes:
    encoded = field if pa.types.is_dictionary(field.type) else field.cast(pa.string()).dictionary_encode()
    return np.asarray(_hash_codes(len(encoded.dictionary), salt)[codes(encoded)])


def _fields(structs: pa.Array) -> Sequence[pa.Array]:
    if pa.types.is_struct(structs.type):
        return [structs.field(i) for i in range(structs.type.num_fields)]
    return [structs]


def _hash_codes(size: int, salt: np.uint64) -> Hashes:
    """A hash for each code, and a last one for null."""
    return splitmix64(np.arange(size + 1, dtype=np.uint64) * GOLDEN_GAMMA + salt)


def codes(encoded: pa.DictionaryArray) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The number of each row's text in the dictionary; of null the number after the last."""
    indices = encoded.indices
    return np.asarray((pc.fill_null(indices, len(encoded.dictionary)) if indices.null_count else indices).to_numpy())


def _to_series(array: pa.Array) -> pl.Series:
    """The array as a Polars series, without dictionaries."""
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    elif pa.types.is_map(array.type):
        array = array.cast(pa.map_(pa.string(), pa.string()))
    return pl.Series(pl.from_arrow(array))
