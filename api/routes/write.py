"""Routes that change budgets. Each needs a permission and writes an audit row."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response

from api import changes, preconditions
from api.access.gates import BudgetChanges
from api.errors import RequestError, described_responses
from api.models import Budget, BudgetChange, NewBudget
from api.preconditions import Seen, version_tag
from api.routes.parameters import BudgetName
from api.routes.read import ERROR_RESPONSES
from api.routes.receive import JSON, media_type

WRITE_ERROR_RESPONSES = {
    **ERROR_RESPONSES,
    **described_responses({415: "The body is of another type"}),
}


def is_json(request: Request) -> None:
    """Refuses (415) a body that does not say it is JSON: the error is the media type, not the content."""
    media_type(request, (JSON,))


def router() -> APIRouter:
    """All changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)

    @routes.post(
        "/budgets",
        status_code=201,
        summary="Create a budget",
        dependencies=[Depends(is_json)],
        responses=described_responses({409: "The name is taken"}),
    )
    def add_budget(books: BudgetChanges, budget: NewBudget, response: Response) -> Budget:
        """A monthly limit on the cost of a team or agent."""
        try:
            budget_row = changes.add_budget(books, budget)
        except changes.BudgetExistsError as error:
            raise RequestError(409, "exists", error.what, where=error.where, remedy=error.remedy) from error
        response.headers["ETag"] = version_tag(budget_row.revision)
        response.headers["Location"] = f"/v1/budgets/{quote(budget.name, safe='')}"
        return budget_row

    @routes.put("/budgets/{name}", summary="Change a budget", dependencies=[Depends(is_json)], responses=preconditions.RESPONSES)
    def change_budget(
        books: BudgetChanges, name: BudgetName, change: BudgetChange, precondition: Seen, response: Response
    ) -> Budget:
        """Adds a new revision of the version that `If-Match` names, or the first one; earlier ones are kept."""
        budget_row = changes.change_budget(books, name, change, precondition)
        response.headers["ETag"] = version_tag(budget_row.revision)
        return budget_row

    @routes.delete("/budgets/{name}", status_code=204, summary="End a budget", responses=preconditions.RESPONSES)
    def drop_budget(books: BudgetChanges, name: BudgetName, precondition: Seen) -> None:
        """Of the version that `If-Match` names. Its revisions are kept."""
        changes.drop_budget(books, name, precondition)

    return routes
