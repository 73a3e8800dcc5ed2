"""How much money stands on evidence, on the table, on inference and on nothing, and what decides it. The parts sum to the total. (CA-5)

Each row of `costs` is classified (`api.queries.evidence.classes`). Metered money whose record does not prove how its counts are read is cut
out of its usage row by quantity, as a call is (`api.queries.shares`):

| usage row of 9 000 tokens, $0.09 | quantity | money | stands on |
|---|---|---|---|
| counted as the emitter table says | 6 000 | 0.06 | table |
| proven by their records | 3 000 | 0.03 | evidence |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from api.queries.costs import CostQuery, matching_costs
from api.queries.evidence.classes import COLUMNS, Decider, decider_of, weakest
from api.queries.gate import WHOLE, WholeBooks, published, scan_rollups
from ledger import money
from ledger.periods import month_start
from ledger.tables import COUNT_READINGS, TIME, TOKEN_METERS, USAGE_HOURLY

DECIDED_BY = ("evidence", "column", "value", "emitter", "emitter_version", "currency")
"""What tells two rows of the figure apart."""
AMOUNTS = ("cost", "cost_billed", "cost_estimated")
COUNTS = ("rows", "rows_without_cost", "calls_without_cost")

_KEYS = (*COLUMNS, "currency")
_USAGE = ("usage_key", "meter")
_READING = ("reading", "emitter", "emitter_version")
_MIN_RANK = 2
"""From inference on, how counts are read makes a row's evidence no weaker."""


@dataclass(frozen=True, slots=True)
class _Usage:
    """The usage rows that money may be allocated to: the parts whose reading is not proven, and their whole quantity and calls."""

    readings: pl.DataFrame
    whole: pl.LazyFrame
    months: tuple[datetime, ...]
    """First instants of the months whose usage is published."""

    def holds(self) -> pl.Expr:
        """Whether the usage of a row is published."""
        start = pl.col("usage_hour").dt.truncate("1mo")
        return start.is_in(pl.Series(self.months, dtype=TIME).implode()).fill_null(value=False)


def by_decider(books: WholeBooks, query: CostQuery) -> pl.DataFrame:
    """The query's money by what decides its evidence: DECIDED_BY, AMOUNTS, COUNTS; weakest last, then dearest first.

    The amounts of a currency sum to those of `costs` with the same query. `rows_without_cost` are rows whose cost column is unknown,
    `calls_without_cost` calls whose money is: unpriced ones, and those that a bill covers and does not name.
    """
    rows = matching_costs(books, query).select(
        *_KEYS, *_USAGE, "usage_hour", amount=pl.col(f"{query.basis}_cost"), is_usage=pl.col("usage_key").is_not_null()
    )
    frame = _classified(rows)
    usage = _usage_of(books, rows)
    parts = [*_split_by_reading(frame, usage), _calls_without_cost(frame, usage)]
    sums = (
        pl.concat(parts, how="diagonal_relaxed")
        .group_by("decider", *_READING[1:], "currency")
        .agg(*(pl.col(c).sum().cast(money.MONEY) for c in AMOUNTS), *(pl.col(c).sum().cast(pl.Int64) for c in COUNTS))
    )
    return _labelled(sums.filter(pl.col("rows") + pl.col("calls_without_cost") > 0))


