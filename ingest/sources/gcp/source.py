"""Google Cloud's bill: the billing export in BigQuery, the standard or the detailed table, live or as extracts of it.

The export is append-only: loads come several times a day, late usage, tax and adjustments after the month's end, and no row has an
id. So the newest ``export_time`` is remembered, and an invoice month that got a load since is read again whole and replaced.
A load that appears late, with an earlier time than the newest known, is noticed by counting the rows of the last days again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl

from ingest.addresses import folder_name
from ingest.bills import charges
from ingest.bills.dictionary import BillBatch
from ingest.google import bigquery
from ingest.google.bigquery import Address, BigQuery, TableDescription
from ingest.logs import table_items
from ingest.logs.json_fields import FieldError
from ingest.logs.json_items import Damage
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading, Window
from ingest.sources.gcp import rows as gcp_rows
from ingest.sources.gcp.rows import COLUMNS, NEEDED, Row
from ledger import periods
from ledger.errors import FormatError, ObjectMissingError
from ledger.problems import Problem
from ledger.settings import IngestSettings

_BATCH_ROWS = 20_000
_LATE = timedelta(days=7)
"""Loads of this time before the newest known are counted again: one may appear after a later one."""
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_EXPORT = re.compile(r"gcp_billing_export_(?P<detailed>resource_)?v1_(?P<account>[0-9A-Z]{6}_[0-9A-Z]{6}_[0-9A-Z]{6})")
_LOAD_TIME_COLUMNS = ("_PARTITIONTIME", "export_time")
_STORED_NAME = re.compile(r"[0-9a-f]{64}-")

Loads = Sequence[tuple[str, datetime, int]]
"""What was appended: invoice month, export time, rows."""


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
            where = bigquery.parse_address(uri)
            for table in [where] if where.table else _exports(where):
                yield from _changed_month_batches(fetcher, table)
            return
        found = _newest_extracts(table_items.select_files(fetcher.list(uri), uri))
        scope = _scope(" ".join(entry.uri for entry in found), "") or (
            found[0].uri.rsplit("/", 1)[-1] if len(found) == 1 else folder_name(uri.split("*", 1)[0])
        )
        yield Batch(scope=scope, objects=tuple(fetcher.get(entry.uri) for entry in found))

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The charges in FOCUS terms; rows that cannot be booked are problems."""
        tally = ProblemCounter(self.name, item.uri)
        rows, places, seen, unlisted = list[Row](), list[int](), 0, 0
        for found in table_items.of_object(item):
            if isinstance(found, Damage):
                tally.add(found.place, found.field, found.reason, found.remedy)
                continue
            tally.place, _, number = found.place.partition(" ")
            seen += 1
            if seen == 1 and not gcp_rows.is_export(found.value):
                raise _unknown_format(found.value, item.uri)
            try:
                row, odd = gcp_rows.charge(_record(found.value))
            except FieldError as fault:
                tally.add(found.place, fault.field, fault.reason, fault.remedy)
                continue
            if odd:
                reason, remedy = f"{odd!r} is no cost type known here; booked as an Adjustment", "tell us of it"
                tally.whole("cost_type", reason, remedy, 1)
            unlisted += row["list_cost"] is None
            rows.append(row)
            places.append(int(number))
            if len(rows) >= _BATCH_ROWS:
                yield _reading(rows, places, seen, tally)
                rows, places = [], []
        if unlisted:
            remedy = "nothing to do: Google fills it for newer rows; the list cost of these is counted as unknown, not as 0"
            tally.whole("cost_at_list", "is empty", remedy, unlisted)
        if rows:
            yield _reading(rows, places, seen, tally)
        yield Reading(charges.empty(), [*tally.drain(), *tally.sums()])


