"""Cost tables as JSON and as files."""

from __future__ import annotations

import json

import polars as pl
from fastapi.responses import Response

from api.models import CostTable
from api.queries.costs import COST_AMOUNTS
from api.routes.answers import Rows
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


def cost_file(rows: Rows, frame: pl.DataFrame) -> Response:
    """The rows as a file; the sums of its amounts are in the headers."""
    return rows.frame_file(frame, "costs", sums=[name for name in frame.columns if name in _AMOUNTS])
