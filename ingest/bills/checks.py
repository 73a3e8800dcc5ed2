"""Checks that every row of a bill must pass; a row that fails becomes a problem and is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ingest.bills.dictionary import BillBatch
from ingest.problem_counter import ProblemCounter


@dataclass(frozen=True, slots=True)
class Check:
    """A condition no row of a good file meets: `fails` asks it of the lines' own columns, or of their words.

    `shown` is the column quoted as written.
    """

    field: str
    fails: pl.Expr
    reason: str
    remedy: str
    shown: str | None = None


def apply_checks(lines: BillBatch, checks: Sequence[Check], tally: ProblemCounter, *, place: str = "__line") -> BillBatch:
    """The lines that pass all checks. A line that fails is told once, by the first check it fails."""
    for check in _failing_checks(lines, checks):
        fails = check.fails.fill_null(False)
        mask = lines.spoken(fails) if _is_of_dimensions(check, lines) else lines.rows.select(fails).to_series()
        if mask.any():
            bad = lines.where(mask)
            quoted = _values_as_text(bad, check.shown) if check.shown else None
            tally.rows(bad.rows[place], quoted, check.field, check.reason, check.remedy)
            lines = lines.where(~mask)
    return lines


def _failing_checks(lines: BillBatch, checks: Sequence[Check]) -> list[Check]:
    """The checks that some line may fail, in order; asked of all at once, since a good file fails none."""
    of_words = [_is_of_dimensions(check, lines) for check in checks]
    told: dict[int, bool] = {}
    for frame, worded in ((lines.words, True), (lines.rows, False)):
        asked = {i: check.fails.fill_null(False).any().alias(str(i)) for i, check in enumerate(checks) if of_words[i] == worded}
        if asked and lines.rows.height:
            told |= dict(zip(asked, frame.select(asked.values()).row(0), strict=True))
    return [check for i, check in enumerate(checks) if told.get(i)]


def _is_of_dimensions(check: Check, lines: BillBatch) -> bool:
    return set(check.fails.meta.root_names()) <= set(lines.words.columns)


def _values_as_text(lines: BillBatch, name: str) -> pl.Series:
    column = lines.rows[name] if name in lines.rows.columns else lines.spoken(pl.col(name))
    return column.dt.to_string("iso") if column.dtype.is_temporal() else column.cast(pl.String)
