"""LiteLLM's logs: payloads of its callbacks, and rows of its database.

StandardLoggingPayloads as single objects, arrays or JSON lines (the generic callback's bodies, S3 and GCS objects of both
layouts), and rows of LiteLLM_SpendLogs as JSON, JSON lines, CSV or Parquet. The format is recognised per item, so all may be
in one folder.
The address selects where they are read from: files and folders, an S3 prefix, the gateway's PostgreSQL, or its own API.
Prompts and answers are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatch
from typing import Literal

import polars as pl

from ingest import policies
from ingest.logs import json_items
from ingest.logs import rows as log_rows
from ingest.logs.files import unread_files
from ingest.logs.json_fields import text
from ingest.logs.json_items import Damage, Item, ItemStream
from ingest.logs.unread_usage import UnreadUsage
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading
from ingest.sources.litellm import postgres, s3, spend_api
from ingest.sources.litellm import rows as litellm_rows
from ingest.sources.litellm.shapes import CALLBACK, PAYLOADS
from ledger.errors import ObjectMissingError
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.tables import SPANS


class LiteLLM:
    """The `litellm` source."""

    name = "litellm"
    kind: Literal["bill", "log"] = "log"
    title = "LiteLLM calls: payloads of its callbacks, its spend logs in PostgreSQL, its API"
    patterns: tuple[str, ...] = ("*.json", "*.jsonl", "*.ndjson", "*.gz", "*.zst", "*.xz", "*.csv", "*.parquet")
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

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """What is new at the address since the last run or, in files and folders, everything."""
        if uri.startswith(postgres.SCHEMES):
            yield from postgres.plan(fetcher, uri)
        elif uri.startswith(("http://", "https://")):
            yield from spend_api.plan(fetcher, uri)
        elif uri.startswith("s3://") and not self._names_files(uri):
            yield from s3.plan(fetcher, uri, self._is_match)
        else:
            yield from self._files(fetcher, uri)

    def _names_files(self, uri: str) -> bool:
        name = uri.rsplit("/", 1)[-1].lower()
        return "*" in uri or "?" in uri or any(fnmatch(name, pattern) for pattern in self.patterns)

    def _files(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every matching object is a batch of its own, so that an unreadable one blocks no other."""
        listing = fetcher.list(uri)
        exact_matches = [entry for entry in listing if entry.uri == uri or len(listing) == 1]
        entries = exact_matches or [entry for entry in listing if self._is_match(entry)]
        unread = [] if exact_matches else unread_files(listing, self.name, self.patterns)
        yield from unread
        if not entries and not unread:
            raise ObjectMissingError(
                "nothing here looks like a log", where=uri, remedy=f"files should end in {', '.join(self.patterns)}"
            )
        for entry in entries:
            yield Batch(scope=uri, objects=(fetcher.get(entry.uri),), version=entry.version)

    def _is_match(self, entry: ListedObject) -> bool:
        name = entry.uri.rsplit("/", 1)[-1].lower()
        return not name.startswith((".", "_")) and any(fnmatch(name, pattern) for pattern in self.patterns)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The calls of one object, in batches."""
        items = json_items.of_file(item.path, item.uri)
        yield from _readings(items, raw_id=item.raw_id, uri=item.uri, settings=settings)


SOURCE = LiteLLM()


def read_items(items: Iterable[object], *, raw_id: str, uri: str, settings: IngestSettings) -> Reading:
    """Parsed payloads or rows as `spans`; nulls among them are skipped. `uri` is what problems will name."""
    entries = (Item(f"item {number}", item) for number, item in enumerate(items, 1) if item is not None)
    return _concat(_readings(entries, raw_id=raw_id, uri=uri, settings=settings))


def read_body(body: bytes, *, raw_id: str, uri: str, settings: IngestSettings) -> Reading:
    """A request body of LiteLLM's generic callback, in any of its formats (json_array, ndjson, single).

    They have a channel of their own, so that losses can be compared with the same calls in a bucket.
    Raises `FormatError` if it is none of them.
    """
    reading = _concat(_readings(json_items.of_body(body, uri), raw_id=raw_id, uri=uri, settings=settings))
    live = pl.when(pl.col("channel") == PAYLOADS).then(pl.lit(CALLBACK)).otherwise("channel")
    return Reading(reading.frame.with_columns(channel=live), reading.problems)


def _concat(readings: Iterable[Reading]) -> Reading:
    frames, problems = [SPANS.empty()], list[Problem]()
    for reading in readings:
        frames.append(reading.frame)
        problems += reading.problems
    return Reading(pl.concat(frames), problems)


def _readings(items: ItemStream, *, raw_id: str, uri: str, settings: IngestSettings) -> Iterator[Reading]:
    rows, problems = list[litellm_rows.Row](), list[Problem]()
    is_page = "://" in uri and not uri.startswith("s3://")
    unread = UnreadUsage("litellm", uri)

    def problem(place: str, field: str, reason: str, remedy: str, severity: str = "error") -> None:
        problems.append(Problem("litellm", uri, place, field, reason, remedy, severity=severity))

    for entry in items:
        if isinstance(entry, Damage):
            problem(*entry)
            continue
        for place, value in _records(entry, is_page=is_page):
            row, row_problems = litellm_rows.of_item(value, settings, unread)
            if row is not None:
                row["raw_id"] = raw_id
                rows.append(row)
            for row_problem in row_problems:
                problem(place, *row_problem)
        if len(rows) >= log_rows.BATCH_ROWS:
            yield Reading(log_rows.frame(rows), problems)
            rows, problems = [], []
    problems += unread.problems()
    if rows or problems:
        yield Reading(log_rows.frame(rows), problems)


def _records(entry: Item, *, is_page: bool) -> Iterator[Item]:
    """The items inside an item. Those of a queried page are named by their own ids, not by their place in it."""
    records = _api_records(entry.value)
    values = enumerate(records, 1) if records is not None else [(0, entry.value)]
    for number, value in values:
        if value is None:
            continue
        own = text(value.get("request_id")) if is_page and isinstance(value, Mapping) else None
        yield Item(f"row {own}" if own else f"{entry.place}, data {number}" if number else entry.place, value)


def _api_records(value: object) -> Iterator[object] | None:
    """The items of a page of LiteLLM's own API, ``{"data": [...], "total": …}``; None for any other value."""
    if isinstance(value, (dict, Mapping)) and isinstance(value.get("data"), list) and "call_type" not in value:
        records: list[object] = value["data"]
        return iter(records)
    return None
