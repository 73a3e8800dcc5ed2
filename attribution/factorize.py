"""Dictionary encoding: the few distinct combinations among millions of rows, as small integer codes.

Lookups by text (the owner of a name, the model of a spelling) are made once for each distinct combination and gathered by code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Index = NDArray[np.int32]
NONE = -1
_SMALL = 1 << 22
"""Up to this many possible codes, the occurring ones are found by a table instead of a sort."""


class Codes(NamedTuple):
    """A code for each row, and the number of possible codes."""

    code: NDArray[Any]
    size: int


def encode_flags(values: NDArray[np.bool_]) -> Codes:
    """Booleans as codes 0 and 1."""
    return Codes(values.astype(np.int32), 2)


def encode_rows(values: Index, size: int) -> Codes:
    """Row numbers below `size`, or NONE, as codes."""
    return Codes(values + 1, size + 1)


def encode(column: pl.Series) -> Codes:
    """Equal values have equal codes; null has its own.

    >>> encode(pl.Series(["b", None, "b"])).code.tolist()
    [0, 1, 0]
    """
    if column.null_count() == len(column):
        return Codes(np.zeros(len(column), dtype=np.int32), 1)
    if column.dtype != pl.String:
        column = column.cast(pl.String)
    # A private set of categories, so that a long-running process does not keep the values of every partition.
    physical = column.cast(pl.Categorical(pl.Categories.random())).to_physical().cast(pl.Int32)
    highest = physical.max()
    assert isinstance(highest, int)
    return Codes(physical.fill_null(highest + 1).to_numpy(), highest + 2)


def encode_columns(frame: pl.DataFrame, names: Iterable[str]) -> list[Codes]:
    """Codes of these columns; columns without values are left out."""
    return [encode(frame[name]) for name in non_null_columns(frame, names)]


def non_null_columns(frame: pl.DataFrame, names: Iterable[str]) -> list[str]:
    """The columns with any value. Counted on the frame, which keeps a null literal unexpanded."""
    nulls = frame.select(names).null_count().row(0, named=True)
    return [name for name, count in nulls.items() if count < frame.height]


def combine(height: int, parts: Sequence[Codes]) -> tuple[Index, Index]:
    """One code for each distinct combination, numbered without gaps, and the first row of each.

    >>> a, b = Codes(np.array([0, 1, 0, 1]), 2), Codes(np.array([5, 5, 5, 6]), 7)
    >>> [x.tolist() for x in combine(4, [a, b])]
    [[0, 1, 0, 2], [0, 1, 3]]
    """
    key: NDArray[Any] = np.zeros(height, dtype=np.int64)
    size = 1
    for part in parts:
        if part.size <= 1:
            continue
        if size > 1 and size * part.size > _SMALL:
            key, first = _dense(key, size)
            size = len(first)
        key = key * np.int64(part.size) + part.code if size > 1 else part.code
        size *= part.size
    return _dense(key, size)


def _dense(key: NDArray[Any], size: int) -> tuple[Index, Index]:
    rows = np.arange(len(key), dtype=np.int32)
    if size <= max(_SMALL, 4 * len(key)):
        first = np.full(size, NONE, dtype=np.int32)
        first[key[::-1]] = rows[::-1]
        used = np.flatnonzero(first != NONE)
        number = np.empty(size, dtype=np.int32)
        number[used] = np.arange(len(used), dtype=np.int32)
        return number[key], first[used]
    order = rows
    for shift in range(0, size.bit_length(), 16):
        # Numpy sorts 16 bits by counting them, several times faster than it compares 64.
        digit = (key >> shift).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")] if shift else np.argsort(digit, kind="stable").astype(np.int32)
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = key[order[1:]] != key[order[:-1]]
    code = np.empty(len(key), dtype=np.int32)
    code[order] = np.cumsum(is_first, dtype=np.int32) - 1
    return code, order[is_first]


def decode(table: pl.DataFrame, code: Index) -> pl.DataFrame:
    """The rows of a small table by code. A constant column becomes a literal instead of being gathered; text becomes Enum, so that codes
    are copied instead of words.

    >>> decode(pl.DataFrame({"team": ["a", "b"]}), np.array([1, 0, 1])).to_series().to_list()
    ['b', 'a', 'b']
    """
    table = encode_text(table)
    constant = [column for column in table if column.n_unique() == 1]
    varying = table.drop(column.name for column in constant)
    frame = varying[code] if varying.width else pl.DataFrame(height=len(code))
    return frame.with_columns(pl.lit(column[0], dtype=column.dtype).alias(column.name) for column in constant).select(
        table.columns
    )


def encode_text(table: pl.DataFrame) -> pl.DataFrame:
    """The columns of a small table with text as Enum.

    >>> encode_text(pl.DataFrame({"team": ["b", None, "b"]}))["team"].dtype.categories.to_list()
    ['b']
    """
    texts = table.select(pl.selectors.string())
    return table.with_columns(column.cast(pl.Enum(column.drop_nulls().unique().sort())) for column in texts)


def distinct_rows(table: pl.DataFrame) -> tuple[Index, pl.DataFrame]:
    """The code of each row of a small table, and its distinct rows."""
    distinct = table.unique(maintain_order=True)
    number = table.join(distinct.with_row_index("__code"), on=table.columns, how="left", nulls_equal=True, maintain_order="left")[
        "__code"
    ]
    return number.cast(pl.Int32).to_numpy(), distinct
