"""FOCUS cost and usage files, 1.0 to 1.4: CSV, CSV.gz and Parquet, from any provider.

Columns are matched by FOCUS name. A file is its own dataset, a folder or prefix is one together; an export with manifests is
read as its manifests say, newest run only.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatch
from typing import Literal

import polars as pl

from ingest import policies
from ingest.addresses import folder_name, is_the_file
from ingest.bills import charges, manifests, reader
from ingest.bills.checks import Check
from ingest.bills.csv_reader import ColumnSelection
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, ListedObject, RawObject, Reading
from ingest.sources.focus import columns
from ingest.sources.focus.columns import CUSTOM, Layout
from ledger.errors import FormatError, ObjectMissingError, SourceError
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
    patterns: tuple[str, ...] = ("*.csv", "*.csv.gz", "*.parquet", "*.csv.zip")
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
        found = [entry for entry in listing if manifests.is_manifest(entry.uri)]
        if found:
            planned = list(manifests.plan(fetcher, self.name, listing))
            if planned:
                yield from planned
                return
        single = [entry for entry in listing if is_the_file(entry, uri, listing)]
        files = single or [entry for entry in listing if self._picks(entry)]
        if not files:
            raise ObjectMissingError(
                "nothing here looks like a table", where=uri, remedy=f"files should end in {', '.join(self.patterns)}"
            )
        together = None if any(mark in uri for mark in "*?[") or single else folder_name(uri)
        for entry in files:
            try:
                item = fetcher.get(entry.uri)
            except SourceError as fault:
                yield Problem(self.name, entry.uri, "file", "", fault.what, fault.remedy or "try again")
                continue
            yield Batch(scope=together or entry.uri.rsplit("/", 1)[-1], objects=(item,))

    def _picks(self, entry: ListedObject) -> bool:
        name = entry.uri.rsplit("/", 1)[-1].lower()
        return not name.startswith((".", "_")) and any(fnmatch(name, pattern) for pattern in self.patterns)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows in FOCUS terms; rows that cannot be booked are problems."""
        tally = ProblemCounter(self.name, item.uri)
        known: list[Layout] = []
        empty_costs = dict.fromkeys(COST_COLUMNS, 0)

        def choose(header: list[str]) -> ColumnSelection:
            known.append(_layout(header, item.uri))
            _report_spellings(known[0], tally)
            return known[0].read

        for part in reader.batches(item, choose, tally):
            lines = _book(_rename_columns(part, known[0]), known[0], tally)
            for name in COST_COLUMNS:
                empty_costs[name] += lines.rows[name].null_count()
            booked = charges.to_charges(lines)
            yield Reading(booked.rows, tally.drain(), booked.words)
        for name, missing in empty_costs.items():
            if missing:
                called = next(c.name for c in columns.columns() if c.charge == name)
                tally.whole(
                    called,
                    "is empty, which FOCUS does not allow; counted as unknown, not as 0",
                    "ask the publisher to fill it",
                    missing,
                )
        yield Reading(charges.empty(), [*tally.drain(), *tally.sums()])


_AZURE = frozenset({"costinbillingcurrency", "pretaxcost", "metercategory"})
"""Columns of Azure's own exports, whatever their case; none is FOCUS."""


def _layout(header: list[str], uri: str) -> Layout:
    """Finds the FOCUS columns. If they are not there and the header is a known stranger, the remedy says what to do with it."""
    try:
        return columns.layout(header, where=uri)
    except FormatError as fault:
        remedy = fault.remedy
        if any(name.lower().startswith(("lineitem/", "line_item_")) for name in header):
            remedy = "this is an AWS cost and usage report: rootcost ingest aws-cur"
        elif _AZURE & {name.lower() for name in header}:
            remedy = "this is an export in Azure's own columns: in Cost Management, export 'Cost and usage details (FOCUS)'"
        raise FormatError(fault.what, where=fault.where, remedy=remedy) from fault


def _report_spellings(layout: Layout, tally: ProblemCounter) -> None:
    for name, spelt in layout.respelt.items():
        tally.add("header", name, f"the column is spelt {spelt}", f"FOCUS spells it {name}", severity="warning")


