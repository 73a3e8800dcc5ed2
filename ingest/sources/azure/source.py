"""Azure cost exports: FOCUS, actual and amortised cost, in every header dialect, from a folder, S3 or blob storage.

A folder is read by its manifests. A single file is its own dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from ingest import azure_blobs, policies
from ingest.addresses import is_the_file
from ingest.bills import reader
from ingest.bills.csv_reader import ColumnSelection
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading, Window
from ingest.sources import by_name
from ingest.sources.azure import columns, exports, rows
from ingest.sources.azure.rows import View
from ledger.errors import FormatError, ObjectMissingError, SourceError
from ledger.problems import Problem
from ledger.settings import IngestSettings

_FILES = re.compile(r"\.(?:csv|csv\.gz|csv\.zst|csv\.xz|csv\.zip|parquet)\Z", re.IGNORECASE)
_AMORTISED = re.compile(r"amorti[sz]ed", re.IGNORECASE)


class Azure:
    """The `azure` source."""

    name = "azure"
    kind: Literal["bill", "log"] = "bill"
    title = "Azure cost exports (FOCUS, actual, amortised), CSV or Parquet"
    patterns: tuple[str, ...] = ("manifest.json", "*.csv", "*.csv.gz", "*.csv.zst", "*.csv.xz", "*.csv.zip", "*.parquet")
    access = Access(
        needs=f"a shared access signature with the rights to read and list the container, in {azure_blobs.KEY}; local files need none",
        policy=policies.AZURE_READ,
        lag=timedelta(hours=48),
        cron="37 */6 * * *",
        addresses=("https://account.blob.core.windows.net/container/exports", "azure-exports/", "costs.csv"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The months of the exports below `uri`, or the files it names."""
        remote = azure_blobs.is_address(uri)
        listing = azure_blobs.list_blobs(fetcher, uri) if remote else fetcher.list(uri)

        def get(entry: ListedObject) -> RawObject:
            return azure_blobs.fetch_blob(fetcher, entry) if remote else fetcher.get(entry.uri)

        single = is_the_file(listing[0], uri, listing)
        if single and exports.is_manifest(uri):
            folder = uri.rsplit("/", 1)[0]
            listing = azure_blobs.list_blobs(fetcher, folder) if remote else fetcher.list(folder)
            single = False
        if any(exports.is_manifest(entry.uri) for entry in listing):
            # Local files are read each time; remote ones when there is a new run, or their days are requested.
            read_again = not remote or fetcher.window != Window()
            yield from exports.batches(self.name, listing, get, (lambda _: None) if read_again else fetcher.checkpoint)
            return
        if not single and not any(mark in uri for mark in "*?["):
            raise FormatError(
                "no manifest says which of these files make a month, and reading them all could count a month twice",
                where=uri,
                remedy="name the export's own folder with its manifest.json, or name single files",
            )
        yield from self._files(listing, uri, get)

    def _files(self, listing: Sequence[ListedObject], uri: str, get: exports.Get) -> Iterator[Batch | Problem]:
        """Single files, whose names state the view. Two views of possibly the same month are not combined."""
        files = [entry for entry in listing if _FILES.search(entry.uri)] or (list(listing) if len(listing) == 1 else [])
        if not files:
            raise ObjectMissingError(
                "nothing here looks like a cost export", where=uri, remedy="exports are CSV or Parquet files"
            )
        views = {_view(entry) for entry in files}
        for entry in files:
            if len(views) > 1 and _view(entry) == View.AMORTISED:
                yield Problem(
                    self.name,
                    entry.uri,
                    "file",
                    "",
                    "amortised cost beside actual cost would count twice; the actual cost was read",
                    "name the folder of the exports with their manifests: then the two are one bill",
                )
                continue
            try:
                item = replace(get(entry), view=_view(entry))
            except SourceError as error:
                yield Problem(self.name, entry.uri, "file", "", error.what, error.remedy or "try again")
                continue
            yield Batch(scope=entry.uri.rsplit("/", 1)[-1], objects=(item,), location=entry.uri)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows in FOCUS terms, whichever columns the file has; rows that cannot be booked are problems."""
        if not _is_focus(item):
            yield from rows.read(self.name, item)
            return
        row_count = 0
        for reading in by_name("focus").read(item, settings):
            row_count += reading.frame.height + sum(p.rows for p in reading.problems if p.severity == "error")
            reading.problems = [replace(problem, source=self.name) for problem in reading.problems]
            yield reading
        rows.check_row_count(item, row_count)


def _view(entry: ListedObject) -> View:
    return View.AMORTISED if _AMORTISED.search(entry.uri.rsplit("/", 1)[-1]) else View.ACTUAL


class _HeaderRead(Exception):
    """Raised to stop reading after the header."""


def _is_focus(item: RawObject) -> bool:
    """Whether the header has FOCUS columns."""
    results: list[bool] = []

    def look(header: list[str]) -> ColumnSelection:
        results.append(columns.is_focus(header))
        raise _HeaderRead

    try:
        next(iter(reader.batches(item, look, ProblemCounter("azure", item.uri))), None)
    except _HeaderRead:
        return results[0]
    return False


SOURCE = Azure()
