"""Bills that a provider tells page by page over HTTP, one bucket a day: OpenAI's and Anthropic's.

A month is asked whole, and its pages are put down as they came in one file of JSON lines: a first line that says how many there
are, then a line a page with what it is ``of`` (costs in groups, totals without groups, usage). So a month that is cut off anywhere
is refused, and never half of it is booked. Pages that somebody saved by hand are put together the same way.

A month may change while it is read. The totals are asked before and after the groups: where they differ the month is read again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from ingest.bills.paged_rows import COSTS, TOTALS, BillMonth, JsonObject, text
from ingest.source import Fetcher, RawObject, Request
from ledger import periods
from ledger.errors import FormatError, ObjectMissingError, SourceError, StoreUnreachable
from ledger.problems import Problem

_FIRST_MONTHS = 3
"""How many months a first visit reads, the current one included. Older ones come by back-fill."""
_LOOK_BACK_MONTHS = 24
_RESTATEMENT_PERIOD = timedelta(days=35)
"""How long after its end a month is asked again: OpenAI restates days later, Anthropic up to 30 days later."""
_MAX_PAGES = 1000
_MAX_READS = 3
"""How often a month is read that changes under the reader."""
_PAGE_NAME = re.compile(r"(?:\.json|\.jsonl|\.ndjson|/[^./]+)\Z", re.IGNORECASE)
"""Names of saved pages; what the fetcher kept has no ending."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: what it is of, where it is from, and its bytes."""

    of: str
    asked: str
    content: bytes


@dataclass(frozen=True, slots=True)
class PageFormat:
    """How a provider writes its pages: the start of a bucket, and what a page is of if only its content tells."""

    source: str
    start: str
    moment: Callable[[str], datetime]
    of: Callable[[JsonObject], str | None]


def api_key(names: Sequence[str], label: str) -> str:
    """The secret from the environment; with a label (``https://api.openai.com#emea``) ``NAME_EMEA`` is asked first.

    Raises `StoreUnreachable` that says which variable to set.
    """
    suffix = re.sub(r"\W", "_", label).upper()
    wanted = [f"{name}_{suffix}" for name in names if suffix] + list(names)
    found = next((os.environ[name] for name in wanted if os.environ.get(name)), None)
    if found is None:
        raise StoreUnreachable(f"no key in the environment ({wanted[0]})", remedy=f"set {wanted[0]} to an admin key")
    return found


def months_to_read(fetcher: Fetcher, address: str) -> list[tuple[str, str]]:
    """The months to ask, newest first, each with the mark that booking it sets.

    Of a window all months it touches. Else every month since the first one read (at first: three months) that the provider may
    still restate, or that was last asked when it could.
    """
    now = periods.now()
    today = now.date()
    window = fetcher.window
    if window.since or window.until:
        last = min(window.until - timedelta(days=1) if window.until else today, today)
        first = window.since or last.replace(day=1)
        found = _months(first, last) if first <= last else []
    else:
        found = _months(_earlier(today, _LOOK_BACK_MONTHS), today)
        known = [i for i, month in enumerate(found) if fetcher.mark(f"{address}|{month}")]
        found = found[min([*known, len(found) - _FIRST_MONTHS]) :]
        found = [month for month in found if not _is_settled(month, fetcher.mark(f"{address}|{month}"))]
    return [(month, now.isoformat()) for month in reversed(found)]


def _is_settled(month: str, asked: str | None) -> bool:
    return asked is not None and datetime.fromisoformat(asked) >= periods.month_end(month) + _RESTATEMENT_PERIOD


def readable_until(month: str) -> datetime:
    """How far a month can be asked now: its end, or the end of today."""
    today = periods.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return min(periods.month_end(month), today + timedelta(days=1))


def _months(first: date, last: date) -> list[str]:
    found = [first.strftime("%Y-%m")]
    while found[-1] < last.strftime("%Y-%m"):
        found.append(periods.month_end(found[-1]).strftime("%Y-%m"))
    return found


def _earlier(day: date, months: int) -> date:
    for _ in range(months):
        day = (day.replace(day=1) - timedelta(days=1)).replace(day=1)
    return day


def follow_pages(fetcher: Fetcher, of: str, request: Callable[[str | None], Request]) -> list[Page]:
    """All pages of an answer. `request` is given the cursor of the next one. Raises `FormatError` where the cursors lead nowhere."""
    found: list[Page] = []
    seen: set[str] = set()
    cursor: str | None = None
    while True:
        item = fetcher.ask(request(cursor))
        page = Page(of, item.uri, item.path.read_bytes())
        found.append(page)
        told = _parse_page(page.content, item.uri)
        cursor = text(told.get("next_page")) if told.get("has_more") is True else None
        if told.get("has_more") is True and (cursor is None or cursor in seen or len(found) >= _MAX_PAGES):
            raise FormatError("the pages do not come to an end", where=item.uri, remedy="ask again later; nothing was booked")
        if cursor is None:
            return found
        seen.add(cursor)


