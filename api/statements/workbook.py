"""Statements as XLSX: a sheet for each table. What is booked is a number, in the places of its currency; exact amounts are text, since a number of a
workbook holds 15 digits.
"""

from __future__ import annotations

import io
from typing import Final

import xlsxwriter

from api.models import Statement
from api.statements.tables import BOOKED, SheetTable, tables
from ledger.closing.cents import smallest_unit
from ledger.money import text

_MAX_WIDTH: Final = 48


def render(statement: Statement) -> bytes:
    """The workbook."""
    sink = io.BytesIO()
    book = xlsxwriter.Workbook(sink, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    made_at = statement.made_at.replace(tzinfo=None, microsecond=0)
    book.set_properties({"title": f"Statement {statement.number}", "author": statement.company, "created": made_at})
    for table in tables(statement):
        _write(book, table)
    book.close()
    return sink.getvalue()


def _write(book: xlsxwriter.Workbook, table: SheetTable) -> None:
    sheet = book.add_worksheet(table.title)
    header = book.add_format({"bold": True, "bottom": 1})
    right = book.add_format({"align": "right"})
    numbers = {places: book.add_format({"num_format": "#,##0" + ("." + "0" * places if places else "")}) for places in (0, 2, 3)}
    sheet.freeze_panes(1, 0)
    widths = [len(name) for name in table.columns]
    for column, name in enumerate(table.columns):
        label = f"{name} (exact, as text)" if name in table.money and name != BOOKED else name
        sheet.write_string(0, column, label, header)
        widths[column] = len(label)
    for number, row in enumerate(table.rows, 1):
        for column, (name, cell) in enumerate(zip(table.columns, row, strict=True)):
            if name == BOOKED:
                currency = str(row[table.columns.index("currency")])
                sheet.write_number(number, column, cell, numbers[-smallest_unit(currency).adjusted()])
                widths[column] = max(widths[column], 14)
                continue
            if isinstance(cell, int):
                sheet.write_number(number, column, cell)
                continue
            content = cell or "" if isinstance(cell, str | None) else text(cell) or ""
            sheet.write_string(number, column, content, right if name in table.money else None)
            widths[column] = max(widths[column], len(content))
    for column, width in enumerate(widths):
        sheet.set_column(column, column, min(width + 2, _MAX_WIDTH))
