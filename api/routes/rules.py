"""Routes of shared-cost rules: those in force, their versions, and what others would change."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from api import models, queries
from api.access.gates import BillChanges, WholeBill
from api.models import Page
from api.operations import RuleOperations
from api.routes.answers import ROWS, AnyRows
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json


def router(operations: RuleOperations) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/rules", response_model=Page[models.RuleRow], summary="Shared-cost rules", responses=ROWS)
    def rules(books: WholeBill, answer: AnyRows) -> Response:
        """In the order in which they are tried. They are written in rootcost.toml."""
        return answer.whole(queries.ModelListing(models.RuleRow, operations.in_force(books), ["rule"]), "rules")

    @routes.get("/rules/versions", response_model=Page[models.RuleVersionRow], summary="Versions of rules", responses=ROWS)
    def rule_versions(books: WholeBill, answer: AnyRows) -> Response:
        """Every version that a run ever used, oldest first: costs name it."""
        return answer.whole(queries.ModelListing(models.RuleVersionRow, operations.versions(books), ["rule"]), "rule-versions")

    @routes.post(
        "/rules/preview",
        summary="What other rules would change",
        dependencies=[Depends(is_json)],
        responses={status: WRITE_ERROR_RESPONSES[status] for status in (415,)},
    )
    def preview_rules(books: BillChanges, draft: models.RulesDraft) -> models.RulesEffect:
        """What a month would cost each team, by effective cost. It computes the month, and publishes nothing."""
        return operations.preview(books, draft)

    return routes
