"""Writing bills: a month of a dataset is replaced whole, in one commit, or left as it was.

The rows of a month wait here until all of its files have been read: in memory while they are few, in temporary Parquet files
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
from ledger.errors import TableError
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
"""What two exports of one bill have in common, whatever columns they have and however they cut it."""

TotalKey = tuple[str, str, str]
"""Currency, provider, cost column."""


@dataclass(frozen=True, slots=True)
class _ColumnSum:
    rows: int = 0
    kept: Decimal = ZERO
    lost: Decimal = ZERO


class MonthBuffer:
    """The rows of one month of one dataset, and what they sum up to."""

    def __init__(self, month: str, folder: Path) -> None:
        self.month = month
        self.rows = 0
        self.sums: dict[TotalKey, _ColumnSum] = {}
        self.raw_ids: set[str] = set()
        self.kinds: set[tuple[str | None, ...]] | None = None
        """What is billed to whom (`BILL_KEY`), if that is asked for."""
        self._held: list[BillBatch] = []
        self._files = MonthFiles(folder, f"{month}-{id(self):x}", month)

    def add(self, lines: BillBatch, written: pl.DataFrame) -> None:
        """Conformed charges of this month, and their costs as written beyond twelve places (see `Reading`)."""
        self._sum(lines, written)
        self.rows += lines.rows.height
        self.raw_ids.update(lines.words["raw_id"].unique())
        if self.kinds is not None:
            said = lines.words.select(BILL_KEY)[lines.rows[DIMENSIONS_ROW].unique()]
            self.kinds.update(said.unique().iter_rows())
        self._hold([lines])

    def absorb(self, other: MonthBuffer) -> None:
        """Another file's rows of the same month; `other` must not be used any more."""
        self._files.absorb(other._files)
        self.raw_ids |= other.raw_ids
        if other.kinds is not None:
            self.kinds = (self.kinds or set()) | other.kinds
        self.rows += other.rows
        for key, one in other.sums.items():
            self.sums[key] = _add_sums(self.sums.get(key, _ColumnSum()), one)
        self._hold(other._held)

    def files(self) -> list[Path]:
        """All rows, as files of the table; identical ones are told apart by their ordinal in `charge_id`. Ends the pile."""
        self._flush()
        return self._files.finished()

    def totals(self, scope: str) -> pl.DataFrame:
        """What the files themselves add up to, as rows of `import_totals`."""
        rows = [
            {
                "scope": scope,
                "billing_month": self.month,
                "currency": currency,
                "provider": provider,
                "cost_column": column,
                "total": money.text(_exact_sum(one.kept, one.lost)),
                "rounding": money.text(one.lost),
                "rows": one.rows,
            }
            for (currency, provider, column), one in sorted(self.sums.items())
        ]
        return pl.DataFrame(rows, schema=IMPORT_TOTALS.schema)

    def _sum(self, lines: BillBatch, written: pl.DataFrame) -> None:
        told = pl.concat(
            [lines.rows.select(DIMENSIONS_ROW, *COST_COLUMNS), written.select(f"{n}__written" for n in COST_COLUMNS)],
            how="horizontal",
        )
        same = _equal_columns(told)
        for (currency, provider), part in _by_biller(told, lines.words):
            found: dict[str, _ColumnSum] = {}
            for name in COST_COLUMNS:
                if name in same:
                    found[name] = found[same[name]]
                else:
                    kept, beyond = part[name], part[f"{name}__written"]
                    lost = money.rounding_loss(beyond, kept) if beyond.null_count() < len(beyond) else ZERO
                    found[name] = _ColumnSum(len(kept) - kept.null_count(), Decimal(kept.sum() or 0), lost)
            for name, one in found.items():
                key = (currency, provider, name)
                self.sums[key] = _add_sums(self.sums.get(key, _ColumnSum()), one)

    def _hold(self, some: Sequence[BillBatch]) -> None:
        self._held += some
        if sum(lines.rows.height for lines in self._held) >= _MAX_BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        rows, words, at = [], [], 0
        for lines in self._held:
            rows.append(lines.rows.with_columns(pl.col(DIMENSIONS_ROW) + at))
            words.append(lines.words)
            at += lines.words.height
        self._held.clear()
        self._files.add(BillBatch(pl.concat(rows), pl.concat(words)))


def _by_biller(told: pl.DataFrame, words: pl.DataFrame) -> Iterator[tuple[tuple[str, str], pl.DataFrame]]:
    """The rows of each currency and provider."""
    keys = words.select("billing_currency", "provider_name")
    each = keys.unique(maintain_order=True)
    number = keys.join(each.with_row_index("__key"), on=keys.columns, how="left", maintain_order="left")["__key"]
    parts = (
        told.with_columns(__key=number.gather(told[DIMENSIONS_ROW])).partition_by("__key", as_dict=True)
        if each.height > 1
        else {(0,): told}
    )
    for (key,), part in parts.items():
        currency, provider = each.row(int(str(key)))
        yield (str(currency), str(provider)), part


