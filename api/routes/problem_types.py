"""The pages of problem types: what the `type` of a problem document leads to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from api.access.pages import problem_type_page
from api.errors import RequestError, described_responses
from api.formats import negotiated_type
from api.models import Page, ProblemTypeRow
from api.problem_types import PATH, PROBLEM_TYPES, ProblemType, type_uri

_ERRORS = described_responses(
    {
        404: "There is no such type",
        406: "None of the accepted types is there",
        421: "The Host header names another machine",
        422: "The request is not valid",
    }
)
_JSON, _HTML = "application/json", "text/html"


def router() -> APIRouter:
    """The GETs of /problems. Anybody may ask: they tell nothing of the ledger."""
    routes = APIRouter(prefix=PATH.rstrip("/"), tags=["service"], responses=_ERRORS)

    @routes.get("", summary="All types of problems")
    def problem_types() -> Page[ProblemTypeRow]:
        """Every type that the API answers with, with its meaning and remedy."""
        rows = [_row(kind, problem_type) for kind, problem_type in PROBLEM_TYPES.items()]
        return Page[ProblemTypeRow](rows=rows, total=len(rows))

    @routes.get("/{kind}", response_model=ProblemTypeRow, summary="A type of problem", responses={200: {"content": {_HTML: {}}}})
    def problem_type(request: Request, kind: Annotated[str, Path(description="Last part of `type`.")]) -> Response:
        """What `type` of a problem document leads to, as JSON, and as HTML for browsers."""
        if (row_type := PROBLEM_TYPES.get(kind)) is None:
            raise RequestError(404, "not-found", "there is no such type of problem", where=kind[:64], remedy=f"{PATH} lists all")
        if negotiated_type(request.headers.get("accept", ""), (_JSON, _HTML)) == _HTML:
            return problem_type_page(kind, row_type.title, [row_type.meaning, row_type.remedy])
        return Response(_row(kind, row_type).model_dump_json(), media_type=_JSON)

    return routes


def _row(kind: str, problem_type: ProblemType) -> ProblemTypeRow:
    fields = ("title", "meaning", "remedy")
    return ProblemTypeRow(
        type=type_uri(kind), statuses=list(problem_type.statuses), **{name: getattr(problem_type, name) for name in fields}
    )
