"""Finding rows by their keys: a hash table in whole columns."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ledger.hashing import GOLDEN_GAMMA

Rows32 = NDArray[np.int32]
Keys = NDArray[np.int64]
Mixed = NDArray[np.uint64]

_SPREAD = np.uint64(0xD6E8FEB86659FD93)
_NEAR, _NEAR_BITS = 4, np.uint64(10)
NONE = -1


class SpanIndex:
    """A hash table from (trace key, span key) to the first row with that key.

    Open addressing over whole columns: rows whose slot is taken probe the next slot. The spans of a trace have nearby slots, so that parents
    are in the processor's cache; after a few probes, as in a trace of a million spans, a slot anywhere is used. Keys are compared exactly,
    and lookups are several times faster than a join on two columns.

    >>> rows = SpanIndex(np.array([7, 7, 8, 7]), np.array([1, 2, 1, 2]))
    >>> rows.find(np.array([7, 8, 8]), np.array([2, 1, 9])).tolist(), rows.duplicates.tolist()
    ([1, 2, -1], [3])
    """

    def __init__(self, trace: Keys, span: Keys) -> None:
        self._trace, self._span = trace, span
        bits = max(len(trace), 8).bit_length() + 1
        self._shift, self._mask = np.uint64(64 - bits), np.int32((1 << bits) - 1)
        self._mixed = _mix(trace, span)
        self._table = np.full(1 << bits, NONE, dtype=np.int32)
        self.duplicates = self._insert()
        """Rows whose key an earlier row has: `find` never returns them."""

    def _near(self, trace: Keys, key_hash: Mixed) -> Rows32:
        """The first slot of a key."""
        slot = ((trace.view(np.uint64) * GOLDEN_GAMMA) >> self._shift).astype(np.int32)
        slot += (key_hash >> (np.uint64(64) - _NEAR_BITS)).astype(np.int32)
        slot &= self._mask
        return slot

    def _next(self, slot: Rows32, key_hash: Mixed, probes: int) -> Rows32:
        """The slot to probe after `probes` attempts."""
        if probes == _NEAR:
            return ((key_hash * _SPREAD) >> self._shift).astype(np.int32)
        return (slot + np.int32(1)) & self._mask

    def _insert(self) -> Rows32:
        table = self._table
        rows, key_hash, slot = np.arange(len(self._mixed), dtype=np.int32), self._mixed, self._near(self._trace, self._mixed)
        duplicates: list[Rows32] = []
        probes = 0
        while len(rows):
            is_free = table[slot] == NONE if probes else slice(None)
            # Written in reverse: of several rows for one slot, the first is written last and wins.
            table[slot[is_free][::-1]] = rows[is_free][::-1]
            occupants = table[slot]
            unplaced_rows = np.flatnonzero(occupants != rows)
            rows, key_hash, slot = rows[unplaced_rows], key_hash[unplaced_rows], slot[unplaced_rows]
            is_duplicate = self._same(occupants[unplaced_rows], key_hash, self._trace, self._span, rows)
            if is_duplicate.any():
                duplicates.append(rows[is_duplicate])
                rows, key_hash, slot = rows[~is_duplicate], key_hash[~is_duplicate], slot[~is_duplicate]
            probes += 1
            slot = self._next(slot, key_hash, probes)
        return np.sort(np.concatenate(duplicates)) if duplicates else rows

    def _same(
        self, occupants: Rows32, key_hash: Mixed, trace: Keys, span: Keys, key_rows: Rows32 | None = None
    ) -> NDArray[np.bool_]:
        """Whether the occupying rows have the keys at `key_rows`, or all keys in order."""
        is_same: NDArray[np.bool_] = self._mixed[occupants] == key_hash
        candidates = np.flatnonzero(is_same)
        candidate_rows, positions = occupants[candidates], candidates if key_rows is None else key_rows[candidates]
        is_same[candidates] = (self._trace[candidate_rows] == trace[positions]) & (self._span[candidate_rows] == span[positions])
        return is_same

    def find(self, trace: Keys, span: Keys) -> Rows32:
        """The row of each key, or NONE."""
        if not len(self._mixed):
            return np.full(len(trace), NONE, dtype=np.int32)
        key_hash = _mix(trace, span)
        slot = self._near(trace, key_hash)
        rows = self._table[slot]
        # Most keys are in their first slot; only the others are probed further.
        miss = np.flatnonzero((rows != NONE) & ~self._same(rows, key_hash, trace, span)).astype(np.int32)
        slot, key_hash = slot[miss], key_hash[miss]
        probes = 0
        while len(miss):
            probes += 1
            slot = self._next(slot, key_hash, probes)
            occupants = self._table[slot]
            rows[miss] = occupants
            retry = np.flatnonzero((occupants != NONE) & ~self._same(occupants, key_hash, trace, span, miss))
            miss, slot, key_hash = miss[retry], slot[retry], key_hash[retry]
        return rows


def index_spans(spans: pl.DataFrame) -> SpanIndex:
    """The index of a frame's `trace_key` and `span_key`."""
    return SpanIndex(spans["trace_key"].to_numpy(), spans["span_key"].to_numpy())


def _mix(trace: Keys, span: Keys) -> Mixed:
    key_hash: Mixed = ((trace.view(np.uint64) * GOLDEN_GAMMA) ^ span.view(np.uint64)) * _SPREAD
    return key_hash
