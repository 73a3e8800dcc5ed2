"""Running counters: the usage of each invocation, from totals that run on over the life of an agent object. (CA-2a)

A counter is read against its last stand, never from zero because an id is missing. Earlier stands are sought in the same conversation, the
same trace, and the same process; of those that are not above it, the latest counts. Where there is none, the counter was started anew.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ledger.tables import TOKEN_METERS

NONE = -1
Index = NDArray[np.int32]
_OWNER = ("__agent", "service_name")
"""A counter belongs to one agent of one service."""


def counter_increments(wrappers: pl.DataFrame) -> pl.DataFrame:
    """Replaces running counters by the increment of each invocation; aggregates are unchanged.

    Adds `counter_by_process`: whether only the process (or, where none is stated, the service) connects a counter with the stand it was
    read against. Stands of two stated conversations are never connected. A process runs two chats of 100 tokens; neither names a
    conversation:

    >>> columns = dict.fromkeys([*TOKEN_METERS, "agent_id", "conversation_id", "process"]) | dict(usage_scope="cumulative")
    >>> columns |= dict(agent_name="helper", service_name="app")
    >>> rows = [columns | dict(start_time=t, trace_key=t, span_key=t, trace_id="", span_id="", input_tokens=100 * t) for t in (1, 2)]
    >>> frame = pl.DataFrame(rows, schema_overrides=dict.fromkeys(TOKEN_METERS, pl.Int64))
    >>> counter_increments(frame).select("input_tokens", "counter_by_process").rows()
    [(100, False), (100, True)]
    """
    is_counter = pl.col("usage_scope") == "cumulative"
    if not wrappers.select(is_counter.any()).item():
        return wrappers.with_columns(counter_by_process=pl.lit(value=False))
    by_start = wrappers.sort("start_time", "trace_id", "span_id", "trace_key", "span_key")
    counters = by_start.filter(is_counter)
    totals = counters.select(pl.col(m).fill_null(0) for m in TOKEN_METERS).to_numpy()
    is_reported = counters.select(pl.col(m).is_not_null() for m in TOKEN_METERS).to_numpy()
    last_stand, by_process = np.full(counters.height, NONE, dtype=np.int32), np.zeros(counters.height, dtype=bool)
    for name, candidate in _earlier_stands(counters).items():
        fits = (candidate != NONE) & ((totals[candidate] <= totals) | ~is_reported).all(axis=1)
        is_later = fits & (candidate > last_stand)
        last_stand[is_later] = candidate[is_later]
        by_process[is_later] = name == "process"
    baseline = np.where((last_stand == NONE)[:, None], 0, totals[last_stand])
    increments = counters.with_columns(
        *((pl.col(m) - pl.Series(baseline[:, n])).alias(m) for n, m in enumerate(TOKEN_METERS)),
        counter_by_process=pl.Series(by_process),
    )
    aggregates = by_start.filter(~is_counter.fill_null(value=False)).with_columns(counter_by_process=pl.lit(value=False))
    return pl.concat([aggregates, increments])


def _earlier_stands(counters: pl.DataFrame) -> dict[str, Index]:
    """For each counter, in order of start, the row of its latest earlier stand in its conversation, trace and process; NONE: none.

    A stand of another conversation is none of its own; a stand without a conversation may be.
    """
    conversation = pl.col("conversation_id")
    owners = counters.select(
        "service_name",
        "conversation_id",
        "trace_key",
        "process",
        __agent=pl.coalesce("agent_id", "agent_name"),
        __number=pl.int_range(pl.len(), dtype=pl.Int32),
        __has_process=pl.any_horizontal(pl.col("process").is_not_null(), pl.col("service_name").is_not_null()),
    )
    number = pl.col("__number")
    last = number.shift(1)
    last_without_conversation = pl.when(conversation.is_null()).then(number).shift(1).forward_fill()

    def within(column: str) -> pl.Expr:
        keys = (*_OWNER, column)
        return pl.when(conversation.is_null()).then(last.over(keys)).otherwise(last_without_conversation.over(keys))

    earlier = owners.select(
        conversation=pl.when(conversation.is_not_null()).then(last.over(*_OWNER, "conversation_id")),
        trace=within("trace_key"),
        process=pl.when("__has_process").then(within("process")),
    )
    return {name: earlier[name].fill_null(NONE).cast(pl.Int32).to_numpy() for name in earlier.columns}
