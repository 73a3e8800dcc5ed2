"""BigQuery: the description of a table, and the rows of a query, in bounded memory.

The result of a query is a snapshot: its pages are those of one job, whatever is appended to the table meanwhile. A result that ends
early is an error.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ingest.google import client
from ledger.errors import StoreUnreachable, UsageError
from ledger.scratch import scratch_folder

SCHEME = "bigquery://"
RIGHTS = (
    "grant the account roles/bigquery.dataViewer on the dataset, and roles/bigquery.jobUser on the project that pays for queries"
)
_PAGE_ROWS = 20_000
_SORTED_LINES = 100_000
_NAME = re.compile(r"[\w-]+\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """``bigquery://project.dataset.table``; without a table, all of the dataset's."""

    project: str
    dataset: str
    table: str = ""

    @property
    def uri(self) -> str:
        """As people write it."""
        return SCHEME + ".".join(part for part in (self.project, self.dataset, self.table) if part)

    @property
    def quoted(self) -> str:
        """As SQL writes it."""
        return f"`{self.project}.{self.dataset}.{self.table}`"


def parse_address(uri: str) -> Address:
    """What an address names. Raises `UsageError` on what names no dataset.

    >>> parse_address("bigquery://acme-finops.billing.gcp_billing_export_v1_0A")
    Address(project='acme-finops', dataset='billing', table='gcp_billing_export_v1_0A')
    """
    parts = uri.removeprefix(SCHEME).strip("/").replace("/", ".").split(".")
    if not 2 <= len(parts) <= 3 or not all(_NAME.match(part) for part in parts):
        raise UsageError(f"{uri!r} names no table", remedy="write bigquery://project.dataset.table")
    return Address(*parts)


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table: its columns, its location, and the column it is partitioned by (``_PARTITIONTIME``: by time of loading)."""

    columns: frozenset[str]
    location: str | None
    partitioned_by: str | None


class BigQuery:
    """One project's BigQuery, for one run. Queries are paid for by ``GOOGLE_CLOUD_PROJECT``, or the table's own project.

    ``BIGQUERY_EMULATOR_HOST`` names another endpoint, as it does for Google's own client.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    @cached_property
    def _client(self) -> Any:
        from google.cloud import bigquery

        project = os.environ.get("GOOGLE_CLOUD_PROJECT") or self.address.project
        with client.translate_errors(self.address.uri, RIGHTS):
            return bigquery.Client(project=project, **client.options(os.environ.get("BIGQUERY_EMULATOR_HOST", "")))

    def tables(self) -> list[str]:
        """Names of the dataset's tables, in order."""
        with client.translate_errors(self.address.uri, RIGHTS):
            tables = self._client.list_tables(f"{self.address.project}.{self.address.dataset}", retry=client.retry())
            return sorted(table.table_id for table in tables)

    def describe(self) -> TableDescription:
        """The table's columns and partitioning."""
        with client.translate_errors(self.address.uri, RIGHTS):
            table = self._client.get_table(
                f"{self.address.project}.{self.address.dataset}.{self.address.table}", retry=client.retry()
            )
        parting = table.time_partitioning
        return TableDescription(
            frozenset(field.name for field in table.schema),
            table.location,
            None if parting is None else parting.field or "_PARTITIONTIME",
        )

    def query(self, sql: str, table: TableDescription, **parameters: str | datetime) -> Iterator[Mapping[str, Any]]:
        """The rows of a query. Raises `StoreUnreachable` where it cannot be run, or its result ends early."""
        from google.cloud import bigquery

        kinds = {str: "STRING", datetime: "TIMESTAMP"}
        query_parameters = [bigquery.ScalarQueryParameter(name, kinds[type(value)], value) for name, value in parameters.items()]
        retry = client.retry()
        with client.translate_errors(self.address.uri, RIGHTS):
            answer = self._client.query_and_wait(
                sql,
                job_config=bigquery.QueryJobConfig(query_parameters=query_parameters),
                location=table.location,
                page_size=_PAGE_ROWS,
                retry=retry,
                job_retry=retry,
            )
            row_count = 0
            for row in answer:
                row_count += 1
                yield row
            if answer.total_rows is not None and row_count != answer.total_rows:
                raise StoreUnreachable(
                    f"the answer holds {answer.total_rows:,} rows and ended after {row_count:,}",
                    where=self.address.uri,
                    remedy="it is asked again with the next run",
                )


def sort_lines(lines: Iterable[str]) -> Iterator[bytes]:
    r"""Lines sorted, each with its line end; duplicates stay. Sorted on disk where they are many.

    The rows of a result have no order; sorted, the same rows are the same bytes.

    >>> b"".join(sort_lines(["b", "a", "b"]))
    b'a\nb\nb\n'
    """
    remaining_lines = iter(lines)
    with scratch_folder("sort") as folder:
        runs: list[Path] = []
        while chunk := sorted(f"{line}\n".encode() for line in islice(remaining_lines, _SORTED_LINES)):
            if not runs and len(chunk) < _SORTED_LINES:
                yield from chunk
                return
            runs.append(folder / str(len(runs)))
            runs[-1].write_bytes(b"".join(chunk))
        files = [path.open("rb") for path in runs]
        try:
            yield from heapq.merge(*files)
        finally:
            for file in files:
                file.close()
