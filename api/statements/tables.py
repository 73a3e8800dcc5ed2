"""The tables of a statement: one definition for CSV, XLSX and PDF."""

from __future__ import annotations

import csv as csv_writer
import io
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydantic import BaseModel

from api.models import Statement
from ledger.money import text

Cell = str | int | Decimal | None
BOOKED: Final = "booked"
"""The column in the smallest unit of the currency; other amounts are exact."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class SheetTable:
    """A table with a title, columns and rows. `money` are the columns with amounts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    money: frozenset[str] = frozenset()


def tables(statement: Statement) -> list[SheetTable]:
    """All tables of a statement, the totals first."""
    return [
        _table("Totals", statement.totals, "currency", "booked", "exact", "rounding", "adjustments", "previous", "change", "effective", "estimated"),
        _table("Lines", statement.lines,
            "document", "kind", "adjusts", "cause", "provider", "invoice_id", "cost_class", "currency", "booked", "exact",
            "rounding"),
        _table("Change", statement.changes, "currency", "effect", "exact"),
        _table("Shared", statement.pools, "provider", "service", "rule", "currency", "pool", "own"),
        _table("Agents", statement.agents, "agent", "currency", "exact", "calls", "per_call"),
        SheetTable("About", ("item", "value"), tuple(about(statement))),
    ]  # fmt: skip


def about(statement: Statement) -> list[tuple[str, str]]:
    """What the statement is, and what it was made from: enough to make it again, and to see that it is unchanged."""
    terms = statement.terms
    return [
        ("number", statement.number),
        ("kind", statement.kind),
        ("state", statement.state),
        ("issued by", statement.company),
        ("team", statement.team or "(what no team has)"),
        ("cost center", statement.cost_center or ""),
        ("journals", ", ".join(statement.journals)),
        ("month", statement.month),
        ("made at", f"{statement.made_at:%Y-%m-%d %H:%M:%S.%f} UTC"),
        ("closed by", statement.made_by),
        ("questions to", statement.contact),
        ("until", statement.dispute_until.isoformat() if statement.dispute_until else ""),
        *((f"run of {month}", run_id) for month, run_id in terms.runs.items()),
        ("documents", ", ".join(terms.documents)),
        ("lines", str(terms.lines)),
        *((f"control total {total.currency}", text(total.booked) or "") for total in statement.totals),
        ("RootCost", terms.version),
        ("SHA-256 of the JSON", statement.sha256),
    ]


def csv(statement: Statement) -> bytes:
    """All tables below each other, each under its columns, with a first column that names the table. Texts that a spreadsheet would run are quoted."""
    sink = io.StringIO()
    writer = csv_writer.writer(sink, lineterminator="\r\n")
    for table in tables(statement):
        writer.writerow(["table", *table.columns])
        for row in table.rows:
            writer.writerow([table.title, *(_csv_text(cell) for cell in row)])
    return sink.getvalue().encode()


def _csv_text(cell: Cell) -> str:
    if isinstance(cell, Decimal):
        return text(cell) or ""
    if isinstance(cell, int):
        return str(cell)
    return f"'{cell}" if cell and cell.startswith(_FORMULA) else cell or ""


def _table(title: str, rows: Sequence[BaseModel], *columns: str) -> SheetTable:
    cells = tuple(tuple(getattr(row, name) for name in columns) for row in rows)
    money = frozenset(name for number, name in enumerate(columns) if any(isinstance(row[number], Decimal) for row in cells))
    return SheetTable(title, columns, cells, money)
