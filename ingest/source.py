"""The one contract of ingestion: fetch saves bytes, read is pure.

A source is one module in `ingest.sources` that exposes ``SOURCE``. It never writes a table. `plan` finds what there is and gets
its bytes through a `Fetcher`: files and S3 by `get`, HTTP by `ask`; what a provider's own client hands over (BigQuery,
PostgreSQL) it puts down with `save`, as it came. `read` turns bytes that lie on disk into rows and problems. `ingest.run` does
the rest: hashing, replacing or merging, control totals, problems, and how far a source was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from ledger.problems import Problem
from ledger.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class RawObject:
    """Bytes on this machine, and where they came from.

    `raw_id` is the SHA-256 of the bytes; `version` is the sender's own (ETag, execution id), if it has one.
    """

    uri: str
    path: Path
    raw_id: str
    size: int
    version: str = ""
    view: str = ""
    """How to read it, where only what lies around it tells: a source's own word."""
    rows: int | None = None
    """How many rows its manifest says it holds."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object that is there but not fetched yet. `modified` is when its store last wrote it (UTC)."""

    uri: str
    size: int
    version: str = ""
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to a provider. It is asked again after 429, 5xx and broken connections, so it must change nothing there.

    `secrets` are headers whose value is a secret: they are sent, and never written down or told. The body is JSON, if there is one.
    """

    url: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    secret_query: Sequence[tuple[str, str]] = ()
    """Parts of the address that are a secret, such as a signature: sent, and never written down or told."""


@dataclass(frozen=True, slots=True)
class Window:
    """The days that are asked for, ``[since, until)``; None: as far as the source has not been read yet, and until now."""

    since: date | None = None
    until: date | None = None


class Fetcher(Protocol):
    """The door to the world: local files, folders and globs, ``s3://``, HTTP; and what is remembered of earlier visits."""

    window: Window

    def list(self, uri: str) -> Sequence[ListedObject]:
        """What a file, folder, glob or prefix holds, in name order. Raises `SourceError` where it cannot be reached."""
        ...

    def level(self, uri: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        """What lies right below a folder or prefix, and nothing deeper: addresses of folders, and objects, each in name order.

        For stores that hold more than is worth listing. Empty where there is nothing.
        """
        ...

    def get(self, uri: str) -> RawObject:
        """The bytes of one object. Raises `ObjectMissingError` or `StoreUnreachable`."""
        ...

    def request(self, request: Request) -> RawObject:
        """The answer to an HTTP request, with status 2xx. Raises `ObjectMissingError` (404) or `StoreUnreachable`, which say the remedy."""
        ...

    def store_bytes(self, uri: str, content: bytes | Iterable[bytes], *, version: str = "") -> RawObject:
        """Puts down bytes that a provider's own client handed over; `uri` says where they are from, without credentials."""
        ...

    def checkpoint(self, key: str) -> str | None:
        """How far this source was read: the newest value among the `Slice.marks` of this key that have been booked."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What is read together, and, for bills, replaced together.

    `scope` names the dataset (an export, a file). `billing_month` is the month the slice states, or None if only its rows tell:
    then every month found in it is replaced. All objects must be readable, or the slice is not written at all.
    """

    scope: str
    objects: tuple[RawObject, ...]
    billing_month: str | None = None
    version: str = ""
    problems: tuple[Problem, ...] = ()
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    """How far the source is read once this slice is booked; kept in the same breath, and handed out by `Fetcher.mark`."""
    exclusive: bool = False
    """The slice is a whole export of its month: another dataset that bills the same accounts for the same SKUs repeats its cost."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a source needs before it can be read, as `rootcost sources test` tells it."""

    needs: str
    """One sentence: which credentials, from where, with which rights."""
    policy: str = ""
    """The least-privilege policy, role or grant to paste."""
    lag: timedelta = timedelta(hours=1)
    """How old the newest row of a healthy source is at most, as its sender delivers."""
    cron: str = "*/15 * * * *"
    """How often it is worth asking (UTC), unless the schedule says otherwise."""
    addresses: tuple[str, ...] = ()
    """Examples of what to name."""


@dataclass(slots=True)
class Reading:
    """A batch of rows for the source's table, and what was wrong with the rows that are not among them.

    Bill frames carry, beside columns of `charges`, the four cost columns also *as written* (text, named ``<column>__written``)
    where full precision exceeds the ledger's; `ingest.run` sums them for the control totals. They may leave the text that lines
    repeat in `words`: then ``frame.__word`` is the number of the row of `words` that a line says.
    """

    frame: pl.DataFrame
    problems: list[Problem] = field(default_factory=list)
    dimensions: pl.DataFrame | None = None


class Source(Protocol):
    """One kind of input.

    `kind` ``bill`` fills `charges`; ``log`` fills `spans`. `patterns` are the file names it picks out of a folder. What is saved of a
    live source (a folder of its pages) is read like any folder.
    """

    name: str
    kind: Literal["bill", "log"]
    title: str
    patterns: tuple[str, ...]
    access: Access

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Finds and fetches what `uri` holds. Touches the world only through `fetcher`."""
        ...

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows of one object, in bounded batches. Pure: same bytes, same rows.

        Raises `FormatError` if nothing in it can be read.
        """
        ...
