"""Finding rows by their keys: a hash table in whole columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows32 = NDArray[np.int32]
Keys = NDArray[np.int64]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xD6E8FEB86659FD93)
NONE = -1


class Rows:
    """The rows of (trace key, span key), one row a key.

    Open addressing, all rows at once: whoever finds its slot taken by another moves on by one. Both keys are mixed into one of 64 bits
    to search by, and what is found is compared by its own keys: exact, and several times faster than a join on two columns.

    >>> rows = Rows(np.array([7, 7, 8, 7]), np.array([1, 2, 1, 2]))
    >>> rows.find(np.array([7, 8, 8]), np.array([2, 1, 9])).tolist(), rows.doubles.tolist()
    ([1, 2, -1], [3])
    """

    def __init__(self, trace: Keys, span: Keys) -> None:
        self._trace, self._span = trace, span
        self._mixed = _mix(trace, span)
        self._shift = np.uint64(64 - (max(len(trace), 8).bit_length() + 1))
        self._table = np.full(1 << (64 - int(self._shift)), NONE, dtype=np.int32)
        self.doubles = self._insert()
        """Rows whose key an earlier row bears already: they are not found."""

    def _insert(self) -> Rows32:
        table, mask = self._table, np.int32(len(self._table) - 1)
        rows, slot = np.arange(len(self._mixed), dtype=np.int32), (self._mixed >> self._shift).astype(np.int32)
        doubles: list[Rows32] = []
        while len(rows):
            wanted = table[slot] == NONE if len(rows) < len(self._mixed) else slice(None)
            # Written backwards: of several that want a slot, the first row is the last to write.
            table[slot[wanted][::-1]] = rows[wanted][::-1]
            held = table[slot]
            lost = np.flatnonzero(held != rows)
            rows, slot, held = rows[lost], slot[lost], held[lost]
            double = self._same(held, self._mixed[rows], self._trace[rows], self._span[rows])
            if double.any():
                doubles.append(rows[double])
                rows, slot = rows[~double], slot[~double]
            slot = (slot + np.int32(1)) & mask
        return np.sort(np.concatenate(doubles)) if doubles else rows

    def _same(self, held: Rows32, mixed: NDArray[np.uint64], trace: Keys, span: Keys) -> NDArray[np.bool_]:
        same = self._mixed[held] == mixed
        likely = np.flatnonzero(same)
        same[likely] = (self._trace[held[likely]] == trace[likely]) & (self._span[held[likely]] == span[likely])
        return same

    def find(self, trace: Keys, span: Keys) -> Rows32:
        """The row of each key, or NONE."""
        if not len(self._mixed):
            return np.full(len(trace), NONE, dtype=np.int32)
        table, mask = self._table, np.int32(len(self._table) - 1)
        mixed = _mix(trace, span)
        slot = (mixed >> self._shift).astype(np.int32)
        out = table[slot]
        # Most keys are met in their own slot; the few others ask on.
        miss = np.flatnonzero((out != NONE) & ~self._same(out, mixed, trace, span))
        slot = slot[miss]
        while len(miss):
            slot = (slot + np.int32(1)) & mask
            held = table[slot]
            out[miss] = held
            on = np.flatnonzero((held != NONE) & ~self._same(held, mixed[miss], trace[miss], span[miss]))
            miss, slot = miss[on], slot[on]
        return out


def _mix(trace: Keys, span: Keys) -> NDArray[np.uint64]:
    mixed: NDArray[np.uint64] = ((trace.view(np.uint64) * _ODD) ^ span.view(np.uint64)) * _SPREAD
    return mixed
