"""LiteLLM's logs: what its callbacks write and post, and what its database holds.

StandardLoggingPayloads as single objects, arrays or JSON lines (the generic callback's bodies, S3 and GCS objects of both
layouts), and rows of LiteLLM_SpendLogs as JSON, JSON lines, CSV or Parquet. Each item is told by its own shape, so all may stand
in one folder.
An address says where they are pulled from: files and folders, an S3 prefix, the gateway's PostgreSQL, or its own API.
Prompts and answers are dropped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatch
from typing import Any, Literal

import polars as pl

from ingest import policies
from ingest.logs import json_items
from ingest.logs.json_fields import text
from ingest.logs.json_items import Damage, Found, Item
from ingest.source import Access, Fetcher, Listed, RawObject, Reading, Slice
from ingest.sources.litellm import postgres, s3, spend_api
from ingest.sources.litellm import rows as litellm_rows
from ingest.sources.litellm.shapes import CALLBACK, PAYLOADS
from ledger.errors import ObjectMissingError
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.tables import SPANS

_BATCH_ROWS = 20_000
_TIMES = ("start_time", "end_time")
_UNINFORMATIVE = frozenset({"date", "channel", "source", "raw_id", "emitter", "trace_key", "span_key", "name", "rank"})
_INFORMATIVE = [name for name in SPANS.schema if name not in _UNINFORMATIVE]


class LiteLLM:
    """The `litellm` source."""

    name = "litellm"
    kind: Literal["bill", "log"] = "log"
    title = "LiteLLM calls: payloads of its callbacks, its spend logs in PostgreSQL, its API"
    patterns: tuple[str, ...] = ("*.json", "*.jsonl", "*.ndjson", "*.gz", "*.csv", "*.parquet")
    access = Access(
        needs=(
            f"S3: {policies.S3_NEEDS}. PostgreSQL: a role that may read {postgres.TABLE}, its password in "
            f"{postgres.PASSWORD}, PGPASSWORD or ~/.pgpass. LiteLLM's API: a key that may see all spend, in {spend_api.KEY}"
        ),
        policy=(
            f"S3\n{policies.S3_READ}\n\nPostgreSQL\n{postgres.GRANT}\n\n"
            "LiteLLM's API\nA key of a user with the role proxy_admin_viewer: it sees all spend and changes nothing."
        ),
        lag=timedelta(hours=2),
        cron="*/15 * * * *",
        addresses=(
            "gateway-logs/",
            "s3://gateway-logs/",
            "postgresql://rootcost_reader@db.example.com/litellm",
            "https://gateway.example.com",
        ),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Slice | Problem]:
        """What the address holds: what is new there since the last visit, or, in files and folders, all of it."""
        if uri.startswith(postgres.SCHEMES):
            yield from postgres.plan(fetcher, uri)
        elif uri.startswith(("http://", "https://")):
            yield from spend_api.plan(fetcher, uri)
        elif uri.startswith("s3://") and not self._names_files(uri):
            yield from s3.plan(fetcher, uri, self._picks)
        else:
            yield from self._files(fetcher, uri)

    def _names_files(self, uri: str) -> bool:
        name = uri.rsplit("/", 1)[-1].lower()
        return "*" in uri or "?" in uri or any(fnmatch(name, pattern) for pattern in self.patterns)

    def _files(self, fetcher: Fetcher, uri: str) -> Iterator[Slice]:
        """Every object that looks like a log is a slice of its own, so that one that cannot be read keeps no other back."""
        listing = fetcher.list(uri)
        named = [entry for entry in listing if entry.uri == uri or len(listing) == 1]
        picked = named or [entry for entry in listing if self._picks(entry)]
        if not picked:
            raise ObjectMissingError(
                "nothing here looks like a log", where=uri, remedy=f"files should end in {', '.join(self.patterns)}"
            )
        for entry in picked:
            yield Slice(scope=uri, objects=(fetcher.get(entry.uri),), version=entry.version)

    def _picks(self, entry: Listed) -> bool:
        name = entry.uri.rsplit("/", 1)[-1].lower()
        return not name.startswith((".", "_")) and any(fnmatch(name, pattern) for pattern in self.patterns)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The calls of one object, in batches."""
        found = json_items.of_file(item.path, item.uri)
        yield from _readings(found, raw_id=item.raw_id, uri=item.uri, settings=settings)


