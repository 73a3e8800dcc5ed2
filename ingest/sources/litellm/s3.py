"""LiteLLM's objects in S3: lists recent folders only, and fetches objects that were not read yet.

LiteLLM writes ``[path/][team/][key/]YYYY-MM-DD/[HH/]time-….json``, one object a call or one a flush. Its keys contain the start of
a call by the proxy's own clock and zone; an object may appear hours later. So folders of older days are skipped, with a margin, and new
objects among the rest are found by modification time.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from ingest.logs.files import is_named_like, unread_files
from ingest.source import Batch, Fetcher, ListedObject, RawObject, Window
from ledger.errors import ObjectMissingError
from ledger.problems import Problem

OVERLAP = timedelta(minutes=5)
"""How far behind the newest object others may still appear: modification times are whole seconds of several clocks."""
_FOLDER_LAG = timedelta(days=2)
"""How much older than its object a day's folder may be: time zone of the proxy, a long call, an hour of retries."""
_CHECKPOINT_OBJECTS = 5_000
_PARALLEL_FETCHES = 8
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """How far a prefix was read: the newest object's time, and which objects up to `OVERLAP` before it were read."""

    newest: datetime
    read_names: frozenset[str]

    @classmethod
    def parse(cls, value: str | None) -> _Checkpoint | None:
        if value is None:
            return None
        fields = json.loads(value)
        return cls(datetime.fromisoformat(fields["newest"]), frozenset(fields["read"]))

    def __str__(self) -> str:
        return json.dumps({"newest": self.newest.isoformat(), "read": sorted(self.read_names)}, separators=(",", ":"))

    def is_new(self, entry: ListedObject) -> bool:
        return _write_time(entry) >= self.newest - OVERLAP and _object_key(entry) not in self.read_names


def plan(fetcher: Fetcher, prefix: str, patterns: Sequence[str]) -> Iterator[Batch | Problem]:
    """The unread objects below a prefix, oldest first; with a window, all objects of its days.

    A run always ends with a checkpoint, also where nothing was new.
    """
    last, window = fetcher.checkpoint(prefix), fetcher.window
    checkpoint = _Checkpoint.parse(last) if window == Window() else None
    objects = list(_list_days(fetcher, prefix, _days(window, checkpoint)))
    listing = [entry for entry in objects if is_named_like(entry, patterns)]
    new_objects = [entry for entry in objects if checkpoint is None or _write_time(entry) >= checkpoint.newest - OVERLAP]
    unread = unread_files(new_objects, "litellm", patterns)
    yield from unread
    if not listing and not unread and last is None:
        raise ObjectMissingError(
            "nothing here looks like a log", where=prefix, remedy="check the bucket, the prefix and the region"
        )
    listing.sort(key=lambda entry: (_write_time(entry), entry.uri))
    fresh = [entry for entry in listing if checkpoint is None or checkpoint.is_new(entry)]
    for first in range(0, len(fresh), _CHECKPOINT_OBJECTS):
        part, unread_entries = fresh[first : first + _CHECKPOINT_OBJECTS], fresh[first + _CHECKPOINT_OBJECTS :]
        yield from _object_batches(fetcher, prefix, part)
        if window == Window():
            last = str(_next_checkpoint(checkpoint, listing, part[-1], unread_entries))
            yield Batch(scope=prefix, objects=(), checkpoints={prefix: last})
    if last is not None:
        yield Batch(scope=prefix, objects=(), checkpoints={prefix: last})


def _object_batches(fetcher: Fetcher, prefix: str, entries: Sequence[ListedObject]) -> Iterator[Batch | Problem]:
    """Every object is a batch of its own, so that an unreadable one blocks no other. Objects are fetched in parallel."""

    def fetch(entry: ListedObject) -> RawObject | None:
        try:
            return fetcher.get(entry.uri)
        except ObjectMissingError:
            return None

    with ThreadPoolExecutor(_PARALLEL_FETCHES) as pool:
        for first in range(0, len(entries), _PARALLEL_FETCHES):
            chunk = entries[first : first + _PARALLEL_FETCHES]
            for entry, item in zip(chunk, pool.map(fetch, chunk), strict=True):
                if item is None:
                    yield _vanished_problem(entry)
                else:
                    yield Batch(scope=prefix, objects=(item,), version=entry.version)


def _vanished_problem(entry: ListedObject) -> Problem:
    return Problem(
        "litellm",
        entry.uri,
        "object",
        "",
        "was listed, and gone when it was to be read",
        "if a lifecycle rule deletes logs, let it wait a day longer",
    )


def _days(window: Window, checkpoint: _Checkpoint | None) -> tuple[str, str]:
    """The first and the last day folder that may contain the requested objects."""
    since = window.since - timedelta(days=1) if window.since else (checkpoint.newest - _FOLDER_LAG).date() if checkpoint else None
    until = window.until + timedelta(days=1) if window.until else None
    return since.isoformat() if since else "", until.isoformat() if until else "9999"


def _list_days(fetcher: Fetcher, prefix: str, days: tuple[str, str]) -> Iterator[ListedObject]:
    """All objects below a prefix, without those in folders of other days; folders of teams and keys are listed, too."""
    folders, objects = fetcher.level(prefix)
    first, last = days
    # Outside day folders only the modification time says how old an object is.
    begin = datetime.combine(datetime.fromisoformat(first), time(), UTC) if first else None
    yield from (entry for entry in objects if begin is None or _write_time(entry) >= begin)
    for folder in folders:
        day = folder.rstrip("/").rsplit("/", 1)[-1]
        if not _DAY.match(day):
            yield from _list_days(fetcher, folder, days)
        elif first <= day <= last:
            yield from fetcher.list(folder)


def _next_checkpoint(
    checkpoint: _Checkpoint | None, listing: Sequence[ListedObject], last: ListedObject, unread_entries: Sequence[ListedObject]
) -> _Checkpoint:
    """The checkpoint once `last` is read and `unread_entries` is not; the listing is in order of time."""
    newest = max(_write_time(last), checkpoint.newest) if checkpoint else _write_time(last)
    begin = bisect_left(listing, newest - OVERLAP, key=_write_time)
    unread = {entry.uri for entry in unread_entries}
    return _Checkpoint(newest, frozenset(_object_key(entry) for entry in listing[begin:] if entry.uri not in unread))


def _write_time(entry: ListedObject) -> datetime:
    return entry.modified or datetime.max.replace(tzinfo=UTC)


def _object_key(entry: ListedObject) -> str:
    """A short hash of an object's URI and version: an overwritten object has another one."""
    return hashlib.blake2b(f"{entry.uri}\n{entry.version}".encode(), digest_size=6).hexdigest()
