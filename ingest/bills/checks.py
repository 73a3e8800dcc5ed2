"""Checks that every row of a bill must pass; a row that fails becomes a problem and is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ingest.bills.dictionary import BillBatch
from ingest.problem_counter import ProblemCounter


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that no row of a valid file meets: `fails` is an expression of measures only, or of dimensions only.

    `shown` is the column quoted as written.
    """

    field: str
    fails: pl.Expr
    reason: str
    remedy: str
    shown: str | None = None


def apply_checks(batch: BillBatch, checks: Sequence[Check], counter: ProblemCounter, *, place: str = "__line") -> BillBatch:
    """The rows that pass all checks. A row that fails is reported once, by the first check it fails."""
    for check in _failing_checks(batch, checks):
        fails = check.fails.fill_null(False)
        mask = batch.expand(fails) if _is_of_dimensions(check, batch) else batch.rows.select(fails).to_series()
        if mask.any():
            bad = batch.filter(mask)
            values = _values_as_text(bad, check.shown) if check.shown else None
            counter.add_rows(bad.rows[place], values, check.field, check.reason, check.remedy)
            batch = batch.filter(~mask)
    return batch


def _failing_checks(batch: BillBatch, checks: Sequence[Check]) -> list[Check]:
    """The checks that some row may fail, in order; evaluated together, since a valid file fails none."""
    is_dimension_check = [_is_of_dimensions(check, batch) for check in checks]
    failing: dict[int, bool] = {}
    for frame, of_dimensions in ((batch.dimensions, True), (batch.rows, False)):
        conditions = {
            i: check.fails.fill_null(False).any().alias(str(i))
            for i, check in enumerate(checks)
            if is_dimension_check[i] == of_dimensions
        }
        if conditions and batch.rows.height:
            failing |= dict(zip(conditions, frame.select(conditions.values()).row(0), strict=True))
    return [check for i, check in enumerate(checks) if failing.get(i)]


def _is_of_dimensions(check: Check, batch: BillBatch) -> bool:
    return set(check.fails.meta.root_names()) <= set(batch.dimensions.columns)


def _values_as_text(batch: BillBatch, name: str) -> pl.Series:
    column = batch.rows[name] if name in batch.rows.columns else batch.expand(pl.col(name))
    return column.dt.to_string("iso") if column.dtype.is_temporal() else column.cast(pl.String)
