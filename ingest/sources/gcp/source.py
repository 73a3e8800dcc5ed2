"""Google Cloud's bill: the billing export in BigQuery, the standard or the detailed table, live or as extracts of it.

The export is append-only: loads come several times a day, late usage, tax and adjustments after the month's end, and no row has an
id. The newest ``export_time`` is the checkpoint; an invoice month with a later load is read again as a whole and replaced.
A late load, with an earlier time than the checkpoint, is detected by counting the rows of the last days again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from ingest.addresses import folder_address, folder_name
from ingest.google import bigquery
from ingest.google.bigquery import Address, BigQuery, TableDescription
from ingest.logs import table_items
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading, Window
from ingest.sources.gcp import rows as gcp_rows
from ingest.sources.gcp.extract import Extract
from ingest.sources.gcp.rows import COLUMNS, NEEDED
from ledger import periods
from ledger.errors import FormatError, ObjectMissingError
from ledger.problems import Problem
from ledger.settings import IngestSettings

_LATE = timedelta(days=7)
"""Loads of this period before the checkpoint are counted again: a load may appear after a later one."""
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_EXPORT = re.compile(r"gcp_billing_export_(?P<detailed>resource_)?v1_(?P<account>[0-9A-Z]{6}_[0-9A-Z]{6}_[0-9A-Z]{6})")
_LOAD_TIME_COLUMNS = ("_PARTITIONTIME", "export_time")
_STORED_NAME = re.compile(r"[0-9a-f]{64}-")

Loads = Sequence[tuple[str, datetime, int]]
"""Appended rows: invoice month, export time, number of rows."""


class Gcp:
    """The `gcp` source."""

    name = "gcp"
    kind: Literal["bill", "log"] = "bill"
    title = "Google Cloud billing export: BigQuery, or extracts of it as JSON lines or Parquet"
    patterns: tuple[str, ...] = table_items.PATTERNS
    access = Access(
        needs="Google credentials (GOOGLE_APPLICATION_CREDENTIALS) that may read the export's dataset and run queries; extracts need none",
        policy=(
            "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT --role=roles/bigquery.jobUser\n"
            "bq query --use_legacy_sql=false 'GRANT `roles/bigquery.dataViewer` ON SCHEMA `PROJECT.DATASET` "
            'TO "serviceAccount:ACCOUNT"\''
        ),
        lag=timedelta(hours=36),
        cron="27 */4 * * *",
        addresses=(
            "bigquery://project.dataset.gcp_billing_export_resource_v1_012345_6789AB_CDEF01",
            "bigquery://project.dataset",
            "s3://bucket/gcp-billing-extract/",
        ),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """The invoice months of a table that got rows since they were last read; or the extracts of a folder, all of them or none."""
        if uri.startswith(bigquery.SCHEME):
            address = bigquery.parse_address(uri)
            for table in [address] if address.table else _exports(address):
                yield from _changed_month_batches(fetcher, table)
            return
        entries = _newest_extracts(table_items.select_files(fetcher.list(uri), uri))
        account = _scope(" ".join(entry.uri for entry in entries), "")
        scope = account or (entries[0].uri.rsplit("/", 1)[-1] if len(entries) == 1 else folder_name(uri.split("*", 1)[0]))
        location = (
            entries[0].uri if len(entries) == 1 else entries[0].uri.rsplit("/", 1)[0] if "*" in uri else folder_address(uri)
        )
        objects = tuple(fetcher.get(entry.uri) for entry in entries)
        yield Batch(scope=scope, objects=objects, location="" if account else location)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The charges in FOCUS terms; rows that cannot be booked are problems."""
        yield from Extract(self.name, item).readings()


# ── extracts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _newest_extracts(entries: Sequence[ListedObject]) -> list[ListedObject]:
    """Of the files that live runs stored for one month only the last, since each contains the whole month."""
    newest: dict[str, ListedObject] = {}
    for entry in entries:
        folder, _, name = entry.uri.rpartition("/")
        key = f"{folder}/{_STORED_NAME.sub('', name, count=1)}"
        before = newest.get(key)
        if before is None or (entry.modified or _BEGINNING) >= (before.modified or _BEGINNING):
            newest[key] = entry
    return list(newest.values())