def read_consistently(
    shape: PageFormat, totals: Callable[[], list[Page]], groups: Callable[[], list[Page]]
) -> tuple[list[Page], bool]:
    """Groups between two equal readings of their totals, or, after several tries, the last reading; and whether it held still."""
    before, pages = totals(), list[Page]()
    for _ in range(_MAX_READS):
        pages = groups()
        after = totals()
        days = _buckets(shape, pages).get(COSTS, {})
        told = _buckets(shape, after).get(TOTALS, {})
        if _buckets(shape, before).get(TOTALS, {}) == told and set(told) <= set(days):
            return [*pages, *after], True
        before = after
    return [*pages, *before], False


def store_pages(fetcher: Fetcher, shape: PageFormat, month: str | None, pages: Sequence[Page], uri: str) -> RawObject:
    """The pages as one object."""
    settled = month is not None and periods.now() >= periods.month_end(month) + _RESTATEMENT_PERIOD
    first = {"bundle": shape.source, "month": month, "settled": settled, "pages": len(pages)}
    lines = [json.dumps(first, separators=(",", ":")).encode()]
    for page in pages:
        # Line breaks in JSON stand between values only: taking them out changes nothing it says.
        plain = page.content.replace(b"\r", b" ").replace(b"\n", b" ").strip()
        head = json.dumps({"of": page.of, "asked": page.asked}, separators=(",", ":")).encode()
        lines.append(head[:-1] + b',"page":' + plain + b"}")
    return fetcher.save(uri, b"\n".join(lines) + b"\n")


def saved_months(fetcher: Fetcher, shape: PageFormat, uri: str) -> list[tuple[RawObject, str | None]]:
    """What lies in a folder: of the months that live runs kept the last of each, else the pages somebody saved, put together.

    With each the month it states. Raises `FormatError` where a page is missing.
    """
    kept: dict[str | None, RawObject] = {}
    found: dict[bytes, Page] = {}
    listing = [entry for entry in fetcher.list(uri) if _PAGE_NAME.search(entry.uri)]
    for entry in sorted(listing, key=lambda e: (e.modified or datetime.min.replace(tzinfo=UTC), e.uri)):
        item = fetcher.get(entry.uri)
        content = item.path.read_bytes()
        if content.startswith(b'{"bundle":'):
            kept[open_month(shape, item).month] = item
        elif not kept:
            page = Page(shape.of(_parse_page(content, item.uri)) or COSTS, item.uri, content)
            found.setdefault(content.strip(), page)
    if kept:
        return [(item, month) for month, item in kept.items()]
    if not found:
        raise ObjectMissingError(
            "no saved pages here", where=uri, remedy="name a folder of JSON pages, or the provider's address"
        )
    pages = sorted(found.values(), key=lambda page: page.content)
    _check_complete(shape, pages, uri)
    return [(store_pages(fetcher, shape, None, pages, uri), None)]


def _check_complete(shape: PageFormat, pages: Sequence[Page], uri: str) -> None:
    """Every page that says there are more is followed by one that begins where it ends; months begin with their first day."""
    days: dict[str, dict[datetime, Sequence[JsonObject]]] = {}
    open_ends: list[tuple[str, datetime, str]] = []
    for page in pages:
        mine = _buckets(shape, [page]).get(page.of, {})
        known = days.setdefault(page.of, {})
        twice = min((day for day in mine if known.get(day, mine[day]) != mine[day]), default=None)
        if twice is not None:
            raise FormatError(
                f"another page tells {twice.date()} differently",
                where=page.asked,
                remedy="save the pages of one visit, in one grouping",
            )
        known.update(mine)
        if mine and _parse_page(page.content, page.asked).get("has_more") is True:
            open_ends.append((page.of, max(mine) + timedelta(days=1), page.asked))
    for of, day, asked in open_ends:
        if day not in days[of]:
            raise FormatError(
                f"the page after this one is missing, from {day.date()} on", where=asked, remedy="save all pages of the answer"
            )
    first = min(days.get(COSTS, {}), default=None)
    if first is None:
        raise FormatError("there is no page of costs", where=uri, remedy="save the pages of the costs too")
    if first.day != 1:
        raise FormatError(
            f"the pages begin on {first.date()}, and a month is replaced whole",
            where=uri,
            remedy="ask from the first of the month",
        )


