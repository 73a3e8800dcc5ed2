"""A bill that a console exports as a table: which columns it has, and how its rows become charges.

Such exports differ from a plain table (`ingest.plain_table`) in that a charge's columns follow from several of theirs. A source is a
declaration of expressions over the headers; see `ingest.sources.openai_console`. What each export has in common is here: the file is
recognised by its header, empty values are null, and a row that cannot be booked is a problem that names its column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal

import polars as pl

from ingest import policies
from ingest.bills import charges, dictionary, loose_files, reader
from ingest.bills.checks import Check, apply_checks
from ingest.bills.csv_reader import ColumnSelection
from ingest.bills.dictionary import BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ledger.errors import FormatError
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.tables import COST_COLUMNS

PATTERNS: Final = ("*.csv", "*.csv.gz", "*.csv.zip", "*.zip", "*.parquet")
_PLACES: Final = ("__row", "__line")
_DERIVED: Final = {
    "effective_cost": "billed_cost",
    "contracted_cost": "billed_cost",
    "charge_period_end": "charge_period_start",
    "billing_period_start": "charge_period_start",
}
"""What a column is where the export has no better: charges are billed as they are used, in the month they are used."""
_DEFAULTS: Final = {"charge_category": "Usage", "charge_frequency": "Usage-Based", "service_category": "AI and Machine Learning"}


def text(header: str) -> pl.Expr:
    """A column of the export, as text; empty values are null."""
    return pl.col(header)


def dollars(header: str) -> pl.Expr:
    """An amount as consoles show it, without the dollar sign and the commas of thousands. Other text stays, to be a problem.

    >>> pl.DataFrame({"Cost": ["$1,234.56", "0.07", "1,5", "Included"]}).select(dollars("Cost"))["Cost"].to_list()
    ['1234.56', '0.07', '1,5', 'Included']
    """
    raw_text = pl.col(header)
    is_grouped = raw_text.str.contains(r"^-?\$?\d{1,3}(?:,\d{3})*(?:\.\d+)?$|^-?\$?\d+(?:\.\d+)?$")
    return pl.when(is_grouped).then(raw_text.str.replace_all(r"[$,]", "")).otherwise(raw_text).alias(header)


def joined(*parts: pl.Expr) -> pl.Expr:
    """The parts that are not null, with commas between; null where none is."""
    words = pl.concat_str(parts, separator=", ", ignore_nulls=True)
    return pl.when(words != "").then(words)


def tags(**headers: str) -> pl.Expr:
    r"""Columns of the export as the tags of a charge, by key; null where all are empty.

    >>> frame = pl.DataFrame({"org": ["a", None], "center": ['1 "x"', None]})
    >>> frame.select(tags(cost_center="center", organization="org")).to_series().to_list()
    ['{"cost_center":"1 \\"x\\"","organization":"a"}', None]
    """
    entries = [
        pl.when(pl.col(header).is_not_null()).then(
            pl.struct(pl.col(header).alias(key)).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
        )
        for key, header in sorted(headers.items())
    ]
    content = pl.concat_str(entries, separator=",", ignore_nulls=True)
    return pl.when(content != "").then(pl.concat_str(pl.lit("{"), content, pl.lit("}")))


@dataclass(kw_only=True)
class ExportTable:
    """A bill source declared by expressions over the columns of a console's export.

    `required` and `optional` are its headers; where an optional one is missing, its values are null. `columns` gives each ledger column
    as text. `names` says which header a ledger column is read from, for problems. Periods are whole days or hours, unless
    ``charge_period_end`` is given. `other_exports` maps a header that only another export of the console has to what to do about it.
    `checks` leave rows out; `doubts` keep them with a warning; rows of which `is_empty` holds tell nothing and are no charges.
    """

    name: str
    title: str
    access: Access
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    columns: Mapping[str, pl.Expr]
    names: Mapping[str, str]
    period: Literal["1d", "1h"] = "1d"
    other_exports: Mapping[str, str] = field(default_factory=dict)
    checks: Sequence[Check] = ()
    doubts: Sequence[Check] = ()
    is_empty: pl.Expr | None = None
    kind: Literal["bill", "log"] = "bill"
    patterns: tuple[str, ...] = PATTERNS

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """One batch for each file; a second export of the same charges under another name is refused."""
        for batch in loose_files.plan(fetcher, uri, source=self.name, patterns=self.patterns):
            yield replace(batch, exclusive=True) if isinstance(batch, Batch) else batch

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The charges of one file. Raises `FormatError` that names the columns a file lacks."""
        counter = ProblemCounter(self.name, item.uri)
        for batch in reader.batches(item, lambda header: self._select(header, item.uri), counter):
            yield self._reading(batch.rows, counter)
        yield charges.last_reading(counter)

    def _select(self, header: list[str], uri: str) -> ColumnSelection:
        missing = [name for name in self.required if name not in header]
        if missing:
            other = next((remedy for name, remedy in self.other_exports.items() if name in header), None)
            raise FormatError(
                f"no export of {self.name}: columns are missing: {', '.join(missing)}",
                where=uri,
                remedy=other
                or "export it again with these columns; if the console names them otherwise by now, report the new header",
            )
        return ColumnSelection([], [name for name in (*self.required, *self.optional) if name in header])

    def _reading(self, rows: pl.DataFrame, counter: ProblemCounter) -> Reading:
        frame = rows.select(*_PLACES, *(_stripped(rows, name) for name in (*self.required, *self.optional)))
        if self.is_empty is not None:
            frame = frame.filter(~self.is_empty)
        frame = apply_checks(BillBatch(frame, pl.DataFrame()), self.checks, counter).rows
        for doubt in self.doubts:
            bad = frame.filter(doubt.fails.fill_null(False))
            if bad.height:
                values = bad[doubt.shown] if doubt.shown else None
                counter.add_rows(bad["__line"], values, doubt.field, doubt.reason, doubt.remedy, severity="warning")
        valid = charges.check_required(charges.parse_types(self._batch(frame)), self._names(), counter)
        period_start = pl.col("charge_period_start").dt.truncate(self.period)
        period_end = (
            period_start.dt.offset_by(self.period) if "charge_period_end" not in self.columns else pl.col("charge_period_end")
        )
        if "charge_period_end" in self.columns:
            period_start = pl.col("charge_period_start")
        batch = charges.to_charges(
            BillBatch(valid.rows.with_columns(period_start, period_end.alias("charge_period_end")), valid.dimensions)
        )
        return Reading(batch.rows, counter.drain(), batch.dimensions)

    def _batch(self, frame: pl.DataFrame) -> BillBatch:
        """The ledger's columns as text: measures row by row, the others as a dictionary."""
        columns = {name: pl.lit(value) for name, value in _DEFAULTS.items()} | dict(self.columns)
        columns |= {name: columns[origin] for name, origin in _DERIVED.items() if name not in columns}
        columns |= {name: pl.lit(None) for name in COST_COLUMNS if name not in columns}
        table = frame.select(*_PLACES, *(value.cast(pl.String).alias(name) for name, value in columns.items()))
        dimensions = {name: table[name].to_arrow() for name in columns if name not in charges.MEASURES}
        batch = dictionary.encode(dimensions, table.drop(dimensions))
        # A bill without an invoice number is final once its month is no longer restated, which `bills.month` tells by its age.
        return BillBatch(batch.rows, batch.dimensions.with_columns(final=pl.lit(value=True)))

    def _names(self) -> Mapping[str, str]:
        return {**self.names, **{name: self.names[origin] for name, origin in _DERIVED.items() if name not in self.names}}


def _stripped(rows: pl.DataFrame, name: str) -> pl.Expr:
    if name not in rows.columns:
        return pl.lit(None, dtype=pl.String).alias(name)
    column = pl.col(name)
    raw_text = (column.dt.to_string("iso") if rows.schema[name].is_temporal() else column.cast(pl.String)).str.strip_chars()
    return pl.when(raw_text != "").then(raw_text).alias(name)


def console_access(menu: str, *, lag_hours: int = 36) -> Access:
    """What an export needs: nobody's key, but a file that somebody downloads. `menu` is the way to it."""
    return Access(
        needs=f"a file that somebody downloads: {menu}; on S3, {policies.S3_NEEDS}",
        policy=policies.S3_READ,
        lag=timedelta(hours=lag_hours),
        cron="17 */6 * * *",
        addresses=("exports/", "s3://finance/exports/"),
    )
