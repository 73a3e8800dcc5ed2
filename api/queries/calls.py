"""Calls with the ids of their spans. The table `calls` keeps what was concluded, and refers to spans by key."""

from __future__ import annotations

import polars as pl

from api.queries.gate import ScopedBooks
from ledger.tables import SPANS

CALL = ("trace_key", "span_key")
"""Key of a call within the rollups in force, and of its span."""


def with_ids(books: ScopedBooks, calls: pl.DataFrame) -> pl.DataFrame:
    """A few rows of `calls` with `trace_id` and `span_id`, as their spans have them."""
    days, traces = calls["start_time"].dt.date().unique(), calls["trace_key"].unique()
    # The dates are partitions: only their files are opened.
    spans = books.whole.store.scan(SPANS, {"date": [str(day) for day in days]}).filter(
        pl.col("trace_key").is_in(traces.implode())
    )
    ids = spans.sort("rank", "channel", descending=[True, False]).select(*CALL, "trace_id", "span_id").unique(CALL, keep="first")
    return calls.lazy().join(ids, on=CALL, how="left", maintain_order="left").collect()
