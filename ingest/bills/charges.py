"""Conversion of named columns to rows of the table `charges`: types, checks, tags. Every bill source uses these steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from ingest.bills import float_money
from ingest.bills.checks import Check, apply_checks
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.bills.reader import parse_times
from ingest.problem_counter import ProblemCounter
from ingest.source import Reading
from ledger import money
from ledger.money import MONEY, RATE
from ledger.tables import CHARGES, COST_COLUMNS, TIME

_RATES = tuple(n for n, t in CHARGES.schema.items() if t == RATE)
_AMOUNTS = tuple(n for n, t in CHARGES.schema.items() if t == MONEY)
_TIMES = ("charge_period_start", "charge_period_end")
MEASURES = (*_AMOUNTS, *_TIMES, "billing_period_start")
"""Columns whose values differ from row to row. All others are dimensions, including unit prices, since their values repeat."""


def parse_types(batch: BillBatch) -> BillBatch:
    """Parses text as money, rates and times.

    Each cost column becomes MONEY; its original text is in ``<column>__text`` and, where it has more than twelve decimals, also in
    ``<column>__written``. Other amounts become MONEY or RATE. Invalid numbers and times become null; `check_required` reports them.
    """
    rows = batch.rows
    costs = [name for name in COST_COLUMNS if name in rows.columns]
    amounts = [name for name in _AMOUNTS if name in rows.columns and name not in costs]
    times = [name for name in (*_TIMES, "billing_period_start") if name in rows.columns]
    columns: list[pl.Series | pl.Expr] = [pl.col(name).alias(f"{name}__text") for name in (*costs, *times)]
    converted_columns: list[tuple[pl.Series, pl.Series, pl.Series | None]] = []
    for name in (*costs, *amounts):
        column = rows[name]
        # On most bills several cost columns are equal: equal columns are converted once.
        equal_column = next(
            (entry for entry in converted_columns if entry[0].dtype == column.dtype and entry[0].equals(column)), None
        )
        amount, long_texts = equal_column[1:] if equal_column else _amount(column)
        if not equal_column:
            converted_columns.append((column, amount, long_texts))
        columns.append(amount.alias(name))
        if name in costs:
            extra_digits = pl.lit(None, dtype=pl.String) if long_texts is None else long_texts
            columns.append(extra_digits.alias(f"{name}__written"))
    columns += [parse_times(rows[name]).alias(name) for name in times]
    rates = [name for name in _RATES if name in batch.dimensions.columns]
    dimensions = batch.dimensions.with_columns(pl.col(name).str.strip_chars().cast(RATE, strict=False) for name in rates)
    return BillBatch(rows.with_columns(columns), dimensions)


def _amount(column: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """MONEY, and the texts that have more decimals than MONEY holds."""
    if column.dtype == pl.Float64:
        return float_money.as_money(column)
    text = pl.col("text")
    amounts = (
        column.cast(pl.String)
        .to_frame()
        .select(text=pl.first())
        .select(money.parse(text).alias("kept"), money.beyond_twelve_places(text).alias("written"))
    )
    return amounts["kept"], amounts["written"] if amounts["written"].null_count() < len(column) else None


def check_required(batch: BillBatch, names: Mapping[str, str], counter: ProblemCounter, extra: Sequence[Check] = ()) -> BillBatch:
    """The rows that can be stored. `names` maps ledger columns to the file's own, for the problems' `field`."""

    def source_name(ledger_name: str) -> str:
        return names.get(ledger_name, ledger_name)

    checks = [
        *(
            Check(
                source_name(name),
                pl.col(f"{name}__text").is_not_null() & pl.col(name).is_null(),
                "is no amount",
                "write plain digits with a decimal point, at most 21 before it",
                f"{name}__text",
            )
            for name in COST_COLUMNS
        ),
        Check(
            source_name("billed_cost"),
            pl.col("billed_cost").is_null(),
            "the charge has no amount",
            "every row needs a billed cost, 0 if it is free",
        ),
        Check(
            source_name("billing_currency"),
            pl.col("billing_currency").is_null(),
            "the currency is missing",
            "every row needs its billing currency",
        ),
        *(
            Check(source_name(name), pl.col(name).is_null(), "is no time", "write it as 2026-10-31T23:00:00Z", f"{name}__text")
            for name in (*_TIMES, "billing_period_start")
        ),
        Check(
            source_name("charge_period_end"),
            pl.col("charge_period_end") < pl.col("charge_period_start"),
            "is before the charge's start",
            "the end of a charge period is exclusive and not before its start",
            "charge_period_end__text",
        ),
        Check(
            source_name("provider_name"),
            pl.col("provider_name").is_null(),
            "the provider is missing",
            "every row needs the provider's name",
        ),
        *extra,
    ]
    return apply_checks(batch, checks, counter)


def to_charges(batch: BillBatch) -> BillBatch:
    """The columns of the table `charges`, plus the original text of costs; `line` and `billing_month` are filled in."""
    starts = batch.rows["billing_period_start"]
    month = pl.lit(starts[0].strftime("%Y-%m")) if starts.n_unique() == 1 else pl.col(starts.name).dt.strftime("%Y-%m")
    rows = batch.rows.with_columns(billing_month=month, line=pl.col("__row"))
    columns = [name for name in CHARGES.schema if name in rows.columns]
    return BillBatch(
        rows.select(DIMENSIONS_ROW, *columns, *(f"{name}__written" for name in COST_COLUMNS)),
        batch.dimensions.select(name for name in CHARGES.schema if name in batch.dimensions.columns),
    )


def empty() -> pl.DataFrame:
    """No charges: the frame of the last reading, which carries a file's summed problems."""
    return pl.DataFrame(
        schema={"billing_month": pl.String, "billing_currency": pl.String, "provider_name": pl.String}
        | dict.fromkeys(COST_COLUMNS, MONEY)
        | {f"{name}__written": pl.String for name in COST_COLUMNS}
        | dict.fromkeys(_TIMES, TIME)
    )


