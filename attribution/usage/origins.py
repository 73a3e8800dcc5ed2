"""Origins: traces of earlier days that a month's spans refer to, however long ago. (CH-1a)

Each day of spans has a small index beside the books: the keys of its traces (8 bytes each), which traces its spans refer to (a trace to itself where
a parent is on another day, else the targets of links: 16 bytes each), and until when spans hold a resource beyond the day. A month asks the
indexes of all earlier days for the traces that its window refers to, then for those that these refer to, until there are none. Only
their spans are read. An index is made from the stored spans and can be made again: nothing is lost with it, and it goes with its day.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.chains.components import Keys, reachable
from attribution.chains.nodes import is_gateway
from attribution.chains.span_index import NONE, index_spans
from ledger import file_sets, ids, periods
from ledger.hashing import fingerprint
from ledger.settings import Settings
from ledger.store import Store
from ledger.tables import SPANS

MAX_HELD = timedelta(days=400)
"""A span that holds a resource for longer has an implausible clock. (RA-3)"""
_VERSION = "1"
"""Version of the stored indexes: raised when their content changes meaning."""
_DATE = re.compile(r"/date=(\d{4}-\d{2}-\d{2})/")
_EDGES = {"trace_key": pl.Int64, "target": pl.Int64}
_NO_KEYS: Keys = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class DayIndex:
    """The index of one day's spans: sorted keys of its traces; references from `source` to `target` trace; traces that hold a resource until `until_us`.

    `keys` stay on disk and are read where they are looked up.
    """

    keys: Keys
    source: Keys
    target: Keys
    holder: Keys
    until_us: Keys


@dataclass(frozen=True, slots=True)
class Origins:
    """Traces of days before a month's window, by day, in order; of those that hold a resource, until when. `fingerprint` is empty without any."""

    traces: Mapping[str, Keys] = field(default_factory=dict)
    until_us: Mapping[int, int] = field(default_factory=dict)
    fingerprint: str = ""


def find_origins(store: Store, month: str, settings: Settings) -> Origins:
    """The traces before the window of a month that its spans descend from or link to, or that hold a resource in it.

    Cached until the files of a day in or before the window change.
    """
    files = _files_by_day(store)
    lookback = timedelta(days=settings.attribution.lookback_days)
    first, last = (f"{at:%Y-%m-%d}" for at in (periods.month_start(month) - lookback, periods.month_end(month) + lookback))
    earlier_days = [day for day in files if day < first]
    window_days = [day for day in files if first <= day <= last]
    if not earlier_days:
        return Origins()
    folder = settings.home / "cache" / "origins"
    inputs = fingerprint(_VERSION, str(lookback.days), *(f"{day}:{files[day]}" for day in (*earlier_days, *window_days)))
    cached_origins = folder / f"{month}-{inputs}.npz"
    if not cached_origins.exists():
        with ThreadPoolExecutor(settings.attribution.workers, thread_name_prefix="origins") as pool:
            days = [*earlier_days, *window_days]
            indexes = dict(zip(days, pool.map(lambda day: index_day(store, day, files[day], folder), days), strict=True))
        origins = _follow({day: indexes[day] for day in earlier_days}, [indexes[day] for day in window_days], month)
        _save(cached_origins, f"{month}-*.npz", **_as_arrays(*origins))
    return _read_origins(cached_origins, files)


def held_months(store: Store, months: Sequence[str], settings: Settings) -> set[str]:
    """Those of `months` in which a span of an earlier day holds a resource."""
    return {month for month in months if find_origins(store, month, settings).until_us}


def index_day(store: Store, day: str, files: str, folder: Path) -> DayIndex:
    """The index of a day; stored until the day's files change."""
    path = folder / f"day-{day}-{files}-{_VERSION}.npz"
    keys_path = path.with_suffix(".npy")
    if not (path.exists() and keys_path.exists()):
        spans = store.scan(SPANS, {"date": [day]})
        held_after = datetime.combine(date.fromisoformat(day), time(), UTC) + timedelta(days=1)
        until = pl.min_horizontal("end_time", pl.col("start_time") + MAX_HELD)
        holders = (
            spans.filter(pl.col("resource_id").is_not_null() & (until > held_after))
            .group_by("trace_key")
            .agg(until=until.max().to_physical())
            .sort("trace_key")
            .collect()
        )
        frame = spans.select("trace_key", "span_key", "parent_key", is_gateway=is_gateway()).collect().rechunk()
        open_traces, edges = _open_traces(frame), link_edges(spans)
        _save(
            path,
            f"day-{day}-*",
            source=np.concatenate([open_traces, edges["trace_key"].to_numpy()]),
            target=np.concatenate([open_traces, edges["target"].to_numpy()]),
            holder=holders["trace_key"].to_numpy(),
            until_us=holders["until"].to_numpy(),
        )
        np.save(keys_path, np.unique(frame["trace_key"].to_numpy()))
    with np.load(path) as arrays:
        return DayIndex(np.load(keys_path, mmap_mode="r"), **{name: arrays[name] for name in arrays.files})


