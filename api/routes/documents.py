"""Answers of the routes: cost tables as JSON, and frames as files."""

from __future__ import annotations

import io
import json

import polars as pl
from fastapi.responses import Response

from api.models import CostTable
from api.queries.costs import COST_AMOUNTS, as_text
from ledger import money

_AMOUNTS = frozenset({*COST_AMOUNTS, "omitted_cost"})


def cost_document(table: CostTable) -> Response:
    """Serialises a cost table without validation, which would take most of the time with many rows."""
    head = table.model_copy(update={"rows": []}).model_dump(mode="json")
    head["rows"] = [
        {name: money.text(value) if name in _AMOUNTS else value for name, value in row.__dict__.items()} | (row.model_extra or {})
        for row in table.rows
    ]
    return Response(json.dumps(head, ensure_ascii=False), media_type="application/json")


def file_document(frame: pl.DataFrame, file_format: str, *, name: str = "costs") -> Response:
    """The rows as a CSV or Parquet file."""
    buffer = io.BytesIO()
    if file_format == "csv":
        as_text(frame).write_csv(buffer)
        media_type = "text/csv; charset=utf-8"
    else:
        frame.write_parquet(buffer)
        media_type = "application/vnd.apache.parquet"
    headers = {"Content-Disposition": f'attachment; filename="{name}.{file_format}"'}
    return Response(buffer.getvalue(), media_type=media_type, headers=headers)
