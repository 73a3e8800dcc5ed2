"""Bills from paged HTTP APIs with one bucket per day: OpenAI's, Anthropic's and GitHub Copilot's.

A month is requested whole, and its pages are stored unchanged in one file of JSON lines: a first line with the number of pages, then
one line per page with its kind, ``of`` (costs in groups, totals without groups, usage). A truncated month is therefore refused, never
half booked. Pages that were saved by hand are combined the same way.

A month may change while it is read. Totals are requested before and after the groups: where they differ the month is read again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urldefrag

from ingest.bills import api_months
from ingest.bills.paged_rows import COSTS, TOTALS, USAGE, BillMonth, JsonObject, text
from ingest.source import Fetcher, RawObject, Request
from ledger import periods
from ledger.errors import FormatError, ObjectMissingError, SourceError, StoreUnreachable
from ledger.problems import Problem

_MAX_PAGES = 1000
_MAX_BUCKETS = 31
"""Days of one page: a whole month."""
_MAX_READS = 3
"""How often a month is read that changes meanwhile."""
_PAGE_NAME = re.compile(r"(?:\.json|\.jsonl|\.ndjson|/[^./]+)\Z", re.IGNORECASE)
"""File names of saved pages; files that the fetcher stored have no suffix."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its kind, its address, and its bytes."""

    kind: str
    uri: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFormat:
    """How a provider writes its pages and queries.

    `start_field` is both the query's first instant and a bucket's start, `end_field` the query's end. Results with one of the
    `group_fields` are costs in groups; `is_usage` recognises results of the usage endpoint. `buckets` are the buckets of a page that is
    laid out otherwise than OpenAI's and Anthropic's, or None where it has none.
    """

    source: str
    start_field: str
    end_field: str
    parse_time: Callable[[str], datetime]
    format_time: Callable[[datetime], str]
    group_fields: tuple[str, ...]
    is_usage: Callable[[JsonObject], bool]
    buckets: Callable[[JsonObject], object] = lambda page: page.get("data")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMonth:
    """A month whose pages are stored: `label` is the fragment of the address, `month` null where saved pages do not state it."""

    item: RawObject
    month: str | None
    label: str = ""
    problems: Sequence[Problem] = ()
    checkpoints: Mapping[str, str] = field(default_factory=dict)


def api_key(names: Sequence[str], label: str) -> str:
    """The secret from the environment; with a label (``https://api.openai.com#emea``) ``NAME_EMEA`` is tried first.

    Raises `StoreUnreachable` that says which variable to set.
    """
    suffix = re.sub(r"\W", "_", label).upper()
    variables = [f"{name}_{suffix}" for name in names if suffix] + list(names)
    value = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    if value is None:
        raise StoreUnreachable(f"no key in the environment ({variables[0]})", remedy=f"set {variables[0]} to an admin key")
    return value


def plan_months(
    fetcher: Fetcher,
    page_format: PageFormat,
    uri: str,
    *,
    key_names: Sequence[str],
    costs_path: str,
    read_pages: Callable[[str, str, str], tuple[list[Page], Sequence[Problem]]],
) -> Iterator[PlannedMonth]:
    """The months of an address that may have changed, newest first; of a folder, its saved pages.

    `read_pages` takes the address without its label, the API key and the month. `costs_path` is the endpoint that names the stored month.
    """
    if not uri.startswith(("http://", "https://")):
        for item, stated_month in saved_months(fetcher, page_format, uri):
            yield PlannedMonth(item=item, month=stated_month)
        return
    base, label = urldefrag(uri)
    base = base.rstrip("/")
    key = api_key(key_names, label)
    for month, read_at in api_months.months_to_read(fetcher, uri):
        pages, problems = read_pages(base, key, month)
        item = store_pages(fetcher, page_format, month, pages, f"{base}{costs_path}?month={month}")
        yield PlannedMonth(item=item, month=month, label=label, problems=problems, checkpoints={f"{uri}|{month}": read_at})


def daily_query(page_format: PageFormat, month: str, group: Sequence[str], cursor: str | None) -> list[tuple[str, str]]:
    """The query of a month's daily buckets in groups, from the page of `cursor` on."""
    query = [
        (page_format.start_field, page_format.format_time(periods.month_start(month))),
        (page_format.end_field, page_format.format_time(api_months.readable_until(month))),
        ("bucket_width", "1d"),
        ("limit", str(_MAX_BUCKETS)),
        *(("group_by[]", name) for name in group),
    ]
    return [*query, ("page", cursor)] if cursor else query


def page_kind(page_format: PageFormat, page: JsonObject) -> str:
    """The kind of a saved page, by its results; a page without results is one of costs in groups."""
    data = page_format.buckets(page)
    buckets = [bucket for bucket in data if isinstance(bucket, dict)] if isinstance(data, list) else []
    results = [result for bucket in buckets for result in bucket.get("results") or () if isinstance(result, dict)]
    if any(page_format.is_usage(result) for result in results):
        return USAGE
    has_groups = any(result.get(name) is not None for result in results for name in page_format.group_fields)
    return TOTALS if results and not has_groups else COSTS


