"""Writing bills: a month of a dataset is replaced whole, in one commit, or left as it was.

The rows of a month are buffered until all of its files have been read: in memory while they are few, in temporary Parquet files
when they are many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path

import polars as pl

from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.bills.month_files import DIMENSIONS, MEASURES, MonthFiles
from ingest.source import Batch, Reading
from ledger import money
from ledger.errors import FormatError, TableError
from ledger.money import ZERO
from ledger.periods import month_end
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import CHARGES, COST_COLUMNS, IMPORT_TOTALS, RAW_FILES

_MAX_BUFFERED_ROWS = 200_000
"""Rows kept in memory before they go to disk."""
_RESTATEMENT_PERIOD = timedelta(days=14)
"""How long after a month's end providers still rewrite it, invoiced or not."""

BILL_KEY = ("provider_name", "billing_account_id", "sub_account_id", "product_code", "sku_meter")
"""Columns that two exports of one bill have in common, whatever their other columns and granularity; not all write `product_code`."""

TotalKey = tuple[str, str, str]
"""Currency, provider, cost column."""


@dataclass(frozen=True, slots=True)
class _ColumnSum:
    rows: int = 0
    booked: Decimal = ZERO
    rounding: Decimal = ZERO


class MonthBuffer:
    """The rows of one month of one dataset, and their totals."""

    def __init__(self, month: str, folder: Path) -> None:
        self.month = month
        self.rows = 0
        self.sums: dict[TotalKey, _ColumnSum] = {}
        self.raw_ids: set[str] = set()
        self.bill_keys: set[tuple[str | None, ...]] | None = None
        """Distinct values of `BILL_KEY`, collected if a second export of the bill has to be detected."""
        self._buffered: list[BillBatch] = []
        self._finished: list[Path] | None = None
        self._files = MonthFiles(folder, f"{month}-{id(self):x}", month)

    def add(self, batch: BillBatch, long_texts: pl.DataFrame) -> None:
        """Adds charges of this month, and the texts of costs with more than twelve decimals (see `ingest.source`)."""
        self._sum(batch, long_texts)
        self.rows += batch.rows.height
        self.raw_ids.update(batch.dimensions["raw_id"].unique())
        if self.bill_keys is not None:
            dimensions = batch.dimensions.select(BILL_KEY)[batch.rows[DIMENSIONS_ROW].unique()]
            self.bill_keys.update(dimensions.unique().iter_rows())
        self._append([batch])

    def absorb(self, other: MonthBuffer) -> None:
        """Another file's rows of the same month; `other` must not be used any more."""
        self._files.absorb(other._files)
        self.raw_ids |= other.raw_ids
        if other.bill_keys is not None:
            self.bill_keys = (self.bill_keys or set()) | other.bill_keys
        self.rows += other.rows
        for key, column_sum in other.sums.items():
            self.sums[key] = _add_sums(self.sums.get(key, _ColumnSum()), column_sum)
        self._append(other._buffered)

    def files(self) -> list[Path]:
        """All rows, as files of the table; identical ones differ by their ordinal in `charge_id`. Nothing can be added afterwards."""
        if self._finished is None:
            self._flush()
            self._finished = self._files.finish()
        return self._finished

    def lazy(self) -> pl.LazyFrame:
        """All rows as `charges` will hold them. Nothing can be added afterwards."""
        return pl.scan_parquet(self.files())

    def totals(self, scope: str) -> pl.DataFrame:
        """The totals of the files themselves, as rows of `import_totals`."""
        rows = [
            {
                "scope": scope,
                "billing_month": self.month,
                "currency": currency,
                "provider": provider,
                "cost_column": column,
                "total": money.text(_exact_sum(column_sum.booked, column_sum.rounding)),
                "rounding": money.text(column_sum.rounding),
                "rows": column_sum.rows,
            }
            for (currency, provider, column), column_sum in sorted(self.sums.items())
        ]
        return pl.DataFrame(rows, schema=IMPORT_TOTALS.schema)

    def _sum(self, batch: BillBatch, texts: pl.DataFrame) -> None:
        costs = pl.concat(
            [batch.rows.select(DIMENSIONS_ROW, *COST_COLUMNS), texts.select(f"{n}__written" for n in COST_COLUMNS)],
            how="horizontal",
        )
        equal_columns = _equal_columns(costs)
        for (currency, provider), part in _by_biller(costs, batch.dimensions):
            sums: dict[str, _ColumnSum] = {}
            for name in COST_COLUMNS:
                if name in equal_columns:
                    sums[name] = sums[equal_columns[name]]
                else:
                    amounts, long_texts = part[name], part[f"{name}__written"]
                    rounding = money.rounding_loss(long_texts, amounts) if long_texts.null_count() < len(long_texts) else ZERO
                    sums[name] = _ColumnSum(len(amounts) - amounts.null_count(), Decimal(amounts.sum() or 0), rounding)
            for name, column_sum in sums.items():
                key = (currency, provider, name)
                self.sums[key] = _add_sums(self.sums.get(key, _ColumnSum()), column_sum)

    def _append(self, batches: Sequence[BillBatch]) -> None:
        self._buffered += batches
        if sum(batch.rows.height for batch in self._buffered) >= _MAX_BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._buffered:
            return
        rows, dimensions, offset = [], [], 0
        for batch in self._buffered:
            rows.append(batch.rows.with_columns(pl.col(DIMENSIONS_ROW) + offset))
            dimensions.append(batch.dimensions)
            offset += batch.dimensions.height
        self._buffered.clear()
        self._files.add(BillBatch(pl.concat(rows), pl.concat(dimensions)))


