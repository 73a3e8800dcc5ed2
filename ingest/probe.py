"""The test of a source: its credentials, its address and a first page, without writing a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ingest.bills.month import newest_charge as newest_charge
from ingest.fetch import WorldFetcher
from ingest.source import Batch, RawObject, Reading, Source, Window
from ledger.errors import RootCostError
from ledger.periods import now
from ledger.problems import Problem

if TYPE_CHECKING:
    from ledger.books import Books

_MAX_BYTES = 64 << 20
"""A month of a large bill is not fetched whole for a test."""
_RECENT = timedelta(days=3)
"""How many days of a live source are read."""
_STORED = ("s3://", "gs://", "az://", "file://")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of testing one address: whether it can be read, a sentence about it, and the rows of the first page."""

    address: str
    ok: bool
    message: str
    rows: int = 0
    newest: datetime | None = None
    problem_rows: int = 0


class _EnoughRead(BaseException):
    """The first page has been fetched. Not an `Exception`, so that a source that catches those lets it pass."""


class _FirstPage(WorldFetcher):
    """Fetches up to `_MAX_BYTES` and deletes everything afterwards."""

    def __init__(self, books: Books, window: Window) -> None:
        super().__init__(books.settings, keep=False, window=window)
        self.objects: list[RawObject] = []

    def get(self, uri: str) -> RawObject:
        """The bytes of one object, up to the limit."""
        return self._fetch_limited(lambda: super(_FirstPage, self).get(uri))

    def store_bytes(self, uri: str, content: bytes | Iterable[bytes], *, version: str = "") -> RawObject:
        """Stores bytes, up to the limit."""
        return self._fetch_limited(lambda: super(_FirstPage, self).store_bytes(uri, content, version=version))

    def _fetch_limited(self, fetch: object) -> RawObject:
        if sum(item.size for item in self.objects) > _MAX_BYTES:
            raise _EnoughRead
        assert callable(fetch)
        item: RawObject = fetch()
        self.objects.append(item)
        return item


def probe(books: Books, source: Source, uri: str) -> ProbeResult:
    """Plans a first batch of an address and reads its first page. Errors are in the result, not raised."""
    live = "://" in uri and not uri.startswith(_STORED)
    window = Window(since=(now() - _RECENT).date()) if live else Window()
    with _FirstPage(books, window) as fetcher:
        try:
            item, problem = _first_object(source, fetcher, uri)
            if item is not None:
                return _read(books, source, item, uri)
        except RootCostError as error:
            place = f"{error.where}: " if error.where and error.where != uri else ""
            return ProbeResult(uri, False, f"{place}{error.what}{f' — {error.remedy}' if error.remedy else ''}")
        except Exception as error:  # noqa: BLE001 - a provider's own client, most likely; the user wants a sentence
            return ProbeResult(uri, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    if problem is not None:
        return ProbeResult(uri, False, f"{problem.reason} — {problem.remedy}")
    return ProbeResult(
        uri, True, f"can be reached; it holds nothing of the last {_RECENT.days} days" if live else "can be reached; it is empty"
    )


def _first_object(source: Source, fetcher: _FirstPage, uri: str) -> tuple[RawObject | None, Problem | None]:
    """The first object of the first batch; where there is none, the first problem."""
    problem = None
    try:
        for batch in source.plan(fetcher, uri):
            if isinstance(batch, Batch):
                if batch.objects:
                    return batch.objects[0], None
                problem = problem or next(iter(batch.problems), None)
            elif batch.severity == "error":
                problem = problem or batch
    except _EnoughRead:
        return fetcher.objects[-1], None
    return None, problem


def _read(books: Books, source: Source, item: RawObject, uri: str) -> ProbeResult:
    rows, remarks, newest = 0, [], None
    for reading in source.read(item, books.settings.ingest):
        remarks += reading.problems
        if reading.frame.height:
            rows, newest = reading.frame.height, _newest(source, reading)
            break
    errors = [problem for problem in remarks if problem.severity == "error"]
    if not rows and errors:
        first = errors[0]
        return ProbeResult(
            uri, False, f"{item.uri}: {first.place}, {first.field}: {first.reason} — {first.remedy}", problem_rows=len(remarks)
        )
    noun = ("charge" if source.kind == "bill" else "span") + ("" if rows == 1 else "s")
    return ProbeResult(
        uri,
        True,
        f"can be read; the first page, {item.uri}, holds {rows:,} {noun}",
        rows=rows,
        newest=newest,
        problem_rows=sum(p.rows for p in remarks),
    )


def _newest(source: Source, reading: Reading) -> datetime | None:
    if source.kind == "bill":
        return newest_charge(reading, now())
    newest = reading.frame["start_time"].max()
    return newest if isinstance(newest, datetime) else None