SOURCE = LiteLLM()


def read_items(items: Iterable[object], *, raw_id: str, uri: str, settings: IngestSettings) -> Reading:
    """Parsed payloads or rows as `spans`; nulls among them are skipped. `uri` is what problems will name."""
    found = (Item(f"item {number}", item) for number, item in enumerate(items, 1) if item is not None)
    return _joined(_readings(found, raw_id=raw_id, uri=uri, settings=settings))


def read_body(body: bytes, *, raw_id: str, uri: str, settings: IngestSettings) -> Reading:
    """A request body of LiteLLM's generic callback, in any of its formats (json_array, ndjson, single).

    Its calls are told apart from the same calls in a bucket, so that each channel can be held to account for what it lost.
    Raises `FormatError` if it is none of them.
    """
    reading = _joined(_readings(json_items.of_body(body, uri), raw_id=raw_id, uri=uri, settings=settings))
    live = pl.when(pl.col("channel") == PAYLOADS).then(pl.lit(CALLBACK)).otherwise("channel")
    return Reading(reading.frame.with_columns(channel=live), reading.problems)


def _joined(readings: Iterable[Reading]) -> Reading:
    frames, problems = [SPANS.empty()], list[Problem]()
    for reading in readings:
        frames.append(reading.frame)
        problems += reading.problems
    return Reading(pl.concat(frames), problems)


def _readings(found: Found, *, raw_id: str, uri: str, settings: IngestSettings) -> Iterator[Reading]:
    rows, problems = list[litellm_rows.Row](), list[Problem]()
    pulled = "://" in uri and not uri.startswith("s3://")

    def problem(place: str, field: str, reason: str, remedy: str, severity: str = "error") -> None:
        problems.append(Problem("litellm", uri, place, field, reason, remedy, severity=severity))

    for entry in found:
        if isinstance(entry, Damage):
            problem(*entry)
            continue
        for place, value in _inner(entry, pulled=pulled):
            row, faults = litellm_rows.of_item(value, settings)
            if row is not None:
                row["raw_id"] = raw_id
                rows.append(row)
            for fault in faults:
                problem(place, *fault)
        if len(rows) >= _BATCH_ROWS:
            yield Reading(_frame(rows), problems)
            rows, problems = [], []
    if rows or problems:
        yield Reading(_frame(rows), problems)


def _inner(entry: Item, *, pulled: bool) -> Iterator[Item]:
    """The items of an item. Those of a page that nobody keeps are known by their own ids, not by their place in it."""
    inside = json_items.opened(entry.value)
    values = enumerate(inside, 1) if inside is not None else [(0, entry.value)]
    for number, value in values:
        if value is None:
            continue
        own = text(value.get("request_id")) if pulled and isinstance(value, Mapping) else None
        yield Item(f"row {own}" if own else f"{entry.place}, data {number}" if number else entry.place, value)


def _frame(rows: list[litellm_rows.Row]) -> pl.DataFrame:
    known: dict[str, list[Any]] = {name: [] for name in SPANS.schema if name not in ("date", "rank")}
    for row in rows:
        for name, values in known.items():
            values.append(row.get(name))
    series = [
        pl.Series(name, values, dtype=pl.Int64).cast(SPANS.schema[name])
        if name in _TIMES
        else pl.Series(name, values, dtype=SPANS.schema[name])
        for name, values in known.items()
    ]
    frame = pl.DataFrame(series).with_columns(date=pl.col("start_time").dt.date())
    filled = pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.Int32) for name in _INFORMATIVE)
    return SPANS.conform(frame.with_columns(rank=filled))
