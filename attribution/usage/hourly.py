"""Hourly usage: the meters of calls summed by hour and every dimension. (RA-1)

Sums are grouped by integer codes; the dimensions are joined to the sums, which are far fewer than the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution import factorize
from attribution.chains.ancestry import Paths
from attribution.chains.identity import Owners
from attribution.columns import WHO
from attribution.factorize import Codes, Index
from attribution.pricing import other_meters
from attribution.usage.dimensions import EncodedRows, content_hashes, usage_keys
from ledger.money import MONEY, SCALE, split
from ledger.tables import TIME, TOKEN_METERS, USAGE_HOURLY

_UNIT = pl.lit(10**SCALE, dtype=pl.Int128)
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Cells:
    """Groups of `usage_hourly` without the meter: `code` is the cell of each path, `dimensions` the columns of each cell, `keys` its usage key."""

    code: Index
    keys: NDArray[np.int64]
    dimensions: pl.DataFrame


def assign_cells(calls: pl.DataFrame, paths: Paths, owners: Owners, dimensions: EncodedRows, reasons: EncodedRows) -> Cells:
    """Assigns each path to its cell: hour, owners, dimensions, context tier, reasons, whether it has a price, and the hour of its end.

    `calls` has start_time, end_time, context_above and unpriced; `owners` and `reasons` are by path, `dimensions` by call. Unpriced calls
    (ES-2), and calls that ended in a later hour than they started in (RA-3), have cells of their own.
    """
    start_us = calls["start_time"].to_physical().to_numpy()
    hour_us = start_us - start_us % _HOUR_US
    end_hour_us = _end_hours_us(calls, hour_us)
    first_hour_us = hour_us.min() if len(hour_us) else 0
    hour = (hour_us - first_hour_us) // _HOUR_US
    call_context, is_unpriced = calls["context_above"].fill_null(0), calls["unpriced"]
    tier, tiers = factorize.combine(len(call_context), [factorize.encode(call_context)] if call_context.n_unique() > 1 else [])
    by_call = [
        Codes(hour, int(hour.max()) + 1 if len(hour) else 1),
        Codes(dimensions.code, dimensions.table.height),
        Codes(tier, len(tiers)),
        factorize.encode_flags(is_unpriced.to_numpy()),
        *([_encode_rare(end_hour_us)] if end_hour_us.any() else []),
    ]
    by_path = [Codes(owners.code, owners.table.height), Codes(reasons.code, reasons.table.height)]
    cell, first = factorize.combine(len(paths.call), [*(paths.by_path(part) for part in by_call), *by_path])
    call = paths.call[first]
    owner_code, dimension_code, reason_code = owners.code[first], dimensions.code[call], reasons.code[first]
    cell_context, cell_unpriced = call_context.gather(call), is_unpriced.gather(call)
    keys = usage_keys(
        hour_us[call].view(np.uint64),
        content_hashes(owners.table)[owner_code],
        content_hashes(dimensions.table)[dimension_code],
        content_hashes(reasons.table)[reason_code],
        cell_context.cast(pl.UInt64).to_numpy(),
        cell_unpriced.cast(pl.UInt64).to_numpy(),
        end_hour_us[call].view(np.uint64),
    )
    context_above = pl.lit(0, dtype=pl.Int64) if not (cell_context > 0).any() else cell_context
    cell_dimensions = pl.concat(
        [
            pl.DataFrame({"hour": pl.Series(hour_us[call]).cast(TIME)}),
            factorize.decode(owners.table.select(WHO), owner_code),
            factorize.decode(dimensions.table, dimension_code),
            factorize.decode(reasons.table, reason_code),
        ],
        how="horizontal",
    ).with_columns(context_above=context_above, end_hour=_instants(end_hour_us[call]))
    return Cells(cell, keys, cell_dimensions)


def _end_hours_us(calls: pl.DataFrame, hour_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """The hour in which each call ended, in microseconds; 0 where that is the hour of its start, or not known. (RA-3)"""
    end_us = calls["end_time"].cast(TIME).to_physical().fill_null(0).to_numpy()
    return np.where(end_us >= hour_us + _HOUR_US, end_us - end_us % _HOUR_US, 0)


def _encode_rare(values: NDArray[np.int64]) -> Codes:
    """Codes of values that are nearly all 0.

    >>> _encode_rare(np.array([0, 7, 0, 5, 7])).code.tolist()
    [0, 2, 0, 1, 2]
    """
    rows = np.flatnonzero(values)
    distinct, code_of_row = np.unique(values[rows], return_inverse=True)
    code = np.zeros(len(values), dtype=np.int32)
    code[rows] = code_of_row + 1
    return Codes(code, len(distinct) + 1)


def _instants(hours_us: NDArray[np.int64]) -> pl.Series | pl.Expr:
    """Hours in microseconds as instants; null for 0."""
    if not hours_us.any():
        return pl.lit(None, dtype=TIME)
    return pl.Series(hours_us).replace(0, None).cast(TIME)


def sum_cells(calls: pl.DataFrame, paths: Paths, cells: Cells, period: tuple[datetime, datetime] | None) -> pl.DataFrame:
    """Rows of `usage_hourly`: meter, quantity, calls and list cost of each cell, of calls that started within `period`.

    A gateway cache hit used nothing at the provider. (CA-4)
    """
    counted_expr = ~pl.col("cache_hit").fill_null(value=False)
    if period is not None:
        counted_expr &= pl.col("start_time").is_between(*period, closed="left")
    is_counted = calls.select(counted_expr.alias("used")).to_series().to_numpy()
    is_shared = paths.numerator != paths.denominator
    path_rows = np.flatnonzero(is_counted[paths.call] & ~is_shared)
    cell, rows = cells.code[path_rows], paths.call[path_rows]
    single_path_calls = calls if len(rows) == calls.height else calls[rows]
    size = len(cells.keys)
    parts = [_sum_meter(single_path_calls, m, cell, size) for m in factorize.non_null_columns(single_path_calls, TOKEN_METERS)]
    if is_shared.any() or factorize.non_null_columns(calls, ["__other"]):
        parts.append(_sum_rare_usage(calls, paths, cells, is_counted, is_shared))
    return (
        pl.concat([_with_dimensions(part, cells) for part in parts]) if parts else USAGE_HOURLY.empty().drop("rollup_id", "month")
    )


def _sum_meter(calls: pl.DataFrame, meter: str, cell_of_call: Index, size: int) -> pl.DataFrame:
    """One meter of calls with one path, summed by cell."""
    tokens = calls[meter]
    is_reported = None if tokens.null_count() == 0 else tokens.is_not_null().to_numpy()
    total = np.zeros(size, dtype=np.int64)
    np.add.at(total, cell_of_call, tokens.fill_null(0).to_numpy())
    cell = np.flatnonzero(total).astype(np.int32)
    call_counts = np.bincount(cell_of_call if is_reported is None else cell_of_call[is_reported], minlength=size)
    return pl.DataFrame(
        {
            "cell": cell,
            "quantity": _quantities(total[cell]),
            "calls": call_counts[cell].astype(np.int64),
        }
    ).with_columns(meter=pl.lit(meter), list_cost=_sum_cost(calls, meter, cell_of_call, size, cell))


def _quantities(counts: NDArray[np.int64]) -> pl.Series:
    """Integer counts as exact decimals."""
    return pl.select((pl.lit(pl.Series(counts)).cast(pl.Int128) * _UNIT).reinterpret(dtype=MONEY)).to_series()


def _sum_cost(calls: pl.DataFrame, meter: str, cell_of_call: Index, size: int, cell: Index) -> pl.Series | pl.Expr:
    """The list cost of these cells; null where a call of the cell used some of the meter and has none. (ES-2)

    >>> calls = pl.DataFrame({"input_tokens": [0, 9, 5], "__cost_input_tokens": pl.Series([0, None, 2], dtype=MONEY)})
    >>> _sum_cost(calls, "input_tokens", np.array([0, 0, 1]), 2, np.array([0, 1])).to_list()
    [None, Decimal('2.000000000000')]
    """
    column = f"__cost_{meter}"
    if not factorize.non_null_columns(calls, [column]):
        return pl.lit(None, dtype=MONEY)
    cost = calls[column]
    units = cost.to_physical()
    bound = int(str(units.abs().sum()))
    if bound < 2**63:
        total = np.zeros(size, dtype=np.int64)
        np.add.at(total, cell_of_call, units.cast(pl.Int64).fill_null(0).to_numpy())
        sums = pl.Series(total).cast(pl.Int128)
    else:
        exact_sums = pl.DataFrame({"cell": cell_of_call, "units": units}).group_by("cell").agg(pl.col("units").sum())
        sums = pl.repeat(0, size, dtype=pl.Int128, eager=True).scatter(exact_sums["cell"], exact_sums["units"])
    money = sums.reinterpret(dtype=MONEY).gather(cell)
    if not cost.null_count():
        return money
    is_unpriced = np.zeros(size, dtype=bool)
    is_unpriced[cell_of_call[(cost.is_null() & (calls[meter].fill_null(0) != 0)).to_numpy()]] = True
    return money.set(pl.Series(is_unpriced[cell]), None)


def _sum_rare_usage(
    calls: pl.DataFrame, paths: Paths, cells: Cells, is_counted: NDArray[np.bool_], is_shared: NDArray[np.bool_]
) -> pl.DataFrame:
    """Usage of the few calls with several paths, and meters without a column; summed by cell and meter."""
    counted_calls = pl.Series(is_counted).to_frame("used").with_row_index("call").filter("used")["call"].cast(pl.Int32)
    split_calls = np.unique(paths.call[is_shared])
    tokens = _token_rows(calls, pl.Series(split_calls).cast(pl.Int32))
    other = other_meters(calls.select("__other", "list_cost", call=pl.int_range(pl.len(), dtype=pl.Int32))).select(tokens.columns)
    rows = pl.concat([tokens, other]).filter(pl.col("quantity") != 0, pl.col("call").is_in(counted_calls.implode()))
    path_weights = pl.DataFrame(
        {
            "call": paths.call,
            "place": paths.place,
            "numerator": paths.numerator,
            "cell": cells.code,
            "key": cells.keys[cells.code],
        }
    )
    rows = rows.join(path_weights, on="call")
    rows = split_by_path(rows, pool=["call", "meter"])
    return (
        rows.group_by("cell", "meter")
        .agg(
            pl.col("quantity").sum(),
            calls=(pl.col("place") == 0).sum().cast(pl.Int64),
            list_cost=pl.when(pl.col("list_cost").is_not_null().all()).then(pl.col("list_cost").sum()),
        )
        .filter(pl.col("quantity") != 0)
        .select("cell", "meter", "quantity", "calls", "list_cost")
        .with_columns(pl.col("cell").cast(pl.Int32))
    )


def split_by_path(rows: pl.DataFrame, *, pool: Sequence[str]) -> pl.DataFrame:
    """Splits quantities and list costs over paths by their weights, exactly. (CH-1, MO-1)

    Paths are ordered by usage key, so that every split of a call gives the same parts.
    """
    is_unpriced = pl.col("list_cost").is_null()
    shares = split(
        rows.lazy().with_columns(__unpriced=is_unpriced, list_cost=pl.col("list_cost").fill_null(0)),
        amounts=["quantity", "list_cost"],
        weight="numerator",
        pool=pool,
        order_by=["key", "numerator"],
    ).collect()
    return shares.with_columns(list_cost=pl.when(~pl.col("__unpriced")).then("list_cost")).drop("__unpriced")


def _token_rows(calls: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """The token meters of these calls as rows: call, meter, quantity, list_cost."""
    calls_of_rows = calls[rows]
    parts = [
        pl.DataFrame(
            {"call": rows, "quantity": calls_of_rows[m].cast(MONEY), "list_cost": calls_of_rows[f"__cost_{m}"].cast(MONEY)}
        ).select("call", pl.lit(m).alias("meter"), "quantity", "list_cost")
        for m in TOKEN_METERS
    ]
    return pl.concat(parts).filter(pl.col("quantity").is_not_null())


def _with_dimensions(part: pl.DataFrame, cells: Cells) -> pl.DataFrame:
    """Joins the dimensions and usage keys of the cells to their sums."""
    cell = part["cell"].to_numpy()
    is_identity = len(cell) == len(cells.keys) and bool((cell[1:] > cell[:-1]).all())
    dimensions, key = (cells.dimensions, cells.keys) if is_identity else (cells.dimensions[cell], cells.keys[cell])
    sums = part.select("meter", "quantity", "calls", "list_cost").with_columns(usage_key=pl.Series(key))
    return pl.concat([dimensions, sums], how="horizontal")
