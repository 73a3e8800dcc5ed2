"""GET routes of what is to come."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api import queries
from api.access.gates import CostRows
from api.models import ForecastTable
from api.routes.answers import ROWS, AnyRows
from api.routes.parameters import MONTH, BasisParam, ByParam, FilterParam, ViewParam, shape
from api.routes.read import ERROR_RESPONSES
from ledger.settings import Settings


def router(settings: Settings) -> APIRouter:
    """The GETs under /v1 that look ahead."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)
    parse = partial(queries.CostQuery.parse, timezone=settings.report.timezone)

    @routes.get("/forecast", response_model=ForecastTable, summary="What a month will cost, with an interval", responses=ROWS)
    def forecast(
        books: CostRows,
        rows: AnyRows,
        by: ByParam = [],  # noqa: B006 - FastAPI copies defaults
        view: ViewParam = "initiator",
        basis: BasisParam = "effective",
        filter: FilterParam = [],  # noqa: A002, B006 - the name in the address
        month: Annotated[
            str | None,
            Query(
                description="Month of use; by default the current one.",
                examples=["2026-10"],
                json_schema_extra=shape(f"({MONTH})?"),
            ),
        ] = None,
    ) -> Response:
        """One row for each value of `by` and currency. Learned from the half year before; `by=currency` forecasts the whole."""
        query = queries.ForecastQuery(parse(by=by, view=view, basis=basis, filters=filter), month or None)
        if rows.is_json:
            return rows.document(queries.forecast_table(books, query))
        return rows.frame_file(queries.forecasts(books, query), "forecast", sums=["actual", "billed", "estimated"])

    return routes
