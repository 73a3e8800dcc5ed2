"""Whether a file is FOCUS: every fault by row, column and rule, in one pass and bounded memory. Amounts are read as decimals, never as floats."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from ingest.compression import chunks, has_magic
from ledger.errors import FormatError, UsageError
from rootcost.focus.columns import Version, columns, guessed_version
from rootcost.focus.rules import Rule, name_faults, ratio, rules_of

BATCH_ROWS: Final = 100_000
MAX_ROWS: Final = 5
"""Rows that are named of each rule and column unless more are asked for; the others are counted."""
_NULLS: Final = ["", "NULL", "null"]
_MAX_VALUE: Final = 60
_ALLOCATED: Final = "Allocated"


@dataclass(slots=True)
class Fault:
    """A rule that a column breaks: how often, and the first rows (data rows, from 1) with their values."""

    rule: str
    column: str
    remedy: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    values: list[str | None] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What was found in a file."""

    file: str
    version: Version
    rows: int
    columns: int
    faults: list[Fault]

    @property
    def is_valid(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


def validate(
    path: Path,
    version: Version | None = None,
    *,
    is_excerpt: bool = False,
    max_rows: int = MAX_ROWS,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Checks a CSV or Parquet file, which may be compressed. `is_excerpt`: only the columns that are there are judged.

    Raises `UsageError` if there is no such file, `FormatError` if it is no table.
    """
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), remedy="name a CSV or Parquet file")
    with _table(path) as frame:
        names = frame.collect_schema().names()
        spec = columns(version or guessed_version(names))
        faults = _Faults(max_rows)
        for rule, column, remedy in name_faults(spec, names, is_excerpt=is_excerpt):
            faults.add(rule, column, remedy)
        rules = rules_of(spec, names)
        floats = [name for name, dtype in frame.collect_schema().items() if dtype.is_float() and name in spec]
        for name in floats:
            faults.add("decimal-type", name, "a float cannot hold every amount: write Decimal or text")
        splits = _Splits(
            [name for name in names if not name.startswith(_ALLOCATED) and (name not in spec or spec[name].split != "sum")]
        )
        row_count = 0
        for batch in _batches(frame, path):
            _check(batch, rules, row_count, faults)
            if {"AllocatedMethodId", "AllocatedMethodDetails"} <= set(names):
                splits.add(batch, row_count)
            row_count += batch.height
            if progress:
                progress(row_count)
        for row, total in splits.broken():
            remedy = f"the ratios of the parts of a charge sum to 1; here they come to {total.normalize():f}"
            faults.add("split-ratio", "AllocatedMethodDetails", remedy, row, f"{total.normalize():f}")
    return Report(str(path), version or guessed_version(names), row_count, len(names), faults.sorted())


class _Faults:
    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self._faults: dict[tuple[str, str], Fault] = {}

    def add(self, rule: str, column: str, remedy: str, row: int | None = None, value: str | None = None, count: int = 1) -> None:
        fault = self._faults.setdefault((rule, column), Fault(rule, column, remedy))
        fault.count += count
        if row is not None and len(fault.rows) < self.max_rows:
            fault.rows.append(row)
            fault.values.append(value if value is None else value[:_MAX_VALUE])

    def sorted(self) -> list[Fault]:
        """Faults of the header first, then by row."""
        return sorted(self._faults.values(), key=lambda fault: (fault.rows[:1] or [0], fault.column, fault.rule))


def _check(batch: pl.DataFrame, rules: list[Rule], offset: int, faults: _Faults) -> None:
    is_row = ~pl.all_horizontal(pl.all().is_null())  # a blank line is none
    broken = batch.select(
        (is_row & rule.is_broken.fill_null(value=False)).alias(str(number)) for number, rule in enumerate(rules)
    )
    for number, rule in enumerate(rules):
        rows = broken[str(number)].arg_true()
        if not rows.len():
            continue
        values = batch[rule.column].gather(rows.head(faults.max_rows)).to_list()
        faults.add(rule.name, rule.column, rule.remedy, count=rows.len() - len(values))
        for row, value in zip(rows.head(faults.max_rows).to_list(), values, strict=True):
            faults.add(rule.name, rule.column, rule.remedy, offset + row + 1, value)


class _Splits:
    """The sum of ratios of each charge that was split: rows that are alike but for what a split sets are of one charge, or of several like ones."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self._sums: defaultdict[int, Decimal] = defaultdict(Decimal)
        self._rows: dict[int, int] = {}

    def add(self, batch: pl.DataFrame, offset: int) -> None:
        parts = batch.with_row_index("row").filter(
            pl.col("AllocatedMethodId").is_not_null(), pl.col("AllocatedMethodDetails").is_not_null()
        )
        if not parts.height:
            return
        ratios = {text: ratio(text) for text in parts["AllocatedMethodDetails"].unique().to_list()}
        hashes = parts.select(self._keys).hash_rows()
        for key, row, details in zip(
            hashes.to_list(), parts["row"].to_list(), parts["AllocatedMethodDetails"].to_list(), strict=True
        ):
            if (share := ratios[details]) is not None:
                self._sums[key] += share
                self._rows.setdefault(key, offset + row + 1)

    def broken(self) -> Iterator[tuple[int, Decimal]]:
        """The first row, and the sum, of each charge whose ratios do not come to a whole number."""
        for key, total in self._sums.items():
            if total != total.to_integral_value() or not total:
                yield self._rows[key], total


def _batches(frame: pl.LazyFrame, path: Path) -> Iterator[pl.DataFrame]:
    """Rows as text, nulls as null."""
    schema = frame.collect_schema()
    try:
        for batch in frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            yield batch.with_columns(_as_text(name, dtype) for name, dtype in schema.items() if dtype != pl.String)
    except pl.exceptions.PolarsError as error:
        raise FormatError(
            f"row by row it is no table: {str(error).splitlines()[0][:200]}",
            where=str(path),
            remedy="every row has as many fields as the header",
        ) from error


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        return (
            column.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
            if dtype.time_zone
            else column.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        )
    if dtype.is_nested():
        return column.map_elements(str, return_dtype=pl.String)
    return column.cast(pl.String)


@contextmanager
def _table(path: Path) -> Iterator[pl.LazyFrame]:
    """The file as a lazy table; a compressed one is unpacked to a temporary file."""
    with path.open("rb") as file:
        head = file.read(8)
    if not has_magic(head):
        yield _scan(path, path, head)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "table"
        with path.open("rb") as file, plain.open("wb") as target:
            for part in chunks(file):
                target.write(part)
        with plain.open("rb") as file:
            yield _scan(plain, path, file.read(8))


def _scan(content: Path, path: Path, head: bytes) -> pl.LazyFrame:
    try:
        if head.startswith(b"PAR1"):
            frame: pl.LazyFrame = pl.scan_parquet(content)
        else:
            options: dict[str, Any] = {"infer_schema": False, "null_values": _NULLS, "truncate_ragged_lines": False}
            frame = pl.scan_csv(content, **options)
        names = frame.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise FormatError(
            f"it is no table: {str(error).splitlines()[0][:200]}",
            where=str(path),
            remedy="name a CSV or Parquet file with a header",
        ) from error
    if not names:
        raise FormatError("it has no columns", where=str(path), remedy="name a CSV or Parquet file with a header")
    return frame
