"""Partitions: splits a month's spans into parts that can be built independently, in sequence or in parallel.

Traces that are connected (by a link, a call reported in both, a conversation) belong to one partition. A partition is an interval of time
with all connected groups of traces that ended in it, whole: its results depend on no span outside it. So memory is bounded by the
partition, late spans rebuild only the partitions they belong to, and partitions can be built on any number of machines.

Nearly all groups lie within one interval and are selected by time alone; traces of the others, the *stragglers*, are listed by key.

Intervals are halves of halves of the month, and become small towards its newest spans. So a run that follows new spans builds the last one anew, which
is small, and two of them become one as they are left behind: what stands is written again a few times, not with every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from attribution.chains.components import connected_components, distinct_sorted
from attribution.usage.intervals import NEWEST_SHARE, FileRanges, boundaries_of
from attribution.usage.origins import Origins, find_origins, link_edges
from ledger import code, periods
from ledger.hashing import fingerprint
from ledger.settings import Settings
from ledger.store import Store
from ledger.tables import SPANS

_TRACES = {"trace_key": pl.Int64, "first_us": pl.Int64, "last_us": pl.Int64, "spans": pl.Int64}
_EDGES = {"trace_key": pl.Int64, "target": pl.Int64, "is_trace": pl.Boolean, "has_conversation": pl.Boolean}
_EPOCH, _TICK = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_SHARED_IDS = ("gateway_call_id", "provider_request_id", "conversation_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """The spans of `[start, end)` except traces that `moved_out` to other partitions, plus its own `stragglers` at any time.

    `straggler_dates` are the days that hold them. `fingerprint` changes when the files or the membership of any of its rows do.
    """

    month: str
    start: datetime
    end: datetime
    dates: tuple[str, ...]
    moved_out: tuple[int, ...] = field(default=(), repr=False)
    stragglers: tuple[int, ...] = field(default=(), repr=False)
    straggler_dates: tuple[str, ...] = ()
    fingerprint: str = ""

    def scan(self, store: Store) -> pl.LazyFrame:
        """The spans of this partition, without columns that are null on all of its days; text that never changes is not read."""
        start_time = pl.col("start_time")
        uniform_columns = _uniform_columns(store, {*self.dates, *self.straggler_dates})
        names = [name for name in SPANS.schema if name not in uniform_columns]
        spans = store.scan(SPANS, {"date": self.dates}).select(names).filter((start_time >= self.start) & (start_time < self.end))
        if self.moved_out:
            spans = spans.filter(~pl.col("trace_key").is_in(pl.Series(self.moved_out, dtype=pl.Int64).implode()))
        if self.stragglers:
            is_straggler = pl.col("trace_key").is_in(pl.Series(self.stragglers, dtype=pl.Int64).implode())
            straggler_spans = store.scan(SPANS, {"date": self.straggler_dates}).select(names).filter(is_straggler)
            spans = pl.concat([spans, straggler_spans])
        return spans.with_columns(pl.lit(text).alias(name) for name, text in uniform_columns.items() if text is not None)


def _uniform_columns(store: Store, dates: Iterable[str]) -> dict[str, str | None]:
    """Columns that need not be read, with the text that they have in every row, or None where they have no value.

    By the files' statistics; none for remote files, where each would cost a request.
    """
    if "://" in store.root:
        return {}
    texts: dict[str, set[str | None]] = {name: set() for name in SPANS.schema if name != "date"}
    for file in store.files(SPANS, {"date": sorted(dates)}):
        metadata = pq.read_metadata(file.address)
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            columns = {column.path_in_schema: column.statistics for column in map(group.column, range(group.num_columns))}
            for name, bounds in texts.items():
                bounds.update(_bounds(columns[name], group.num_rows) if name in columns else {None})
    return {name: bounds.pop() for name, bounds in texts.items() if len(bounds) == 1}


_SEVERAL: frozenset[str | None] = frozenset({"", None})


def _bounds(statistics: pq.Statistics | None, rows: int) -> AbstractSet[str | None]:
    """The first and last text of a column, None where it has no value; several where that is unknown, or it is no text."""
    if statistics is None or not statistics.has_null_count:
        return _SEVERAL
    if statistics.null_count == rows:
        return {None}
    is_text_throughout = statistics.physical_type == "BYTE_ARRAY" and statistics.has_min_max and not statistics.null_count
    return {statistics.min, statistics.max} if is_text_throughout else _SEVERAL


def plan(store: Store, month: str, settings: Settings) -> list[Partition]:
    """The partitions of a month, oldest first; a single one with the whole window where the month is small.

    Spans of the `lookback_days` on either side of the month are included: they may be ancestors of its calls, or calls that a wrapper
    repeats. Traces before them are included where spans refer to them or they hold a resource in the month (CH-1a). The partitions follow
    from the times of the spans alone, so that the same month is always split the same way.
    """
    counts = _spans_by_date(store, month, settings.attribution.lookback_days)
    origins = find_origins(store, month, settings)
    if not counts and not origins.traces:
        return []
    span_count = sum(n for day, n in counts.items() if day[:7] == month)
    slice_spans = settings.attribution.slice_spans
    if span_count <= max(1, slice_spans // NEWEST_SHARE):
        window = periods.month_start(month), periods.month_end(month)
        reach = timedelta(days=settings.attribution.lookback_days + 1)
        files = store.fingerprint(SPANS, {"date": list(counts)}) + origins.fingerprint
        return [
            Partition(
                month=month,
                start=window[0] - reach,
                end=window[1] + reach,
                dates=tuple(counts),
                stragglers=tuple(np.unique(np.concatenate([*origins.traces.values()])).tolist()) if origins.traces else (),
                straggler_dates=tuple(origins.traces),
                fingerprint=files,
            )
        ]
    days = {day: store.fingerprint(SPANS, {"date": [day]}) for day in (*origins.traces, *counts)}
    cache = settings.home / "cache" / "traces"
    newest_day = max(counts, default="")

    def index_of(day: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        return _only_origins(_index_day(store, day, days[day], cache, is_growing=day == newest_day), day, origins)

    with ThreadPoolExecutor(settings.attribution.workers, thread_name_prefix="day") as pool:
        day_indexes = list(pool.map(index_of, days))
    traces = pl.concat([t.with_columns(day=pl.lit(n, dtype=pl.Int16)) for n, (t, _) in enumerate(day_indexes)])
    edges = _shared_edges(pl.concat([t for _, t in day_indexes]))
    return _partition_traces(
        month, boundaries_of(month, traces, slice_spans), list(days), FileRanges.of(store, days), traces, edges
    )


def _only_origins(day_index: tuple[pl.DataFrame, pl.DataFrame], day: str, origins: Origins) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of a day before the window, the traces and edges of the month's origins; a trace lasts as long as it holds a resource."""
    if day not in origins.traces:
        return day_index
    is_origin = pl.col("trace_key").is_in(pl.Series(origins.traces[day], dtype=pl.Int64).implode())
    traces, edges = (frame.filter(is_origin) for frame in day_index)
    until_us = pl.col("trace_key").replace_strict(dict(origins.until_us), default=None, return_dtype=pl.Int64)
    return traces.with_columns(pl.max_horizontal("last_us", until_us).alias("last_us")), edges


