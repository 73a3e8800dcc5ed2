"""GET routes that compare two periods."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api import queries
from api.access.gates import CostRows
from api.models import ComparisonTable
from api.routes.answers import ROWS, AnyRows
from api.routes.parameters import BasisParam, ByParam, FilterParam, ViewParam
from api.routes.read import ERROR_RESPONSES
from ledger.settings import Settings


def router(settings: Settings) -> APIRouter:
    """The GETs under /v1 that compare periods."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)
    parse = partial(queries.ComparisonQuery.parse, timezone=settings.report.timezone)

    @routes.get("/compare", response_model=ComparisonTable, summary="Why cost changed between two periods", responses=ROWS)
    def compare(
        books: CostRows,
        rows: AnyRows,
        before: Annotated[
            str,
            Query(
                alias="from",
                max_length=80,
                description="The earlier period: a month, day, ISO week, quarter, year, or a range whose end is not counted, as 2026-10-01/2026-10-08.",
                examples=["2026-09"],
            ),
        ],
        after: Annotated[
            str, Query(alias="to", max_length=80, description="The later period, in the same forms.", examples=["2026-10"])
        ],
        by: ByParam = [],  # noqa: B006 - FastAPI copies defaults
        view: ViewParam = "initiator",
        basis: BasisParam = "effective",
        filter: FilterParam = [],  # noqa: A002, B006 - the name in the address
    ) -> Response:
        """One row for each group and effect. The rows of a group sum to the change of its cost, exactly."""
        query = parse(before, after, by=by, view=view, basis=basis, filters=filter)
        if rows.is_json:
            return rows.document(queries.comparison_table(books, query))
        return rows.frame_file(queries.comparison(books, query), "comparison", sums=["cost"])

    return routes
