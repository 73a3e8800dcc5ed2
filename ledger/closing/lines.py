"""Lines: the exact amounts of a month by owner, invoice and class, and the difference between two states of them. (TI-3)"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from ledger.money import MONEY

LINE_KEYS: Final = ("currency", "provider", "invoice_id", "team", "cost_class", "basis")
LINE_AMOUNTS: Final = ("billed_cost", "effective_cost")
LINE_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    **dict.fromkeys(LINE_KEYS, pl.String),
    **dict.fromkeys(LINE_AMOUNTS, MONEY),
}


def lines_of(costs: pl.LazyFrame) -> pl.DataFrame:
    """The lines of rows of `costs`. A team is the initiator's: it caused the cost. An amount is null where no row has the cost column."""
    team = pl.col("initiator_team").alias("team")
    return _summed(costs.select(*(team if name == "team" else pl.col(name) for name in LINE_KEYS), *LINE_AMOUNTS))


def sum_of_lines(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """All lines as one: equal keys are summed."""
    empty = pl.DataFrame(schema=LINE_SCHEMA)
    return _summed(pl.concat([empty, *(frame.select(*LINE_SCHEMA) for frame in frames)]).lazy())


def difference_of_lines(newer: pl.DataFrame, older: pl.DataFrame) -> pl.DataFrame:
    """What is to be booked so that the older lines become the newer ones; lines that stay as they are have none.

    >>> from decimal import Decimal
    >>> line = dict.fromkeys(LINE_KEYS, "x") | {"billed_cost": None, "effective_cost": Decimal("1.5")}
    >>> older, newer = (pl.DataFrame([line | {"effective_cost": Decimal(text)}], LINE_SCHEMA) for text in ("1.5", "1.2"))
    >>> difference_of_lines(newer, older)["effective_cost"].to_list(), difference_of_lines(older, older).height
    ([Decimal('-0.300000000000')], 0)
    """
    joined_lines = newer.join(older, on=LINE_KEYS, how="full", coalesce=True, nulls_equal=True, suffix="_older")
    zero = pl.lit(0).cast(MONEY)
    changes = joined_lines.select(
        *LINE_KEYS,
        *(
            pl.when(pl.col(name).is_not_null() | pl.col(f"{name}_older").is_not_null())
            .then(pl.col(name).fill_null(zero) - pl.col(f"{name}_older").fill_null(zero))
            .cast(MONEY)
            .alias(name)
            for name in LINE_AMOUNTS
        ),
    )
    return changes.filter(pl.any_horizontal(pl.col(name).fill_null(zero) != zero for name in LINE_AMOUNTS)).sort(LINE_KEYS)


def _summed(rows: pl.LazyFrame) -> pl.DataFrame:
    sums = [pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum()).cast(MONEY).alias(name) for name in LINE_AMOUNTS]
    return rows.group_by(LINE_KEYS).agg(sums).sort(LINE_KEYS).collect()