def _by_biller(costs: pl.DataFrame, dimensions: pl.DataFrame) -> Iterator[tuple[tuple[str, str], pl.DataFrame]]:
    """The rows of each currency and provider."""
    keys = dimensions.select("billing_currency", "provider_name")
    billers = keys.unique(maintain_order=True)
    number = keys.join(billers.with_row_index("__key"), on=keys.columns, how="left", maintain_order="left")["__key"]
    parts = (
        costs.with_columns(__key=number.gather(costs[DIMENSIONS_ROW])).partition_by("__key", as_dict=True)
        if billers.height > 1
        else {(0,): costs}
    )
    for (key,), part in parts.items():
        currency, provider = billers.row(int(str(key)))
        yield (str(currency), str(provider)), part


def conform(batch: BillBatch, *, month: str, source: str, scope: str, raw_id: str, now: datetime) -> BillBatch:
    """A source's rows as `charges` holds them. A month is final when it is invoiced and no longer rewritten."""
    dimensions = batch.dimensions
    if "final" in dimensions.columns and not _is_settled(month, now):
        dimensions = dimensions.with_columns(final=pl.lit(False))
    constants = {"charge_id": "", "source": source, "scope": scope, "raw_id": raw_id, "billing_month": month}
    dimensions = dimensions.with_columns(pl.lit(value).alias(name) for name, value in constants.items())
    return BillBatch(
        _with_schema(batch.rows, MEASURES, (DIMENSIONS_ROW,)),
        _with_schema(dimensions, DIMENSIONS, dimension_rows=batch.rows[DIMENSIONS_ROW]),
    )


def _with_schema(
    frame: pl.DataFrame, names: Sequence[str], leading: Sequence[str] = (), dimension_rows: pl.Series | None = None
) -> pl.DataFrame:
    """The columns with the types of the table. Dimensions that no row refers to may lack required values."""
    schema = CHARGES.schema
    floats = [n for n in names if n in frame.columns and frame.schema[n].is_float()]
    if floats:
        raise TableError(f"amounts arrived as floating point in {floats}", where=CHARGES.name)
    nested_column = next((n for n in names if n in frame.columns and frame.schema[n].is_nested()), None)
    if nested_column is not None:
        raise FormatError(
            f"the column read as {nested_column} holds lists or records, where text is expected",
            remedy="export it again with plain text there",
        )
    result = frame.select(
        *leading, *(pl.col(n).cast(schema[n]) if n in frame.columns else pl.lit(None, dtype=schema[n]).alias(n) for n in names)
    )
    missing = [c.name for c in CHARGES.columns if c.required and c.name in names and result[c.name].null_count()]
    if dimension_rows is not None and missing:
        missing = [name for name in missing if result[name].gather(dimension_rows).null_count()]
    if missing:
        raise TableError(f"required columns {missing} hold nulls", where=CHARGES.name)
    return result


def _is_settled(month: str, now: datetime) -> bool:
    return month_end(month) + _RESTATEMENT_PERIOD <= now


@dataclass(frozen=True, slots=True)
class ReplaceResult:
    """The result of replacing one month."""

    rows: int
    rows_changed: int


