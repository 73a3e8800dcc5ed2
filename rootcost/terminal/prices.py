"""Price tables in the terminal: rates per million tokens, as price lists state them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from ledger.money import proportion, text
from ledger.plurals import counted
from ledger.tables import PRICES
from rootcost.terminal.tables import draw, table

if TYPE_CHECKING:
    from rootcost.pricebook import Coverage

MAX_ROWS = 40
"""Rows of a table on the terminal; json and csv have them all."""


def rate_unit(meter: str) -> str:
    """The quantity a displayed rate applies to.

    >>> rate_unit("input_tokens"), rate_unit("requests")
    ('1M tokens', '1 unit')
    """
    return "1M tokens" if meter.endswith("_tokens") else "1 unit"


def display_rate(rate: Decimal | None, meter: str) -> str | None:
    """A rate as people read it.

    >>> display_rate(Decimal("0.0000025"), "input_tokens"), display_rate(Decimal("0.04"), "requests"), display_rate(None, "requests")
    ('2.5', '0.04', None)
    """
    return None if rate is None else text(rate.scaleb(6) if meter.endswith("_tokens") else rate)


def rate_change(old: Decimal | None, new: Decimal | None) -> str:
    """Relative change of a rate.

    >>> rate_change(Decimal("0.000002"), Decimal("0.000003")), rate_change(Decimal("0.00003"), Decimal("0.00001")), rate_change(None, Decimal(1))
    ('+50 %', '-66.7 %', '')
    """
    if old is None or new is None or not old or old == new:
        return ""
    percent = proportion(Decimal(100), new - old, old)
    return f"{percent:+.1f}".removesuffix(".0") + " %"


_ROW = ("change", "provider", "model", "meter", "service_tier", "context_above", "region", "currency")


def change_rows(changes: pl.DataFrame, gone_models: pl.DataFrame) -> pl.DataFrame:
    """A difference as rows for json and csv: rates per unit, models that are gone at the end."""
    rows = changes.select(
        *_ROW, "old_rate", "rate", "valid_from", "valid_to", "hours", "old_from", "old_book", "book", "doubt"
    ).sort(pl.col("doubt") == "", "provider", "model", "meter", "service_tier", "context_above", "region")
    gone_rows = gone_models.select("provider", "model", change=pl.lit("gone"), doubt=pl.lit(""))
    return pl.concat([rows, gone_rows], how="diagonal")


def staged_rows(waiting: pl.DataFrame) -> pl.DataFrame:
    """Staged rates as rows of a difference."""
    change = pl.when(pl.col("old_rate").is_null()).then(pl.lit("new")).otherwise(pl.lit("changed"))
    return waiting.with_columns(change=change).select(
        *_ROW, "old_rate", "rate", "valid_from", "valid_to", "hours", "book", "doubt"
    )


def changes(rows: pl.DataFrame, *, title: str = "") -> None:
    """Prints the changes, doubtful ones first."""
    if not rows.height:
        return
    order = [pl.col("doubt") == "", pl.col("change") == "new", "provider", "model", "meter", "service_tier", "context_above"]
    columns = ["model", "provider", "for", "was", "now", "moved", "per", "currency", "valid_from", "doubt"]
    shown_columns = [c for c in columns if c != "doubt" or (rows["doubt"] != "").any()]
    first = [_change(row) for row in rows.sort(order).head(MAX_ROWS).iter_rows(named=True)]
    more = f"… {counted(rows.height - MAX_ROWS, 'more row')}: --format csv" if rows.height > MAX_ROWS else ""
    draw(table(shown_columns, first, numbers=["was", "now", "moved"], title=title, caption=more))


def _change(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": row["model"],
        "provider": row["provider"],
        "for": _for(row),
        "was": display_rate(row["old_rate"], row["meter"]),
        "now": display_rate(row["rate"], row["meter"]),
        "moved": rate_change(row["old_rate"], row["rate"]),
        "per": rate_unit(row["meter"]),
        "currency": row["currency"],
        "valid_from": _day(row["valid_from"]),
        "doubt": row["doubt"],
    }


def _for(row: Mapping[str, Any]) -> str:
    """What a rate is for, in words."""
    from ingest.prices.updates import describe

    return describe(row)


def _day(instant: Any) -> str:
    return "always" if instant.year == 1970 else instant.date().isoformat()


def removed_models(models: pl.DataFrame) -> None:
    """Models that are no longer on the list: they keep their last rates."""
    if not models.height:
        return
    from rootcost.terminal.console import say

    examples = ", ".join(models["model"].head(5).to_list())
    more = f" and {models.height - 5:,} more" if models.height > 5 else ""
    say(f"{counted(models.height, 'model')} no longer on the list keep their last rates: {examples}{more}")


def history_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Rates of a model as rows for json and csv."""
    return rows.select(*PRICES.schema, "until", "in_force")


