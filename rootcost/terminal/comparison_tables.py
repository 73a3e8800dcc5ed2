"""Comparisons of two periods at the terminal: a row for each group, a column for each effect, and their sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootcost.terminal.tables import amount, console_of, draw, table
from ui import labels

if TYPE_CHECKING:
    from api.models import ComparisonTable

EFFECT_LABELS: Mapping[str, str] = {"tokens_per_call": "tokens per call"}


def comparison(report: ComparisonTable, *, path: Path | None = None) -> None:
    """Prints what changed each group's cost, with a total for each currency."""
    effects = [name for name in _EFFECTS if any(row.effect == name for row in report.rows)]
    money = [*(EFFECT_LABELS.get(name, name) for name in effects), "change"]
    names = [name for name in report.by if name != "currency"]
    groups: dict[tuple[str | None, ...], dict[str, Any]] = {}
    totals: defaultdict[str, defaultdict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for row in report.rows:
        key = (*(row.get(name) for name in names), row.currency)
        cells = groups.setdefault(key, dict(zip((*names, "currency"), key, strict=True)) | dict.fromkeys(money, Decimal(0)))
        for column in (EFFECT_LABELS.get(row.effect, row.effect), "change"):
            cells[column] += row.cost
            totals[column][row.currency] += row.cost
    currencies = list(report.totals_change)
    footer = {column: "\n".join(amount(totals[column][currency]) for currency in currencies) for column in money}
    shown_columns = [*names, *money, *(["currency"] if len(currencies) > 1 or not names else [])]
    footer |= {"currency": "\n".join(currencies), **({names[0]: "total"} if names else {})}
    caption = "; ".join(
        f"{amount(report.totals_before.get(currency, Decimal(0)))} before, {amount(report.totals_after.get(currency, Decimal(0)))} after, in {currency}"
        for currency in currencies
    )
    caption += f", {report.basis} cost, {labels.CALENDARS[report.calendar]}"
    wide = None if path is None else console_of(path).width
    draw(table(shown_columns, list(groups.values()), money=money, footer=footer, caption=caption, keep=names, width=wide), path)


_EFFECTS = ("volume", "mix", "tokens_per_call", "price", "retries", "new", "gone")