def replace_month(store: Store, scope: str, buffer: MonthBuffer) -> ReplaceResult:
    """Replaces the month of the dataset by the buffer, in one commit. Nothing is written where nothing changed."""
    partition = {"billing_month": buffer.month, "scope": scope}
    files = buffer.files()
    stored_ids = _identity(stored_rows(store, scope, buffer.month))
    new_ids = _identity(pl.scan_parquet(files)) if stored_ids.height else None
    rows_changed = 0
    if new_ids is None or not new_ids.sort("row").equals(stored_ids.sort("row")):
        rows_changed = buffer.rows
        if new_ids is not None:
            rows_changed = (
                new_ids.join(stored_ids, on="id", how="anti").height + stored_ids.join(new_ids, on="id", how="anti").height
            )
        store.replace_files(CHARGES, files, partition, note=f"{scope} {buffer.month}")
    totals = buffer.totals(scope)
    stored_totals = store.scan(IMPORT_TOTALS, {"billing_month": [buffer.month], "scope": [scope]}).collect()
    keys = ["currency", "provider", "cost_column"]
    if not totals.sort(keys).equals(stored_totals.sort(keys)):
        store.replace(IMPORT_TOTALS, totals, partition)
    return ReplaceResult(buffer.rows, rows_changed)


def stored_rows(store: Store, scope: str, month: str) -> pl.LazyFrame:
    """The rows of the month that are in force."""
    return store.scan(CHARGES, {"billing_month": [month], "scope": [scope]})


def _identity(rows: pl.LazyFrame) -> pl.DataFrame:
    """Two hashes per row: of its content, and of all columns that a replacement would change. Comparable within one process only."""
    row_content = pl.struct("charge_id", "raw_id", "final", "line")
    return rows.select(id=pl.col("charge_id").hash(seed=1), row=row_content.hash(seed=1)).collect(engine="streaming")


def files_in_other_datasets(store: Store, scope: str, month: str, raw_ids: Collection[str]) -> dict[str, str]:
    """Files that are already stored for this month under another dataset: raw id to that dataset."""
    matches = (
        store.scan(CHARGES, {"billing_month": [month]})
        .filter((pl.col("scope") != scope) & pl.col("raw_id").is_in(pl.Series(sorted(raw_ids), dtype=pl.String).implode()))
        .select("raw_id", "scope")
        .unique()
        .collect()
    )
    return dict(matches.iter_rows())


def open_buffer(store: Store, batch: Batch, month: str, folder: Path) -> MonthBuffer:
    """A buffer for a batch's month. Where another dataset has the month too, the buffer collects `BILL_KEY`."""
    buffer = MonthBuffer(month, folder)
    table = store.delta(CHARGES) if batch.exclusive else None
    partitions = [] if table is None else table.partitions()
    if any(part["billing_month"] == month and part["scope"] != batch.scope for part in partitions):
        buffer.bill_keys = set()
    return buffer


def datasets_with_same_bill(
    store: Store, scope: str, month: str, bill_keys: Collection[tuple[str | None, ...]]
) -> dict[str, str]:
    """Datasets that bill the same accounts for the same SKUs in this month: dataset to the payer they share.

    The export of a console may name no payer: then the provider stands for it.
    """
    own_bills = pl.DataFrame(sorted(bill_keys, key=str), schema=dict.fromkeys(BILL_KEY, pl.String), orient="row")
    own_bills = own_bills.filter(pl.col("sku_meter").is_not_null())
    other_bills = (
        store.scan(CHARGES, {"billing_month": [month]}).filter(pl.col("scope") != scope).select("scope", *BILL_KEY).unique()
    )
    keys = [name for name in BILL_KEY if name != "product_code"]
    matches = other_bills.join(own_bills.lazy(), on=keys, how="inner", nulls_equal=True)
    products = (pl.col("product_code"), pl.col("product_code_right"))
    matches = matches.filter(pl.any_horizontal(products[0] == products[1], products[0].is_null(), products[1].is_null()))
    payer = pl.coalesce(pl.col("billing_account_id").min(), pl.col("provider_name").min())
    return dict(matches.group_by("scope").agg(payer).collect().iter_rows())


def uris_of(store: Store, scope: str, month: str) -> set[str]:
    """Addresses the month's rows were read from."""
    raw_ids = stored_rows(store, scope, month).select("raw_id").unique().collect()
    files_of_scope = store.scan(RAW_FILES).filter(pl.col("scope") == scope).select("raw_id", "uri").collect()
    return set(files_of_scope.join(raw_ids, on="raw_id", how="semi")["uri"])


