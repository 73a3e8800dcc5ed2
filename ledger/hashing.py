"""Hashes of numbers, rows and texts that are equal in every process and on every machine.

Usage keys, fingerprints and run inputs are persisted: a change of any function here changes them and makes every month due again.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, odd: the increment of splitmix64, and a multiplier for Fibonacci hashing."""

ROW_SEED = 727


def splitmix64(numbers: Hashes) -> Hashes:
    """The finalizer of splitmix64, a bijection in which every input bit affects every output bit.

    It maps 0 to 0; a generator adds `GOLDEN_GAMMA` before each call.

    >>> [hex(n) for n in splitmix64(np.array([0, 1], np.uint64))]
    ['0x0', '0x5692161d100b05e5']
    >>> hex(splitmix64(np.array([GOLDEN_GAMMA]))[0])  # the first output of the generator seeded with 0
    '0xe220a8397b1dcdaf'
    """
    bits = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def combine_hashes(*parts: Hashes) -> Hashes:
    """One hash a row of several columns of hashes; their order matters.

    >>> a, b = np.array([1, 1, 2], np.uint64), np.array([5, 5, 5], np.uint64)
    >>> combined = combine_hashes(a, b)
    >>> bool(combined[0] == combined[1]), bool(combined[0] == combined[2]), bool(combined[0] == combine_hashes(b, a)[0])
    (True, False, False)
    """
    combined = np.zeros(len(parts[0]), dtype=np.uint64)
    for part in parts:
        combined = splitmix64((combined ^ part) + GOLDEN_GAMMA)
    return combined


def row_hash(*columns: str) -> pl.Expr:
    """A 64-bit hash of each row's values in `columns`, all columns by default.

    >>> pl.DataFrame({"a": ["x", "x"], "b": [None, 1]}).select(row_hash() == row_hash("a", "b")).to_series().to_list()
    [True, True]
    """
    return pl.struct(columns or pl.all()).hash(seed=ROW_SEED)


def content_sum(*columns: str) -> pl.Expr:
    """The sum of the rows' hashes: it changes when a row does, and does not depend on their order.

    >>> frame = pl.DataFrame({"a": [1, 2, 3]})
    >>> frame.select(content_sum()).item() == frame.reverse().select(content_sum()).item()
    True
    """
    return row_hash(*columns).cast(pl.Decimal(38, 0)).sum()


def fingerprint(*texts: str) -> str:
    """32 hex digits that stand for a sequence of texts.

    >>> fingerprint("charges", "7") == fingerprint("charges|7"), fingerprint("charges", "8") == fingerprint("charges|7")
    (True, False)
    """
    return blake2b("|".join(texts).encode(), digest_size=16).hexdigest()
