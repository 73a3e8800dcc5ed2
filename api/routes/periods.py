"""Routes of periods: the months in the books, their checklist, what was booked, closing one and opening it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from api import models, preconditions, queries
from api.access.gates import CostRows, PeriodChanges, WholeBill
from api.models import Page
from api.operations import PeriodOperations
from api.preconditions import SeenThere, version_tag
from api.routes.answers import ROWS, AnyRows
from api.routes.parameters import MONTH, shape
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json

Month = Annotated[
    str, Path(max_length=7, description="Invoice month, YYYY-MM.", examples=["2026-10"], json_schema_extra=shape(MONTH))
]


def reading(operations: PeriodOperations) -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/periods", response_model=Page[models.PeriodRow], summary="Months in the books", responses=ROWS)
    def periods(books: WholeBill, answer: AnyRows) -> Response:
        """Newest first. `open`, `provisional` and `final` follow from the facts; nobody sets them."""
        return answer.whole(queries.ModelListing(models.PeriodRow, operations.periods(books), ["month"]), "periods")

    @routes.get("/periods/{month}", summary="A month in the books")
    def period(books: WholeBill, month: Month, response: Response) -> models.PeriodRow:
        """Its ETag is its revision, which a change sends as `If-Match`; a month that was never closed has 0."""
        return _tagged(operations.period(books, month), response)

    @routes.get(
        "/periods/{month}/checklist",
        response_model=Page[models.PeriodCheck],
        summary="What is left to do before a month is closed",
        responses=ROWS,
    )
    def period_checklist(books: WholeBill, answer: AnyRows, month: Month) -> Response:
        """Each item with its figure, whether it blocks, and what to do."""
        return answer.whole(queries.ModelListing(models.PeriodCheck, operations.checks(books, month), ["item"]), "checklist")

    @routes.get(
        "/periods/{month}/lines",
        response_model=Page[models.PeriodLineRow],
        summary="What was booked of a month",
        responses=ROWS,
    )
    def period_lines(books: CostRows, answer: AnyRows, month: Month) -> Response:
        """The exact amounts at its close, and of every adjustment since, by team and cause. A team sees its own."""
        return answer.whole(queries.ModelListing(models.PeriodLineRow, queries.period_lines(books, month), ["number"]), "lines")

    return routes


def writing(operations: PeriodOperations) -> APIRouter:
    """The changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES, dependencies=[Depends(is_json)])

    @routes.post("/periods/{month}/close", summary="Close a month", responses=preconditions.RESPONSES)
    def close_period(
        books: PeriodChanges, month: Month, terms: models.PeriodClose, precondition: SeenThere, response: Response
    ) -> models.PeriodRow:
        """Books what it costs. What blocks is refused (400) with its remedy, unless it is waived for a reason."""
        return _tagged(operations.close(books, month, terms, precondition), response)

    @routes.post("/periods/{month}/reopen", summary="Ask for a month to be opened again", responses=preconditions.RESPONSES)
    def reopen_period(
        books: PeriodChanges, month: Month, terms: models.PeriodReopening, precondition: SeenThere, response: Response
    ) -> models.PeriodRow:
        """It stays closed until a second person agrees."""
        return _tagged(operations.ask_to_reopen(books, month, terms, precondition), response)

    @routes.post("/periods/{month}/decision", summary="Open a month again, or leave it closed", responses=preconditions.RESPONSES)
    def decide_period(
        books: PeriodChanges, month: Month, decision: models.PeriodDecision, precondition: SeenThere, response: Response
    ) -> models.PeriodRow:
        """By somebody else than who asks. What was booked stays; the next close books what has changed."""
        return _tagged(operations.decide_to_reopen(books, month, decision, precondition), response)

    return routes


def _tagged(row: models.PeriodRow, response: Response) -> models.PeriodRow:
    response.headers["ETag"] = version_tag(row.revision)
    return row