def history(rows: pl.DataFrame) -> None:
    """Every rate of a model, one line each."""
    columns = [
        "model",
        "provider",
        "for",
        "rate",
        "per",
        "currency",
        "valid_from",
        "valid_to",
        "origin",
        "book",
        "recorded",
        "in force",
    ]
    table_rows = [
        {
            "model": row["model"],
            "provider": row["provider"],
            "for": _for(row),
            "rate": display_rate(row["rate"], row["meter"]),
            "per": rate_unit(row["meter"]),
            "currency": row["currency"],
            "valid_from": _day(row["valid_from"]),
            "valid_to": None if row["until"] is None else row["until"].date().isoformat(),
            "origin": row["origin"],
            "book": row["book"].split(" sha256:")[0],
            "recorded": f"{row['recorded_at']:%Y-%m-%d %H:%M}",
            "in force": "yes" if row["in_force"] else "",
        }
        for row in rows.head(5 * MAX_ROWS).iter_rows(named=True)
    ]
    more = f"… {counted(rows.height - 5 * MAX_ROWS, 'more rate')}: --format csv" if rows.height > 5 * MAX_ROWS else ""
    draw(table(columns, table_rows, numbers=["rate"], caption=more, keep=["origin", "in force"]))


def coverage(report: Coverage) -> None:
    """Prints the share of usage that has a price, then the models that have none."""
    from rootcost.terminal.console import out

    calls, tokens = (int(report.models[c].sum()) for c in ("calls", "tokens"))
    out(
        f"{report.percent('calls')} % of {counted(calls, 'call')} and {report.percent('tokens')} % of {counted(tokens, 'token')} "
        f"have a price"
    )
    if report.silent_calls:
        out(f"{counted(report.silent_calls, 'call')} reported no usage, so there is nothing to price")
    if report.unpriced.height:
        columns = ["model", "provider", "unpriced_tokens", "unpriced_calls", "of_calls", "last_seen"]
        table_rows = [
            {
                **row,
                "unpriced_tokens": f"{row['unpriced_tokens']:,}",
                "unpriced_calls": f"{row['unpriced_calls']:,}",
                "of_calls": f"{row['calls']:,}",
                "last_seen": row["last_seen"].date().isoformat(),
            }
            for row in report.unpriced.head(MAX_ROWS).iter_rows(named=True)
        ]
        more = f"… {report.unpriced.height - MAX_ROWS:,} more: --format csv" if report.unpriced.height > MAX_ROWS else ""
        draw(table(columns, table_rows, numbers=["unpriced_tokens", "unpriced_calls", "of_calls"], caption=more))


def template_rows(unpriced_usage: pl.DataFrame) -> list[dict[str, str]]:
    """Rows of a rate table, with empty rates, for usage that has no price."""
    return [line for row in unpriced_usage.iter_rows(named=True) for line in _template(row)]


def _template(row: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for meter in row["meters"].split():
        yield {
            "provider": row["provider"] or "",
            "model": row["model"] or "",
            "meter": meter,
            "unit": "1M tokens",
            "currency": "USD",
            "valid_from": f"{row['first_seen']:%Y-%m-%d}",
        }
