"""Hourly usage: the meters of calls summed by hour and every dimension. (RA-1)

Summed by integer codes; the words are put back on the sums, which are fewer than the calls.
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
    """The rows of `usage_hourly`, without the meter: `of` says in which each path is, `words` has what they are about, `key` names them."""

    of: Index
    key: NDArray[np.int64]
    words: pl.DataFrame


def assign_cells(calls: pl.DataFrame, paths: Paths, owners: Owners, kinds: EncodedRows, reasons: EncodedRows) -> Cells:
    """Puts each path into its cell: hour, owners, what was called and for what, and what is odd about it.

    `calls` has start_time, context_above and unpriced; `owners` and `reasons` are by path, `kinds` by call. A call without a price never
    hides among priced ones. (ES-2)
    """
    started = calls["start_time"].to_physical().to_numpy()
    hour_us = started - started % _HOUR_US
    since = hour_us.min() if len(hour_us) else 0
    hour = (hour_us - since) // _HOUR_US
    above, unpriced = calls["context_above"].fill_null(0), calls["unpriced"]
    tier, tiers = factorize.combine(len(above), [factorize.encode(above)] if above.n_unique() > 1 else [])
    by_call = [
        Codes(hour, int(hour.max()) + 1 if len(hour) else 1),
        Codes(kinds.of, kinds.table.height),
        Codes(tier, len(tiers)),
        factorize.encode_flags(unpriced.to_numpy()),
    ]
    by_path = [Codes(owners.of, owners.table.height), Codes(reasons.of, reasons.table.height)]
    of, first = factorize.combine(len(paths.call), [*(paths.gathered(part) for part in by_call), *by_path])
    call = paths.call[first]
    who, what, why = owners.of[first], kinds.of[call], reasons.of[first]
    tier_above, no_price = above.gather(call), unpriced.gather(call)
    key = usage_keys(
        hour_us[call].view(np.uint64),
        content_hashes(owners.table)[who],
        content_hashes(kinds.table)[what],
        content_hashes(reasons.table)[why],
        tier_above.cast(pl.UInt64).to_numpy(),
        no_price.cast(pl.UInt64).to_numpy(),
    )
    above_of_cell = pl.lit(0, dtype=pl.Int64) if not (tier_above > 0).any() else tier_above
    words = pl.concat(
        [
            pl.DataFrame({"hour": pl.Series(hour_us[call]).cast(TIME)}),
            factorize.decode(owners.table.select(WHO), who),
            factorize.decode(kinds.table, what),
            factorize.decode(reasons.table, why),
        ],
        how="horizontal",
    ).with_columns(context_above=above_of_cell)
    return Cells(of, key, words)


def sum_cells(calls: pl.DataFrame, paths: Paths, where: Cells, within: tuple[datetime, datetime] | None) -> pl.DataFrame:
    """Rows of `usage_hourly`: meter, quantity, calls and list cost of each cell, of calls that started `within`.

    A gateway cache hit used nothing at the provider. (CA-4)
    """
    counts = ~pl.col("cache_hit").fill_null(value=False)
    if within is not None:
        counts &= pl.col("start_time").is_between(*within, closed="left")
    used = calls.select(counts.alias("used")).to_series().to_numpy()
    forked = paths.numerator != paths.denominator
    plain = np.flatnonzero(used[paths.call] & ~forked)
    at, rows = where.of[plain], paths.call[plain]
    some = calls if len(rows) == calls.height else calls[rows]
    size = len(where.key)
    long = [_sum_meter(some, m, at, size) for m in factorize.non_null_columns(some, TOKEN_METERS)]
    if forked.any() or factorize.non_null_columns(calls, ["__other"]):
        long.append(_sum_rare_usage(calls, paths, where, used, forked))
    return (
        pl.concat([_with_dimensions(part, where) for part in long]) if long else USAGE_HOURLY.empty().drop("rollup_id", "month")
    )


def _sum_meter(calls: pl.DataFrame, meter: str, at: Index, size: int) -> pl.DataFrame:
    """One meter of calls with one path, summed by cell."""
    tokens = calls[meter]
    told = None if tokens.null_count() == 0 else tokens.is_not_null().to_numpy()
    total = np.zeros(size, dtype=np.int64)
    np.add.at(total, at, tokens.fill_null(0).to_numpy())
    cell = np.flatnonzero(total).astype(np.int32)
    counted = np.bincount(at if told is None else at[told], minlength=size)
    return pl.DataFrame(
        {
            "cell": cell,
            "quantity": _quantities(total[cell]),
            "calls": counted[cell].astype(np.int64),
        }
    ).with_columns(meter=pl.lit(meter), list_cost=_sum_cost(calls, f"__cost_{meter}", at, size, cell))


def _quantities(counts: NDArray[np.int64]) -> pl.Series:
    """Counts as quantities."""
    return pl.select((pl.lit(pl.Series(counts)).cast(pl.Int128) * _UNIT).reinterpret(dtype=MONEY)).to_series()


def _sum_cost(calls: pl.DataFrame, column: str, at: Index, size: int, cell: Index) -> pl.Series | pl.Expr:
    """List cost of some cells; null where no call of the cell has one."""
    if not factorize.non_null_columns(calls, [column]):
        return pl.lit(None, dtype=MONEY)
    cost = calls[column]
    units = cost.to_physical()
    bound = int(str(units.abs().sum()))
    if bound < 2**63:
        total = np.zeros(size, dtype=np.int64)
        np.add.at(total, at, units.cast(pl.Int64).fill_null(0).to_numpy())
        sums = pl.Series(total).cast(pl.Int128)
    else:
        found = pl.DataFrame({"cell": at, "units": units}).group_by("cell").agg(pl.col("units").sum())
        sums = pl.repeat(0, size, dtype=pl.Int128, eager=True).scatter(found["cell"], found["units"])
    money = sums.reinterpret(dtype=MONEY).gather(cell)
    if not cost.null_count():
        return money
    priced = np.zeros(size, dtype=bool)
    priced[at[cost.is_not_null().to_numpy()]] = True
    return money.set(pl.Series(~priced[cell]), None)


def _sum_rare_usage(
    calls: pl.DataFrame, paths: Paths, where: Cells, used: NDArray[np.bool_], forked: NDArray[np.bool_]
) -> pl.DataFrame:
    """What few calls have: meters that are no columns, and calls whose cost goes several ways; summed by cell and meter."""
    said = pl.Series(used).to_frame("used").with_row_index("call").filter("used")["call"].cast(pl.Int32)
    split_calls = np.unique(paths.call[forked])
    tokens = _token_rows(calls, pl.Series(split_calls).cast(pl.Int32))
    other = other_meters(calls.select("__other", "list_cost", call=pl.int_range(pl.len(), dtype=pl.Int32))).select(tokens.columns)
    rows = pl.concat([tokens, other]).filter(pl.col("quantity") != 0, pl.col("call").is_in(said.implode()))
    ways = pl.DataFrame(
        {"call": paths.call, "place": paths.place, "numerator": paths.numerator, "cell": where.of, "key": where.key[where.of]}
    )
    rows = rows.join(ways, on="call")
    rows = split_by_path(rows, pool=["call", "meter"])
    return (
        rows.group_by("cell", "meter")
        .agg(
            pl.col("quantity").sum(),
            calls=(pl.col("place") == 0).sum().cast(pl.Int64),
            list_cost=pl.when(pl.col("list_cost").is_not_null().any()).then(pl.col("list_cost").sum()),
        )
        .filter(pl.col("quantity") != 0)
        .select("cell", "meter", "quantity", "calls", "list_cost")
        .with_columns(pl.col("cell").cast(pl.Int32))
    )


def split_by_path(rows: pl.DataFrame, *, pool: Sequence[str]) -> pl.DataFrame:
    """Quantities and list costs over the ways they go, by the weights of the ways, exactly. (CH-1, MO-1)

    Ways go in the order of their usage keys, so that whoever splits a call again gets the same parts.
    """
    unpriced = pl.col("list_cost").is_null()
    out = split(
        rows.lazy().with_columns(__unpriced=unpriced, list_cost=pl.col("list_cost").fill_null(0)),
        amounts=["quantity", "list_cost"],
        weight="numerator",
        pool=pool,
        order_by=["key", "numerator"],
    ).collect()
    return out.with_columns(list_cost=pl.when(~pl.col("__unpriced")).then("list_cost")).drop("__unpriced")


def _token_rows(calls: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """The token meters of some calls as rows: call, meter, quantity, list_cost."""
    some = calls[rows]
    parts = [
        pl.DataFrame({"call": rows, "quantity": some[m].cast(MONEY), "list_cost": some[f"__cost_{m}"].cast(MONEY)}).select(
            "call", pl.lit(m).alias("meter"), "quantity", "list_cost"
        )
        for m in TOKEN_METERS
    ]
    return pl.concat(parts).filter(pl.col("quantity").is_not_null())


def _with_dimensions(part: pl.DataFrame, where: Cells) -> pl.DataFrame:
    """The sums with the words and names of their cells."""
    cell = part["cell"].to_numpy()
    everywhere = len(cell) == len(where.key) and bool((cell[1:] > cell[:-1]).all())
    words, key = (where.words, where.key) if everywhere else (where.words[cell], where.key[cell])
    sums = part.select("meter", "quantity", "calls", "list_cost").with_columns(usage_key=pl.Series(key))
    return pl.concat([words, sums], how="horizontal")