def conform(lines: BillBatch, *, month: str, source: str, scope: str, raw_id: str, now: datetime) -> BillBatch:
    """A source's rows as `charges` holds them. A month is final when it is invoiced and no longer rewritten."""
    words = lines.words
    if "final" in words.columns and not _is_settled(month, now):
        words = words.with_columns(final=pl.lit(False))
    named = {"charge_id": "", "source": source, "scope": scope, "raw_id": raw_id, "billing_month": month}
    words = words.with_columns(pl.lit(value).alias(name) for name, value in named.items())
    return BillBatch(
        _with_schema(lines.rows, MEASURES, (DIMENSIONS_ROW,)), _with_schema(words, DIMENSIONS, said=lines.rows[DIMENSIONS_ROW])
    )


def _with_schema(
    frame: pl.DataFrame, names: Sequence[str], more: Sequence[str] = (), said: pl.Series | None = None
) -> pl.DataFrame:
    """The columns as the table has them. Words that no line says (any more) may lack what is required."""
    schema = CHARGES.schema
    floats = [n for n in names if n in frame.columns and frame.schema[n].is_float()]
    if floats:
        raise TableError(f"amounts arrived as floating point in {floats}", where=CHARGES.name)
    shaped = frame.select(
        *more, *(pl.col(n).cast(schema[n]) if n in frame.columns else pl.lit(None, dtype=schema[n]).alias(n) for n in names)
    )
    required = [c.name for c in CHARGES.columns if c.required and c.name in names and shaped[c.name].null_count()]
    if said is not None and required:
        required = [name for name in required if shaped[name].gather(said).null_count()]
    if required:
        raise TableError(f"required columns {required} hold nulls", where=CHARGES.name)
    return shaped


def _is_settled(month: str, now: datetime) -> bool:
    return month_end(month) + _RESTATEMENT_PERIOD <= now


@dataclass(frozen=True, slots=True)
class ReplaceResult:
    """What replacing one month did."""

    rows: int
    rows_changed: int


def replace_month(store: Store, scope: str, pile: MonthBuffer) -> ReplaceResult:
    """Makes the pile the month of the dataset, in one commit. Nothing is written where nothing changed."""
    where = {"billing_month": pile.month, "scope": scope}
    files = pile.files()
    held = _identity(_stored_rows(store, scope, pile.month))
    new = _identity(pl.scan_parquet(files)) if held.height else None
    changed = 0
    if new is None or not new.sort("row").equals(held.sort("row")):
        changed = pile.rows
        if new is not None:
            changed = new.join(held, on="id", how="anti").height + held.join(new, on="id", how="anti").height
        store.replace_files(CHARGES, files, where, note=f"{scope} {pile.month}")
    totals = pile.totals(scope)
    booked = store.scan(IMPORT_TOTALS, {"billing_month": [pile.month], "scope": [scope]}).collect()
    keys = ["currency", "provider", "cost_column"]
    if not totals.sort(keys).equals(booked.sort(keys)):
        store.replace(IMPORT_TOTALS, totals, where)
    return ReplaceResult(pile.rows, changed)


def _stored_rows(store: Store, scope: str, month: str) -> pl.LazyFrame:
    return store.scan(CHARGES, {"billing_month": [month], "scope": [scope]})


def _identity(rows: pl.LazyFrame) -> pl.DataFrame:
    """Two hashes a row: of its content, and of all that replacing it would change. Comparable within one process only."""
    told = pl.struct("charge_id", "raw_id", "final", "line")
    return rows.select(id=pl.col("charge_id").hash(seed=1), row=told.hash(seed=1)).collect(engine="streaming")


def files_in_other_datasets(store: Store, scope: str, month: str, raw_ids: Collection[str]) -> dict[str, str]:
    """Files whose bytes are already booked for this month under another dataset: raw id to that dataset."""
    found = (
        store.scan(CHARGES, {"billing_month": [month]})
        .filter((pl.col("scope") != scope) & pl.col("raw_id").is_in(pl.Series(sorted(raw_ids), dtype=pl.String).implode()))
        .select("raw_id", "scope")
        .unique()
        .collect()
    )
    return dict(found.iter_rows())


def open_buffer(store: Store, found: Batch, month: str, folder: Path) -> MonthBuffer:
    """A pile for a slice's month. Where another dataset holds the month too, it notes what is billed to whom."""
    pile = MonthBuffer(month, folder)
    table = store.delta(CHARGES) if found.exclusive else None
    held = [] if table is None else table.partitions()
    if any(part["billing_month"] == month and part["scope"] != found.scope for part in held):
        pile.kinds = set()
    return pile


def datasets_with_same_bill(store: Store, scope: str, month: str, kinds: Collection[tuple[str | None, ...]]) -> dict[str, str]:
    """Datasets that bill the same accounts for the same SKUs in this month: dataset to the payer they share."""
    mine = pl.DataFrame(sorted(kinds, key=str), schema=dict.fromkeys(BILL_KEY, pl.String), orient="row")
    mine = mine.filter(pl.col("billing_account_id").is_not_null() & pl.col("sku_meter").is_not_null())
    theirs = store.scan(CHARGES, {"billing_month": [month]}).filter(pl.col("scope") != scope).select("scope", *BILL_KEY).unique()
    shared = theirs.join(mine.lazy(), on=BILL_KEY, how="semi", nulls_equal=True)
    return dict(shared.group_by("scope").agg(pl.col("billing_account_id").min()).collect().iter_rows())


