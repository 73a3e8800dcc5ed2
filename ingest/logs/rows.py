"""Builds frames of `spans` from the rows of log readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage, ItemStream
from ingest.logs.unread_usage import UnreadUsage
from ingest.source import RawObject, Reading
from ledger import ids
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.tables import SPANS

BATCH_ROWS = 20_000
PROGRESS = "__further"
"""Progress of a row that is logged repeatedly while it grows; it is added to `rank`, so the most complete version is stored."""
Row = dict[str, Any]
_TIMES = ("start_time", "end_time")
_UNINFORMATIVE = frozenset({"date", "channel", "source", "raw_id", "emitter", "trace_key", "span_key", "name", "rank"})
_INFORMATIVE = [name for name in SPANS.schema if name not in _UNINFORMATIVE]


def trace_position(trace: str, span: str, parent: str | None = None) -> Row:
    """Trace, span and parent ids of a row, as written, and their keys."""
    row: Row = {"trace_id": trace, "span_id": span, "trace_key": ids.trace_key(trace), "span_key": ids.span_key(span)}
    if parent is not None:
        row |= {"parent_span_id": parent, "parent_key": ids.span_key(parent)}
    return row


def frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """A frame of `spans` with date and rank; times in `rows` are microseconds since 1970."""
    progress = pl.Series(PROGRESS, [row.get(PROGRESS, 0) for row in rows], dtype=pl.Int32)
    return ranked(columns(rows).with_columns(progress))


def columns(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The columns of `spans` that do not follow from others; times are microseconds since 1970."""
    names = frozenset[str]().union(*rows)
    return pl.DataFrame(
        [
            pl.Series(
                name,
                [row.get(name) for row in rows] if name in names else [None] * len(rows),
                dtype=pl.Int64 if name in _TIMES else dtype,
            )
            for name, dtype in SPANS.schema.items()
            if name not in ("date", "rank")
        ]
    )


def ranked(spans: pl.DataFrame) -> pl.DataFrame:
    """`columns`, with date, rank and times as instants, and each key's rows under span keys of their own."""
    spans = _with_callers_keys(spans)
    times = {name: pl.col(name).cast(SPANS.schema[name]) for name in _TIMES}
    spans_by_time = spans.with_columns(**times).with_columns(date=pl.col("start_time").dt.date())
    filled_count = pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.Int32) for name in _INFORMATIVE)
    further = pl.col(PROGRESS) if PROGRESS in spans.columns else 0
    return SPANS.conform(spans_by_time.with_columns(rank=filled_count + further).drop(PROGRESS, strict=False))


def _with_callers_keys(spans: pl.DataFrame) -> pl.DataFrame:
    """The rows with their caller in the span key: two keys that send one id have two calls, and neither replaces the other's. (CA-1a)"""
    callers = spans.select("credential", "credential_team").unique().filter(pl.any_horizontal(pl.all().is_not_null()))
    if not callers.height:
        return spans
    names = callers.select(pl.concat_str(pl.all().fill_null(""), separator="|")).to_series()
    callers = callers.with_columns(__caller=pl.Series([ids.hashed(name) for name in names], dtype=pl.Int64))
    rows = spans.join(callers, on=["credential", "credential_team"], how="left", nulls_equal=True, maintain_order="left")
    return rows.with_columns(span_key=pl.col("span_key") ^ pl.col("__caller").fill_null(0)).drop("__caller")


def readings(
    items: ItemStream, item: RawObject, *, source: str, description: str, remedy: str, rows_of: Callable[[object], Iterator[Row]]
) -> Iterator[Reading]:
    """The rows of a file's items, in batches. `rows_of` raises `FieldError` for an invalid item and yields nothing for one to skip.

    Raises `FormatError` where the file has items but none of them gives a row.
    """
    rows, problems, row_count, item_count = list[Row](), list[Problem](), 0, 0
    unread = UnreadUsage(source, item.uri)
    for entry in items:
        if isinstance(entry, Damage):
            problems.append(Problem(source, item.uri, *entry))
            continue
        item_count += 1
        unread.add_item(entry.value)
        try:
            for row in rows_of(entry.value):
                rows.append(row | {"raw_id": item.raw_id})
                row_count += 1
        except FieldError as error:
            problems.append(Problem(source, item.uri, entry.place, error.field, error.reason, error.remedy))
        if len(rows) >= BATCH_ROWS:
            yield Reading(frame(rows), problems)
            rows, problems = [], []
    if item_count and not row_count:
        raise FormatError(f"no {description}", where=item.uri, remedy=remedy)
    problems += unread.problems()
    if rows or problems:
        yield Reading(frame(rows), problems)
