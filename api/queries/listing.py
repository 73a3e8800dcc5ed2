"""Listings: the rows that a query selects, before anybody says how many of them and in which format.

    FrameListing    rows of the store: a lazy frame, of which pages are cut and files are streamed
    SqlListing      rows of the database
    ModelListing    rows that are in memory already, in their order

    listing.page(limit=100, after=None, offset=0) -> Page     count and totals are those of the whole query, never of the page
    listing.frames(totals) -> Iterator[DataFrame]             all rows in batches, for files; those of the store are in no particular order

`order` names the columns that rows are sorted by; together they are unique, so that a page goes on after the values of the last row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any, Generic, TypeVar

import polars as pl
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.orm import InstrumentedAttribute

from api.models import Page
from api.queries.model_frames import frame_of
from ledger.db import Database
from ledger.errors import UsageError

M = TypeVar("M", bound=BaseModel)
Keys = Sequence[Any]
"""Values of the order columns of a row."""

BATCH_ROWS = 10_000
_MANY_ROWS = 50_000
"""From so many on a file is made from slices of the table, which takes longer and little memory."""
_SQL_BATCH_ROWS = 1_000


class RowGoneError(UsageError):
    """The row that a page was to go on after is no longer there."""


@dataclass(frozen=True, slots=True)
class Order:
    """A column that rows are sorted by; unknown values come last either way."""

    column: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Number of all rows, and sums of all rows by column and currency."""

    rows: int
    sums: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)


class Listing(ABC, Generic[M]):
    """The rows of a query. `is_of_runs`: they are conclusions of published runs, and are replaced with them."""

    model: type[M]
    order: tuple[Order, ...]
    is_of_runs: bool

    @abstractmethod
    def totals(self) -> Totals:
        """Number and sums of all rows."""

    @abstractmethod
    def slice(self, *, limit: int | None, offset: int = 0, after: Keys | None = None) -> tuple[list[M], list[Keys], Totals]:
        """Rows in order with their keys, after the row with the keys `after`; and the totals of all rows."""

    @abstractmethod
    def frames(self, totals: Totals) -> Iterator[pl.DataFrame]:
        """All rows in batches, at least one."""

    def page(self, *, limit: int | None = None, offset: int = 0, after: Keys | None = None) -> Page[M]:
        """One page, without a cursor."""
        return self.page_with_keys(limit=limit, offset=offset, after=after)[0]

    def page_with_keys(
        self, *, limit: int | None = None, offset: int = 0, after: Keys | None = None
    ) -> tuple[Page[M], Keys | None]:
        """One page, and the keys of its last row if more rows follow."""
        rows, keys, totals = self.slice(limit=None if limit is None else limit + 1, offset=offset, after=after)
        has_more = limit is not None and len(rows) > limit
        page_model: Any = Page.__class_getitem__(self.model)
        page: Page[M] = page_model.model_construct(
            rows=rows[:limit], total=totals.rows, totals=totals.sums, limit=limit, offset=offset, next=None
        )
        return page, keys[limit - 1] if has_more and limit else None


class FrameListing(Listing[M]):
    """Rows of the store. `sums` are columns of money that are summed by `currency`; `batches` are the rows, at most so many at a time."""

    def __init__(
        self,
        model: type[M],
        frame: pl.LazyFrame,
        order: Sequence[Order],
        *,
        sums: Sequence[str] = (),
        currency: pl.Expr | None = None,
        is_of_runs: bool = False,
        of_rows: Callable[[pl.DataFrame], list[M]] | None = None,
        names: Mapping[str, str] | None = None,
        batches: Callable[[int], Iterator[pl.DataFrame]] | None = None,
    ) -> None:
        self.model, self.order, self.is_of_runs = model, tuple(order), is_of_runs
        self._batches = batches
        self._frame, self._sums, self._names = frame, tuple(sums), dict(names or {})
        self._currency = pl.col("currency") if currency is None else currency
        self._of_rows = of_rows or (lambda rows: [model.model_validate(row) for row in rows.iter_rows(named=True)])

    def totals(self) -> Totals:
        """Number and sums of all rows."""
        return self._totals(self._totals_frame().collect())

    def slice(self, *, limit: int | None, offset: int = 0, after: Keys | None = None) -> tuple[list[M], list[Keys], Totals]:
        """Rows in order with their keys, and the totals."""
        schema = self._frame.collect_schema()
        frame = self._frame if after is None else self._frame.filter(_is_after(self.order, after, schema))
        columns, descending = [o.column for o in self.order], [o.descending for o in self.order]
        page = frame.sort(columns, descending=descending, nulls_last=True).slice(offset, limit)
        rows, totals = pl.collect_all([page, self._totals_frame()])
        return self._of_rows(rows), [list(keys) for keys in rows.select(columns).iter_rows()], self._totals(totals)

    def frames(self, totals: Totals) -> Iterator[pl.DataFrame]:
        """All rows in batches."""
        present = set(self._frame.collect_schema().names())
        names = {column: name for name in self.model.model_fields if (column := self._column(name)) in present}
        fields = [pl.col(column).alias(name) for column, name in names.items()]
        rows = self._frame.select(fields)
        yield pl.DataFrame(schema=rows.collect_schema())
        if self._batches is not None and totals.rows >= _MANY_ROWS:
            yield from (batch.select(fields) for batch in self._batches(BATCH_ROWS))
        else:
            yield from rows.collect_batches(chunk_size=BATCH_ROWS, engine="streaming")

    def _column(self, name: str) -> str:
        return next((column for column, field_name in self._names.items() if field_name == name), name)

    def _totals_frame(self) -> pl.LazyFrame:
        if not self._sums:
            return self._frame.select(rows=pl.len())
        by_currency = self._frame.group_by(self._currency.alias("__currency"))
        return by_currency.agg(pl.len().alias("rows"), *(pl.col(name).sum() for name in self._sums)).sort("__currency")

    def _totals(self, frame: pl.DataFrame) -> Totals:
        rows_with_currency = frame.filter(pl.col("__currency").is_not_null()) if self._sums else frame
        sums = {name: dict(rows_with_currency.select("__currency", name).iter_rows()) for name in self._sums}
        return Totals(int(frame["rows"].sum()), sums)