def _rename_columns(part: BillBatch, layout: Layout) -> BillBatch:
    """The file's columns under the names of `charges`; where several say the same, the first that is filled."""
    say: dict[str, list[str]] = {}
    for name in CUSTOM:
        if name in layout.found:
            say.setdefault(CUSTOM[name], []).append(layout.found[name])
    for column in sorted(columns.columns(), key=lambda c: c.name != "ServiceProviderName"):
        if column.charge and column.name in layout.found:
            say.setdefault(column.charge, []).append(layout.found[column.name])
    say["billing_period_start"] = [layout.found["BillingPeriodStart"]]
    apart = set(layout.read.apart)
    own = {ours: given for ours, given in say.items() if given[0] in apart}
    rows = part.rows.select(DIMENSIONS_ROW, "__row", "__line", *(pl.coalesce(given).alias(ours) for ours, given in own.items()))
    words = part.words.select(
        pl.coalesce(_flat(part.words, spelt) for spelt in given).alias(ours) for ours, given in say.items() if ours not in own
    )
    return BillBatch(rows, words)


def _flat(words: pl.DataFrame, name: str) -> pl.Expr:
    dtype = words.schema[name]
    return pl.col(name) if not dtype.is_nested() else _entries(pl.col(name), dtype)


def _entries(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    from ingest.bills.tags import as_json

    return column.map_batches(as_json, return_dtype=pl.String)


def _book(lines: BillBatch, layout: Layout, tally: ProblemCounter) -> BillBatch:
    names = {c.charge: c.name for c in columns.columns() if c.charge and c.name in layout.found}
    names["billing_period_start"] = "BillingPeriodStart"
    lines = _upper_currencies(charges.parse_types(lines), tally)
    spelt = pl.col("charge_category").str.strip_chars().str.to_lowercase()
    words = lines.words.with_columns(
        charge_category__text=pl.col("charge_category"),
        charge_category=spelt.replace_strict(_CATEGORIES, default=None, return_dtype=pl.String),
    )
    for name, spellings in (("charge_class", _CLASSES), ("charge_frequency", _FREQUENCIES)):
        if name in words.columns:
            words = words.with_columns(
                pl.coalesce(
                    pl.col(name).str.to_lowercase().replace_strict(spellings, default=None, return_dtype=pl.String), name
                ).alias(name)
            )
    categories = ", ".join(_CATEGORIES.values())
    known = Check(
        "ChargeCategory",
        pl.col("charge_category").is_null(),
        "is no charge category",
        f"FOCUS knows {categories}",
        "charge_category__text",
    )
    lines = charges.check_required(BillBatch(lines.rows, words), names, tally, (known,))
    if "tags" in words.columns:
        tags, wrong = charges.canonical_tags(words["tags"])
        kept, remedy = "the row was kept without tags", "write Tags as a flat JSON object"
        charges.report_bad_tags(lines, wrong, "tags", "Tags", kept, remedy, tally)
        words = words.with_columns(tags)
    if "invoice_id" in words.columns:
        words = words.with_columns(final=pl.col("invoice_id").is_not_null())
    return BillBatch(lines.rows, words)


def _upper_currencies(lines: BillBatch, tally: ProblemCounter) -> BillBatch:
    """ISO 4217 is upper case: ``usd`` is meant as USD, and two spellings must not make two currencies."""
    written = pl.col("billing_currency").str.strip_chars()
    low = (written.str.contains("^[A-Za-z]{3}$") & (written != written.str.to_uppercase())).fill_null(False)
    if not lines.words.select(low.any()).item():
        return lines
    given = lines.spoken(pl.when(low).then("billing_currency")).drop_nulls()
    spelt = ", ".join(given.unique().sort())
    tally.whole(
        "BillingCurrency", f"{spelt} is not in upper case; read as if it were", "write ISO 4217 codes, e.g. USD", len(given)
    )
    upper = pl.when(written.str.contains("^[A-Za-z]{3}$")).then(written.str.to_uppercase()).otherwise("billing_currency")
    return BillBatch(lines.rows, lines.words.with_columns(upper.alias("billing_currency")))


SOURCE = Focus()
