"""Log files in a folder or below an S3 prefix: which match, which are new, and their JSON items.

A local folder is read whole. Of an S3 prefix only objects written since the last run are fetched, with an overlap; a row that is read
twice has the same key and is stored once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from ingest.compression import SUFFIXES
from ingest.logs import table_items
from ingest.logs.json_items import Damage, ItemStream
from ingest.logs.json_items import of_file as _of_json
from ingest.source import Batch, Fetcher, ListedObject, RawObject, Window
from ledger.errors import FormatError, ObjectMissingError
from ledger.problems import Problem

JSON_FILES = ("*.json", "*.jsonl", "*.ndjson", "*.json.gz", "*.jsonl.gz", "*.ndjson.gz", "*.gz", "*.zst", "*.xz")
_UNREAD_SUFFIXES = frozenset({".bz2", ".lz4", ".br", ".zip", ".7z", ".lzma", ".lz", ".z", ".sz", ".snappy", ".rar"})
"""Compressions of files that are not read: such a file is a problem, not silence. (CA-7)"""
OVERLAP = timedelta(minutes=10)
"""How far behind the newest object others may still appear: modification times are whole seconds, and uploads run in parallel."""
_DAY = timedelta(days=1)
_GLOB = re.compile(r"[*?\[]")
_DATE_FOLDER = re.compile(r"/(?:y=)?(?P<year>20\d\d)/(?:(?:m=)?(?P<month>[01]\d)/(?:(?:d=)?(?P<day>[0-3]\d)/)?)?")


def file_batches(
    fetcher: Fetcher, uri: str, *, source: str, patterns: Sequence[str], description: str, skip: Sequence[str] = ()
) -> Iterator[Batch | Problem]:
    """Each matching file as a batch of its own, so that an unreadable file blocks no other. `skip` names folders to leave out."""
    if uri.startswith("s3://") and not _GLOB.search(uri):
        yield from new_batches(
            fetcher,
            uri,
            source=source,
            patterns=patterns,
            description=description,
            listing=partial(_list_new, fetcher, uri, skip=skip),
            get=lambda entry: fetcher.get(entry.uri),
            skip=skip,
        )
        return
    listing = fetcher.list(uri)
    exact_matches = [entry for entry in listing if entry.uri == uri or len(listing) == 1]
    base = Path(_GLOB.split(uri)[0]).expanduser().absolute().as_posix()
    entries = exact_matches or [entry for entry in listing if _is_match(entry, base, patterns, skip)]
    unread = [] if exact_matches else unread_files(listing, source, patterns)
    if not entries and not unread:
        raise _no_files_error(uri, description, patterns)
    yield from unread
    for entry in entries:
        yield Batch(scope=uri, objects=(fetcher.get(entry.uri),), version=entry.version)


def whole_folder_batches(
    fetcher: Fetcher, uri: str, *, source: str, patterns: Sequence[str], description: str
) -> Iterator[Batch | Problem]:
    """Each matching file of a folder or prefix as a batch of its own, whenever it was written; a single file whatever its name."""
    listing = fetcher.list(uri)
    exact_matches = [entry for entry in listing if entry.uri == uri or len(listing) == 1]
    entries = exact_matches or [entry for entry in listing if is_named_like(entry, patterns)]
    unread = [] if exact_matches else unread_files(listing, source, patterns)
    yield from unread
    if not entries and not unread:
        raise _no_files_error(uri, description, patterns)
    for entry in entries:
        yield Batch(scope=uri, objects=(fetcher.get(entry.uri),), version=entry.version)


def is_named_like(entry: ListedObject, patterns: Sequence[str]) -> bool:
    """Whether a file is visible and its name matches."""
    name = entry.uri.rpartition("/")[2].lower()
    return not name.startswith((".", "_")) and any(fnmatch(name, pattern) for pattern in patterns)


def unread_files(listing: Iterable[ListedObject], source: str, patterns: Sequence[str]) -> list[Problem]:
    """A problem for each file that would match but for a compression that is not read. (CA-7)"""
    problems: list[Problem] = []
    for entry in listing:
        name = entry.uri.rpartition("/")[2].lower()
        stem, dot, suffix = name.rpartition(".")
        if f"{dot}{suffix}" in _UNREAD_SUFFIXES and entry.size > 0 and any(fnmatch(stem, pattern) for pattern in patterns):
            reason = f"unread_file: named like a log, and compressed as {dot}{suffix}, which is not read"
            problems.append(
                Problem(source, entry.uri, "file", "", reason, f"compress it as {', '.join(SUFFIXES)}, or not at all")
            )
    return problems


def _no_files_error(uri: str, description: str, patterns: Sequence[str]) -> ObjectMissingError:
    return ObjectMissingError(
        f"nothing here looks like {description}", where=uri, remedy=f"files should end in {', '.join(patterns)}"
    )


def _is_match(entry: ListedObject, base: str, patterns: Sequence[str], skip: Sequence[str]) -> bool:
    folder, _, name = entry.uri.rpartition("/")
    return (
        entry.size > 0
        and not name.startswith((".", "_"))
        and any(fnmatch(name.lower(), pattern) for pattern in patterns)
        and (folder.rpartition("/")[2].lower() not in skip or folder.rstrip("/") == base.rstrip("/"))
    )


def new_batches(
    fetcher: Fetcher,
    uri: str,
    *,
    source: str,
    patterns: Sequence[str],
    description: str,
    listing: Callable[[date | None, date | None], Iterable[ListedObject]],
    get: Callable[[ListedObject], RawObject],
    skip: Sequence[str] = (),
) -> Iterator[Batch | Problem]:
    """The matching objects of a store that were written since the last run, each a batch of its own.

    `listing` gives the objects that may hold these days, None for any; `get` fetches one.
    """
    window, checkpoint = fetcher.window, fetcher.checkpoint(uri)
    since = datetime.fromisoformat(checkpoint) - OVERLAP if checkpoint and window == Window() else None
    first = window.since - _DAY if window.since else (since - _DAY).date() if since else None
    last = window.until + _DAY if window.until else None
    objects = list(listing(first, last))
    entries = [entry for entry in objects if entry.uri == uri or _is_match(entry, uri, patterns, skip)]
    unread = unread_files(objects, source, patterns)
    yield from unread
    if not entries and not unread and checkpoint is None:
        raise _no_files_error(uri, description, patterns)
    entries.sort(key=lambda entry: (_write_time(entry), entry.uri))
    for entry in entries:
        if since is None or _write_time(entry) >= since:
            try:
                yield Batch(scope=uri, objects=(get(entry),), version=entry.version)
            except ObjectMissingError:
                reason, remedy = (
                    "was listed, and gone when it was to be read",
                    "if a lifecycle rule deletes logs, let it wait a day longer",
                )
                yield Problem(source, entry.uri, "object", "", reason, remedy)
    newest = max((_write_time(entry) for entry in entries), default=None)
    newest_seen = max(filter(None, (newest, datetime.fromisoformat(checkpoint) if checkpoint else None)), default=None)
    if newest_seen is not None and window == Window():
        yield Batch(scope=uri, objects=(), checkpoints={uri: newest_seen.isoformat()})


def _list_new(
    fetcher: Fetcher, uri: str, first: date | None, last: date | None, *, skip: Sequence[str]
) -> Iterator[ListedObject]:
    """The objects below a prefix. Folders named by other days, or listed in `skip`, are not listed."""
    folders, objects = fetcher.level(uri)
    if not folders and not objects:
        objects = fetcher.list(uri)  # a single object
    yield from written_since(objects, first)
    for folder in folders:
        if folder.rstrip("/").rsplit("/", 1)[-1].lower() not in skip and may_contain(folder, first, last):
            yield from _list_new(fetcher, folder, first, last, skip=skip)


def written_since(objects: Iterable[ListedObject], first: date | None) -> Iterator[ListedObject]:
    """The objects that were written on this day or later; all of them for None."""
    begin = datetime.combine(first, time(), UTC) if first else None
    yield from (entry for entry in objects if begin is None or _write_time(entry) >= begin)


def may_contain(folder: str, first: date | None, last: date | None) -> bool:
    """Whether a folder named by a date may contain days from `first` until `last`; folders without a date may.

    >>> [may_contain(f"s3://b/logs/{part}/", date(2026, 10, 5), date(2026, 11, 1)) for part in ("2026/10/04", "2026/10", "2026/11/02", "x")]
    [False, True, False, True]
    """
    match = _DATE_FOLDER.search(folder)
    if match is None:
        return True
    folder_date = f"{match['year']}-{match['month'] or ''}-{match['day'] or ''}".rstrip("-")
    return (first is None or folder_date >= first.isoformat()[: len(folder_date)]) and (
        last is None or folder_date <= last.isoformat()[: len(folder_date)]
    )


def _write_time(entry: ListedObject) -> datetime:
    return entry.modified or datetime.max.replace(tzinfo=UTC)


def items(item: RawObject, *, description: str, remedy: str) -> ItemStream:
    """The JSON items of a file (one document, an array, lines; plain or gzip; or rows of Parquet), and its unreadable parts as `Damage`.

    `description` names the expected content in errors, `remedy` says how to get the file again. Raises `FormatError` for any other file.
    """
    with item.path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        yield from table_items.of_object(item)
        return
    try:
        for entry in _of_json(item.path, item.uri):
            yield entry._replace(remedy=remedy) if isinstance(entry, Damage) else entry
    except FormatError as error:
        reason = f"no {description}: not JSON" if "LiteLLM" in error.what or "UTF" in error.what else error.what
        raise FormatError(reason, where=item.uri, remedy=remedy) from error
