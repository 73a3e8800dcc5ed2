"""A source that is a plain table: a declaration of its columns, not code.

CSV (also compressed or zipped) and Parquet are read; each file is a table with a header. A bill fills `charges`, a log fills `spans`:

    SOURCE = PlainTable(
        name="acme",
        kind="bill",
        title="Acme invoices, CSV",
        columns={
            "billed_cost": Column("amount"),
            "billing_currency": Column("currency", default="USD"),
            "charge_period_start": Column("day"),
            "provider_name": Column(default="Acme"),
        },
    )

The types are those of the ledger's tables. A value that does not fit its type is a problem of its row, and the other rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

import polars as pl

from ingest.bills import charges, loose_files, reader
from ingest.bills.csv_reader import ColumnSelection
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.logs import rows as log_rows
from ingest.problem_counter import ProblemCounter, described
from ingest.source import Access, Batch, Fetcher, RawObject, Reading
from ledger.errors import FormatError
from ledger.money import RATE, exact_decimal
from ledger.problems import Problem
from ledger.settings import IngestSettings
from ledger.tables import CHARGES, COST_COLUMNS, SPANS, TIME

PATTERNS: Final = ("*.csv", "*.csv.gz", "*.csv.zst", "*.csv.xz", "*.csv.zip", "*.parquet")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BILL_ONLY = "billing_period_start"
"""Not stored: its month is `billing_month`."""
_SET_BY_INGEST = frozenset(
    {"charge_id", "source", "scope", "raw_id", "line", "billing_month", "date", "trace_key", "span_key", "rank"}
)
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "bill": ("billed_cost", "billing_currency", "charge_period_start", "provider_name"),
    "log": ("span_id", "start_time"),
}
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Column:
    """Where a ledger column comes from: a header of the file, a default (text, as a file would have it), or both."""

    header: str = ""
    default: str | None = None


@dataclass(kw_only=True)
class PlainTable:
    """A source declared by its columns: ledger column to `Column`. Raises `ValueError` on a declaration that cannot be read.

    A bill needs billed_cost, billing_currency, charge_period_start and provider_name. Unless declared, effective and contracted cost
    are the billed cost, list cost is unknown, a charge period is one day, the category is Usage, and the billing month is the month of
    the charge period. A log needs span_id and start_time; unless declared, the trace id is the span id and the channel is the name.

    >>> PlainTable(name="acme", kind="log", title="Acme", columns={"start_time": Column("at")})
    Traceback (most recent call last):
    ...
    ValueError: acme: column span_id of spans is not declared; name its header or a default
    """

    name: str
    kind: Literal["bill", "log"]
    title: str
    columns: Mapping[str, Column]
    patterns: tuple[str, ...] = PATTERNS
    access: Access = field(default_factory=lambda: Access(needs="files need none; s3:// needs the AWS default credentials"))

    def __post_init__(self) -> None:
        table = CHARGES if self.kind == "bill" else SPANS
        allowed = set(table.schema) - _SET_BY_INGEST | ({_BILL_ONLY} if self.kind == "bill" else set())
        for name, column in self.columns.items():
            if name not in allowed:
                raise ValueError(f"{self.name}: {table.name} has no column {name} for a source to fill; see docs/tables.md")
            if not column.header and column.default is None:
                raise ValueError(f"{self.name}: column {name} has neither a header nor a default")
        for name in _NEEDED[self.kind]:
            if name not in self.columns:
                raise ValueError(f"{self.name}: column {name} of {table.name} is not declared; name its header or a default")

    def plan(self, fetcher: Fetcher, uri: str) -> Iterator[Batch | Problem]:
        """One batch for each file `uri` names. Files of a bill's folder are one dataset."""
        batches = loose_files.plan(fetcher, uri, source=self.name, patterns=self.patterns)
        if self.kind == "bill":
            yield from batches
        else:
            yield from (replace(batch, scope=uri) if isinstance(batch, Batch) else batch for batch in batches)

    def read(self, item: RawObject, settings: IngestSettings) -> Iterator[Reading]:
        """The rows of one file; rows that cannot be stored are problems. Raises `FormatError` where a declared header is missing."""
        counter = ProblemCounter(self.name, item.uri)
        for batch in reader.batches(item, lambda header: self._select(header, item.uri), counter):
            yield self._bill_reading(batch, counter) if self.kind == "bill" else self._log_reading(batch, item, counter)
        empty = charges.empty() if self.kind == "bill" else log_rows.frame([])
        yield Reading(empty, [*counter.drain(), *counter.summed_problems()], broken_off=counter.broken_off)

    def _select(self, header: list[str], uri: str) -> ColumnSelection:
        """The declared headers. A log has measures only: its rows are converted one by one."""
        missing = [c.header for c in self.columns.values() if c.header and c.default is None and c.header not in header]
        if missing:
            raise FormatError(
                f"no table of {self.name}: columns are missing: {', '.join(missing)}",
                where=uri,
                remedy="export the table with these columns, or name the source that fits the file",
            )
        own_per_row = charges.MEASURES if self.kind == "bill" else tuple(self.columns)
        present = {name: column.header for name, column in self.columns.items() if column.header in header}
        measures = {header_name for name, header_name in present.items() if name in own_per_row}
        return ColumnSelection(sorted(set(present.values()) - measures), sorted(measures))

    def _value(self, frame: pl.DataFrame, name: str) -> pl.Expr:
        """A ledger column as text: the file's value, else the default, else null."""
        column = self.columns.get(name, Column())
        default = pl.lit(column.default, dtype=pl.String)
        if column.header not in frame.columns:
            return default.alias(name)
        if frame.schema[column.header].is_temporal():
            return pl.col(column.header).alias(name)
        written = pl.col(column.header).cast(pl.String).str.strip_chars()
        return pl.coalesce(pl.when(written != "").then(written), default).alias(name)

    def _bill_reading(self, batch: BillBatch, counter: ProblemCounter) -> Reading:
        dimensions = [name for name in self.columns if name not in charges.MEASURES]
        measures = [name for name in self.columns if name in charges.MEASURES]
        rows = batch.rows.select(DIMENSIONS_ROW, "__row", "__line", *(self._value(batch.rows, name) for name in measures))
        derived = {
            "effective_cost": "billed_cost",
            "contracted_cost": "billed_cost",
            "charge_period_end": "charge_period_start",
            "billing_period_start": "charge_period_start",
        }
        rows = rows.with_columns(pl.col(origin).alias(name) for name, origin in derived.items() if name not in self.columns)
        rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in COST_COLUMNS if name not in rows.columns)
        table = batch.dimensions.select(self._value(batch.dimensions, name) for name in dimensions)
        if table.height != batch.dimensions.height:  # literals only
            table = batch.dimensions.with_columns(self._value(batch.dimensions, name) for name in dimensions).select(dimensions)
        if "charge_category" not in self.columns:
            table = table.with_columns(charge_category=pl.lit("Usage"))
        names = {name: column.header or name for name, column in self.columns.items()}
        names |= {name: names[origin] for name, origin in derived.items() if name not in self.columns}
        checked = charges.check_required(charges.parse_types(BillBatch(rows, table)), names, counter)
        rows = checked.rows
        if "charge_period_end" not in self.columns:
            rows = rows.with_columns(charge_period_end=pl.col("charge_period_start").dt.offset_by("1d"))
        # A bill without an invoice number is final once its month is no longer restated, which `bills.month` tells by its age.
        final = checked.dimensions.with_columns(final=pl.lit(value=True))
        charge_batch = charges.to_charges(BillBatch(rows, final))
        return Reading(charge_batch.rows, counter.drain(), charge_batch.dimensions)

    def _log_reading(self, batch: BillBatch, item: RawObject, counter: ProblemCounter) -> Reading:
        values = batch.rows.with_columns(self._value(batch.rows, name).alias(f"{name}__value") for name in self.columns)
        spans = []
        for row in values.iter_rows(named=True):
            span: dict[str, Any] = {"channel": self.name, "source": self.name, "raw_id": item.raw_id}
            bad = None
            for name, column in self.columns.items():
                written = row[f"{name}__value"]
                value = None if written is None else _convert(written, SPANS.schema[name])
                if value is None and (written is not None or name in _NEEDED["log"]):
                    bad = (column.header or name, written)
                    break
                span[name] = value
            if bad is not None:
                reason = "is empty" if bad[1] is None else f"{described(bad[1])} does not fit the column"
                counter.add(f"{counter.place} {row['__line']}", bad[0], reason, "correct the value; the other rows were read")
                continue
            parent = span.pop("parent_span_id", None)
            spans.append(span | log_rows.trace_position(span.get("trace_id") or span["span_id"], span["span_id"], parent))
        return Reading(log_rows.frame(spans), counter.drain())


def _time_us(written: object) -> int | None:
    try:
        moment = written if isinstance(written, datetime) else datetime.fromisoformat(str(written))
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _integer(written: object) -> int | None:
    number = exact_decimal(str(written))
    return int(number) if number is not None and number == number.to_integral_value() and abs(number) < 2**63 else None


def _rate(written: object) -> Decimal | None:
    number = exact_decimal(str(written))
    return number if number is not None and abs(number) < 10**15 else None


_CONVERTERS: Mapping[Any, Callable[[object], object]] = {
    pl.String: str,
    pl.Int64: _integer,
    pl.Boolean: lambda written: _BOOLEANS.get(str(written).lower()),
    TIME: _time_us,
    RATE: _rate,
}


def _convert(written: object, dtype: object) -> object:
    """A value as its ledger column holds it (times in microseconds since 1970); None where it does not fit.

    >>> _convert("12", pl.Int64()), _convert("12.5", pl.Int64()), _convert("yes", pl.Boolean()), _convert("1970-01-01T00:00:01Z", TIME)
    (12, None, True, 1000000)
    """
    return next(convert for kind, convert in _CONVERTERS.items() if dtype == kind)(written)
