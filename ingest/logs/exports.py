"""Exports of gateways' logs: files of records, each of which is a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from ingest import policies
from ingest.logs import files
from ingest.logs import rows as log_rows
from ingest.logs.json_items import Damage, Item, ItemStream
from ingest.logs.rows import Row
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ledger.problems import Problem
from ledger.settings import IngestSettings


@dataclass(slots=True, kw_only=True)
class LogExport:
    """A source that reads exported records, one request each. Every file is a batch of its own.

    `rows` builds the rows of a record; `noun` names a file in errors, `remedy` says how to get a good one. `holder` is the field of a
    document that holds a page of records.
    """

    name: str
    title: str
    noun: str
    remedy: str
    addresses: tuple[str, ...]
    rows: Callable[[object, IngestSettings], Iterator[Row]]
    holder: str = "data"
    patterns: tuple[str, ...] = files.JSON_FILES
    kind: Literal["bill", "log"] = "log"
    access: Access = field(init=False)

    def __post_init__(self) -> None:
        self.access = policies.export_access(self.addresses)

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Every file is a batch of its own."""
        return files.file_batches(fetcher, uri, source=self.name, patterns=self.patterns, description=f"an {self.noun}")

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The requests of one file, in batches."""
        entries = files.items(item, description=self.noun, remedy=self.remedy)
        return log_rows.readings(
            self._records(entries),
            item,
            source=self.name,
            description=self.noun,
            remedy=self.remedy,
            rows_of=lambda value: self.rows(value, settings),
        )

    def _records(self, entries: ItemStream) -> ItemStream:
        for entry in entries:
            page = entry.value.get(self.holder) if not isinstance(entry, Damage) and isinstance(entry.value, dict) else None
            if not isinstance(page, list):
                yield entry
                continue
            for number, record in enumerate(page, 1):
                yield Item(f"{entry.place}, record {number}", record)
