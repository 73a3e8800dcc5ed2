"""Writing bills: a month of a dataset is replaced whole, in one commit, or left as it was.

The rows of a month wait here until all of its files have been read: in memory while they are few, in temporary Parquet files
when they are many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path

import polars as pl

from ledger import money
from ledger.money import ZERO
from ledger.problems import Problem
from ledger.store import Store
from ledger.tables import CHARGES, COST_COLUMNS, IMPORT_TOTALS, RAW_FILES

_HELD_ROWS = 200_000
"""Rows kept in memory before they go to disk; some 200 MB."""
_RESTATED = timedelta(days=14)
"""How long after a month's end providers still rewrite it, invoiced or not."""
_NOT_CONTENT = frozenset({"charge_id", "source", "scope", "raw_id", "line", "final"})
_CONTENT = tuple(name for name in CHARGES.schema if name not in _NOT_CONTENT)

TotalKey = tuple[str, str, str]
"""Currency, provider, cost column."""


@dataclass(frozen=True, slots=True)
class _Sum:
    rows: int = 0
    kept: Decimal = ZERO
    lost: Decimal = ZERO


@dataclass
class MonthPile:
    """The rows of one month of one dataset, and what they sum up to."""

    month: str
    folder: Path
    frames: list[pl.DataFrame] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)
    sums: dict[TotalKey, _Sum] = field(default_factory=dict)
    raw_ids: set[str] = field(default_factory=set)
    rows: int = 0

    def add(self, frame: pl.DataFrame, written: pl.DataFrame) -> None:
        """Conformed charges of this month, and their costs as written beyond twelve places (see `Reading`)."""
        self._sum(frame, written)
        self.rows += frame.height
        self.raw_ids.update(frame["raw_id"].unique())
        self.frames.append(frame)
        if sum(f.height for f in self.frames) > _HELD_ROWS:
            self._spill()

    def absorb(self, other: MonthPile) -> None:
        """Another file's rows of the same month."""
        self.frames += other.frames
        self.parts += other.parts
        self.raw_ids |= other.raw_ids
        self.rows += other.rows
        for key, one in other.sums.items():
            self.sums[key] = _joined(self.sums.get(key, _Sum()), one)
        if sum(f.height for f in self.frames) > _HELD_ROWS:
            self._spill()

    def batches(self) -> Iterator[pl.DataFrame]:
        """All rows; identical ones are told apart by their ordinal in `charge_id`."""
        ids = pl.concat(
            [*(pl.scan_parquet(p).select("charge_id") for p in self.parts), *(f.lazy().select("charge_id") for f in self.frames)]
        )
        seen = ids.collect()["charge_id"]
        ordinal = (
            None if seen.n_unique() == len(seen) else seen.to_frame().select(pl.int_range(1, pl.len() + 1).over("charge_id"))
        )
        del seen
        at = 0
        held: list[Path | pl.DataFrame] = [*self.parts, *self.frames]
        for part in held:
            frame = pl.read_parquet(part, memory_map=False) if isinstance(part, Path) else part
            if ordinal is not None:
                nth = ordinal.slice(at, frame.height).to_series()
                spelt = pl.when(nth > 1).then(pl.concat_str("charge_id", pl.lit("-"), nth.cast(pl.String))).otherwise("charge_id")
                frame = frame.with_columns(charge_id=spelt)
            at += frame.height
            yield frame

    def totals(self, scope: str) -> pl.DataFrame:
        """What the files themselves add up to, as rows of `import_totals`."""
        rows = [
            {
                "scope": scope,
                "billing_month": self.month,
                "currency": currency,
                "provider": provider,
                "cost_column": column,
                "total": money.text(_plus(one.kept, one.lost)),
                "rounding": money.text(one.lost),
                "rows": one.rows,
            }
            for (currency, provider, column), one in sorted(self.sums.items())
        ]
        return pl.DataFrame(rows, schema=IMPORT_TOTALS.schema)

    def _sum(self, frame: pl.DataFrame, written: pl.DataFrame) -> None:
        keys = ["billing_currency", "provider_name"]
        told = pl.concat(
            [frame.select(*keys, *COST_COLUMNS), written.select(f"{n}__written" for n in COST_COLUMNS)], how="horizontal"
        )
        same = _alike(told)
        for (currency, provider), part in told.partition_by(keys, as_dict=True, include_key=False).items():
            found: dict[str, _Sum] = {}
            for name in COST_COLUMNS:
                if name in same:
                    found[name] = found[same[name]]
                else:
                    kept = part[name]
                    lost = money.rounded_away(part[f"{name}__written"], kept)
                    found[name] = _Sum(len(kept) - kept.null_count(), Decimal(kept.sum() or 0), lost)
            for name, one in found.items():
                key = (str(currency), str(provider), name)
                self.sums[key] = _joined(self.sums.get(key, _Sum()), one)

    def _spill(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{self.month}-{id(self):x}-{len(self.parts)}.parquet"
        pl.concat(self.frames).write_parquet(part, compression="lz4", row_group_size=100_000)
        self.parts.append(part)
        self.frames.clear()


def conformed(frame: pl.DataFrame, *, source: str, scope: str, raw_id: str, now: datetime) -> pl.DataFrame:
    """A source's rows as `charges` holds them, with ids. A month is final when it is invoiced and no longer rewritten."""
    if "final" in frame.columns:
        final = pl.col("final") & pl.col("billing_month").is_in(_settled(frame["billing_month"].unique(), now))
        frame = frame.with_columns(final=final)
    frame = frame.with_columns(charge_id=pl.lit(""), source=pl.lit(source), scope=pl.lit(scope), raw_id=pl.lit(raw_id))
    rows = CHARGES.conform(frame.select(name for name in frame.columns if name in CHARGES.schema))
    return rows.with_columns(charge_id=_ids(rows))


def _ids(rows: pl.DataFrame) -> pl.Series:
    """A 64-bit hash of what the row says, as 16 hex digits. Independent of file, line, dataset and batch."""
    parts: list[pl.Expr] = []
    fixed = ""
    for name in _CONTENT:
        column = rows[name]
        text = (column.to_physical() if column.dtype.is_decimal() or column.dtype.is_temporal() else column).cast(pl.String)
        if len(column) and (column.null_count() == len(column) or (not column.null_count() and (text == text[0]).all())):
            fixed += (text[0] or "\x00") + "\x1f"  # the same on every row: spelt once
            continue
        if fixed:
            parts.append(pl.lit(fixed))
            fixed = ""
        parts.append(pl.lit(text.fill_null("\x00")) + "\x1f")
    spelt = rows.select(pl.concat_str([pl.repeat("", pl.len()), *parts, pl.lit(fixed)]).alias("t"))["t"].to_list()
    digest = hashlib.blake2b
    return pl.Series("charge_id", [digest(text.encode(), digest_size=8).hexdigest() for text in spelt], dtype=pl.String)


def _settled(months: pl.Series, now: datetime) -> list[str]:
    return [
        month
        for month in months
        if month is not None and datetime.combine(_month_end(month), datetime.min.time(), UTC) + _RESTATED <= now
    ]


def _month_end(month: str) -> date:
    first = date.fromisoformat(f"{month}-01")
    return (first + timedelta(days=31)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Written:
    """What replacing one month did."""

    rows: int
    rows_changed: int


def replace_month(store: Store, scope: str, pile: MonthPile) -> Written:
    """Makes the pile the month of the dataset, in one commit. Nothing is written where nothing changed."""
    where = {"billing_month": pile.month, "scope": scope}
    new = pl.concat([_identity(batch.lazy()) for batch in pile.batches()])
    held = _identity(_held(store, scope, pile.month))
    changed = 0
    if not new.sort("row").equals(held.sort("row")):
        changed = new.join(held, on="id", how="anti").height + held.join(new, on="id", how="anti").height
        store.replace_parts(CHARGES, pile.batches(), where, note=f"{scope} {pile.month}")
    totals = pile.totals(scope)
    booked = store.scan(IMPORT_TOTALS, {"billing_month": [pile.month], "scope": [scope]}).collect()
    keys = ["currency", "provider", "cost_column"]
    if not totals.sort(keys).equals(booked.sort(keys)):
        store.replace(IMPORT_TOTALS, totals, where)
    return Written(pile.rows, changed)


def _held(store: Store, scope: str, month: str) -> pl.LazyFrame:
    return store.scan(CHARGES, {"billing_month": [month], "scope": [scope]})


def _identity(rows: pl.LazyFrame) -> pl.DataFrame:
    """Two hashes a row: of its content, and of all that replacing it would change. Comparable within one process only."""
    told = pl.struct("charge_id", "raw_id", "final", "line")
    return rows.select(id=pl.col("charge_id").hash(seed=1), row=told.hash(seed=1)).collect(engine="streaming")


def booked_elsewhere(store: Store, scope: str, month: str, raw_ids: Collection[str]) -> dict[str, str]:
    """Files whose bytes are already booked for this month under another dataset: raw id to that dataset."""
    found = (
        store.scan(CHARGES, {"billing_month": [month]})
        .filter((pl.col("scope") != scope) & pl.col("raw_id").is_in(pl.Series(sorted(raw_ids), dtype=pl.String).implode()))
        .select("raw_id", "scope")
        .unique()
        .collect()
    )
    return dict(found.iter_rows())


def sources_of(store: Store, scope: str, month: str) -> set[str]:
    """Addresses the month's rows were read from."""
    raw_ids = _held(store, scope, month).select("raw_id").unique().collect()
    known = store.scan(RAW_FILES).filter(pl.col("scope") == scope).select("raw_id", "uri").collect()
    return set(known.join(raw_ids, on="raw_id", how="semi")["uri"])


def note_files(store: Store, files: Sequence[dict[str, object]]) -> None:
    """Adds what was read to `raw_files`; a file known at this address, under this dataset, is not added again."""
    if not files:
        return
    keys = ["source", "raw_id", "uri", "scope"]
    rows = RAW_FILES.conform(pl.DataFrame(files, schema=RAW_FILES.schema)).unique(keys, keep="first", maintain_order=True)
    known = store.scan(RAW_FILES, {"source": rows["source"].unique().to_list()}).select(keys).collect()
    store.append(RAW_FILES, rows.join(known, on=keys, how="anti", maintain_order="left"))


def twice(source: str, uri: str, scope: str, other: str, month: str) -> Problem:
    """The problem of the same bytes under two datasets."""
    return Problem(
        source,
        uri,
        "file",
        "scope",
        f"the same bytes are booked for {month} as {other!r}; as {scope!r} too they would count twice",
        f"ingest with --scope {other!r} to replace them, or do nothing",
    )


def by_month(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows month by month."""
    for (month,), rows in frame.partition_by("billing_month", as_dict=True, maintain_order=True).items():
        yield str(month), rows


def _alike(told: pl.DataFrame) -> dict[str, str]:
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


def _joined(one: _Sum, other: _Sum) -> _Sum:
    return _Sum(one.rows + other.rows, _plus(one.kept, other.kept), _plus(one.lost, other.lost))


def _plus(one: Decimal, other: Decimal | None) -> Decimal:
    with localcontext() as context:
        context.prec = 400
        return one + (other or ZERO)
