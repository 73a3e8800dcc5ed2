"""Table definitions: typed columns with descriptions, a key, and the partitioning of files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import polars as pl

from ledger.errors import TableError
from ledger.money import MONEY, RATE


@dataclass(frozen=True, slots=True)
class Column:
    """One column: name, type, description, and whether it must not be null."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    required: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the ledger. `key` identifies a row; partitions by `partition_by` are replaced atomically."""

    name: str
    kind: Literal["fact", "conclusion"]
    description: str
    key: tuple[str, ...]
    partition_by: tuple[str, ...]
    columns: tuple[Column, ...] = field(repr=False)

    @cached_property
    def schema(self) -> dict[str, pl.DataType | type[pl.DataType]]:
        """Column names and types, in order."""
        return {c.name: c.dtype for c in self.columns}

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame as this table stores it: all columns, in order, typed; nulls where optional ones are missing. Text may be encoded as Enum.

        Raises `TableError` on an unknown column, a type that does not cast exactly, or a null in a required column.
        """
        schema, dtypes = self.schema, frame.schema
        unknown = [c for c in dtypes if c not in schema]
        if unknown:
            raise TableError(f"unknown columns {unknown}", where=self.name)
        missing = [c.name for c in self.columns if c.required and c.name not in dtypes]
        if missing:
            raise TableError(f"required columns {missing} are missing", where=self.name)
        floats = [n for n, t in dtypes.items() if t.is_float() and schema[n] in (MONEY, RATE)]
        if floats:
            raise TableError(f"money arrived as floating point in {floats}", where=self.name)
        try:
            rows = frame.select(_typed(c, dtypes.get(c.name)) for c in self.columns)
        except pl.exceptions.PolarsError as error:
            raise TableError(str(error), where=self.name) from error
        if rows.height:
            required_columns = [c.name for c in self.columns if c.required]
            empty = [n for n, count in rows.select(required_columns).null_count().row(0, named=True).items() if count]
            if empty:
                raise TableError(f"required columns {empty} hold nulls", where=self.name)
        return rows

    def empty(self) -> pl.DataFrame:
        """No rows, all columns."""
        return self._empty.clone()

    @cached_property
    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.schema)


def _typed(column: Column, dtype: pl.DataType | None) -> pl.Expr:
    """The column of a frame, where it has this type; nulls where the frame lacks it."""
    if dtype is None:
        return pl.lit(None, dtype=column.dtype).alias(column.name)
    is_encoded_text = column.dtype == pl.String and isinstance(dtype, pl.Enum)
    return pl.col(column.name) if is_encoded_text else pl.col(column.name).cast(column.dtype)
