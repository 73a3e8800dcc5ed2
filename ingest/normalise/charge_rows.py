"""What every bill needs done to its rows, once they are named as `charges` names them: types, checks, tags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from ingest.normalise.rows import moments
from ingest.normalise.tally import Check, Tally, sift
from ledger import money
from ledger.money import MONEY, RATE
from ledger.tables import CHARGES, COST_COLUMNS, TIME

_AMOUNTS = tuple(n for n, t in CHARGES.schema.items() if t in (MONEY, RATE) and n not in COST_COLUMNS)
_TIMES = ("charge_period_start", "charge_period_end")


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Texts as money, rates and instants.

    Each cost column becomes MONEY, with its text beside it in ``<column>__text`` and, where that says more than twelve places,
    in ``<column>__written``. Other amounts become MONEY or RATE. Text that is no number or time becomes null; `check` tells.
    """
    costs = [name for name in COST_COLUMNS if name in frame.columns]
    others = [name for name in _AMOUNTS if name in frame.columns]
    times = [name for name in (*_TIMES, "billing_period_start") if name in frame.columns]
    return frame.with_columns(
        *(pl.col(name).alias(f"{name}__text") for name in costs),
        *(money.beyond_twelve_places(pl.col(name)).alias(f"{name}__written") for name in costs),
        *(money.parse(pl.col(name)).alias(name) for name in costs),
        *(
            pl.col(name).str.strip_chars().cast(CHARGES.schema[name], strict=False).alias(name)
            if frame.schema[name] == pl.String
            else pl.col(name).cast(CHARGES.schema[name])
            for name in others
        ),
        *(
            (pl.col(name).cast(pl.String) if frame.schema[name] == pl.String else pl.col(name).dt.to_string("iso")).alias(
                f"{name}__text"
            )
            for name in times
        ),
    ).with_columns(moments(frame[name]).alias(name) for name in times)


def checked(frame: pl.DataFrame, names: Mapping[str, str], tally: Tally, extra: Sequence[Check] = ()) -> pl.DataFrame:
    """The rows that can be booked. `names` are the file's own names of our columns, for the problems' `field`."""

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
    return sift(frame, checks, tally)


def charges(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of `charges`, plus the costs as written; `line` and `billing_month` filled in."""
    frame = frame.with_columns(billing_month=pl.col("billing_period_start").dt.strftime("%Y-%m"), line=pl.col("__row"))
    kept = [name for name in CHARGES.schema if name in frame.columns]
    return frame.select(*kept, *(f"{name}__written" for name in COST_COLUMNS))


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
    spelt = [_canonical(text) for text in written]
    tags = column.replace_strict(
        written, pl.Series([s or None for s in spelt], dtype=pl.String), default=None, return_dtype=pl.String
    )
    wrong = column.is_in(pl.Series([w for w, s in zip(written, spelt, strict=True) if s is None], dtype=pl.String).implode())
    return tags, wrong.fill_null(False)


def _canonical(text: str) -> str | None:
    """One spelling of a JSON object; empty for an empty one; None if it is none."""
    try:
        told = json.loads(text, parse_float=str)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if told else ""