def link_edges(spans: pl.LazyFrame) -> pl.DataFrame:
    """Pairs of a trace and a trace that one of its roots links to: trace_key, target."""
    columns = ("link_trace_key", "links")
    counts = spans.select(pl.col(c).count() for c in columns).collect(engine="streaming").row(0, named=True)
    roots = spans.filter(pl.col("parent_key").is_null())
    parts = [pl.DataFrame(schema=_EDGES)]
    if counts["link_trace_key"]:
        parts.append(roots.select("trace_key", target="link_trace_key").drop_nulls().unique().collect().cast(_EDGES))  # type: ignore[arg-type]
    if counts["links"]:
        link_lists = roots.select("trace_key", "links").drop_nulls().collect()
        pairs = {(key, ids.trace_key(trace)) for key, text in link_lists.iter_rows() for trace in _linked_traces(text)}
        parts.append(pl.DataFrame(sorted(pairs), schema=_EDGES, orient="row"))
    return pl.concat(parts)


def _linked_traces(links: str) -> list[str]:
    import json

    return [str(trace) for trace, _ in json.loads(links)]


def _open_traces(spans: pl.DataFrame) -> Keys:
    """Traces that may go on from another day: with a span whose parent is missing, or only gateways' rows without a parent."""
    rows = spans.with_row_index("row")
    children = rows.filter(pl.col("parent_key").is_not_null())
    parents = index_spans(spans).find(children["trace_key"].to_numpy(), children["parent_key"].to_numpy())
    open_traces = [children["trace_key"].to_numpy()[parents == NONE]]
    if spans["is_gateway"].any():
        gateway_rows = rows.filter(pl.col("is_gateway") & pl.col("parent_key").is_null())
        own_spans = rows.filter(~pl.col("is_gateway")).select("trace_key")
        open_traces.append(gateway_rows.join(own_spans, on="trace_key", how="anti")["trace_key"].to_numpy())
    return np.unique(np.concatenate(open_traces))


def _follow(earlier: Mapping[str, DayIndex], window: Sequence[DayIndex], month: str) -> tuple[dict[str, Keys], dict[int, int]]:
    """The traces of earlier days that the window refers to, directly or through others of them, and holders that reach into the month."""
    begin_us = int(periods.month_start(month).timestamp()) * 10**6
    until_us: dict[int, int] = {}
    for index in earlier.values():
        for key, until in zip(
            *(column[index.until_us > begin_us].tolist() for column in (index.holder, index.until_us)), strict=True
        ):
            until_us[key] = max(until, until_us.get(key, until))
    start = np.unique(np.concatenate([np.array(sorted(until_us), dtype=np.int64), *(index.target for index in window)]))
    sources, targets = (
        np.concatenate([_NO_KEYS, *(getattr(index, side) for index in earlier.values())]) for side in ("source", "target")
    )
    referred_keys = reachable(start, sources, targets)
    traces = {day: _common(referred_keys, index.keys) for day, index in earlier.items()}
    return {day: keys for day, keys in traces.items() if len(keys)}, until_us


def _common(a: Keys, b: Keys) -> Keys:
    """The values that two sorted arrays of distinct values share; the shorter one is looked up in the longer one.

    >>> _common(np.array([1, 5, 9]), np.array([2, 5, 7, 9])).tolist()
    [5, 9]
    """
    shorter, longer = (a, b) if len(a) <= len(b) else (b, a)
    if not len(shorter):
        return shorter
    positions = np.minimum(np.searchsorted(longer, shorter), len(longer) - 1)
    common: Keys = shorter[longer[positions] == shorter]
    return common


def _as_arrays(traces: Mapping[str, Keys], until_us: Mapping[int, int]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {f"day {day}": keys for day, keys in traces.items()}
    return arrays | {
        "holder": np.array(list(until_us), dtype=np.int64),
        "until_us": np.array(list(until_us.values()), dtype=np.int64),
    }


def _read_origins(path: Path, files: Mapping[str, str]) -> Origins:
    with np.load(path) as arrays:
        traces = {name.removeprefix("day "): arrays[name] for name in arrays.files if name.startswith("day ")}
        until_us = dict(zip(arrays["holder"].tolist(), arrays["until_us"].tolist(), strict=True))
    if not traces:
        return Origins()
    member_texts = (f"{day}:{files[day]}:{hashlib.blake2b(keys.tobytes()).hexdigest()}" for day, keys in traces.items())
    return Origins(traces, until_us, fingerprint(*member_texts))


def _save(path: Path, stale_pattern: str, **arrays: NDArray[Any]) -> None:
    """Writes an index, and removes those it replaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(stale_pattern):
        stale.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


def _files_by_day(store: Store) -> dict[str, str]:
    """The days of spans in order, each with a fingerprint of its files; reads no data."""
    delta = store.delta(SPANS)
    names: dict[str, list[str]] = {}
    for uri in sorted(delta.file_uris()) if delta is not None else ():
        match = _DATE.search(uri)
        if match:
            names.setdefault(match[1], []).append(uri.rsplit("/", 1)[-1])
    return {day: file_sets.fingerprint(names[day]) for day in sorted(names)}