def _scope(names: str, otherwise: str) -> str:
    """The billing account in the name of a table or extract: standard and detailed export are the same bill.

    >>> _scope("gcp_billing_export_resource_v1_012345_6789AB_CDEF01", "x"), _scope("billing_copy", "billing_copy")
    ('012345-6789AB-CDEF01', 'billing_copy')
    """
    accounts = {match["account"] for match in _EXPORT.finditer(names)}
    return accounts.pop().replace("_", "-") if len(accounts) == 1 else otherwise


# ── the live table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _exports(dataset: Address) -> Iterator[Address]:
    """The billing exports of a dataset: of each account the detailed one, if there is one."""
    best: dict[str, tuple[bool, str]] = {}
    for name in BigQuery(dataset).tables():
        if match := _EXPORT.fullmatch(name):
            best[match["account"]] = max(best.get(match["account"], (False, "")), (match["detailed"] is not None, name))
    if not best:
        raise ObjectMissingError(
            "the dataset holds no billing export",
            where=dataset.uri,
            remedy="enable it under Billing, Billing export, BigQuery export; or name the table itself",
        )
    for _, name in sorted(best.values()):
        yield Address(dataset.project, dataset.dataset, name)


def _changed_month_batches(fetcher: Fetcher, address: Address) -> Iterator[Batch | Problem]:
    client = BigQuery(address)
    table = client.describe()
    missing = sorted(NEEDED - table.columns)
    if missing:
        remedy = "this is Google's FOCUS export: extract it, and rootcost ingest focus" if "BilledCost" in table.columns else ""
        raise FormatError(
            f"no billing export: the table lacks {', '.join(missing)}",
            where=address.uri,
            remedy=remedy or "name a table gcp_billing_export_v1_… or gcp_billing_export_resource_v1_…",
        )
    checkpoint, window = fetcher.checkpoint(address.uri), fetcher.window
    is_windowed = window.since is not None or window.until is not None
    previous = None if is_windowed or checkpoint is None else _ReadState.parse(checkpoint)
    since = previous.until - _LATE if previous else _BEGINNING
    loads = list(_loads(client, table, since))
    if not loads and previous is None:
        yield Problem(
            "gcp",
            address.uri,
            "table",
            "",
            "holds no rows yet",
            "Google fills it within a day of enabling the export",
            severity="warning",
        )
        return
    months = _months_in_window(loads, window) if is_windowed else _changed_months(loads, previous)
    state = _ReadState.of(loads, previous)
    nameless = sum(rows for month, _, rows in loads if not _is_month(month))
    if nameless:
        reason, remedy = "rows without an invoice month were left out", "Google fills it; they are read once it is there"
        yield Problem("gcp", address.uri, "table", "invoice.month", reason, remedy, nameless)
    # One batch: the checkpoint is saved when all of the months are booked, not after each of them.
    items = []
    for month in months:
        content = bigquery.sort_lines(_month(client, table, month, state.until))
        items.append(fetcher.store_bytes(f"{address.uri}/{address.table}_{gcp_rows.invoice_month(month)}.jsonl", content))
    if items:
        checkpoints = {} if is_windowed else {address.uri: state.text}
        yield Batch(scope=_scope(address.table, address.table), objects=tuple(items), checkpoints=checkpoints)