def _classified(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows with the number of their decider in `decider` and its rank."""
    combinations = rows.select(COLUMNS).unique().collect()
    chosen = [weakest(zip(COLUMNS, row, strict=True)) for row in combinations.iter_rows()]
    table = combinations.with_columns(
        decider=pl.Series([f"{d.column}={d.value}" for d in chosen], dtype=pl.String),
        rank=pl.Series([d.rank for d in chosen], dtype=pl.Int64),
    )
    return rows.join(table.lazy(), on=list(COLUMNS), how="left", nulls_equal=True)


def _usage_of(books: WholeBooks, rows: pl.LazyFrame) -> _Usage:
    """The usage of the hours that the rows pay for."""
    first, last = rows.select(pl.col("usage_hour").min(), last=pl.col("usage_hour").max()).collect().row(0)
    months = [] if first is None else published(books, first, last + timedelta(hours=1))
    readings = (
        scan_rollups(books, COUNT_READINGS, months, WHOLE)
        .group_by(*_USAGE, *_READING)
        .agg(pl.col("quantity").sum())
        .collect(engine="streaming")
    )
    whole = scan_rollups(books, USAGE_HOURLY, months, WHOLE)
    if first is not None:
        whole = whole.filter(pl.col("hour").is_between(first, last))
    return _Usage(readings, whole, tuple(month_start(m.month) for m in months))


def _split_by_reading(frame: pl.LazyFrame, usage: _Usage) -> list[pl.DataFrame]:
    """Sums of the rows; those of usage whose reading is not proven are split over what decided it, exactly. (MO-1)"""
    keys = usage.readings.lazy().select(_USAGE).unique()
    may_be_weaker = (pl.col("rank") < _MIN_RANK) & pl.col("amount").is_not_null()
    is_token_use = pl.col("is_usage") & pl.col("meter").is_in(TOKEN_METERS)
    open_rows = frame.filter(may_be_weaker & is_token_use).join(keys, on=list(_USAGE), how="semi")
    own_rows = frame.join(keys.with_columns(is_open=pl.lit(value=True)), on=list(_USAGE), how="left", nulls_equal=False).filter(
        ~(may_be_weaker & is_token_use & pl.col("is_open").fill_null(value=False))
    )
    # A correction of very many rows names no usage row, and usage of an unpublished month is not at hand.
    is_metered = (pl.col("cost_class") == "metered") & pl.col("meter").is_in(TOKEN_METERS)
    has_no_usage = is_metered & may_be_weaker & ~usage.holds()
    own_rows = own_rows.with_columns(decider=pl.when(has_no_usage).then(pl.lit("reading=not_kept")).otherwise("decider"))
    own_sums = own_rows.group_by("decider", "currency").agg(_sums()).collect()
    return [own_sums, _split_rows(open_rows, usage)]


def _sums() -> list[pl.Expr]:
    """AMOUNTS and counts of rows with `basis` and `amount`."""
    amounts = {
        "cost": pl.lit(value=True),
        "cost_billed": pl.col("basis") == "billed",
        "cost_estimated": pl.col("basis") == "estimated",
    }
    return [
        *(pl.col("amount").filter(rows & pl.col("amount").is_not_null()).sum().alias(name) for name, rows in amounts.items()),
        pl.len().cast(pl.Int64).alias("rows"),
        pl.col("amount").is_null().sum().cast(pl.Int64).alias("rows_without_cost"),
    ]


def _split_rows(open_rows: pl.LazyFrame, usage: _Usage) -> pl.DataFrame:
    """The open rows over the readings of their usage row: each part by its quantity, what is proven by the remainder."""
    sums = (
        open_rows.group_by(*_USAGE, "decider", "rank", "basis", "currency")
        .agg(pl.col("amount").sum())
        .collect()
        .sort(*_USAGE, "decider", "basis", "currency")
        .with_row_index("row")
    )
    if not sums.height:
        return pl.DataFrame(schema=dict.fromkeys(("decider", "emitter", "emitter_version", "currency"), pl.String))
    quantities = usage.readings.join(sums.select(_USAGE).unique(), on=list(_USAGE), how="semi")
    read_sums = quantities.group_by(*_USAGE).agg(read=pl.col("quantity").sum())
    whole = usage.whole.join(read_sums.lazy(), on=list(_USAGE)).group_by(*_USAGE, "read").agg(pl.col("quantity").sum()).collect()
    proven = whole.select(*_USAGE, quantity=pl.max_horizontal(pl.col("quantity") - pl.col("read"), pl.lit(0)).cast(money.MONEY))
    parts = sums.join(pl.concat([quantities, proven], how="diagonal_relaxed"), on=list(_USAGE))
    parts = parts.filter(pl.col("quantity") > 0).with_columns(part=pl.col("reading").is_null())
    parts = parts.with_columns(weight=money.weights(parts, "quantity", "row"))
    shares = money.split(parts.lazy(), amounts=["amount"], weight="weight", pool="row", order_by=["part", *_READING]).collect()
    reading_ranks = {value: decider_of("reading", value).rank for value in shares["reading"].drop_nulls().unique()}
    reading_rank = pl.col("reading").replace_strict(reading_ranks, default=-1, return_dtype=pl.Int64)
    is_weaker = (reading_rank > pl.col("rank")).fill_null(value=False)
    shares = shares.with_columns(
        decider=pl.when(is_weaker).then(pl.concat_str(pl.lit("reading="), "reading")).otherwise("decider"),
        emitter=pl.when(is_weaker).then("emitter"),
        emitter_version=pl.when(is_weaker).then("emitter_version"),
    )
    return shares.group_by("decider", "emitter", "emitter_version", "currency").agg(_sums())


def _calls_without_cost(frame: pl.LazyFrame, usage: _Usage) -> pl.DataFrame:
    """Calls whose money is not known, by decider: of usage rows without a cost, or with 0 because nothing says what they cost."""
    is_unknown = pl.col("amount").is_null() | (pl.col("amount") == 0)
    unknown_rows = (
        frame.filter(pl.col("is_usage") & is_unknown & (pl.col("rank") > _MIN_RANK))
        .group_by("usage_key")
        .agg(pl.col("decider").min(), pl.col("currency").min())
    )
    calls = (
        usage.whole.join(unknown_rows, on="usage_key")
        .group_by("usage_key", "meter", "decider", "currency")
        .agg(pl.col("calls").sum())
        .group_by("usage_key", "decider", "currency")
        .agg(pl.col("calls").max())
    )
    return calls.group_by("decider", "currency").agg(calls_without_cost=pl.col("calls").sum()).collect()


def _labelled(sums: pl.DataFrame) -> pl.DataFrame:
    """Sums by decider as rows of the figure, in their order."""
    chosen: dict[str, Decider] = {name: decider_of(*name.split("=", 1)) for name in sums["decider"].unique()}
    names = pl.DataFrame(
        {
            "decider": list(chosen),
            "rank": [d.rank for d in chosen.values()],
            **{c: [getattr(d, c) for d in chosen.values()] for c in ("evidence", "column", "value", "meaning", "remedy")},
        },
        schema_overrides=dict.fromkeys(("decider", "evidence", "column", "value", "meaning", "remedy"), pl.String)
        | {"rank": pl.Int64},
    )
    frame = sums.join(names, on="decider", how="left")
    order = ["currency", "rank", "cost", "column", "value", "emitter", "emitter_version"]
    frame = frame.sort(order, descending=[False, False, True, *(False for _ in order[3:])], nulls_last=True)
    return frame.select(*DECIDED_BY, *AMOUNTS, *COUNTS, "meaning", "remedy")
