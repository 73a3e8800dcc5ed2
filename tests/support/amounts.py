"""Sums and differences of exact amounts in a column, as `Decimal`."""

from __future__ import annotations

from decimal import Decimal

import polars as pl


def sum_of(amounts: pl.Series) -> Decimal:
    """The sum of a decimal column; zero where it has no amounts. Raises `TypeError` where the column is not decimal."""
    if not isinstance(amounts.dtype, pl.Decimal):
        raise TypeError(f"{amounts.name} is {amounts.dtype}, not decimal")
    return Decimal(amounts.sum() or 0)


def largest_difference(left: pl.Series, right: pl.Series) -> Decimal | None:
    """The largest absolute difference of two decimal columns, row by row; None where no row has both."""
    difference = (left - right).abs().max()
    assert difference is None or isinstance(difference, Decimal)
    return difference
