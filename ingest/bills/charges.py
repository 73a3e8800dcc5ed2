"""What every bill needs done to its rows, once they are named as `to_charges` names them: types, checks, tags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from ingest.bills import float_money
from ingest.bills.checks import Check, apply_checks
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.bills.reader import parse_times
from ingest.problem_counter import ProblemCounter
from ledger import money
from ledger.money import MONEY, RATE
from ledger.tables import CHARGES, COST_COLUMNS, TIME

_RATES = tuple(n for n, t in CHARGES.schema.items() if t == RATE)
_AMOUNTS = tuple(n for n, t in CHARGES.schema.items() if t == MONEY)
_TIMES = ("charge_period_start", "charge_period_end")
MEASURES = (*_AMOUNTS, *_TIMES, "billing_period_start")
"""What each line says for itself. All else are words, unit prices too: they repeat."""


def parse_types(lines: BillBatch) -> BillBatch:
    """Texts as money, rates and instants.

    Each cost column becomes MONEY, with what was written beside it in ``<column>__text`` and, where that says more than twelve
    places, in ``<column>__written``. Other amounts become MONEY or RATE. What is no number or time becomes null; `check_required` tells.
    """
    rows = lines.rows
    costs = [name for name in COST_COLUMNS if name in rows.columns]
    amounts = [name for name in _AMOUNTS if name in rows.columns and name not in costs]
    times = [name for name in (*_TIMES, "billing_period_start") if name in rows.columns]
    kept: list[pl.Series | pl.Expr] = [pl.col(name).alias(f"{name}__text") for name in (*costs, *times)]
    done: list[tuple[pl.Series, pl.Series, pl.Series | None]] = []
    for name in (*costs, *amounts):
        column = rows[name]
        # Most bases cost the same on most bills: what is equal is converted once.
        same = next((found for found in done if found[0].dtype == column.dtype and found[0].equals(column)), None)
        amount, written = same[1:] if same else _amount(column)
        if not same:
            done.append((column, amount, written))
        kept.append(amount.alias(name))
        if name in costs:
            beyond = pl.lit(None, dtype=pl.String) if written is None else written
            kept.append(beyond.alias(f"{name}__written"))
    kept += [parse_times(rows[name]).alias(name) for name in times]
    rates = [name for name in _RATES if name in lines.words.columns]
    words = lines.words.with_columns(pl.col(name).str.strip_chars().cast(RATE, strict=False) for name in rates)
    return BillBatch(rows.with_columns(kept), words)


def _amount(column: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """MONEY, and the texts that say more than that holds."""
    if column.dtype == pl.Float64:
        return float_money.as_money(column)
    text = pl.col("text")
    both = (
        column.cast(pl.String)
        .to_frame()
        .select(text=pl.first())
        .select(money.parse(text).alias("kept"), money.beyond_twelve_places(text).alias("written"))
    )
    return both["kept"], both["written"] if both["written"].null_count() < len(column) else None


def check_required(lines: BillBatch, names: Mapping[str, str], tally: ProblemCounter, extra: Sequence[Check] = ()) -> BillBatch:
    """The lines that can be booked. `names` are the file's own names of our columns, for the problems' `field`."""

    def called(column: str) -> str:
        return names.get(column, column)

    checks = [
        *(
            Check(
                called(name),
                pl.col(f"{name}__text").is_not_null() & pl.col(name).is_null(),
                "is no amount",
                "write plain digits with a decimal point, at most 21 before it",
                f"{name}__text",
            )
            for name in COST_COLUMNS
        ),
        Check(
            called("billed_cost"),
            pl.col("billed_cost").is_null(),
            "the charge has no amount",
            "every row needs a billed cost, 0 if it is free",
        ),
        Check(
            called("billing_currency"),
            pl.col("billing_currency").is_null(),
            "the currency is missing",
            "every row needs its billing currency",
        ),
        *(
            Check(called(name), pl.col(name).is_null(), "is no time", "write it as 2026-10-31T23:00:00Z", f"{name}__text")
            for name in (*_TIMES, "billing_period_start")
        ),
        Check(
            called("charge_period_end"),
            pl.col("charge_period_end") < pl.col("charge_period_start"),
            "is before the charge's start",
            "the end of a charge period is exclusive and not before its start",
            "charge_period_end__text",
        ),
        Check(
            called("provider_name"),
            pl.col("provider_name").is_null(),
            "the provider is missing",
            "every row needs the provider's name",
        ),
        *extra,
    ]
    return apply_checks(lines, checks, tally)


def to_charges(lines: BillBatch) -> BillBatch:
    """The columns of `to_charges`, plus the costs as written; `line` and `billing_month` filled in."""
    starts = lines.rows["billing_period_start"]
    month = pl.lit(starts[0].strftime("%Y-%m")) if starts.n_unique() == 1 else pl.col(starts.name).dt.strftime("%Y-%m")
    rows = lines.rows.with_columns(billing_month=month, line=pl.col("__row"))
    kept = [name for name in CHARGES.schema if name in rows.columns]
    return BillBatch(
        rows.select(DIMENSIONS_ROW, *kept, *(f"{name}__written" for name in COST_COLUMNS)),
        lines.words.select(name for name in CHARGES.schema if name in lines.words.columns),
    )


def empty() -> pl.DataFrame:
    """No charges; the frame that carries a file's last problems."""
    return pl.DataFrame(
        schema={"billing_month": pl.String, "billing_currency": pl.String, "provider_name": pl.String}
        | dict.fromkeys(COST_COLUMNS, MONEY)
        | {f"{name}__written": pl.String for name in COST_COLUMNS}
        | dict.fromkeys(_TIMES, TIME)
    )


def canonical_tags(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """JSON objects in one spelling: keys sorted, no spaces, numbers as they were written. Also, which texts are no object.

    >>> tags, wrong = canonical_tags(pl.Series(['{"b": 1.50, "a": "x"}', "{}", "team=x", None]))
    >>> tags.to_list(), wrong.to_list()
    (['{"a":"x","b":"1.50"}', None, None, None], [False, False, True, False])
    """
    written = column.unique().drop_nulls()
    spelt = [_canonical_object(text) for text in written]
    tags = column.replace_strict(
        written, pl.Series([s or None for s in spelt], dtype=pl.String), default=None, return_dtype=pl.String
    )
    wrong = column.is_in(pl.Series([w for w, s in zip(written, spelt, strict=True) if s is None], dtype=pl.String).implode())
    return tags, wrong.fill_null(False)


def report_bad_tags(
    lines: BillBatch, wrong: pl.Series, column: str, called: str, kept: str, remedy: str, tally: ProblemCounter
) -> None:
    """Says of which lines the tags are no JSON object; `wrong` is asked of their words."""
    if wrong.any():
        bad = lines.where(wrong.gather(lines.rows[DIMENSIONS_ROW]))
        quoted, reason = bad.spoken(pl.col(column)), f"is no JSON object; {kept}"
        if len(quoted):
            tally.rows(bad.rows["__line"], quoted, called, reason, remedy, severity="warning")


def _canonical_object(text: str) -> str | None:
    """One spelling of a JSON object; empty for an empty one; None if it is none."""
    try:
        told = json.loads(text, parse_float=str)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if told else ""