def uris_of(store: Store, scope: str, month: str) -> set[str]:
    """Addresses the month's rows were read from."""
    raw_ids = _stored_rows(store, scope, month).select("raw_id").unique().collect()
    known = store.scan(RAW_FILES).filter(pl.col("scope") == scope).select("raw_id", "uri").collect()
    return set(known.join(raw_ids, on="raw_id", how="semi")["uri"])


def record_files(store: Store, files: Sequence[dict[str, object]]) -> None:
    """Adds what was read to `raw_files`; a file known at this address, under this dataset, is not added again."""
    if not files:
        return
    keys = ["source", "raw_id", "uri", "scope"]
    rows = RAW_FILES.conform(pl.DataFrame(files, schema=RAW_FILES.schema)).unique(keys, keep="first", maintain_order=True)
    known = store.scan(RAW_FILES, {"source": rows["source"].unique().to_list()}).select(keys).collect()
    store.append(RAW_FILES, rows.join(known, on=keys, how="anti", maintain_order="left"))


def duplicate_file_problem(source: str, uri: str, scope: str, other: str, month: str) -> Problem:
    """The problem of the same bytes under two datasets."""
    return Problem(
        source,
        uri,
        "file",
        "scope",
        f"the same bytes are booked for {month} as {other!r}; as {scope!r} too they would count twice",
        f"ingest with --scope {other!r} to replace them, or do nothing",
    )


def duplicate_bill_problems(store: Store, source: str, group: Sequence[Batch], month: str, pile: MonthBuffer) -> list[Problem]:
    """The problems of one bill in two exports: none where nothing else bills the same accounts for the same SKUs."""
    scope = group[0].scope
    uri = group[0].objects[0].uri if group[0].objects else scope
    twice = datasets_with_same_bill(store, scope, month, pile.kinds) if pile.kinds else {}
    return [
        Problem(
            source,
            uri,
            month,
            "billing_account_id",
            f"payer {payer} is booked for {month} as {other!r}, with the same accounts and SKUs; as {scope!r} too they would count twice",
            f"keep one of the two; --scope {other!r} puts this one in the other's place",
        )
        for other, payer in sorted(twice.items())
    ]


def newest_charge(reading: Reading, now: datetime) -> datetime | None:
    """How far a reading's charges reach: the latest end of a period that is over, or start of one that has begun.

    A monthly fee ends in the future from the first day on: it says nothing about how fresh the usage beside it is.
    """
    holders = [frame for frame in (reading.frame, reading.words) if frame is not None]
    ends = next((f["charge_period_end"] for f in holders if "charge_period_end" in f.columns), None)
    starts = next((f["charge_period_start"] for f in holders if "charge_period_start" in f.columns), None)
    told = [series.filter(series <= now).max() for series in (ends, starts) if series is not None]
    return max((t for t in told if isinstance(t, datetime)), default=None)


def by_month(reading: Reading) -> Iterator[tuple[str, BillBatch]]:
    """The rows month by month."""
    if not reading.frame.height:
        return
    lines = _bill_batch(reading)
    months = lines.rows["billing_month"]
    if months.n_unique() == 1:
        yield str(months[0]), lines
        return
    for (month,), rows in lines.rows.partition_by("billing_month", as_dict=True, maintain_order=True).items():
        yield str(month), BillBatch(rows, lines.words)


def _bill_batch(reading: Reading) -> BillBatch:
    """A reading's rows; those of a source that leaves no words aside say each their own."""
    if reading.words is not None:
        return BillBatch(reading.frame, reading.words)
    words = [name for name in DIMENSIONS if name in reading.frame.columns and name != "billing_month"]
    return BillBatch(reading.frame.drop(words).with_row_index(DIMENSIONS_ROW), reading.frame.select(words))


def _equal_columns(told: pl.DataFrame) -> dict[str, str]:
    """Cost columns that repeat an earlier one, so that it need not be summed twice."""
    same: dict[str, str] = {}
    for at, name in enumerate(COST_COLUMNS):
        for earlier in COST_COLUMNS[:at]:
            if (
                earlier not in same
                and told[name].equals(told[earlier])
                and told[f"{name}__written"].equals(told[f"{earlier}__written"])
            ):
                same[name] = earlier
                break
    return same


def _add_sums(one: _ColumnSum, other: _ColumnSum) -> _ColumnSum:
    return _ColumnSum(one.rows + other.rows, _exact_sum(one.kept, other.kept), _exact_sum(one.lost, other.lost))


def _exact_sum(one: Decimal, other: Decimal | None) -> Decimal:
    with localcontext() as context:
        context.prec = 400
        return one + (other or ZERO)
