"""The gate: every query starts from the books as one principal may see them, and reads published conclusions through them.

    ScopedBooks(books, principal, permission)   the rows of the principal's teams
    WholeBooks(books, principal, permission)    the same for who may see the whole; raises `DeniedError` for others
    of_operator(books) -> WholeBooks            for commands: who has a shell at the home folder sees everything

Queries about teams' rows take `ScopedBooks`, queries about the whole (the balance, evidence, sources) take `WholeBooks`, and nothing makes one
of them without a principal. `rows` says whose rows of a table are a team's own: the initiator's, the executor's, or either; WHOLE reads all
rows, for arithmetic that shows other teams' parts only summed, and every use of it is listed in tests/api/queries/test_gate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Literal

import polars as pl

from api.queries.publication import months_of_answer
from ledger.access.principals import OPERATOR, Principal
from ledger.access.roles import Permission
from ledger.books import Books
from ledger.periods import month_of, month_start
from ledger.published import PublishedMonth
from ledger.settings import Settings
from ledger.slices import slices
from ledger.tables import Table

Rows = Literal["initiator", "executor", "either", "whole"]
"""Whose rows are read, of a table that has an initiator and an executor."""

WHOLE: Final = "whole"


class ScopedBooks:
    """The books as one principal may see them with one permission."""

    def __init__(self, books: Books, principal: Principal, permission: Permission) -> None:
        principal.need(permission)
        self.whole = books
        self.principal = principal
        self.permission = permission
        self.teams = principal.teams(permission)
        """The teams whose rows are seen; None: all rows."""

    @property
    def settings(self) -> Settings:
        """The settings, which are no secret between teams."""
        return self.whole.settings

    @property
    def sees_all(self) -> bool:
        """Whether all rows are seen, so that totals are those of the whole bill."""
        return self.teams is None

    def owns(self, *teams: str | None) -> bool:
        """Whether a row of these teams is seen."""
        return self.teams is None or any(team in self.teams for team in teams)

    def is_own(self, *columns: str) -> pl.Expr:
        """Whether a row is seen: one of the columns names a team of the principal."""
        if self.teams is None:
            return pl.lit(value=True)
        teams = pl.Series(sorted(self.teams), dtype=pl.String).implode()
        return pl.any_horizontal(pl.col(column).is_in(teams).fill_null(value=False) for column in columns)

    def is_row_of(self, rows: Rows) -> pl.Expr:
        """Whether a row of a table with initiator and executor is seen."""
        if rows == WHOLE:
            return pl.lit(value=True)
        return self.is_own(*(f"{side}_team" for side in ("initiator", "executor") if rows in (side, "either")))


class WholeBooks(ScopedBooks):
    """The books as a principal sees them who may see the whole. Raises `DeniedError` for others."""

    def __init__(self, books: Books, principal: Principal, permission: Permission) -> None:
        principal.need(permission, whole=True)
        super().__init__(books, principal, permission)


def of_operator(books: Books) -> WholeBooks:
    """The books as whoever runs commands on the home folder sees them: whole."""
    return WholeBooks(books, OPERATOR, Permission.COSTS_READ)


def whole_of(books: ScopedBooks) -> WholeBooks | None:
    """The same books for queries about the whole, if the principal sees it."""
    return WholeBooks(books.whole, books.principal, books.permission) if books.sees_all else None


def published(books: ScopedBooks, start: datetime | None = None, end: datetime | None = None) -> list[PublishedMonth]:
    """Published months, oldest first; with a range, those it touches.

    A range is for what lies in the month it happened in: chains, calls, usage. Costs lie in the month of their invoice, which
    may be any later one, so they are looked for in all months: the statistics of their files tell which need not be opened.
    """
    months = months_of_answer(books.whole.database)
    first = None if start is None else month_of(start)
    return [m for m in months if (first is None or m.month >= first) and (end is None or month_start(m.month) < end)]


def scan_runs(
    books: ScopedBooks, table: Table, months: Sequence[PublishedMonth], rows: Rows, *, month_column: str = "month"
) -> pl.LazyFrame:
    """Rows of a run's conclusions, of the published run of each month only, as far as the principal sees them."""
    return _scan(books, table, [(m.month, m.run_id) for m in months], month_column, "run_id").filter(books.is_row_of(rows))


def scan_rollups(books: ScopedBooks, table: Table, months: Sequence[PublishedMonth], rows: Rows) -> pl.LazyFrame:
    """Rows of rollups' conclusions, of the rollups in force for each month only, as far as the principal sees them."""
    pairs = [(m.month, rollup_id) for m in months for rollup_id in m.rollup_ids]
    return _scan(books, table, pairs, "month", "rollup_id").filter(books.is_row_of(rows))


def slice_rollups(
    books: ScopedBooks, table: Table, months: Sequence[PublishedMonth], rows: Rows, size: int
) -> Iterator[pl.DataFrame]:
    """As `scan_rollups`, at most `size` rows at a time, for files of any length."""
    pairs = [(m.month, rollup_id) for m in months for rollup_id in m.rollup_ids]
    if pairs:
        condition = _in_force(pairs, "month", "rollup_id") & books.is_row_of(rows)
        for frame in slices(books.whole.store, table, _partitions(pairs, "month", "rollup_id"), size):
            yield frame.filter(condition)


def _scan(books: ScopedBooks, table: Table, pairs: Sequence[tuple[str, str]], month_column: str, run_column: str) -> pl.LazyFrame:
    if not pairs:
        return table.empty().lazy()
    partitions = _partitions(pairs, month_column, run_column)
    return books.whole.store.scan(table, partitions).filter(_in_force(pairs, month_column, run_column))


def _partitions(pairs: Sequence[tuple[str, str]], month_column: str, run_column: str) -> dict[str, list[str]]:
    return {month_column: sorted({m for m, _ in pairs}), run_column: sorted({r for _, r in pairs})}


def _in_force(pairs: Sequence[tuple[str, str]], month_column: str, run_column: str) -> pl.Expr:
    """Whether a row is of a pair. A run may cover several months of which another run has replaced some: the pair decides, not each half."""
    return pl.any_horizontal(
        (pl.col(month_column) == month) & pl.col(run_column).is_in(sorted(r for m, r in pairs if m == month))
        for month in sorted({m for m, _ in pairs})
    )
