"""The one contract of ingestion: fetch saves bytes, read is pure.

A source is one module in `ingest.sources` that exposes ``SOURCE``. It never writes a table. `plan` finds what there is and gets
its bytes through a `Fetcher`: files and S3 by `get`, HTTP by `request`; what a provider's own client returns (BigQuery, PostgreSQL) is
stored unchanged with `store_bytes`. `read` turns stored bytes into rows and problems. `ingest.run` does the rest: hashing, replacing or
merging, control totals, problems, checkpoints.

**What a bill source hands over.** `read` yields one `Reading` per batch of rows; `ingest.bills.handover` checks each of them.

* *Measures* are the columns that each row has for itself: amounts, times, `line`. They are in `frame`.
* *Dimensions* are the columns that rows share: names, ids, units, unit prices, tags. They are in `dimensions`, one row for each distinct
  combination, and ``frame.__word`` is the number of the row of `dimensions` that belongs to a row of `frame`. A source may leave
  `dimensions` out; then all columns are in `frame`.
* Each cost column has a text column ``<column>__written``: the amount as the file writes it where it has more than twelve decimals, else
  null. The control totals sum these, and the difference to what is booked is reported as rounding. (MO-1a)
* `billing_month` is the invoice month, YYYY-MM. `charge_id`, `source`, `scope` and `raw_id` are filled in by `ingest.run`.
* The *last reading* has no rows (`charges.empty()`) and carries the problems that are summed at the end of the file.

A bill of two rows that differ in their amounts only:

>>> from decimal import Decimal
>>> from ingest.bills import charges, dictionary, handover
>>> from ingest.problem_counter import ProblemCounter
>>> import pyarrow as pa
>>> names = {"billing_currency": "USD", "provider_name": "Acme", "charge_category": "Usage"}
>>> costs = ["0.024", "0.0451234567891"]
>>> measures = dict.fromkeys(("billed_cost", "effective_cost", "list_cost", "contracted_cost"), costs)
>>> times = dict.fromkeys(("charge_period_start", "billing_period_start"), ["2026-10-01"] * 2) | {"charge_period_end": ["2026-10-02"] * 2}
>>> rows = pl.DataFrame(measures | times | {"__row": [1, 2], "__line": [2, 3]})
>>> batch = dictionary.encode({name: pa.array([value] * 2) for name, value in names.items()}, rows)
>>> counter = ProblemCounter("acme", "bill.csv")
>>> batch = charges.to_charges(charges.check_required(charges.parse_types(batch), {}, counter))
>>> reading = Reading(batch.rows, counter.drain(), batch.dimensions)
>>> handover.check_reading(reading, source="acme")
>>> reading.dimensions.height, reading.frame["__word"].to_list(), reading.frame["billed_cost__written"].to_list()
(1, [0, 0], [None, '0.0451234567891'])
>>> last = charges.last_reading(counter)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from ledger.addresses import masked
from ledger.problems import Problem
from ledger.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class RawObject:
    """Bytes on this machine, and the address they came from.

    `raw_id` is the SHA-256 of the bytes; `version` is the sender's own (ETag, execution id), if it has one.
    """

    uri: str
    path: Path
    raw_id: str
    size: int
    version: str = ""
    view: str = ""
    """How to read it, where only neighbouring files say so (a manifest, for example); the source defines the values."""
    rows: int | None = None
    """Row count stated by its manifest."""
    modified: datetime | None = None
    """When its store last wrote it (UTC); None for the response to a request."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object that is listed but not fetched yet. `modified` is when its store last wrote it (UTC)."""

    uri: str
    size: int
    version: str = ""
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to a provider. It is repeated after 429, 5xx and broken connections, so it must be idempotent.

    `secrets` are headers whose value is a secret: they are sent, and never stored or logged. The body is JSON, if there is one.
    """

    url: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    secret_query: Sequence[tuple[str, str]] = ()
    """Query parameters that are a secret, such as a signature: sent, and never stored or logged."""


@dataclass(frozen=True, slots=True)
class Window:
    """The requested days, ``[since, until)``; None: from the last checkpoint, and until now."""

    since: date | None = None
    until: date | None = None


class Fetcher(Protocol):
    """All access to the outside: local files, folders and globs, ``s3://``, HTTP; and the checkpoints of earlier runs."""

    window: Window

    @property
    def manifest_locations(self) -> Sequence[str]:
        """Prefixes outside of an export that its manifests may name objects of (`ingest.manifest_locations`)."""
        ...

    def list(self, uri: str) -> Sequence[ListedObject]:
        """What a file, folder, glob or prefix holds, in name order. Raises `SourceError` where it cannot be reached."""
        ...

    def level(self, uri: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        """The direct children of a folder or prefix: addresses of folders, and objects, each in name order.

        For stores that are too large to list whole. Empty where there is nothing.
        """
        ...

    def get(self, uri: str) -> RawObject:
        """The bytes of one object. Raises `ObjectMissingError` or `StoreUnreachable`."""
        ...

    def request(self, request: Request) -> RawObject:
        """The response to an HTTP request, with status 2xx. Raises `ObjectMissingError` (404) or `StoreUnreachable`, with a remedy."""
        ...

    def store_bytes(self, uri: str, content: bytes | Iterable[bytes], *, version: str = "") -> RawObject:
        """Stores bytes that a provider's own client returned; `uri` is their address, without credentials."""
        ...

    def checkpoint(self, key: str) -> str | None:
        """How far this source was read: the newest of the `Batch.checkpoints` of this key that were saved."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Objects that are read together and, for bills, replace a month together.

    `scope` names the dataset (an export, a file). `billing_month` is the month the batch states, or None if only its rows do:
    then every month among its rows is replaced. All objects must be readable, or the batch is not written at all.
    """

    scope: str
    objects: tuple[RawObject, ...]
    billing_month: str | None = None
    version: str = ""
    problems: tuple[Problem, ...] = ()
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    """How far the source is read once this batch is written; saved after the write, and returned by `Fetcher.mark`."""
    exclusive: bool = False
    """The batch is a whole export of its month: another dataset that bills the same accounts for the same SKUs would count cost twice."""
    location: str = ""
    """Address of a loose file or folder of bills: which dataset it restates is decided by what it bills, not by `scope`. (RA-1e)"""

    def without_secrets(self) -> Batch:
        """The batch as it may be stored and shown: no address in it holds a secret."""
        return replace(
            self,
            scope=masked(self.scope),
            location=masked(self.location),
            objects=tuple(replace(item, uri=masked(item.uri)) for item in self.objects),
            checkpoints={masked(key): value for key, value in self.checkpoints.items()},
        )


@dataclass(frozen=True, slots=True)
class Access:
    """What a source needs before it can be read, as `rootcost sources test` prints it."""

    needs: str
    """One sentence: which credentials, from where, with which rights."""
    policy: str = ""
    """The least-privilege policy, role or grant to paste."""
    lag: timedelta = timedelta(hours=1)
    """Maximum age of the newest row of a healthy source, given how its sender delivers."""
    cron: str = "*/15 * * * *"
    """When it is read (UTC), unless the schedule says otherwise."""
    addresses: tuple[str, ...] = ()
    """Example addresses."""


@dataclass(slots=True)
class Reading:
    """A batch of rows for the source's table, and the problems of the rows that are left out.

    The form of a bill's reading is described at the top of this module.
    """

    frame: pl.DataFrame
    problems: list[Problem] = field(default_factory=list)
    dimensions: pl.DataFrame | None = None
    broken_off: str = ""
    """On the last reading: why the file is known to end before its end (cut archive, cut last line); empty for a whole file."""


class Source(Protocol):
    """One kind of input: how its files are found and read.

    `kind` ``bill`` fills `charges`; ``log`` fills `spans`. `patterns` are the file names it reads in a folder. Saved pages of a
    live source are read like any folder.
    """

    name: str
    kind: Literal["bill", "log"]
    title: str
    patterns: tuple[str, ...]
    access: Access

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """Finds and fetches the objects of `uri`. All access to the outside goes through `fetcher`."""
        ...

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows of one object, in bounded batches. Pure: same bytes, same rows.

        Raises `FormatError` if nothing in it can be read.
        """
        ...
