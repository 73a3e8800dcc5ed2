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
from ingest.bills.reader import read_ahead
from ingest.logs import json_items
from ingest.logs import rows as log_rows
from ingest.logs.files import whole_folder_batches
from ingest.logs.json_fields import text
from ingest.logs.json_items import Damage, Item, LineBlock, PartStream
from ingest.logs.unread_usage import UnreadUsage
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.litellm import columns, postgres, s3, spend_api
from ingest.sources.litellm import rows as litellm_rows
from ingest.sources.litellm.columns import LineBlockTable, PayloadColumns
from ingest.sources.litellm.shapes import CALLBACK, PAYLOADS
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
            yield from s3.plan(fetcher, uri, self.patterns)
        else:
            yield from whole_folder_batches(fetcher, uri, source=self.name, patterns=self.patterns, description="a log")

    def _names_files(self, uri: str) -> bool:
        name = uri.rsplit("/", 1)[-1].lower()
        return "*" in uri or "?" in uri or any(fnmatch(name, pattern) for pattern in self.patterns)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The calls of one object, in batches."""
        parts = json_items.parts_of_file(item.path, item.uri)
        yield from _readings(parts, raw_id=item.raw_id, uri=item.uri, settings=settings)


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
    reading = _concat(_readings(json_items.parts_of_body(body, uri), raw_id=raw_id, uri=uri, settings=settings))
    live = pl.when(pl.col("channel") == PAYLOADS).then(pl.lit(CALLBACK)).otherwise("channel")
    return Reading(reading.frame.with_columns(channel=live), reading.problems)


def _concat(readings: Iterable[Reading]) -> Reading:
    frames, problems = [SPANS.empty()], list[Problem]()
    for reading in readings:
        frames.append(reading.frame)
        problems += reading.problems
    return Reading(pl.concat(frames), problems)


def _readings(parts: PartStream, *, raw_id: str, uri: str, settings: IngestSettings) -> Iterator[Reading]:
    log = _LogFile(raw_id, uri, settings)
    for part in read_ahead(_parsed(part) for part in parts):
        if isinstance(part, LineBlockTable):
            log.add_table(part)
        else:
            log.add(part)
        if log.height >= log_rows.BATCH_ROWS:
            yield log.reading()
    last = log.last_reading()
    if last.frame.height or last.problems:
        yield last


def _parsed(part: Item | Damage | LineBlock) -> Item | Damage | LineBlock | LineBlockTable:
    return columns.parse(part) if isinstance(part, LineBlock) and len(part.lines) >= columns.MIN_LINES else part


class _LogFile:
    """One file while it is read: rows and problems in the order of its lines."""

    def __init__(self, raw_id: str, uri: str, settings: IngestSettings) -> None:
        self._raw_id, self._uri, self._settings = raw_id, uri, settings
        self._is_page = "://" in uri and not uri.startswith("s3://")
        self._unread = UnreadUsage("litellm", uri)
        self._columns = PayloadColumns(settings, self._unread)
        self._frames, self._rows, self._problems = list[pl.DataFrame](), list[litellm_rows.Row](), list[Problem]()
        self.height = 0

    def add(self, part: Item | Damage | LineBlock) -> None:
        """Items that are read one by one."""
        for entry in part.items() if isinstance(part, LineBlock) else [part]:
            if isinstance(entry, Damage):
                self._problems.append(Problem("litellm", self._uri, *entry))
                continue
            for place, value in _records(entry, is_page=self._is_page):
                row, row_problems = litellm_rows.of_item(value, self._settings, self._unread)
                if row is not None:
                    self._rows.append(row | {"raw_id": self._raw_id})
                    self.height += 1
                for field, reason, remedy, severity in row_problems:
                    self._problems.append(Problem("litellm", self._uri, place, field, reason, remedy, severity=severity))

    def add_table(self, table: LineBlockTable) -> None:
        """Lines by columns; those that were not payload_rows one by one, in their places."""
        self._close_rows()
        payload_rows = self._columns.read(table)
        positions = list(payload_rows.positions)
        for position in sorted((*payload_rows.remainder, *payload_rows.usage)):
            if position in payload_rows.usage:
                self._unread.add(payload_rows.usage[position])
                continue
            self.add(table.block.select([position]))
            positions += [position] * (len(self._rows) + payload_rows.spans.height - len(positions))
        frames = [payload_rows.spans.with_columns(raw_id=pl.lit(self._raw_id))]
        frames += [log_rows.frame(self._rows)] if self._rows else []
        self._rows = []
        self._frames.append(pl.concat(frames).select(pl.all().sort_by(pl.Series(positions), maintain_order=True)))
        self.height += payload_rows.spans.height

    def _close_rows(self) -> None:
        if self._rows:
            self._frames.append(log_rows.frame(self._rows))
            self._rows = []

    def reading(self) -> Reading:
        """What was read since the last one."""
        self._close_rows()
        reading = Reading(pl.concat([SPANS.empty(), *self._frames]), self._problems)
        self._frames, self._problems, self.height = [], [], 0
        return reading

    def last_reading(self) -> Reading:
        """The rest, and what was not read of all usage."""
        self._problems += self._unread.problems()
        return self.reading()


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
