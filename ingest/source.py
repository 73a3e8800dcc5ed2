"""The one contract of ingestion: fetch saves bytes, read is pure.

A source is one module in `ingest.sources` that exposes ``SOURCE``. It never writes a table and never touches the network
itself: `plan` asks a `Fetcher` for bytes, `read` turns bytes that lie on disk into rows and problems. `ingest.run` does the
rest: hashing, replacing or merging, control totals, problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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


@dataclass(frozen=True, slots=True)
class Listed:
    """An object that is there but not fetched yet. `modified` is when its store last wrote it (UTC)."""

    uri: str
    size: int
    version: str = ""
    modified: datetime | None = None


class Fetcher(Protocol):
    """The only door to the world: local files, folders and globs, and ``s3://``."""

    def list(self, uri: str) -> Sequence[Listed]:
        """What a file, folder, glob or prefix holds, in name order. Raises `SourceError` where it cannot be reached."""
        ...

    def get(self, uri: str) -> RawObject:
        """The bytes of one object. Raises `ObjectMissingError` or `StoreUnreachable`."""
        ...


@dataclass(frozen=True, slots=True)
class Slice:
    """What is read together, and, for bills, replaced together.

    `scope` names the dataset (an export, a file). `billing_month` is the month the slice states, or None if only its rows tell:
    then every month found in it is replaced. All objects must be readable, or the slice is not written at all.
    """

    scope: str
    objects: tuple[RawObject, ...]
    billing_month: str | None = None
    version: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class Reading:
    """A batch of rows for the source's table, and what was wrong with the rows that are not among them.

    Bill frames carry, beside columns of `charges`, the four cost columns also *as written* (text, named ``<column>__written``)
    where full precision exceeds the ledger's; `ingest.run` sums them for the control totals. They may leave the text that lines
    repeat in `words`: then ``frame.__word`` is the number of the row of `words` that a line says.
    """

    frame: pl.DataFrame
    problems: list[Problem] = field(default_factory=list)
    words: pl.DataFrame | None = None


class Source(Protocol):
    """One kind of input.

    `kind` ``bill`` fills `charges`; ``log`` fills `spans`. `patterns` are the file names it picks out of a folder.
    """

    name: str
    kind: Literal["bill", "log"]
    title: str
    patterns: tuple[str, ...]

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Slice | Problem]:
        """Finds and fetches what `uri` holds. Touches the world only through `fetcher`."""
        ...

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows of one object, in bounded batches. Pure: same bytes, same rows.

        Raises `FormatError` if nothing in it can be read.
        """
        ...
