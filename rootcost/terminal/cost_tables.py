"""Cost reports at the terminal: a row for each key, totals by currency, and what the totals hold. (LA-1)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.plurals import counted
from rootcost.terminal.console import say
from rootcost.terminal.tables import amount, amounts, console_of, draw, table
from ui import labels

if TYPE_CHECKING:
    import polars as pl


def costs(
    frame: pl.DataFrame, *, basis: str, calendar: str = "", requested_columns: Sequence[str] = (), path: Path | None = None
) -> None:
    """Prints costs with a total for each currency, how much of it is estimated, and what reasons mean.

    `requested_columns` are shown even if empty; the billed and the estimated part only where something is estimated. (LA-1)
    `calendar` is named below the table, where there is one to name. (TI-1a)
    """
    rows = frame.to_dicts()
    has_estimates = any(row["cost_estimated"] for row in rows)
    sums = ["cost", "cost_billed", "cost_estimated"] if has_estimates else ["cost"]
    totals = {name: _totals(rows, name) for name in sums}
    columns = [
        c
        for c in frame.columns
        if c not in _AMOUNTS and (c in requested_columns or any(row[c] not in (None, "") for row in rows))
    ] or [frame.columns[0]]
    currencies = list(totals["cost"])
    footer = {name: "\n".join(amount(v) for v in by_currency.values()) for name, by_currency in totals.items()}
    footer |= {"currency": "\n".join(currencies), columns[0]: "total"}
    shown_columns = [*columns, *sums, *(["currency"] if len(currencies) > 1 else [])]
    caption = f"{basis} cost" if len(currencies) > 1 else f"{basis} cost in {next(iter(currencies), '')}"
    caption += f", {labels.CALENDARS[calendar]}" if calendar else ""
    wide = None if path is None else console_of(path).width
    draw(table(shown_columns, rows, money=sums, footer=footer, caption=caption, keep=requested_columns, width=wide), path)
    _remarks(rows, basis)


def forecast(frame: pl.DataFrame, dimensions: Sequence[str], *, path: Path | None = None) -> None:
    """Prints what a month will cost, by group, and why some have no interval or no forecast."""
    rows = frame.to_dicts()
    currencies = list(dict.fromkeys(row["currency"] for row in rows))
    money = ["actual", "forecast", "low", "high"]
    names = [name for name in dimensions if name != "currency"]
    shown_columns = [*names, *money, "method", *(["currency"] if len(currencies) > 1 or not names else [])]
    first = rows[0]
    caption = f"{first['period_start']:%Y-%m}, known until {first['known_until']:%d %B}"
    caption += f", in {currencies[0]}" if len(currencies) == 1 else ""
    wide = None if path is None else console_of(path).width
    draw(table(shown_columns, rows, money=money, caption=caption, keep=dimensions, width=wide), path)
    for method, remark in _METHODS.items():
        if count := sum(row["method"] == method for row in rows):
            say(f"{method}: {counted(count, 'group')} {remark}")
    if count := sum(row["method"] == "pool" and row["low"] is None for row in rows):
        say(f"no interval: {counted(count, 'group')} whose past is too short to say how good such a forecast is")


_METHODS = {
    "run rate": "with less than three weeks of past: the mean of the month's days goes on, and there is no interval",
    "unknown": "of which too little is known: three weeks of past, or three days of the month, are needed",
}
_AMOUNTS = frozenset({"currency", "cost", "cost_billed", "cost_estimated", "omitted_rows", "omitted_cost"})


def _totals(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Decimal]:
    totals: dict[str, Decimal] = {}
    for row in rows:
        totals[row["currency"]] = totals.get(row["currency"], Decimal(0)) + (row[name] or Decimal(0))
    return totals


def _remarks(rows: Sequence[Mapping[str, Any]], basis: str) -> None:
    """Prints how much the totals leave out, and what reasons mean."""
    omitted_rows = sum(row.get("omitted_rows", 0) for row in rows)
    if omitted_rows:
        omitted_costs = {c: v for c, v in _totals([{"omitted_cost": None, **row} for row in rows], "omitted_cost").items() if v}
        other_columns = f", {amounts(omitted_costs)} in another cost column" if omitted_costs else ""
        say(f"Left out of the sums: {counted(omitted_rows, 'row')} whose {basis} cost is unknown{other_columns}")
    for term in sorted({term.strip() for row in rows for term in (row.get("reason") or "").split(",")} - {""}):
        say(f"{term}: {labels.reason(term)}")