def last_reading(counter: ProblemCounter) -> Reading:
    """The reading that ends a file of a bill: the problems that are still open, and whether the file breaks off before its end. (RA-1e)"""
    return Reading(empty(), [*counter.drain(), *counter.summed_problems()], broken_off=counter.broken_off)


def canonical_tags(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """JSON objects in canonical form: sorted keys, no spaces, numbers as written. Also a mask of the texts that are not objects.

    >>> tags, wrong = canonical_tags(pl.Series(['{"b": 1.50, "a": "x"}', "{}", "team=x", None]))
    >>> tags.to_list(), wrong.to_list()
    (['{"a":"x","b":"1.50"}', None, None, None], [False, False, True, False])
    """
    distinct = column.unique().drop_nulls()
    canonical = [_canonical_object(text) for text in distinct]
    tags = column.replace_strict(
        distinct, pl.Series([s or None for s in canonical], dtype=pl.String), default=None, return_dtype=pl.String
    )
    wrong = column.is_in(pl.Series([w for w, s in zip(distinct, canonical, strict=True) if s is None], dtype=pl.String).implode())
    return tags, wrong.fill_null(False)


def report_bad_tags(
    batch: BillBatch, wrong: pl.Series, column: str, field: str, consequence: str, remedy: str, counter: ProblemCounter
) -> None:
    """Reports the rows whose tags are no JSON object; `wrong` is a mask of the dimensions."""
    if wrong.any():
        bad = batch.filter(wrong.gather(batch.rows[DIMENSIONS_ROW]))
        values, reason = bad.expand(pl.col(column)), f"is no JSON object; {consequence}"
        if len(values):
            counter.add_rows(bad.rows["__line"], values, field, reason, remedy, severity="warning")


def _canonical_object(text: str) -> str | None:
    r"""The canonical form of a JSON object; empty for an empty one; None if it is not an object.

    Half of a character that an escape names is replaced, since UTF-8 cannot carry it.

    >>> _canonical_object(r'{"a": "\ud83d"}'), _canonical_object("[" * 100_000), _canonical_object("9" * 5000)
    ('{"a":"?"}', None, None)
    """
    try:
        value = json.loads(text, parse_float=str)
        if not isinstance(value, dict):
            return None
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if value else ""
    except (ValueError, RecursionError):
        return None
    return canonical.encode("utf-8", "replace").decode()