def _is_after(order: Sequence[Order], keys: Keys, schema: pl.Schema) -> pl.Expr:
    """Whether a row comes after the one with these keys: larger in the first column that differs, unknown values being the largest."""
    is_later, is_same = pl.lit(value=False), pl.lit(value=True)
    for by, value in zip(order, keys, strict=True):
        column = pl.col(by.column)
        if value is not None:
            literal = pl.lit(value, dtype=schema[by.column])
            larger = column < literal if by.descending else column > literal
            is_later = is_later | (is_same & (larger.fill_null(value=False) | column.is_null()))
            is_same = is_same & (column == literal).fill_null(value=False)
        else:
            is_same = is_same & column.is_null()
    return is_later


class SqlListing(Listing[M]):
    """Rows of the database. `order` names columns that are never null; `is_seen` leaves out rows that the principal may not see."""

    is_of_runs = False

    def __init__(
        self,
        database: Database,
        model: type[M],
        select: sa.Select[Any],
        order: Mapping[Order, InstrumentedAttribute[Any]],
        of_row: Callable[[Any], M],
        *,
        is_seen: Callable[[Any], bool] | None = None,
    ) -> None:
        self.model, self.order = model, tuple(order)
        self._database, self._select, self._columns, self._of_row, self._is_seen = database, select, order, of_row, is_seen

    def totals(self) -> Totals:
        """Number and sums of all rows."""
        with self._database.session() as session:
            if self._is_seen is None:
                return Totals(session.scalar(sa.select(sa.func.count()).select_from(self._select.subquery())) or 0)
            return Totals(sum(map(self._is_seen, session.scalars(self._select))))

    def slice(self, *, limit: int | None, offset: int = 0, after: Keys | None = None) -> tuple[list[M], list[Keys], Totals]:
        """Rows in order with their keys, and the totals."""
        stop = None if limit is None else offset + limit
        rows = list(islice(self._rows(after), offset, stop))
        return rows, [[getattr(row, by.column) for by in self.order] for row in rows], self.totals()

    def frames(self, totals: Totals) -> Iterator[pl.DataFrame]:
        """All rows in batches."""
        yield frame_of(self.model, [])
        rows = self._rows(None)
        while batch := list(islice(rows, _SQL_BATCH_ROWS)):
            yield frame_of(self.model, batch)

    def _rows(self, after: Keys | None) -> Iterator[M]:
        select = self._select.order_by(*(c.desc() if by.descending else c for by, c in self._columns.items()))
        if after is not None:
            is_later, is_same = sa.false(), sa.true()
            for (by, column), value in zip(self._columns.items(), after, strict=True):
                is_later = is_later | (is_same & (column < value if by.descending else column > value))
                is_same = is_same & (column == value)
            select = select.where(is_later)
        with self._database.session() as session:
            for row in session.scalars(select.execution_options(yield_per=_SQL_BATCH_ROWS)):
                if self._is_seen is None or self._is_seen(row):
                    yield self._of_row(row)


class ModelListing(Listing[M]):
    """Rows in memory, in order. A page goes on after the row with the same keys."""

    def __init__(self, model: type[M], rows: Sequence[M], order: Sequence[str], *, is_of_runs: bool = False) -> None:
        self.model, self.order, self.is_of_runs = model, tuple(map(Order, order)), is_of_runs
        self._rows = list(rows)

    def totals(self) -> Totals:
        """Number and sums of all rows."""
        return Totals(len(self._rows))

    def slice(self, *, limit: int | None, offset: int = 0, after: Keys | None = None) -> tuple[list[M], list[Keys], Totals]:
        """Rows in order with their keys, and the totals."""
        keys: list[Keys] = [[getattr(row, by.column) for by in self.order] for row in self._rows]
        if after is not None:
            if list(after) not in keys:
                raise RowGoneError("the row that the page before ended with is gone", where="cursor", remedy="ask without cursor")
            offset += keys.index(list(after)) + 1
        stop = None if limit is None else offset + limit
        return self._rows[offset:stop], keys[offset:stop], self.totals()

    def frames(self, totals: Totals) -> Iterator[pl.DataFrame]:
        """All rows in batches."""
        yield frame_of(self.model, self._rows)
