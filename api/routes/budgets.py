"""Routes of budgets: how they stand, their terms and revisions, and raises that need a second person."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import Response as AnyResponse

from api import changes, preconditions, queries
from api.access.gates import BudgetChanges, BudgetRows
from api.errors import RequestError, described_responses
from api.etags import reads
from api.models import Budget, BudgetChange, BudgetNames, BudgetRequestRow, BudgetRevisionRow, Decision, NewBudget, Page
from api.preconditions import Seen, version_tag
from api.routes.answers import ROWS, AnyRows
from api.routes.parameters import INSTANT, MONTH, BudgetName, shape
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger import db
from ledger.budgets.revisions import missing
from ledger.periods import parse_bound
from ledger.settings import Settings
from ledger.tables import EXCHANGE_RATES

_EXISTS = described_responses({409: "The name is taken"})


def reading(settings: Settings) -> APIRouter:
    """The GETs."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)
    stands_on = reads(EXCHANGE_RATES, db.Budget, db.BudgetRevision, db.BudgetRequest, db.Owner, db.ReservationLevel)

    @routes.get(
        "/budgets", response_model=Page[Budget], summary="Budgets and how they stand", responses=ROWS, dependencies=stands_on
    )
    def budgets(
        books: BudgetRows,
        answer: AnyRows,
        month: Annotated[
            str | None,
            Query(
                description="Month of the spend; by default the newest period that cost is known of.",
                examples=["2026-10"],
                json_schema_extra=shape(MONTH),
            ),
        ] = None,
        at: Annotated[
            str | None,
            Query(
                description="Instead: an instant in the period, as 2026-10-05 or 2026-10-05T06:00:00Z.",
                examples=["2026-10-05"],
                json_schema_extra=shape(f"({INSTANT})?"),
            ),
        ] = None,
    ) -> AnyResponse:
        """Budgets in force, by name, each in its own period."""
        moment = parse_bound(at, field="at", timezone=settings.report.timezone) if at else None
        return answer.whole(queries.ModelListing(Budget, queries.budgets(books, month, moment), ["name"]), "budgets")

    @routes.get("/budgets/{name}", summary="A budget and how it stands")
    def budget(books: BudgetRows, name: BudgetName, response: Response) -> Budget:
        """The one that is in force, by name or id. Its ETag is its revision, which a change sends as `If-Match`."""
        row = next((row for row in queries.budgets(books) if name in (row.name, row.budget_id)), None)
        if row is None:
            raise missing(name)
        response.headers["ETag"] = version_tag(row.revision)
        return row

    _decisions(routes, stands_on)
    return routes


def _decisions(routes: APIRouter, stands_on: list[Any]) -> None:
    @routes.get(
        "/budgets/{name}/revisions",
        response_model=Page[BudgetRevisionRow],
        summary="Who changed a budget, when and why",
        responses=ROWS,
        dependencies=stands_on,
    )
    def budget_revisions(books: BudgetRows, answer: AnyRows, name: BudgetName) -> AnyResponse:
        """Newest first. A revision is never changed."""
        rows = queries.ModelListing(BudgetRevisionRow, queries.budget_revisions(books, name), ["revision"])
        return answer.whole(rows, "budget-revisions")

    @routes.get(
        "/budget-requests",
        response_model=Page[BudgetRequestRow],
        summary="Raises that need a second person",
        responses=ROWS,
        dependencies=stands_on,
    )
    def budget_requests(books: BudgetRows, answer: AnyRows) -> AnyResponse:
        """Newest first; those that were decided about, too."""
        return answer.whole(
            queries.ModelListing(BudgetRequestRow, queries.budget_requests(books), ["request_id"]), "budget-requests"
        )

    @routes.get("/budget-names", summary="Names that a budget can be about")
    def budget_names(books: BudgetRows) -> BudgetNames:
        """Teams, agents and others that are registered or have spent. Other names are accepted, and flagged."""
        return queries.budget_names(books)


def writing() -> APIRouter:
    """The changes."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)

    @routes.post("/budgets", status_code=201, summary="Create a budget", dependencies=[Depends(is_json)], responses=_EXISTS)
    def add_budget(books: BudgetChanges, budget: NewBudget, response: Response) -> Budget:
        """A limit on the cost of a team, an agent, or any combination of `scopes`, in each period."""
        try:
            budget_row = changes.add_budget(books, budget)
        except changes.BudgetExistsError as error:
            raise _taken(error) from error
        response.headers["ETag"] = version_tag(budget_row.revision)
        response.headers["Location"] = f"/v1/budgets/{quote(budget.name, safe='')}"
        return budget_row

    @routes.put(
        "/budgets/{name}",
        summary="Change a budget",
        dependencies=[Depends(is_json)],
        responses=preconditions.RESPONSES
        | _EXISTS
        | {202: {"model": Budget, "description": "The raise awaits a second person: `pending`"}},
    )
    def change_budget(
        books: BudgetChanges, name: BudgetName, change: BudgetChange, precondition: Seen, response: Response
    ) -> Budget:
        """Adds a new revision of the version that `If-Match` names, or the first one; earlier ones are kept. What is left out stays."""
        try:
            budget_row = changes.change_budget(books, name, change, precondition)
        except changes.BudgetExistsError as error:
            raise _taken(error) from error
        pending = budget_row.pending
        if pending is not None and change.amount is not None and pending.amount == change.amount != budget_row.amount:
            response.status_code = 202
        response.headers["ETag"] = version_tag(budget_row.revision)
        return budget_row

    @routes.delete("/budgets/{name}", status_code=204, summary="End a budget", responses=preconditions.RESPONSES)
    def drop_budget(books: BudgetChanges, name: BudgetName, precondition: Seen) -> None:
        """Of the version that `If-Match` names. Its revisions are kept."""
        changes.drop_budget(books, name, precondition)

    @routes.post("/budget-requests/{request_id}/decision", summary="Approve or refuse a raise", dependencies=[Depends(is_json)])
    def decide(
        books: BudgetChanges,
        request_id: Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9-]+$", description="Id of the request.")],
        decision: Decision,
    ) -> Budget:
        """By somebody else than who asks, within the authority of his roles (`budgets.authority`)."""
        return changes.decide(books, request_id, decision)

    return routes


def _taken(error: changes.BudgetExistsError) -> RequestError:
    return RequestError(409, "exists", error.what, where=error.where, remedy=error.remedy)
