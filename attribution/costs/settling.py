"""Settling: up to which moment a bill can hold usage, given when it was read and how late its provider's usage arrives. (ES-1a)

A bill covers what it can hold: each charge up to its period's end, or to the moment its file was read less the settling lag of its
source, whichever is earlier. `raw_files.as_of` is that moment; a file is as old as its bytes, however often it is read again.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache

import polars as pl

from attribution.classification import names
from ledger.store import Store
from ledger.tables import RAW_FILES, TIME

NO_READ_TIMES = pl.DataFrame(schema={"raw_id": pl.String, "read_at": TIME})


def read_times(store: Store, sources: Collection[str], now: datetime) -> pl.DataFrame:
    """The moment up to which each bill file can hold charges, by raw_id; `now` at the latest, since a clock may have been ahead.

    Of several readings of the same bytes the first counts, unless it was made by a clock that was behind the usage in the file.
    """
    files = store.scan(RAW_FILES, {"source": sorted(sources)}).select("raw_id", "fetched_at", "as_of").collect()
    moment = pl.coalesce("as_of", "fetched_at")
    clock_was_behind = (pl.col("as_of") > pl.col("fetched_at")).fill_null(value=False)
    return (
        files.sort(clock_was_behind, moment)
        .unique("raw_id", keep="first", maintain_order=True)
        .select(
            "raw_id",
            read_at=pl.when(clock_was_behind).then("as_of").otherwise(pl.min_horizontal(moment, pl.lit(now, dtype=TIME))),
        )
    )


def with_read_times(charges: pl.LazyFrame, times: pl.DataFrame) -> pl.LazyFrame:
    """Charges with `read_at`; null where nothing says when their file was read."""
    return charges.join(times.lazy(), on="raw_id", how="left")


def with_complete_until(groups: pl.DataFrame) -> pl.DataFrame:
    """Charge groups with `complete_until`: the whole hour before which all usage has arrived; null: that of their period's end.

    An invoiced charge that is not restated any more is complete, and so is one that no file is known of.

    >>> from datetime import UTC
    >>> columns = {"provider": ["AWS", "OpenAI"], "source": ["focus", "openai"], "final": [False, False], "invoice_id": [None, None]}
    >>> groups = pl.DataFrame(columns | {"read_at": [datetime(2026, 11, 30, 14, 20, tzinfo=UTC)] * 2}, schema_overrides={"read_at": TIME})
    >>> [f"{hour:%d %H}" for hour in with_complete_until(groups)["complete_until"]]
    ['29 14', '29 14']
    """
    keys = groups.select("provider", "source").unique(maintain_order=True)
    lags = pl.Series([settling_lag(provider, source) for provider, source in keys.iter_rows()], dtype=pl.Duration("us"))
    is_open = ~(pl.col("final") & pl.col("invoice_id").is_not_null())
    frame = groups.join(
        keys.with_columns(__lag=lags), on=["provider", "source"], how="left", nulls_equal=True, maintain_order="left"
    )
    until = (pl.col("read_at") - pl.col("__lag")).dt.truncate("1h")
    return frame.with_columns(complete_until=pl.when(is_open).then(until)).drop("__lag")


@cache
def settling_lag(provider: str | None, source: str | None) -> timedelta:
    """How long after its use a charge may still arrive on a bill: of the provider and source, else of the provider, else of any bill.

    >>> settling_lag("Anthropic", "anthropic"), settling_lag("NoSuchCloud", "focus")
    (datetime.timedelta(seconds=10800), datetime.timedelta(days=1))
    """
    hours = {(row["provider"], row["source"]): int(row["hours"]) for row in names.table("settling")}
    keys = [(provider or "", source or ""), (provider or "", ""), ("", "")]
    return timedelta(hours=next(hours[key] for key in keys if key in hours))
