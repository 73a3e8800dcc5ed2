"""FOCUS cost and usage files, 1.0 to 1.4: CSV, CSV.gz and Parquet, from any provider.

Columns are matched by FOCUS name. A file is its own dataset, a folder or prefix is one together; an export with manifests is
read by its manifests, newest run only.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import polars as pl

from ingest import policies
from ingest.bills import charges, loose_files, manifests, reader
from ingest.bills.checks import Check
from ingest.bills.csv_reader import ColumnSelection
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ingest.sources.focus import columns
from ingest.sources.focus.columns import CUSTOM, Layout
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.tables import COST_COLUMNS

_CATEGORIES = {name.lower(): name for name in columns.allowed("ChargeCategory")}
_CLASSES = {name.lower(): name for name in columns.allowed("ChargeClass")}
_FREQUENCIES = {name.lower(): name for name in columns.allowed("ChargeFrequency")}


class Focus:
    """The `focus` source."""

    name = "focus"
    kind: Literal["bill", "log"] = "bill"
    title = "FOCUS cost and usage (1.0–1.4), CSV or Parquet"
    patterns: tuple[str, ...] = ("*.csv", "*.csv.gz", "*.csv.zst", "*.csv.xz", "*.parquet", "*.csv.zip")
    access = Access(
        needs=policies.S3_NEEDS,
        policy=policies.S3_READ,
        lag=timedelta(hours=36),
        cron="17 */6 * * *",
        addresses=("bills/*.csv", "s3://bucket/focus-export/"),
    )

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """A manifest-driven export by its manifests; else every file that looks like a table."""
        listing = fetcher.list(uri)
        manifest_entries = [entry for entry in listing if manifests.is_manifest(entry.uri)]
        if manifest_entries:
            batches = list(manifests.plan(fetcher, self.name, listing))
            if batches:
                yield from batches
                return
        yield from loose_files.plan(fetcher, uri, source=self.name, patterns=self.patterns, listing=listing)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows in FOCUS terms; rows that cannot be booked are problems."""
        counter = ProblemCounter(self.name, item.uri)
        layouts: list[Layout] = []
        empty_costs = dict.fromkeys(COST_COLUMNS, 0)

        def choose(header: list[str]) -> ColumnSelection:
            layouts.append(_layout(header, item.uri))
            _report_spellings(layouts[0], counter)
            return layouts[0].selection

        for part in reader.batches(item, choose, counter):
            batch = _book(_rename_columns(part, layouts[0]), layouts[0], counter)
            for name in COST_COLUMNS:
                empty_costs[name] += batch.rows[name].null_count()
            charge_batch = charges.to_charges(batch)
            yield Reading(charge_batch.rows, counter.drain(), charge_batch.dimensions)
        for name, missing in empty_costs.items():
            if missing:
                focus_name = next(c.name for c in columns.columns() if c.charge == name)
                counter.add_summed(
                    focus_name,
                    "is empty, which FOCUS does not allow; counted as unknown, not as 0",
                    "ask the publisher to fill it",
                    missing,
                )
        yield charges.last_reading(counter)


_AZURE = frozenset({"costinbillingcurrency", "pretaxcost", "metercategory"})
"""Columns of Azure's own exports, whatever their case; none is FOCUS."""


def _layout(header: list[str], uri: str) -> Layout:
    """Finds the FOCUS columns. If they are missing and the header is of another known format, the remedy names its source."""
    try:
        return columns.layout(header, location=uri)
    except FormatError as error:
        remedy = error.remedy
        if any(name.lower().startswith(("lineitem/", "line_item_")) for name in header):
            remedy = "this is an AWS cost and usage report: rootcost ingest aws-cur"
        elif _AZURE & {name.lower() for name in header}:
            remedy = "this is an export in Azure's own columns: in Cost Management, export 'Cost and usage details (FOCUS)'"
        raise FormatError(error.what, where=error.where, remedy=remedy) from error


def _report_spellings(layout: Layout, counter: ProblemCounter) -> None:
    for name, spelt in layout.respelt.items():
        counter.add("header", name, f"the column is spelt {spelt}", f"FOCUS spells it {name}", severity="warning")