def follow_pages(fetcher: Fetcher, kind: str, request: Callable[[str | None], Request]) -> list[Page]:
    """All pages of a response. `request` takes the cursor of the next page. Raises `FormatError` where the cursors do not end."""
    pages: list[Page] = []
    cursors: set[str] = set()
    cursor: str | None = None
    while True:
        item = fetcher.request(request(cursor))
        page = Page(kind, item.uri, item.path.read_bytes())
        pages.append(page)
        content = parse_page(page.content, item.uri)
        cursor = text(content.get("next_page")) if content.get("has_more") is True else None
        if content.get("has_more") is True and (cursor is None or cursor in cursors or len(pages) >= _MAX_PAGES):
            raise FormatError("the pages do not end", where=item.uri, remedy="try again later; nothing was booked")
        if cursor is None:
            return pages
        cursors.add(cursor)


def read_consistently(
    page_format: PageFormat, totals: Callable[[], list[Page]], groups: Callable[[], list[Page]]
) -> tuple[list[Page], bool]:
    """Groups between two equal readings of their totals, or, after several tries, the last reading; and whether the totals were equal."""
    totals_before, pages = totals(), list[Page]()
    for _ in range(_MAX_READS):
        pages = groups()
        pages_after = totals()
        days = _buckets(page_format, pages).get(COSTS, {})
        totals_after = _buckets(page_format, pages_after).get(TOTALS, {})
        if _buckets(page_format, totals_before).get(TOTALS, {}) == totals_after and set(totals_after) <= set(days):
            return [*pages, *pages_after], True
        totals_before = pages_after
    return [*pages, *totals_before], False


def store_pages(fetcher: Fetcher, page_format: PageFormat, month: str | None, pages: Sequence[Page], uri: str) -> RawObject:
    """The pages as one object."""
    is_settled = month is not None and api_months.is_settled(month, periods.now())
    header = {"bundle": page_format.source, "month": month, "settled": is_settled, "pages": len(pages)}
    lines = [json.dumps(header, separators=(",", ":")).encode()]
    for page in pages:
        # Line breaks in JSON stand between values only: removing them keeps the content.
        content = page.content.replace(b"\r", b" ").replace(b"\n", b" ").strip()
        head = json.dumps({"of": page.kind, "asked": page.uri}, separators=(",", ":")).encode()
        lines.append(head[:-1] + b',"page":' + content + b"}")
    return fetcher.store_bytes(uri, b"\n".join(lines) + b"\n")


def saved_months(fetcher: Fetcher, page_format: PageFormat, uri: str) -> list[tuple[RawObject, str | None]]:
    """The months saved in a folder: of the months that live runs stored the newest file each, else hand-saved pages, combined.

    Each with the month it states. Raises `FormatError` where a page is missing.
    """
    bundles: dict[str | None, RawObject] = {}
    pages_by_content: dict[bytes, Page] = {}
    times: list[datetime] = []
    listing = [entry for entry in fetcher.list(uri) if _PAGE_NAME.search(entry.uri)]
    for entry in sorted(listing, key=lambda e: (e.modified or datetime.min.replace(tzinfo=UTC), e.uri)):
        item = fetcher.get(entry.uri)
        content = item.path.read_bytes()
        if content.startswith(b'{"bundle":'):
            bundles[open_month(page_format, item).month] = item
        elif not bundles:
            page = Page(page_kind(page_format, parse_page(content, item.uri)), item.uri, content)
            pages_by_content.setdefault(content.strip(), page)
            times += filter(None, [entry.modified])
    if bundles:
        return [(item, month) for month, item in bundles.items()]
    if not pages_by_content:
        raise ObjectMissingError(
            "no saved pages here", where=uri, remedy="name a folder of JSON pages, or the provider's address"
        )
    pages = sorted(pages_by_content.values(), key=lambda page: page.content)
    _check_complete(page_format, pages, uri)
    return [(replace(store_pages(fetcher, page_format, None, pages, uri), modified=min(times, default=None)), None)]


def _check_complete(page_format: PageFormat, pages: Sequence[Page], uri: str) -> None:
    """Checks that every page that announces a next one is followed by it, and that months begin with their first day."""
    days: dict[str, dict[datetime, Sequence[JsonObject]]] = {}
    open_ends: list[tuple[str, datetime, str]] = []
    for page in pages:
        page_days = _buckets(page_format, [page]).get(page.kind, {})
        known_days = days.setdefault(page.kind, {})
        conflicting_day = min((day for day in page_days if known_days.get(day, page_days[day]) != page_days[day]), default=None)
        if conflicting_day is not None:
            raise FormatError(
                f"another page has other results for {conflicting_day.date()}",
                where=page.uri,
                remedy="save the pages of one request, in one grouping",
            )
        known_days.update(page_days)
        if page_days and parse_page(page.content, page.uri).get("has_more") is True:
            open_ends.append((page.kind, max(page_days) + timedelta(days=1), page.uri))
    for kind, day, page_uri in open_ends:
        if day not in days[kind]:
            raise FormatError(
                f"the page after this one is missing, from {day.date()} on",
                where=page_uri,
                remedy="save all pages of the response",
            )
    first = min(days.get(COSTS, {}), default=None)
    if first is None:
        raise FormatError("there is no page of costs", where=uri, remedy="save the pages of the costs too")
    if first.day != 1:
        raise FormatError(
            f"the pages begin on {first.date()}, and a month is replaced whole",
            where=uri,
            remedy="request the month from its first day",
        )


