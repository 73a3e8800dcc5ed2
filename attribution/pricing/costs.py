"""Costs of calls at list price: whole columns times gathered rates, exact.

A cost is tokens times rate, rounded half to even at twelve decimals a meter. Almost every rate is a whole number of 10^-12 dollars,
and then the product of two 64-bit integers is already the cost; other rates are multiplied at their own scale and rounded, in 64 bits
where the largest product fits and in 128 where it does not. Meters without usage are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import polars as pl

from attribution.pricing.cells import Cell, Cells
from ledger.money import MONEY, SCALE

_FINEST = 18
"""Decimals a rate has at most: the scale of `ledger.money.RATE`."""
_INT64 = 2**63 - 1
_DEAREST = Decimal(10) ** 7
"""More than a token can cost; below it, 10^12 tokens at 18 decimals fit 128 bits."""


class Units(NamedTuple):
    """Costs of one meter in whole 10^-12 units, null where unpriced or not used, and the largest of them."""

    cost: pl.Series
    largest: int
    complete: bool
    """Whether every call that used the meter has a price for it."""


def meter_costs(calls: pl.DataFrame, cell_table: Cells, meters: Sequence[str]) -> dict[str, Units]:
    """Cost of each meter of each call; see `Units`. `cell_table` has the cell of each call."""
    present = np.zeros(len(cell_table.table), dtype=bool)
    present[cell_table.cell_of.to_numpy()] = True
    free = calls["cache_hit"].fill_null(value=False) if "cache_hit" in calls.columns and calls["cache_hit"].any() else None
    cell_numbers = np.flatnonzero(present)
    units = {}
    for meter in meters:
        rates = [_rate(cell_table.table[cell], meter) for cell in cell_numbers]
        units[meter] = _units(calls[meter], rates, cell_numbers, cell_table, free)
    return units


def _rate(cell: Cell, meter: str) -> Decimal | None:
    rate = cell.sold_by.rate(meter, cell.sale)
    return rate if rate is None or rate < _DEAREST else None


def _units(
    tokens: pl.Series, rates: list[Decimal | None], cell_numbers: np.ndarray, cell_table: Cells, free: pl.Series | None
) -> Units:
    """Tokens times rates; `cell_numbers` are the cells of the rates."""
    known_rates = [r for r in rates if r is not None]
    scale = min(_FINEST, max([SCALE, *(_decimals(r) for r in known_rates)]))
    whole: list[int | None] = [None] * len(cell_table.table)
    for cell, rate in zip(cell_numbers, rates, strict=True):
        whole[cell] = None if rate is None else int(rate.scaleb(scale).to_integral_value())
    most = tokens.max()
    largest = (most if isinstance(most, int) else 0) * max([0, *(w for w in whole if w is not None)])
    wide = pl.Int64 if 4 * largest < _INT64 else pl.Int128
    step = 10 ** (scale - SCALE)
    cost = tokens.cast(wide) * pl.Series(whole, dtype=wide).gather(cell_table.cell_of)
    if step > 1:
        cost = _rounded(cost, step)
    complete = len(known_rates) == len(rates)
    is_free = None if complete else tokens == 0
    if free is not None:
        is_free = (free & tokens.is_not_null()) if is_free is None else is_free | (free & tokens.is_not_null())
    if is_free is not None:
        zero = pl.lit(0, dtype=wide)
        cost = pl.select(pl.when(is_free.fill_null(value=False)).then(zero).otherwise(cost)).to_series()
    return Units(cost, largest // step + 1, complete or cost.null_count() == tokens.null_count())


def _decimals(rate: Decimal) -> int:
    """Digits after the point that matter.

    >>> _decimals(Decimal("0.000002500000000000")), _decimals(Decimal("1.38E-5"))
    (7, 7)
    """
    exponent = rate.normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _rounded(product: pl.Series, step: int) -> pl.Series:
    """Product / step, half to even, for products from 0 up."""
    divisor = pl.lit(step, dtype=product.dtype)
    whole = pl.lit(product) // divisor
    double_remainder = 2 * (pl.lit(product) - whole * divisor)
    return pl.select(
        whole + ((double_remainder > divisor) | ((double_remainder == divisor) & (whole % 2 == 1))).cast(pl.Int8)
    ).to_series()


def money(units: pl.Series) -> pl.Series:
    """Whole 10^-12 units as MONEY: the same 128-bit integers under another name.

    >>> money(pl.Series([1_500_000_000_000, None])).to_list()
    [Decimal('1.500000000000'), None]
    """
    return units.cast(pl.Int128).reinterpret(dtype=MONEY)


def total_units(
    calls: pl.DataFrame, units: dict[str, Units], extra: pl.Series | None = None, unknown: pl.Series | None = None
) -> pl.Series:
    """Total cost of each call in whole units: null where nothing was used or something that was used has no price.

    `extra` is added (null: nothing), `unknown` marks calls that used something else without a price.
    """
    wide = pl.Int64 if sum(u.largest for u in units.values()) < _INT64 and extra is None else pl.Int128
    columns = [s for m, u in units.items() for s in (u.cost.alias(f"__u_{m}"), calls[m])]
    frame = pl.DataFrame(height=calls.height).with_columns(columns)
    sums = [pl.col(f"__u_{m}").fill_null(0).cast(wide) for m in units]
    always = any(calls[m].null_count() == 0 for m in units) and calls.height > 0
    used = pl.lit(value=True) if always else pl.any_horizontal(pl.lit(value=False), *(pl.col(m).is_not_null() for m in units))
    lacking = [pl.col(m).is_not_null() & pl.col(f"__u_{m}").is_null() for m, u in units.items() if not u.complete]
    if extra is not None:
        frame = frame.with_columns(__extra=extra)
        sums.append(pl.col("__extra").fill_null(0).cast(wide))
        used = used | pl.col("__extra").is_not_null()
    if unknown is not None:
        frame = frame.with_columns(__unknown=unknown)
        lacking.append(pl.col("__unknown"))
        used = used | pl.col("__unknown")
    amount = pl.sum_horizontal(sums) if sums else pl.lit(0, dtype=wide)
    sound = used & ~pl.any_horizontal(lacking) if lacking else used
    return frame.with_columns(list_cost=pl.when(sound).then(amount))["list_cost"]  # by column: without any, a literal is one row
