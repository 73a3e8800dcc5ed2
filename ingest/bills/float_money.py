"""Doubles of a Parquet bill as decimals: the shortest decimal that parses to the double, without formatting text."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from ledger import money
from ledger.money import MONEY, SCALE

_UNIT = 10.0**SCALE
_EXACT = 1e15


def as_money(column: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """MONEY as `money.parse` reads it from the shortest text, and the texts with more than twelve decimals, if there are any.

    >>> kept, written = as_money(pl.Series("cost", [0.1, 1.2345678901234568e-05, None, float("nan")]))
    >>> [str(c) for c in kept], written.to_list()
    (['0.100000000000', '0.000012345679', 'None', 'None'], [None, '0.000012345678901234568', None, None])

    Why no text is needed: let m be the nearest integer to x·10^12. If m has at most fifteen digits and m / 10^12 is x again, then
    m·10^-12 is the only decimal of fifteen digits that means x, and so it is the shortest text. (A division of two integers that
    doubles hold exactly is rounded once.) All others go through their text.
    """
    values = column.fill_null(0.0).to_numpy()
    with np.errstate(over="ignore"):  # infinite units are not exact
        units = np.rint(values * _UNIT)
    exact = (np.abs(units) < _EXACT) & (units / _UNIT == values)
    whole = np.where(exact, units, 0).astype(np.int64)
    halves = np.empty((len(whole), 2), np.int64)  # a 128-bit integer, lower half first
    halves[:, 0], halves[:, 1] = whole, whole >> 63
    absent = column.is_null().to_numpy()
    at = np.flatnonzero(~exact & ~absent)
    long_texts = None
    if len(at):
        text = column.gather(at).cast(pl.String)
        parsed_text = text.to_frame("t").select(kept=money.parse(pl.col("t")), written=money.beyond_twelve_places(pl.col("t")))
        digits = parsed_text["kept"].fill_null(0).to_arrow()
        halves[at] = np.frombuffer(digits.buffers()[1], np.int64).reshape(-1, 2)[digits.offset : digits.offset + len(at)]
        absent = absent.copy()
        absent[at] = parsed_text["kept"].is_null().to_numpy()
        if parsed_text["written"].null_count() < len(at):
            long_texts = pl.Series(column.name, [None], dtype=pl.String).new_from_index(0, len(column))
            long_texts = long_texts.scatter(at, parsed_text["written"])
    valid = pa.array(~absent).buffers()[1] if absent.any() else None
    buffer_array = pa.Array.from_buffers(pa.decimal128(38, SCALE), len(column), [valid, pa.py_buffer(halves)])
    return pl.Series(column.name, pl.from_arrow(buffer_array), dtype=MONEY), long_texts
