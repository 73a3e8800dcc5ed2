"""Bill files that were read, as rows of `raw_files`, so that a figure can be traced to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from ingest.source import Batch, RawObject
from ledger.store import Store
from ledger.tables import RAW_FILES


def record_files(store: Store, files: Sequence[dict[str, object]]) -> None:
    """Adds what was read to `raw_files`; a file known at this address, under this dataset, is not added again."""
    if not files:
        return
    keys = ["source", "raw_id", "uri", "scope"]
    rows = RAW_FILES.conform(pl.DataFrame(files, schema=RAW_FILES.schema)).unique(keys, keep="first", maintain_order=True)
    stored_files = store.scan(RAW_FILES, {"source": rows["source"].unique().to_list()}).select(keys).collect()
    store.append(RAW_FILES, rows.join(stored_files, on=keys, how="anti", maintain_order="left"))


def raw_file_row(
    source: str,
    item: RawObject,
    batch: Batch,
    rows: int,
    rows_refused: int,
    month: str | None,
    now: datetime,
    broken_off: str | None = None,
) -> dict[str, object]:
    """A file that was read, as a row of `raw_files`."""
    return {
        "raw_id": item.raw_id,
        "source": source,
        "uri": item.uri,
        "scope": batch.scope,
        "billing_month": month,
        "bytes": item.size,
        "rows_read": rows,
        "rows_refused": rows_refused,
        "fetched_at": now,
        "version": batch.version or item.version or None,
        "broken_off": broken_off,
    }
