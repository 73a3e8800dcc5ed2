"""Routes of shared-cost rules: those in force, their versions, changes of those of the ledger, and what others would change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from api import models, preconditions, queries
from api.access.gates import BillChanges, WholeBill
from api.errors import RequestError, described_responses
from api.models import Page
from api.operations import RuleOperations
from api.preconditions import Seen, SeenThere, version_tag
from api.routes.answers import ROWS, AnyRows
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger.rule_store import RuleExistsError

T = TypeVar("T")

RuleName = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f\x7f]+$", description="Name of the rule.")]


def reading(operations: RuleOperations) -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/rules", response_model=Page[models.RuleRow], summary="Shared-cost rules", responses=ROWS)
    def rules(books: WholeBill, answer: AnyRows) -> Response:
        """In the order in which they are tried. Those of rootcost.toml are changed there, those of the ledger here."""
        return answer.whole(queries.ModelListing(models.RuleRow, operations.in_force(books), ["rule"]), "rules")

    @routes.get("/rules/versions", response_model=Page[models.RuleVersionRow], summary="Versions of rules", responses=ROWS)
    def rule_versions(books: WholeBill, answer: AnyRows) -> Response:
        """Every version that a run ever used, oldest first: costs name it."""
        return answer.whole(queries.ModelListing(models.RuleVersionRow, operations.versions(books), ["rule"]), "rule-versions")

    @routes.get("/rules/{name}", summary="A shared-cost rule")
    def rule(books: WholeBill, name: RuleName, response: Response) -> models.RuleRow:
        """The ETag of a rule of the ledger is its revision, which a change sends as `If-Match`."""
        return _tagged(operations.rule(books, name), response)

    return routes


def writing(operations: RuleOperations) -> APIRouter:
    """The changes under /v1, and what they would change."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)

    @routes.post(
        "/rules",
        status_code=201,
        summary="Add a shared-cost rule",
        dependencies=[Depends(is_json)],
        responses=described_responses({409: "The name is taken"}),
    )
    def add_rule(books: BillChanges, terms: models.NewRule, response: Response) -> models.RuleRow:
        """To the ledger. Months that it changes are attributed anew by the running service, or by `rootcost attribute`."""
        row = _unless_taken(lambda: operations.add(books, terms))
        response.headers["Location"] = f"/v1/rules/{quote(row.name, safe='')}"
        return _tagged(row, response)

    @routes.put(
        "/rules/{name}",
        summary="Change a shared-cost rule",
        dependencies=[Depends(is_json)],
        responses={**preconditions.RESPONSES, **described_responses({409: "It is written in the settings file"})},
    )
    def change_rule(
        books: BillChanges, name: RuleName, terms: models.RuleTerms, precondition: Seen, response: Response
    ) -> models.RuleRow:
        """Of the ledger: a new revision of the version that `If-Match` names, or the first one. What it says of earlier days counts for them, too."""
        return _tagged(_unless_taken(lambda: operations.change(books, name, terms, precondition)), response)

    @routes.delete(
        "/rules/{name}",
        status_code=204,
        summary="Remove a shared-cost rule",
        responses={**preconditions.RESPONSES, **described_responses({409: "It is written in the settings file"})},
    )
    def remove_rule(books: BillChanges, name: RuleName, precondition: SeenThere) -> None:
        """Of the ledger, in the version that `If-Match` names. Its revisions stay. To end it on a day, change its `valid_to`."""
        _unless_taken(lambda: operations.remove(books, name, precondition))

    @routes.post(
        "/rules/preview",
        summary="What other rules would change",
        dependencies=[Depends(is_json)],
    )
    def preview_rules(books: BillChanges, draft: models.RulesDraft) -> models.RulesEffect:
        """What a month would cost each team, by effective cost. It computes the month, and publishes nothing."""
        return operations.preview(books, draft)

    return routes


def _tagged(row: models.RuleRow, response: Response) -> models.RuleRow:
    if row.revision is not None:
        response.headers["ETag"] = version_tag(row.revision)
    return row


def _unless_taken(change: Callable[[], T]) -> T:
    try:
        return change()
    except RuleExistsError as error:
        raise RequestError(409, "exists", error.what, where=error.where, remedy=error.remedy) from error