def _record(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise FieldError("row", f"{str(value)[:40]!r} is no record", "write one row of the table a line")
    return value


def _reading(rows: Sequence[Row], places: Sequence[int], seen: int, tally: ProblemCounter) -> Reading:
    names = {
        "billed_cost": "cost",
        "charge_period_start": "usage_start_time",
        "charge_period_end": "usage_end_time",
        "billing_period_start": "invoice.month",
        "list_cost": "cost_at_list",
        "contracted_cost": "cost",
    }
    lines = charges.check_required(charges.parse_types(gcp_rows.to_batch(rows, places, seen - len(rows) + 1)), names, tally)
    # The export has no invoice number: a month is final once it is no longer restated, which `ingest.bills.month` knows by its age.
    booked = charges.to_charges(BillBatch(lines.rows, lines.words.with_columns(final=pl.lit(value=True))))
    return Reading(booked.rows, tally.drain(), booked.words)


def _unknown_format(value: object, uri: str) -> FormatError:
    named = {str(key) for key in value} if isinstance(value, Mapping) else set[str]()
    if "BilledCost" in named:
        remedy = "this is Google's FOCUS export: rootcost ingest focus"
    elif {"logging_time", "full_response"} & named:
        remedy = "these are Vertex AI request-response logs: rootcost ingest vertex"
    else:
        remedy = f"a row of the export has {', '.join(sorted(NEEDED))}"
    return FormatError("no billing export of Google Cloud", where=uri, remedy=remedy)


# ── extracts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _newest_extracts(found: Sequence[ListedObject]) -> list[ListedObject]:
    """Of what live runs put down of the same month, only the last: each states the month whole."""
    kept: dict[str, ListedObject] = {}
    for entry in found:
        folder, _, name = entry.uri.rpartition("/")
        said = f"{folder}/{_STORED_NAME.sub('', name, count=1)}"
        before = kept.get(said)
        if before is None or (entry.modified or _BEGINNING) >= (before.modified or _BEGINNING):
            kept[said] = entry
    return list(kept.values())


def _scope(named: str, otherwise: str) -> str:
    """The billing account a table's or extract's name tells: its standard and its detailed export are the same bill.

    >>> _scope("gcp_billing_export_resource_v1_012345_6789AB_CDEF01", "x"), _scope("billing_copy", "billing_copy")
    ('012345-6789AB-CDEF01', 'billing_copy')
    """
    accounts = {found["account"] for found in _EXPORT.finditer(named)}
    return accounts.pop().replace("_", "-") if len(accounts) == 1 else otherwise


# ── the live table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _exports(where: Address) -> Iterator[Address]:
    """The billing exports of a dataset: of each account the detailed one, if there is one."""
    best: dict[str, tuple[bool, str]] = {}
    for name in BigQuery(where).tables():
        if found := _EXPORT.fullmatch(name):
            best[found["account"]] = max(best.get(found["account"], (False, "")), (found["detailed"] is not None, name))
    if not best:
        raise ObjectMissingError(
            "the dataset holds no billing export",
            where=where.uri,
            remedy="enable it under Billing, Billing export, BigQuery export; or name the table itself",
        )
    for _, name in sorted(best.values()):
        yield Address(where.project, where.dataset, name)


def _changed_month_batches(fetcher: Fetcher, where: Address) -> Iterator[Batch | Problem]:
    query = BigQuery(where)
    about = query.about()
    lacking = sorted(NEEDED - about.columns)
    if lacking:
        remedy = "this is Google's FOCUS export: extract it, and rootcost ingest focus" if "BilledCost" in about.columns else ""
        raise FormatError(
            f"no billing export: the table lacks {', '.join(lacking)}",
            where=where.uri,
            remedy=remedy or "name a table gcp_billing_export_v1_… or gcp_billing_export_resource_v1_…",
        )
    mark, asked = fetcher.mark(where.uri), fetcher.window
    again = asked.since is not None or asked.until is not None
    before = None if again or mark is None else _ReadState.parsed(mark)
    since = before.until - _LATE if before else _BEGINNING
    loads = list(_loads(query, about, since))
    if not loads and before is None:
        yield Problem(
            "gcp",
            where.uri,
            "table",
            "",
            "holds no rows yet",
            "Google fills it within a day of enabling the export",
            severity="warning",
        )
        return
    months = _months_in_window(loads, asked) if again else _changed_months(loads, before)
    seen = _ReadState.of(loads, before)
    nameless = sum(rows for month, _, rows in loads if not _is_month(month))
    if nameless:
        reason, remedy = "rows without an invoice month were left out", "Google fills it; they are read once it is there"
        yield Problem("gcp", where.uri, "table", "invoice.month", reason, remedy, nameless)
    # One slice: the mark moves when all of the months are booked, and not when one of them is.
    items = []
    for month in months:
        content = bigquery.sort_lines(_month(query, about, month, seen.until))
        items.append(fetcher.save(f"{where.uri}/{where.table}_{gcp_rows.invoice_month(month)}.jsonl", content))
    if items:
        marks = {} if again else {where.uri: seen.text}
        yield Batch(scope=_scope(where.table, where.table), objects=tuple(items), marks=marks)


class _ReadState:
    """How far a table was read: its newest load, and how many rows of each month the loads of the days before it held.

    >>> at = datetime(2026, 10, 5, 1, tzinfo=UTC)
    >>> seen = _ReadState.of([("202609", at - timedelta(days=9), 4), ("202609", at - timedelta(hours=5), 2), ("202610", at, 7)])
    >>> seen.text
    '2026-10-05T01:00:00+00:00 202609=2 202610=7'
    >>> _ReadState.parsed(seen.text).rows
    {'202609': 2, '202610': 7}
    """

    def __init__(self, until: datetime, rows: Mapping[str, int]) -> None:
        self.until, self.rows = until, dict(rows)

    @classmethod
    def parsed(cls, mark: str) -> _ReadState:
        until, *counts = mark.split()
        return cls(datetime.fromisoformat(until), {m: int(n) for m, _, n in (c.partition("=") for c in counts)})

    @classmethod
    def of(cls, loads: Loads, before: _ReadState | None = None) -> _ReadState:
        until = max([at for _, at, _ in loads] + ([before.until] if before else []))
        return cls(until, _count_rows(loads, until - _LATE, until))

    @property
    def text(self) -> str:
        return " ".join([self.until.isoformat(), *(f"{month}={rows}" for month, rows in sorted(self.rows.items()))])


def _count_rows(loads: Loads, after: datetime, until: datetime) -> dict[str, int]:
    counted: dict[str, int] = {}
    for month, at, rows in loads:
        if after < at <= until:
            counted[month] = counted.get(month, 0) + rows
    return counted


def _is_month(named: str) -> bool:
    return gcp_rows.invoice_month(named) is not None


def _changed_months(loads: Loads, before: _ReadState | None) -> list[str]:
    """Invoice months that hold loads not read yet."""
    known = [load for load in loads if _is_month(load[0])]
    if before is None:
        return sorted({month for month, _, _ in known})
    counted = _count_rows(known, before.until - _LATE, before.until)
    fresh = {month for month, at, _ in known if at > before.until}
    return sorted(fresh | {month for month, rows in counted.items() if rows != before.rows.get(month, 0)})


def _months_in_window(loads: Loads, window: Window) -> list[str]:
    """Invoice months that the days asked for lie in."""
    since = f"{window.since:%Y%m}" if window.since else ""
    until = f"{window.until - timedelta(days=1):%Y%m}" if window.until else "999912"
    return sorted({month for month, _, _ in loads if _is_month(month) and since <= month <= until})


def _partition_filter(about: TableDescription) -> str:
    """What lets BigQuery skip days: exports are parted by when rows were loaded. Rows not parted yet count as new. A copy that is
    parted by something else is read whole.
    """
    return f" AND ({about.parted_by} >= @day OR {about.parted_by} IS NULL)" if about.parted_by in _LOAD_TIME_COLUMNS else ""


def _loads(query: BigQuery, about: TableDescription, since: datetime) -> Iterator[tuple[str, datetime, int]]:
    sql = (
        f"SELECT invoice.month AS month, export_time, COUNT(*) AS charges FROM {query.where.quoted} "  # noqa: S608 - names are checked
        f"WHERE export_time > @since{_partition_filter(about)} GROUP BY month, export_time"
    )
    given = {"since": since, **({"day": _midnight(since) - timedelta(days=1)} if about.parted_by in _LOAD_TIME_COLUMNS else {})}
    for row in query.ask(sql, about, **given):
        yield str(row["month"] or ""), row["export_time"], int(row["charges"])


def _month(query: BigQuery, about: TableDescription, month: str, until: datetime) -> Iterator[str]:
    """The rows of an invoice month as JSON, every digit as BigQuery writes it. No row of it is loaded before the month before it."""
    kept = ", ".join(name for name in COLUMNS if name in about.columns)
    sql = (
        f"SELECT TO_JSON_STRING(charge) AS line FROM (SELECT {kept} FROM {query.where.quoted} "  # noqa: S608 - names are checked
        f"WHERE invoice.month = @month AND export_time <= @until{_partition_filter(about)}) AS charge"
    )
    first = periods.month_start(f"{month[:4]}-{month[4:]}")
    given: dict[str, str | datetime] = {"month": month, "until": until}
    if about.parted_by in _LOAD_TIME_COLUMNS:
        given["day"] = (first - timedelta(days=1)).replace(day=1)
    for row in query.ask(sql, about, **given):
        yield row["line"]


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


SOURCE = Gcp()
