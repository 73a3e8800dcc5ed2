"""What syncing the tables costs ingestion: spans a second into a new ledger with and without it: `python -m bench.sync_cost [--rows N]`.

Batches of rows are merged as `rootcost ingest` and the receivers do, each followed by the sync before its checkpoint moves. "syncfs" writes the
whole file system back in one call instead of each file; it is measured for comparison. One JSON line.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from ledger.store import Store
from ledger.tables import SPANS
from tests.support.books_by_hand import SONNET, span, spans

DAYS = 5


def batch(number: int, rows: int) -> pl.DataFrame:
    """Spans with ids of their own, over a few days."""
    one = spans(span(1, 1, agent_name="coder", input_tokens=1200, output_tokens=300, **SONNET))
    ids = pl.int_range(number * rows, (number + 1) * rows, dtype=pl.Int64, eager=True)
    times = pl.Series(one["start_time"]).dt.offset_by("0d")
    frame = pl.concat([one] * rows).with_columns(
        trace_key=ids.hash(), span_key=ids, trace_id=ids.hash(1).cast(pl.String), span_id=ids.cast(pl.String)
    )
    frame = frame.with_columns(trace_key=pl.col("trace_key").reinterpret(signed=True))
    start_time = pl.lit(times[0]) + pl.duration(days=pl.col("span_key") % DAYS, microseconds=pl.col("span_key"))
    return frame.with_columns(start_time=start_time, end_time=start_time).with_columns(date=pl.col("start_time").dt.date())


def rows_per_second(batches: list[pl.DataFrame], folder: Path, sync: Callable[[Store], None]) -> float:
    """Merges the batches into a new store, each followed by `sync`."""
    os.sync()
    store = Store(folder)
    began = time.perf_counter()
    for frame in batches:
        store.merge(SPANS, frame, prefer="rank")
        sync(store)
    return sum(frame.height for frame in batches) / (time.perf_counter() - began)


def _syncfs(store: Store) -> None:
    handle = os.open(store.root, os.O_RDONLY)
    ctypes.CDLL(None).syncfs(handle)
    os.close(handle)


def main() -> None:
    """Prints the best of three of each, taken in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=250_000)
    options = parser.parse_args()
    batches = [batch(number, options.batch) for number in range(options.rows // options.batch)]
    ways: dict[str, Callable[[Store], None]] = {"without": lambda _: None, "synced": Store.sync, "syncfs": _syncfs}
    rates: dict[str, float] = dict.fromkeys(ways, 0.0)
    for _ in range(3):
        for name, sync in ways.items():
            with tempfile.TemporaryDirectory(prefix="rootcost-bench-") as folder:
                rates[name] = max(rates[name], rows_per_second(batches, Path(folder) / "tables", sync))
    figures = {f"rows/s {name}": round(rate) for name, rate in rates.items()}
    share = round(100 * rates["synced"] / rates["without"])
    print(json.dumps({"sync cost": {"rows": options.rows, "batch": options.batch, **figures, "synced in percent": share}}))


if __name__ == "__main__":
    main()