def _rename_columns(part: BillBatch, layout: Layout) -> BillBatch:
    """The file's columns under the names of `charges`; of several columns with the same meaning the first that is filled."""
    headers_by_column: dict[str, list[str]] = {}
    for name in CUSTOM:
        if name in layout.headers:
            headers_by_column.setdefault(CUSTOM[name], []).append(layout.headers[name])
    for column in sorted(columns.columns(), key=lambda c: c.name != "ServiceProviderName"):
        if column.charge and column.name in layout.headers:
            headers_by_column.setdefault(column.charge, []).append(layout.headers[column.name])
    headers_by_column["billing_period_start"] = [layout.headers["BillingPeriodStart"]]
    measures = set(layout.selection.measures)
    measure_headers = {ledger_name: headers for ledger_name, headers in headers_by_column.items() if headers[0] in measures}
    rows = part.rows.select(
        DIMENSIONS_ROW,
        "__row",
        "__line",
        *(pl.coalesce(headers).alias(ledger_name) for ledger_name, headers in measure_headers.items()),
    )
    dimensions = part.dimensions.select(
        pl.coalesce(_flat(part.dimensions, spelt) for spelt in headers).alias(ledger_name)
        for ledger_name, headers in headers_by_column.items()
        if ledger_name not in measure_headers
    )
    return BillBatch(rows, dimensions)


def _flat(words: pl.DataFrame, name: str) -> pl.Expr:
    dtype = words.schema[name]
    return pl.col(name) if not dtype.is_nested() else _entries(pl.col(name), dtype)


def _entries(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    from ingest.bills.tags import as_json

    return column.map_batches(as_json, return_dtype=pl.String)


def _book(batch: BillBatch, layout: Layout, counter: ProblemCounter) -> BillBatch:
    names = {c.charge: c.name for c in columns.columns() if c.charge and c.name in layout.headers}
    names["billing_period_start"] = "BillingPeriodStart"
    batch = _upper_currencies(charges.parse_types(batch), counter)
    spelt = pl.col("charge_category").str.strip_chars().str.to_lowercase()
    dimensions = batch.dimensions.with_columns(
        charge_category__text=pl.col("charge_category"),
        charge_category=spelt.replace_strict(_CATEGORIES, default=None, return_dtype=pl.String),
    )
    for name, spellings in (("charge_class", _CLASSES), ("charge_frequency", _FREQUENCIES)):
        if name in dimensions.columns:
            dimensions = dimensions.with_columns(
                pl.coalesce(
                    pl.col(name).str.to_lowercase().replace_strict(spellings, default=None, return_dtype=pl.String), name
                ).alias(name)
            )
    categories = ", ".join(_CATEGORIES.values())
    category_check = Check(
        "ChargeCategory",
        pl.col("charge_category").is_null(),
        "is no charge category",
        f"FOCUS knows {categories}",
        "charge_category__text",
    )
    batch = charges.check_required(BillBatch(batch.rows, dimensions), names, counter, (category_check,))
    if "tags" in dimensions.columns:
        tags, wrong = charges.canonical_tags(dimensions["tags"])
        consequence, remedy = "the row was kept without tags", "write Tags as a flat JSON object"
        charges.report_bad_tags(batch, wrong, "tags", "Tags", consequence, remedy, counter)
        dimensions = dimensions.with_columns(tags)
    if "invoice_id" in dimensions.columns:
        dimensions = dimensions.with_columns(final=pl.col("invoice_id").is_not_null())
    return BillBatch(batch.rows, dimensions)


def _upper_currencies(batch: BillBatch, counter: ProblemCounter) -> BillBatch:
    """ISO 4217 is upper case: ``usd`` is read as USD, so that two spellings are not two currencies."""
    currency = pl.col("billing_currency").str.strip_chars()
    is_lower = (currency.str.contains("^[A-Za-z]{3}$") & (currency != currency.str.to_uppercase())).fill_null(False)
    if not batch.dimensions.select(is_lower.any()).item():
        return batch
    currencies = batch.expand(pl.when(is_lower).then("billing_currency")).drop_nulls()
    spelt = ", ".join(currencies.unique().sort())
    counter.add_summed(
        "BillingCurrency", f"{spelt} is not in upper case; read as if it were", "write ISO 4217 codes, e.g. USD", len(currencies)
    )
    upper = pl.when(currency.str.contains("^[A-Za-z]{3}$")).then(currency.str.to_uppercase()).otherwise("billing_currency")
    return BillBatch(batch.rows, batch.dimensions.with_columns(upper.alias("billing_currency")))


SOURCE = Focus()