def duplicate_file_problem(source: str, uri: str, scope: str, other: str, month: str) -> Problem:
    """The problem of the same bytes under two datasets."""
    return Problem(
        source,
        uri,
        "file",
        "scope",
        f"the same bytes are booked for {month} as {other!r}; importing them as {scope!r} would count them twice",
        f"ingest with --scope {other!r} to replace them, or do nothing",
    )


def duplicate_bill_problems(
    store: Store, source: str, group: Sequence[Batch], month: str, buffer: MonthBuffer, decided_scopes: Collection[str] = ()
) -> list[Problem]:
    """The problems of one bill in two exports: none where nothing else bills the same accounts for the same SKUs.

    `decided_scopes` are datasets that the user said to replace, or to keep beside this one.
    """
    scope = group[0].scope
    uri = group[0].objects[0].uri if group[0].objects else scope
    payers = datasets_with_same_bill(store, scope, month, buffer.bill_keys) if buffer.bill_keys else {}
    return [
        Problem(
            source,
            uri,
            month,
            "billing_account_id",
            f"payer {payer} is booked for {month} as {other!r}, with the same accounts and SKUs; importing them as {scope!r} would count them twice",
            f"keep one of the two; --replaces {other!r} puts this one in the other's place, --beside {other!r} books both",
        )
        for other, payer in sorted(payers.items())
        if other not in decided_scopes
    ]


def newest_charge(reading: Reading, now: datetime) -> datetime | None:
    """The newest time of a reading's charges: the latest end of a period that is over, or start of one that has begun.

    A monthly fee ends in the future from the first day on, and is no evidence of how fresh the usage is.
    """
    frames = [frame for frame in (reading.frame, reading.dimensions) if frame is not None]
    end_times = next((f["charge_period_end"] for f in frames if "charge_period_end" in f.columns), None)
    start_times = next((f["charge_period_start"] for f in frames if "charge_period_start" in f.columns), None)
    newest_times = [series.filter(series <= now).max() for series in (end_times, start_times) if series is not None]
    return max((t for t in newest_times if isinstance(t, datetime)), default=None)


def newest_usage_start(reading: Reading) -> datetime | None:
    """The latest start of a reading's usage; fees and purchases may begin in the future, usage does not."""
    if not reading.frame.height:
        return None
    batch = _bill_batch(reading)
    usage = batch.dimensions["charge_category"] == "Usage"
    starts = batch.rows["charge_period_start"]
    if not usage.all():
        starts = starts.filter(usage.gather(batch.rows[DIMENSIONS_ROW]).fill_null(value=False))
    newest = starts.max()
    return newest if isinstance(newest, datetime) else None


def by_month(reading: Reading) -> Iterator[tuple[str, BillBatch]]:
    """The rows month by month."""
    if not reading.frame.height:
        return
    batch = _bill_batch(reading)
    months = batch.rows["billing_month"]
    if months.n_unique() == 1:
        yield str(months[0]), batch
        return
    for (month,), rows in batch.rows.partition_by("billing_month", as_dict=True, maintain_order=True).items():
        yield str(month), BillBatch(rows, batch.dimensions)


def _bill_batch(reading: Reading) -> BillBatch:
    """A reading as a batch; without `dimensions`, each row has a row of dimensions of its own."""
    if reading.dimensions is not None:
        return BillBatch(reading.frame, reading.dimensions)
    dimensions = [name for name in DIMENSIONS if name in reading.frame.columns and name != "billing_month"]
    return BillBatch(reading.frame.drop(dimensions).with_row_index(DIMENSIONS_ROW), reading.frame.select(dimensions))


def _equal_columns(costs: pl.DataFrame) -> dict[str, str]:
    """Cost columns that equal an earlier one, so that equal columns are summed once."""
    equal_columns: dict[str, str] = {}
    for at, name in enumerate(COST_COLUMNS):
        for earlier in COST_COLUMNS[:at]:
            if (
                earlier not in equal_columns
                and costs[name].equals(costs[earlier])
                and costs[f"{name}__written"].equals(costs[f"{earlier}__written"])
            ):
                equal_columns[name] = earlier
                break
    return equal_columns


def _add_sums(one: _ColumnSum, other: _ColumnSum) -> _ColumnSum:
    return _ColumnSum(one.rows + other.rows, _exact_sum(one.booked, other.booked), _exact_sum(one.rounding, other.rounding))


def _exact_sum(one: Decimal, other: Decimal | None) -> Decimal:
    with localcontext() as context:
        context.prec = 400
        return one + (other or ZERO)
