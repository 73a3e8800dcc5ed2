"""Statements as files: JSON, CSV, XLSX and PDF, the same bytes each time from the same statement.

render(statement, "pdf") -> bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from api.models import Statement
from api.statements import pdf, workbook
from api.statements.tables import csv
from ledger.audit import canonical

StatementFormat = Literal["json", "csv", "xlsx", "pdf"]
MEDIA_TYPES: Final[Mapping[StatementFormat, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pdf": "application/pdf",
}


def render(statement: Statement, file_format: StatementFormat) -> bytes:
    """A statement as a file."""
    return _RENDERERS[file_format](statement)


def file_name(statement: Statement, file_format: StatementFormat) -> str:
    """The name of its file: month, team and revision, with what is safe in a file name."""
    team = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in statement.team) or "no-team"
    return f"statement-{statement.month}-{team}-{statement.revision}.{file_format}"


def _json(statement: Statement) -> bytes:
    return canonical(statement.model_dump(mode="json"))


_RENDERERS: Final[Mapping[StatementFormat, Callable[[Statement], bytes]]] = {
    "json": _json,
    "csv": csv,
    "xlsx": workbook.render,
    "pdf": pdf.render,
}