def open_month(page_format: PageFormat, item: RawObject) -> BillMonth:
    """A month's pages, all of them. Raises `FormatError` for a file that is cut off or no bill of this provider."""
    remedy = "fetch the month again; nothing was booked"
    lines = item.path.read_bytes().split(b"\n")
    head = parse_page(lines[0], item.uri)
    if head.get("bundle") != page_format.source:
        raise FormatError(
            f"this is no bill of {page_format.source}", where=item.uri, remedy="name a folder of its pages, or its address"
        )
    count = text(head.get("pages")) or ""
    if lines[-1] != b"" or str(len(lines) - 2) != count:
        raise FormatError(
            f"the file is cut off: it has {max(len(lines) - 2, 0)} of {count or '?'} pages", where=item.uri, remedy=remedy
        )
    pages = []
    for number, line in enumerate(lines[1:-1], 2):
        entry = parse_page(line, f"{item.uri}, line {number}")
        if not isinstance(entry.get("page"), dict) or not isinstance(entry.get("of"), str):
            raise FormatError(f"line {number} holds no page", where=item.uri, remedy=remedy)
        pages.append((str(entry["of"]), entry["page"], f"{item.uri}, line {number}"))
    buckets: dict[str, dict[datetime, Sequence[JsonObject]]] = {}
    for kind, page, location in pages:
        buckets.setdefault(kind, {}).update(_days(page_format, page, location))
    return BillMonth(text(head.get("month")), head.get("settled") is True, buckets)


def _buckets(page_format: PageFormat, pages: Iterable[Page]) -> dict[str, dict[datetime, Sequence[JsonObject]]]:
    """The results by kind and day. Of two pages with the same day the later one counts: it was requested last."""
    buckets: dict[str, dict[datetime, Sequence[JsonObject]]] = {}
    for page in pages:
        buckets.setdefault(page.kind, {}).update(_days(page_format, parse_page(page.content, page.uri), page.uri))
    return buckets


def _days(page_format: PageFormat, page: JsonObject, location: str) -> Iterator[tuple[datetime, Sequence[JsonObject]]]:
    data = page_format.buckets(page)
    if not isinstance(data, list):
        raise FormatError("the page holds no data", where=location, remedy="try again; the response is not as documented")
    for bucket in data:
        results = bucket.get("results") if isinstance(bucket, dict) else None
        start = text(bucket.get(page_format.start_field)) if isinstance(bucket, dict) else None
        try:
            day = page_format.parse_time(start or "")
        except (ValueError, OverflowError, OSError) as error:
            raise FormatError(
                f"a bucket's {page_format.start_field} is {start!r}",
                where=location,
                remedy="try again; the response is not as documented",
            ) from error
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise FormatError(f"the day {day.date()} holds no results", where=location, remedy="try again; nothing was booked")
        yield day, results


def parse_page(content: bytes, location: str) -> JsonObject:
    """A page with its numbers as text. Raises `FormatError` for what is no whole JSON object."""
    try:
        page = json.loads(content, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no whole JSON page: {str(error)[:120]}", where=location, remedy="fetch it again") from error
    if not isinstance(page, dict):
        raise FormatError("the page is no JSON object", where=location, remedy="save each response as its own file")
    return page


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
    page_format: PageFormat,
    source: str,
    base: str,
    month: str,
    *,
    totals: Callable[[], list[Page]],
    groups: Callable[[], list[Page]],
    usage: Callable[[], list[Page]],
    without_usage: tuple[str, str],
) -> tuple[list[Page], list[Problem]]:
    """The pages of a month's costs, read consistently if possible, and of its usage; what could not be read is a problem.

    Costs are booked without usage, too: `without_usage` is the consequence and the remedy.
    """
    problems: list[Problem] = []
    pages, is_consistent = read_consistently(page_format, totals, groups)
    if not is_consistent:
        problems.append(inconsistent_month_problem(source, base, month))
    try:
        pages += usage()
    except SourceError as error:
        meaning, remedy = without_usage
        reason = f"the usage of {month} cannot be read: {error.what}; {meaning}"
        problems.append(Problem(source, error.where or base, "usage", "", reason, remedy, severity="warning"))
    return pages, problems


def parse_utc(moment: str) -> datetime:
    """RFC 3339 as UTC. Raises `ValueError`.

    >>> parse_utc("2026-10-01T02:00:00+02:00").isoformat()
    '2026-10-01T00:00:00+00:00'
    """
    parsed_time = datetime.fromisoformat(moment)
    try:
        return parsed_time.replace(tzinfo=UTC) if parsed_time.tzinfo is None else parsed_time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error
