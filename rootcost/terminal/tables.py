"""Terminal tables with right-aligned money."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ledger.plurals import counted
from rootcost.terminal.console import plain, say, terminal
from rootcost.terminal.terminal_console import TerminalConsole

if TYPE_CHECKING:
    import polars as pl

    from api.models import Agents, Budget, BudgetRequestRow, BudgetRevisionRow, ProblemRow, ReservationRow, RunRow
    from attribution.monitoring.run_diff import Difference
    from ledger.budgets.status import Standing

HEADINGS: Mapping[str, str] = {
    "initiator_team": "team (started it)",
    "initiator_agent": "agent (started it)",
    "executor_team": "team (ran it)",
    "executor_agent": "agent (ran it)",
    "period_start": "from",
    "cost_class": "class",
    "cost_billed": "billed",
    "cost_estimated": "estimated",
    "invoice_month": "month",
    "cost_column": "cost column",
    "charges_in": "charges in",
}
"""Display names of columns; others are shown under their own name."""


def amount(value: Decimal | None, *, places: int = 2) -> str:
    """An amount for display: digits grouped, rounded, never rounded to 0.

    >>> amount(Decimal("1234.567")), amount(Decimal("0.018")), amount(Decimal("0.0000123")), amount(None), amount(Decimal(0))
    ('1,234.57', '0.018', '0.000012', '—', '0.00')
    """
    if value is None:
        return "—"
    if value and abs(value) < 1:
        places = max(places, 1 - value.adjusted())
    digits = f"{value:,.{places}f}"
    if places > 2:
        whole, _, fraction = digits.partition(".")
        digits = f"{whole}.{fraction[:2]}{fraction[2:].rstrip('0')}"
    return digits


def console_of(path: Path | None = None) -> Console:
    """The terminal; for a file, a console of fixed width that keeps its text."""
    return terminal() if path is None else TerminalConsole(file=io.StringIO(), width=220, highlight=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    money: Sequence[str] = (),
    numbers: Sequence[str] = (),
    title: str = "",
    footer: Mapping[str, str] | None = None,
    caption: str = "",
    keep: Sequence[str] = (),
    width: int | None = None,
) -> Table:
    """A plain table of at most `width` columns of the screen; `money` and `numbers` columns stand on the right.

    Where it does not fit, text is folded; then columns with one value in all rows move into the caption; and if that is not
    enough, each row is written as lines of its own. No column is ever cut or lost, and those of `keep` stay where they are.
    """
    at_most = width or terminal().width
    fixed_columns, under = {*money, *numbers}, dict(footer or {})
    cells = [{c: amount(row[c]) if c in money else _cell(row[c]) for c in columns} for row in rows]
    columns_kept = [_Column.of(c, cells, under.get(c, ""), is_fixed=c in fixed_columns) for c in columns]
    constant_columns = []
    if sum(c.least + _GAP for c in columns_kept) > at_most and len(cells) > 1:
        constant_columns = [
            c for c in columns_kept if not (under.get(c.name) or c.name in keep) and len({row[c.name] for row in cells}) == 1
        ]
        columns_kept = [c for c in columns_kept if c not in constant_columns]
    constant = (f"{c.heading}: {cells[0][c.name]}" for c in constant_columns if cells[0][c.name] != "—")
    caption_text = " · ".join(part for part in (caption, *constant) if part)
    if sum(c.least + _GAP for c in columns_kept) > at_most:
        return _in_lines(columns_kept, cells, under, title=title, caption=caption_text)
    grid = Table(
        box=box.SIMPLE_HEAD, show_footer=bool(footer), padding=(0, 1, 0, 0), pad_edge=False, **_framed(title, caption_text)
    )
    for column, wide in zip(columns_kept, _widths(columns_kept, at_most), strict=True):
        grid.add_column(
            column.heading,
            justify="right" if column.fixed else "left",
            width=wide,
            overflow="fold",
            footer=under.get(column.name, ""),
        )
    for row in cells:
        grid.add_row(*(escape(row[c.name]) for c in columns_kept))
    return grid


_FOLDED = 12
"""Text is not folded narrower than this."""
_GAP = 2
"""Blanks from one column to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column with its natural and its least width."""

    name: str
    heading: str
    fixed: bool
    least: int
    natural: int

    @classmethod
    def of(cls, name: str, cells: Sequence[Mapping[str, str]], footer: str, *, is_fixed: bool) -> _Column:
        heading = HEADINGS.get(name, name.replace("_", " "))
        content_width = max((cell_len(text) for text in (*(row[name] for row in cells), *footer.splitlines())), default=0)
        word = max(cell_len(word) for word in heading.split())
        whole = is_fixed or name in _WHOLE
        return cls(
            name=name,
            heading=heading,
            fixed=is_fixed,
            least=max(word, content_width if whole else min(content_width, _FOLDED)),
            natural=max(content_width, cell_len(heading)),
        )


_WHOLE = frozenset(
    {"run", "currency", "month", "invoice_month", "period_start", "state", "severity", "cost_class", "valid_from", "valid_to"}
)
"""Columns whose words are copied or compared, and so are not folded."""


def _widths(columns: Sequence[_Column], at_most: int) -> list[int]:
    """Column widths: the least of each, then the spare room given to the narrowest column that can use it."""
    wide = [c.least for c in columns]
    spare = at_most - sum(wide) - _GAP * len(columns)
    while spare > 0:
        wanting = [i for i, c in enumerate(columns) if wide[i] < c.natural]
        if not wanting:
            break
        wide[min(wanting, key=lambda i: wide[i])] += 1
        spare -= 1
    return wide


def _in_lines(
    columns: Sequence[_Column],
    cells: Sequence[Mapping[str, str]],
    footer: Mapping[str, str],
    *,
    title: str,
    caption: str,
) -> Table:
    """One line per cell, for a screen too narrow for the columns."""
    grid = Table(box=None, show_header=False, pad_edge=False, **_framed(title, caption))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for number, row in enumerate([*cells, *([footer] if footer else [])]):
        if number:
            grid.add_row("", "")
        for column in columns:
            if row.get(column.name):
                grid.add_row(column.heading, escape(row[column.name]))
    return grid


def _framed(title: str, caption: str) -> dict[str, Any]:
    return {
        "title": title or None,
        "title_justify": "left",
        "title_style": "bold",
        "caption": escape(caption) or None,
        "caption_justify": "left",
    }


def _cell(value: object) -> str:
    return "—" if value is None or value == "" else str(value)


def draw(renderable: Any, path: Path | None = None) -> None:
    """Prints to the terminal, or into a text file."""
    console = console_of(path)
    console.print(renderable)
    if path is not None and isinstance(console.file, io.StringIO):
        path.write_text(console.file.getvalue(), encoding="utf-8")
        say(f"Written: {path}")


def rows_as_json(rows: Iterable[Mapping[str, object]]) -> str:
    """A JSON list, one row a line."""
    lines = [json.dumps(plain(row), ensure_ascii=False) for row in rows]
    return "[\n  " + ",\n  ".join(lines) + "\n]" if lines else "[]"


def balance(frame: pl.DataFrame) -> None:
    """Prints the control totals; a difference other than 0 is red."""
    money = ["charges_in", "metered", "owner", "shared", "idle", "unallocated", "difference"]
    rows = ({**row, "cost_column": row["cost_column"].removesuffix("_cost")} for row in frame.iter_rows(named=True))
    draw(table([c for c in frame.columns if c != "rounding"], rows, money=money, keep=["cost_column"]))
    off = int((frame["difference"] != 0).sum())
    terminal().print(
        f"[red]{off} of {counted(frame.height, 'row')} {'does' if off == 1 else 'do'} not balance[/red]"
        if off
        else f"[green]✓[/green] charges in = costs out in {'the one row' if frame.height == 1 else f'all {frame.height} rows'}"
    )


def problems(rows: Sequence[ProblemRow]) -> None:
    """What was wrong, where, and what to do."""
    columns = ["file", "line", "field", "reason", "remedy", "rows", "severity"]
    draw(table(columns, (row.model_dump() for row in rows), numbers=["rows"]))


def agents(registry: Agents) -> None:
    """Prints the registry, then agents that spend without being in it."""
    if registry.registered:
        columns = ["kind", "name", "agent", "team", "valid_from", "valid_to"]
        rows = (
            {**row.model_dump(), "valid_from": _day(row.valid_from), "valid_to": _day(row.valid_to)}
            for row in registry.registered
        )
        draw(table(columns, rows, title="Registered"))
    else:
        say("The registry is empty. Next: rootcost agents import FILE.csv")
    if registry.unregistered:
        spending = (
            {"agent": a.agent, "caused": amounts(a.caused), "burned": amounts(a.burned), "last_seen": _day(a.last_seen)}
            for a in registry.unregistered
        )
        draw(
            table(
                ["agent", "caused", "burned", "last_seen"],
                spending,
                numbers=["caused", "burned"],
                title="Spending, but not registered",
            )
        )


def budgets(rows: Sequence[Budget]) -> None:
    """Budgets and how they stand."""
    columns = ["name", "scope", "scope_name", "month", "amount", "spent", "left", "used_percent", "currency", "state"]
    table_rows = (
        {**row.model_dump(), "used_percent": None if row.used_percent is None else f"{row.used_percent:.1f}"} for row in rows
    )
    draw(table(columns, table_rows, money=["amount", "spent", "left"], numbers=["used_percent"]))


def budget_status(rows: Sequence[Standing]) -> None:
    """How budgets stand, and when their money will be gone."""
    columns = [
        "budget",
        "from",
        "to",
        "amount",
        "billed",
        "estimated",
        "encumbered",
        "available",
        "forecast",
        "low",
        "high",
        "exhausted",
        "state",
    ]
    table_rows = (
        {
            **row.row(),
            "from": f"{row.window.start:%Y-%m-%d %H:%M}",
            "to": f"{row.window.end:%Y-%m-%d %H:%M}",
            "exhausted": "" if row.outlook.exhausted_at is None else f"{row.outlook.exhausted_at:%Y-%m-%d %H:%M}",
        }
        for row in rows
    )
    money = ["amount", "billed", "estimated", "encumbered", "available", "forecast", "low", "high"]
    draw(table([*columns, "currency"], table_rows, money=money, keep=["budget", "state"]))
    for row in rows:
        for note in row.notes:
            terminal().print(f"{row.terms.name}: {note}", markup=False)


def budget_revisions(rows: Sequence[BudgetRevisionRow]) -> None:
    """Revisions of a budget, newest first."""
    columns = ["revision", "name", "amount", "currency", "from", "recorded", "by", "reason", "terms"]
    table_rows = (
        {
            **row.model_dump(),
            "from": "always" if row.valid_from is None else f"{row.valid_from:%Y-%m-%d %H:%M}",
            "recorded": f"{row.recorded_at:%Y-%m-%d %H:%M:%S}",
            "by": row.recorded_by,
            "terms": "ended" if row.ended else ", ".join(f"{d} {name}" for d, name in row.terms["scopes"].items()),
        }
        for row in rows
    )
    draw(table(columns, table_rows, money=["amount"]))


def budget_requests(rows: Sequence[BudgetRequestRow]) -> None:
    """Raises that await a second person."""
    columns = ["request_id", "budget", "current_amount", "amount", "currency", "asked_by", "reason", "expires"]
    table_rows = ({**row.model_dump(), "expires": f"{row.expires_at:%Y-%m-%d %H:%M}"} for row in rows)
    draw(table(columns, table_rows, money=["current_amount", "amount"], keep=["request_id"]))


def reservations(rows: Sequence[ReservationRow]) -> None:
    """Money that is held."""
    columns = ["reservation_id", "state", "for", "amount", "currency", "deadline"]
    table_rows = (
        {**row.model_dump(), "for": ", ".join(row.scopes.values()), "deadline": f"{row.deadline:%Y-%m-%d %H:%M}"} for row in rows
    )
    draw(table(columns, table_rows, money=["amount"], keep=["reservation_id"]))


def runs(rows: Sequence[RunRow]) -> None:
    """Attribution runs, newest first."""
    table_rows = (
        {
            "run": row.run_id,
            "started": f"{row.started_at:%Y-%m-%d %H:%M:%S}",
            "status": row.status,
            "months": ", ".join(row.months),
            "in force": ", ".join(row.published_months),
            "cause": row.cause,
            "error": row.error,
        }
        for row in rows
    )
    draw(table(["run", "started", "status", "months", "in force", "cause", "error"], table_rows))


def differences(run_differences: Sequence[Difference]) -> None:
    """What moved between two runs, and why; the bill first."""
    table_rows = (
        {
            "cause": d.cause,
            "what": "the bill" if d.cost_class is None else d.cost_class,
            "provider": d.provider,
            "team": d.team,
            "basis": d.basis,
            "old": d.old,
            "new": d.new,
            "moved": d.moved,
            "currency": d.currency,
        }
        for d in run_differences
    )
    draw(
        table(
            ["cause", "what", "provider", "team", "basis", "old", "new", "moved", "currency"],
            table_rows,
            money=["old", "new", "moved"],
        )
    )


def amounts(by_currency: Mapping[str, Decimal]) -> str:
    """Amounts of several currencies, joined by +; a dash where there is none."""
    return " + ".join(f"{amount(value)} {currency}" for currency, value in by_currency.items()) or "—"


def _day(instant: Any) -> str | None:
    return None if instant is None else instant.date().isoformat()


__all__ = [
    "agents",
    "amount",
    "amounts",
    "balance",
    "budgets",
    "draw",
    "problems",
    "rows_as_json",
    "table",
]