def is_within_lookback(day: str, month: str, lookback_days: int) -> bool:
    """Whether a day is in the month or at most `lookback_days` around it."""
    midnight = periods.parse_instant(day)
    before, after = periods.month_start(month) - midnight, midnight - periods.month_end(month)
    return before.days <= lookback_days and after.days <= lookback_days


def _spans_by_date(store: Store, month: str, lookback_days: int) -> dict[str, int]:
    """The number of spans of each day within the lookback of the month, from the table's log; no data is read."""
    delta = store.delta(SPANS)
    if delta is None:
        return {}
    first = (periods.month_start(month) - timedelta(days=lookback_days)).date()
    last = (periods.month_end(month) + timedelta(days=lookback_days)).date()
    actions = pl.DataFrame(delta.get_add_actions(flatten=True)).select(
        day=pl.col("partition.date").cast(pl.Date), rows=pl.col("num_records")
    )
    nearby_days = actions.filter(pl.col("day").is_between(first, last)).group_by("day").agg(pl.col("rows").sum()).sort("day")
    return {day.isoformat(): rows for day, rows in nearby_days.iter_rows()}


def _index_day(store: Store, day: str, files: str, cache: Path, *, is_growing: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The traces of a day with their first and last start, and their edges to other traces; cached until the day's files or the code change.

    That of a day which still grows would be out of date with the next spans, and is not cached.
    """
    cache_files = [cache / f"{day}-{files}-{code.digest()}.{table}.arrow" for table in ("traces", "edges")]
    if all(path.exists() for path in cache_files):
        return pl.read_ipc(cache_files[0]), pl.read_ipc(cache_files[1])
    spans = store.scan(SPANS, {"date": [day]})
    at = pl.col("start_time").to_physical()
    traces = spans.group_by("trace_key").agg(first_us=at.min(), last_us=at.max(), spans=pl.len()).collect().cast(_TRACES)  # type: ignore[arg-type]
    edges = _trace_edges(spans)
    if is_growing:
        return traces, edges
    cache.mkdir(parents=True, exist_ok=True)
    for stale in cache.glob(f"{day}-*.arrow"):
        stale.unlink(missing_ok=True)
    for path, frame in zip(cache_files, (traces, edges), strict=True):
        temporary = path.with_suffix(".part")
        frame.write_ipc(temporary, compression="lz4")
        temporary.replace(path)
    return traces, edges


def _trace_edges(spans: pl.LazyFrame) -> pl.DataFrame:
    """Edges of the graph of traces: to the trace a link leads to, or to the hash of an id that other traces may have too."""
    edge_columns = ("link_trace_key", "links", "request_ids", *_SHARED_IDS)
    value_counts = spans.select(pl.col(c).count() for c in edge_columns).collect(engine="streaming").row(0, named=True)
    parts: list[pl.DataFrame] = []
    if value_counts["link_trace_key"] or value_counts["links"]:
        parts.append(link_edges(spans).with_columns(is_trace=pl.lit(value=True)))
    for seed, column in enumerate(_SHARED_IDS):
        if value_counts[column]:
            id_rows = spans.select("trace_key", target=column).drop_nulls().unique().collect()
            id_hash = pl.col("target").hash(seed=seed).reinterpret(signed=True)
            parts.append(id_rows.with_columns(target=id_hash, is_trace=pl.lit(value=False)))
    if value_counts["request_ids"]:
        id_list = pl.col("request_ids").str.json_decode(pl.List(pl.String))
        further_ids = spans.filter(pl.col("request_ids").is_not_null()).select("trace_key", target=id_list).explode("target")
        id_hash = pl.col("target").hash(seed=_SHARED_IDS.index("provider_request_id")).reinterpret(signed=True)
        parts.append(further_ids.drop_nulls().unique().collect().with_columns(target=id_hash, is_trace=pl.lit(value=False)))
    parts = [p.with_columns(has_conversation=pl.lit(None, dtype=pl.Boolean)) for p in parts]
    parts.append(_counter_edges(spans))
    typed_parts = [p.select(*_EDGES).cast(_EDGES) for p in parts if p.height]  # type: ignore[arg-type]
    return pl.concat(typed_parts).unique() if typed_parts else pl.DataFrame(schema=_EDGES)


def _counter_edges(spans: pl.LazyFrame) -> pl.DataFrame:
    """Edges to the hash of the process, agent and service that a running counter belongs to. (CA-2a)"""
    counters = spans.filter(pl.col("usage_scope") == "cumulative").filter(
        pl.col("process").is_not_null() | pl.col("service_name").is_not_null()
    )
    owner = pl.struct("process", "service_name", agent=pl.coalesce("agent_id", "agent_name"))
    return counters.select(
        "trace_key",
        target=owner.hash(seed=len(_SHARED_IDS)).reinterpret(signed=True),
        is_trace=pl.lit(value=False),
        has_conversation=pl.col("conversation_id").is_not_null(),
    ).collect()


def _shared_edges(edges: pl.DataFrame) -> pl.DataFrame:
    """Drops the edges to ids that only one trace has, and to counters that all name their conversation."""
    is_shared = pl.col("trace_key").min().over("target") != pl.col("trace_key").max().over("target")
    is_shared &= ~pl.col("has_conversation").fill_null(value=False).all().over("target")
    return pl.concat([edges.filter("is_trace"), edges.filter(~pl.col("is_trace")).filter(is_shared)])


def _partition_traces(
    month: str,
    boundaries: Sequence[datetime],
    days: Sequence[str],
    files: FileRanges,
    traces: pl.DataFrame,
    trace_edges: pl.DataFrame,
) -> list[Partition]:
    partition_count = len(boundaries) - 1
    traces = traces.with_columns(
        first=_interval_number(traces["first_us"], boundaries), last=_interval_number(traces["last_us"], boundaries)
    )
    stragglers = _find_stragglers(traces, trace_edges).filter(pl.col("last") >= 0, pl.col("first") < partition_count)
    stragglers = stragglers.with_columns(home=pl.col("last").clip(0, partition_count - 1)).select("trace_key", "home")
    placed_traces = traces.join(stragglers, on="trace_key", how="left")
    # A trace within one interval belongs to it; traces of the days around the month without a connection into it belong to none.
    placed_traces = placed_traces.with_columns(
        home=pl.coalesce("home", pl.when(pl.col("first").is_between(0, partition_count - 1)).then("first"))
    )
    is_straggler = pl.col("trace_key").is_in(stragglers["trace_key"].implode())
    members = (
        placed_traces.filter(pl.col("home").is_not_null())
        .group_by("home", "day")
        .agg(
            count=pl.len(),
            sum=pl.col("trace_key").hash(seed=3).reinterpret(signed=True).cast(pl.Int128).sum(),
            first_us=pl.col("first_us").min(),
            last_us=pl.col("last_us").max(),
        )
    )
    straggler_traces = placed_traces.filter(is_straggler)
    partitions = []
    for number in range(partition_count):
        own_members = members.filter(pl.col("home") == number).sort("day")
        if not own_members.height:
            continue
        own_stragglers = straggler_traces.filter(pl.col("home") == number)
        member_texts = [
            f"{days[row['day']]}:{files.fingerprint(days[row['day']], row['first_us'], row['last_us'])}:{row['count']}:{row['sum']}"
            for row in own_members.iter_rows(named=True)
        ]
        moved_out = straggler_traces.filter((pl.col("first") <= number) & (pl.col("last") >= number))["trace_key"].unique().sort()
        partitions.append(
            Partition(
                month=month,
                start=boundaries[number],
                end=boundaries[number + 1],
                dates=tuple(d for d in days if boundaries[number].date().isoformat() <= d <= _last_day(boundaries[number + 1])),
                moved_out=tuple(moved_out.to_list()),
                stragglers=tuple(own_stragglers["trace_key"].unique().sort().to_list()),
                straggler_dates=tuple(days[n] for n in own_stragglers["day"].unique().sort()),
                fingerprint=fingerprint(f"{boundaries[number]}/{boundaries[number + 1]}", *member_texts),
            )
        )
    return partitions


def _interval_number(at_us: pl.Series, boundaries: Sequence[datetime]) -> pl.Series:
    """The interval of each instant: -1 before the first, one more than the last after it."""
    boundary_us = np.array([(at - _EPOCH) // _TICK for at in boundaries], dtype=np.int64)
    return pl.Series(np.searchsorted(boundary_us, at_us.to_numpy(), side="right") - 1, dtype=pl.Int32)


def _last_day(end: datetime) -> str:
    return (end - _TICK).date().isoformat()


def _find_stragglers(traces: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """Traces whose group spans several intervals, with the first and last of them: trace_key, first, last."""
    intervals = _trace_intervals(traces)
    crossing = intervals.filter(pl.col("first") != pl.col("last"))
    if not edges.height:
        return crossing
    trace_keys, label = connected_components(edges["trace_key"].to_numpy(), edges["target"].to_numpy())
    group_intervals = pl.DataFrame({"trace_key": trace_keys, "group": label}).join(intervals, on="trace_key")
    group_intervals = group_intervals.with_columns(pl.col("first").min().over("group"), pl.col("last").max().over("group")).drop(
        "group"
    )
    single_traces = crossing.join(group_intervals, on="trace_key", how="anti")
    return pl.concat([single_traces, group_intervals.filter(pl.col("first") != pl.col("last")).select(single_traces.columns)])


def _trace_intervals(traces: pl.DataFrame) -> pl.DataFrame:
    """The first and last interval of each trace. Nearly all are on one day only; just the others are grouped."""
    keys = np.sort(traces["trace_key"].to_numpy())
    repeated_keys = pl.Series(distinct_sorted(keys[1:][keys[1:] == keys[:-1]]), dtype=pl.Int64)
    intervals = traces.select("trace_key", "first", "last")
    if not repeated_keys.len():
        return intervals
    is_repeated = pl.col("trace_key").is_in(repeated_keys.implode())
    merged_intervals = intervals.filter(is_repeated).group_by("trace_key").agg(pl.col("first").min(), pl.col("last").max())
    return pl.concat([intervals.filter(~is_repeated), merged_intervals])