class _ReadState:
    """How far a table was read: its newest load, and how many rows of each month the loads of the days before it held.

    >>> at = datetime(2026, 10, 5, 1, tzinfo=UTC)
    >>> seen = _ReadState.of([("202609", at - timedelta(days=9), 4), ("202609", at - timedelta(hours=5), 2), ("202610", at, 7)])
    >>> seen.text
    '2026-10-05T01:00:00+00:00 202609=2 202610=7'
    >>> _ReadState.parse(seen.text).rows
    {'202609': 2, '202610': 7}
    """

    def __init__(self, until: datetime, rows: Mapping[str, int]) -> None:
        self.until, self.rows = until, dict(rows)

    @classmethod
    def parse(cls, checkpoint: str) -> _ReadState:
        until, *counts = checkpoint.split()
        return cls(datetime.fromisoformat(until), {m: int(n) for m, _, n in (c.partition("=") for c in counts)})

    @classmethod
    def of(cls, loads: Loads, previous: _ReadState | None = None) -> _ReadState:
        until = max([at for _, at, _ in loads] + ([previous.until] if previous else []))
        return cls(until, _count_rows(loads, until - _LATE, until))

    @property
    def text(self) -> str:
        return " ".join([self.until.isoformat(), *(f"{month}={rows}" for month, rows in sorted(self.rows.items()))])


def _count_rows(loads: Loads, after: datetime, until: datetime) -> dict[str, int]:
    counts: dict[str, int] = {}
    for month, at, rows in loads:
        if after < at <= until:
            counts[month] = counts.get(month, 0) + rows
    return counts


def _is_month(text_value: str) -> bool:
    return gcp_rows.invoice_month(text_value) is not None


def _changed_months(loads: Loads, previous: _ReadState | None) -> list[str]:
    """Invoice months with loads that have not been read yet."""
    dated_loads = [load for load in loads if _is_month(load[0])]
    if previous is None:
        return sorted({month for month, _, _ in dated_loads})
    counts = _count_rows(dated_loads, previous.until - _LATE, previous.until)
    new_months = {month for month, at, _ in dated_loads if at > previous.until}
    return sorted(new_months | {month for month, rows in counts.items() if rows != previous.rows.get(month, 0)})


def _months_in_window(loads: Loads, window: Window) -> list[str]:
    """Invoice months of the requested days."""
    since = f"{window.since:%Y%m}" if window.since else ""
    until = f"{window.until - timedelta(days=1):%Y%m}" if window.until else "999912"
    return sorted({month for month, _, _ in loads if _is_month(month) and since <= month <= until})


def _partition_filter(table: TableDescription) -> str:
    """A filter that lets BigQuery prune partitions: exports are partitioned by load time. Rows without a partition count as new. A copy
    that is partitioned by another column is read as a whole.
    """
    return (
        f" AND ({table.partitioned_by} >= @day OR {table.partitioned_by} IS NULL)"
        if table.partitioned_by in _LOAD_TIME_COLUMNS
        else ""
    )


def _loads(client: BigQuery, table: TableDescription, since: datetime) -> Iterator[tuple[str, datetime, int]]:
    sql = (
        f"SELECT invoice.month AS month, export_time, COUNT(*) AS charges FROM {client.address.quoted} "  # noqa: S608 - names are checked
        f"WHERE export_time > @since{_partition_filter(table)} GROUP BY month, export_time"
    )
    parameters = {
        "since": since,
        **({"day": _midnight(since) - timedelta(days=1)} if table.partitioned_by in _LOAD_TIME_COLUMNS else {}),
    }
    for row in client.query(sql, table, **parameters):
        yield str(row["month"] or ""), row["export_time"], int(row["charges"])


def _month(client: BigQuery, table: TableDescription, month: str, until: datetime) -> Iterator[str]:
    """The rows of an invoice month as JSON, with all digits. No row is loaded earlier than the month before."""
    columns = ", ".join(name for name in COLUMNS if name in table.columns)
    sql = (
        f"SELECT TO_JSON_STRING(charge) AS line FROM (SELECT {columns} FROM {client.address.quoted} "  # noqa: S608 - names are checked
        f"WHERE invoice.month = @month AND export_time <= @until{_partition_filter(table)}) AS charge"
    )
    first = periods.month_start(f"{month[:4]}-{month[4:]}")
    parameters: dict[str, str | datetime] = {"month": month, "until": until}
    if table.partitioned_by in _LOAD_TIME_COLUMNS:
        parameters["day"] = (first - timedelta(days=1)).replace(day=1)
    for row in client.query(sql, table, **parameters):
        yield row["line"]


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


SOURCE = Gcp()
