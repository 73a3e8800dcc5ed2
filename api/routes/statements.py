"""GET routes of statements: what a month books to each team."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from api import models, queries
from api.access.gates import BudgetChanges, CostRows, WholeBill
from api.models import Page
from api.routes.answers import ROWS, AnyRows
from api.routes.parameters import MONTH, shape
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from api.statements import MEDIA_TYPES, StatementFormat, file_name, render

Month = Annotated[
    str, Query(max_length=7, description="Invoice month, YYYY-MM.", examples=["2026-10"], json_schema_extra=shape(MONTH))
]


def reading() -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/statements", response_model=Page[models.StatementRow], summary="The statements of a month", responses=ROWS)
    def statements(books: CostRows, answer: AnyRows, month: Month) -> Response:
        """By team, in cents; what no team has comes last. A team sees its own."""
        return answer.whole(
            queries.ModelListing(models.StatementRow, queries.statements(books, month), ["team", "currency"]), "statements"
        )

    @routes.get(
        "/statements/control",
        response_model=Page[models.StatementControl],
        summary="Whether statements come to the invoices",
        responses=ROWS,
    )
    def statement_control(books: WholeBill, answer: AnyRows, month: Month) -> Response:
        """By currency and provider: the sum of all statements beside the bill and the invoices."""
        rows = queries.statement_control(books, month)
        return answer.whole(queries.ModelListing(models.StatementControl, rows, ["currency", "provider"]), "statement-control")

    @routes.get(
        "/statement",
        response_model=models.Statement,
        summary="What a month books to a team, and why",
        responses={200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}, "description": "The statement"}},
    )
    def statement(
        books: CostRows,
        month: Month,
        team: Annotated[str, Query(max_length=256, description="The team; empty: what no team has.", examples=["Care"])] = "",
        format: Annotated[StatementFormat, Query(description="json, csv, xlsx or pdf.")] = "json",  # noqa: A002 - the name in the address
    ) -> Response:
        """Of a closed month what was booked, in cents that tie to the invoices, and the same bytes each time; of another one it is provisional."""
        document = queries.statement(books, team, month)
        headers = {} if format == "json" else {"Content-Disposition": f'attachment; filename="{file_name(document, format)}"'}
        return Response(render(document, format), media_type=MEDIA_TYPES[format], headers=headers)

    return routes


def writing() -> APIRouter:
    """The answers of teams."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES, dependencies=[Depends(is_json)])

    @routes.post("/statements/answers", status_code=201, summary="Accept or dispute a statement")
    def answer_statement(books: BudgetChanges, terms: models.NewStatementAnswer) -> models.StatementRow:
        """By who may set budgets of the team. The newest answer counts, until the statement books another amount; it is in the audit log."""
        return queries.answer_statement(books, terms)

    return routes