def open_month(shape: PageFormat, item: RawObject) -> BillMonth:
    """A month's pages, all of them. Raises `FormatError` for a file that is cut off or no bill of this provider."""
    again = "fetch the month again; nothing was booked"
    lines = item.path.read_bytes().split(b"\n")
    head = _parse_page(lines[0], item.uri)
    if head.get("bundle") != shape.source:
        raise FormatError(
            f"this is no bill of {shape.source}", where=item.uri, remedy="name a folder of its pages, or its address"
        )
    count = text(head.get("pages")) or ""
    if lines[-1] != b"" or str(len(lines) - 2) != count:
        raise FormatError(
            f"the file is cut off: it has {max(len(lines) - 2, 0)} of {count or '?'} pages", where=item.uri, remedy=again
        )
    pages = []
    for number, line in enumerate(lines[1:-1], 2):
        told = _parse_page(line, f"{item.uri}, line {number}")
        if not isinstance(told.get("page"), dict) or not isinstance(told.get("of"), str):
            raise FormatError(f"line {number} holds no page", where=item.uri, remedy=again)
        pages.append((str(told["of"]), told["page"], f"{item.uri}, line {number}"))
    buckets: dict[str, dict[datetime, Sequence[JsonObject]]] = {}
    for of, page, where in pages:
        buckets.setdefault(of, {}).update(_days(shape, page, where))
    return BillMonth(text(head.get("month")), head.get("settled") is True, buckets)


def _buckets(shape: PageFormat, pages: Iterable[Page]) -> dict[str, dict[datetime, Sequence[JsonObject]]]:
    """What pages tell day by day. A day that two pages tell is the later page's: it was asked last."""
    found: dict[str, dict[datetime, Sequence[JsonObject]]] = {}
    for page in pages:
        found.setdefault(page.of, {}).update(_days(shape, _parse_page(page.content, page.asked), page.asked))
    return found


def _days(shape: PageFormat, page: JsonObject, where: str) -> Iterator[tuple[datetime, Sequence[JsonObject]]]:
    data = page.get("data")
    if not isinstance(data, list):
        raise FormatError("the page holds no data", where=where, remedy="ask again; the answer is not as documented")
    for bucket in data:
        results = bucket.get("results") if isinstance(bucket, dict) else None
        start = text(bucket.get(shape.start)) if isinstance(bucket, dict) else None
        try:
            day = shape.moment(start or "")
        except (ValueError, OverflowError, OSError) as fault:
            raise FormatError(
                f"a bucket's {shape.start} is {start!r}", where=where, remedy="ask again; the answer is not as documented"
            ) from fault
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise FormatError(f"the day {day.date()} holds no results", where=where, remedy="ask again; nothing was booked")
        yield day, results


def _parse_page(content: bytes, where: str) -> JsonObject:
    try:
        told = json.loads(content, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as fault:
        raise FormatError(f"no whole JSON page: {str(fault)[:120]}", where=where, remedy="fetch it again") from fault
    if not isinstance(told, dict):
        raise FormatError("the page is no JSON object", where=where, remedy="save each answer as a file of its own")
    return told


def inconsistent_month_problem(source: str, uri: str, month: str) -> Problem:
    """The problem of a month that changed each time it was read."""
    return Problem(
        source,
        uri,
        "pages",
        "",
        f"{month} changed while it was read, {_MAX_READS} times; what was read last is booked",
        "nothing to do: the month is read again with the next run",
        severity="warning",
    )


def read_month(
    shape: PageFormat,
    source: str,
    base: str,
    month: str,
    *,
    totals: Callable[[], list[Page]],
    groups: Callable[[], list[Page]],
    usage: Callable[[], list[Page]],
    without_usage: tuple[str, str],
) -> tuple[list[Page], list[Problem]]:
    """The pages of a month's costs, steady if they can be had so, and of its usage; what could not be had is told.

    Costs are booked without usage, too: `without_usage` says what that means, and what to do.
    """
    problems: list[Problem] = []
    found, still = read_consistently(shape, totals, groups)
    if not still:
        problems.append(inconsistent_month_problem(source, base, month))
    try:
        found += usage()
    except SourceError as fault:
        meaning, remedy = without_usage
        told = f"the usage of {month} cannot be read: {fault.what}; {meaning}"
        problems.append(Problem(source, fault.where or base, "usage", "", told, remedy, severity="warning"))
    return found, problems


def parse_utc(moment: str) -> datetime:
    """RFC 3339 as UTC. Raises `ValueError`.

    >>> parse_utc("2026-10-01T02:00:00+02:00").isoformat()
    '2026-10-01T00:00:00+00:00'
    """
    found = datetime.fromisoformat(moment)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
