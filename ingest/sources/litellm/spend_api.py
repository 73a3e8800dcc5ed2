"""LiteLLM's ``/spend/logs/v2``: rows of the spend log over HTTP, for users without access to the database.

Its pages are offsets into an order with ties, and new rows shift them. So the requests are time ranges short enough to fit one page:
nothing can shift within one response. Only a single second with more rows than a page is read page by page, and its rows are compared
with the total.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ingest.source import Batch, Fetcher, RawObject, Request, Window
from ledger.errors import FormatError, ObjectMissingError, SourceError, StoreUnreachable
from ledger.problems import Problem

KEY = "LITELLM_MASTER_KEY"
PAGE_ROWS = 1_000
"""The largest page that LiteLLM returns."""
LOOK_BACK = timedelta(hours=1)
"""How long after its start a call may be written and is still read: calls take time, and rows are written in batches."""
_EARLIEST = datetime(2023, 1, 1, tzinfo=UTC)
"""LiteLLM had no spend log before."""
_SECOND = timedelta(seconds=1)
_MAX_SPAN = timedelta(days=400)
_MAX_ATTEMPTS = 3
_PATH = "/spend/logs/v2"


@dataclass(frozen=True, slots=True)
class _Page:
    item: RawObject
    ids: tuple[str, ...]
    total: int


def address(uri: str) -> str:
    """The gateway's base address. Raises `SourceError` for one with a key: addresses are stored and displayed.

    >>> address("https://gateway.example/spend/logs/v2"), address("http://127.0.0.1:4000/")
    ('https://gateway.example', 'http://127.0.0.1:4000')
    """
    parts = urlsplit(uri)
    base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.removesuffix(_PATH).rstrip("/"), "", ""))
    if "@" in parts.netloc or parts.query:
        raise SourceError(
            "the address holds more than an address", where=base, remedy=f"leave out keys and queries, and set {KEY}"
        )
    return base


def plan(fetcher: Fetcher, uri: str, *, now: datetime | None = None) -> Iterator[Batch | Problem]:
    """The log's rows since the last run, one batch a time range; with a window, those of its days.

    The first run reads all rows. The end is fixed at the start of the run.
    """
    base, window = address(uri), fetcher.window
    last = fetcher.checkpoint(base)
    log = _Log(fetcher, base)
    end = (now or datetime.now(UTC)).replace(microsecond=0) + _SECOND
    begin = datetime.fromisoformat(last) - LOOK_BACK if last else None
    if window != Window():
        begin = _midnight(window.since) if window.since else None
        end = min(end, _midnight(window.until)) if window.until else end
    begin = begin or log.first_start(end)
    span, is_complete = _MAX_SPAN, window == Window()
    while begin is not None and begin < end:
        stop = min(begin + span, end)
        page = log.page(begin, stop)
        if page.total >= PAGE_ROWS and stop - begin > _SECOND:
            span = _narrower(stop - begin, page.total)
            continue
        pages, whole = ([page], True) if page.total < PAGE_ROWS else log.pages(begin, stop)
        if not whole:
            is_complete = False
            yield log.unstable_page_problem(begin)
        # The next run starts at the first range that could not be read completely.
        marks = {base: max(stop.isoformat(), last or "")} if is_complete else {}
        yield Batch(scope=base, objects=tuple(p.item for p in pages if p.ids), checkpoints=marks)
        span = (stop - begin) * 2 if page.total < PAGE_ROWS // 4 else stop - begin
        span, begin = min(max(span, _SECOND), _MAX_SPAN), stop
    if last is not None and window != Window():
        yield Batch(scope=base, objects=(), checkpoints={base: last})


def _narrower(span: timedelta, total: int) -> timedelta:
    """A range that should give about two thirds of a page; LiteLLM's total is at most 10 000.

    >>> _narrower(timedelta(hours=10), 2000), _narrower(timedelta(seconds=2), 10_000)
    (datetime.timedelta(seconds=12000), datetime.timedelta(seconds=1))
    """
    return max(timedelta(seconds=span // _SECOND * PAGE_ROWS * 2 // (3 * total)), _SECOND)


def _midnight(day: Any) -> datetime:
    return datetime.combine(day, time(), UTC)


class _Log:
    """The endpoint, accessed with one key."""

    def __init__(self, fetcher: Fetcher, base: str) -> None:
        key = os.environ.get(KEY, "")
        if not key:
            raise StoreUnreachable(f"{KEY} is not set", where=base, remedy="set it to a key that may see all spend")
        self._fetcher, self._base, self._secrets = fetcher, base, {"authorization": f"Bearer {key}"}

    def first_start(self, end: datetime) -> datetime | None:
        """Start of the oldest call in the log; None where it is empty."""
        page = self.page(_EARLIEST, end, rows=1)
        if not page.ids:
            return None
        rows = _answer(page.item)["data"]
        start = datetime.fromisoformat(str(rows[0]["startTime"]))
        aware = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
        return aware.replace(microsecond=0)

    def page(self, begin: datetime, end: datetime, number: int = 1, rows: int = PAGE_ROWS) -> _Page:
        """One page of the rows that began in ``[begin, end]``, oldest first."""
        query = (
            ("start_date", f"{begin:%Y-%m-%d %H:%M:%S}"),
            ("end_date", f"{end:%Y-%m-%d %H:%M:%S}"),
            ("sort_by", "startTime"),
            ("sort_order", "asc"),
            ("page", str(number)),
            ("page_size", str(rows)),
        )
        try:
            item = self._fetcher.request(Request(f"{self._base}{_PATH}", query, secrets=self._secrets))
        except ObjectMissingError as error:
            raise ObjectMissingError(
                f"the gateway has no {_PATH}",
                where=self._base,
                remedy="name the proxy's own address; older versions of LiteLLM lack it",
            ) from error
        answer = _answer(item)
        ids = tuple(str(row["request_id"]) for row in answer["data"] if isinstance(row, dict) and "request_id" in row)
        return _Page(item, ids, max(int(answer["total"]), len(ids)))

    def pages(self, begin: datetime, end: datetime) -> tuple[list[_Page], bool]:
        """The pages of a range that does not fit one page, read until all rows were seen; False if they were not."""
        pages, request_ids = list[_Page](), set[str]()
        for _ in range(_MAX_ATTEMPTS):
            number = 1
            while number == 1 or len(pages[-1].ids) == PAGE_ROWS:
                pages.append(self.page(begin, end, number))
                request_ids.update(pages[-1].ids)
                number += 1
            if len(request_ids) >= pages[-1].total:
                return pages, True
        return pages, False

    def unstable_page_problem(self, begin: datetime) -> Problem:
        """The problem of a second that cannot be read completely."""
        return Problem(
            "litellm",
            self._base,
            f"{begin:%Y-%m-%d %H:%M:%S}",
            _PATH,
            "the pages of this second kept changing while they were read; rows of it may be missing",
            "it is read again with the next run; PostgreSQL is the better way for a gateway this busy",
        )


def _answer(item: RawObject) -> dict[str, Any]:
    """The parsed page. Raises `FormatError` for anything else."""
    try:
        answer = json.loads(item.path.read_bytes())
    except ValueError:
        answer = None
    if not (isinstance(answer, dict) and isinstance(answer.get("data"), list) and isinstance(answer.get("total"), int)):
        raise FormatError("this is no answer of LiteLLM's", where=item.uri, remedy="name the address of the proxy itself")
    return answer
