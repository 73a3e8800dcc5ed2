"""Routes that manage sources: kinds, set-up, tests, schedule, and runs by hand."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response

from api import models, preconditions, queries
from api.access.gates import SourceChanges, WholeSources
from api.errors import RequestError, described_responses
from api.models import Page, SourceName
from api.operations import SourceOperations
from api.preconditions import SeenThere, version_tag
from api.routes.answers import ROWS, AnyRows
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger.sources import SourceBusyError, SourceExistsError

Name = Annotated[SourceName, Path(description="Name of the source.")]
_JSON = [Depends(is_json)]
R = TypeVar("R", models.SourceStatus, models.ScheduleEntry)


def reading(operations: SourceOperations) -> APIRouter:
    """The GETs under /v1."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/source-kinds", response_model=Page[models.SourceKind], summary="What can be a source", responses=ROWS)
    def source_kinds(_: WholeSources, answer: AnyRows) -> Response:
        """What to name, which credentials it needs, and the policy to paste."""
        return answer.whole(queries.ModelListing(models.SourceKind, operations.kinds(), ["source"]), "source-kinds")

    @routes.get("/sources/{name}", summary="One configured source and its state")
    def source(books: WholeSources, name: Name, response: Response) -> models.SourceStatus:
        """Schedule, freshness and last run. Its ETag is the revision of its terms, which a change sends as `If-Match`."""
        return _tagged(queries.source(books, name), response)

    @routes.get("/schedule", response_model=Page[models.ScheduleEntry], summary="When each source is read", responses=ROWS)
    def schedule(books: WholeSources, answer: AnyRows) -> Response:
        """Cron, next tick and pauses, by name."""
        return answer.whole(queries.ModelListing(models.ScheduleEntry, queries.schedule(books), ["name"]), "schedule")

    return routes


def writing(operations: SourceOperations) -> APIRouter:
    """The changes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["writing"], responses=WRITE_ERROR_RESPONSES)
    _terms(routes, operations)
    _runs(routes, operations)
    return routes


def _terms(routes: APIRouter, operations: SourceOperations) -> None:
    @routes.post(
        "/sources",
        status_code=201,
        summary="Configure a source",
        dependencies=_JSON,
        responses=described_responses({409: "The name is taken"}),
    )
    def add_source(books: SourceChanges, source: models.NewSource, response: Response) -> models.SourceStatus:
        """`rootcost serve` reads it from its next tick on. Credentials are not stored: the serving process takes them from its environment."""
        try:
            status = operations.add(books, source)
        except SourceExistsError as error:
            remedy = f"change it with PUT /v1/sources/{source.name}, or choose another name"
            raise RequestError(409, "exists", error.what, where=error.where, remedy=remedy) from error
        response.headers["Location"] = f"/v1/sources/{source.name}"
        return _tagged(status, response)

    @routes.put("/sources/{name}", summary="Change a source", dependencies=_JSON, responses=preconditions.RESPONSES)
    def change_source(
        books: SourceChanges, name: Name, terms: models.SourceTerms, precondition: SeenThere, response: Response
    ) -> models.SourceStatus:
        """Gives it other terms than those of the revision that `If-Match` names. Its kind, its history and what it brought stay."""
        return _tagged(operations.change(books, name, terms, precondition), response)

    @routes.delete("/sources/{name}", status_code=204, summary="Remove a source", responses=preconditions.RESPONSES)
    def remove_source(books: SourceChanges, name: Name, precondition: SeenThere) -> None:
        """Takes it off the schedule. What it brought, and the history of its runs, stay."""
        operations.remove(books, name, precondition)

    @routes.patch(
        "/schedule/{name}",
        summary="Change a schedule, pause it or go on",
        dependencies=_JSON,
        responses=preconditions.RESPONSES,
    )
    def change_schedule(
        books: SourceChanges, name: Name, change: models.ScheduleChange, precondition: SeenThere, response: Response
    ) -> models.ScheduleEntry:
        """Of the revision of the source that `If-Match` names. The scheduler knows within seconds."""
        return _tagged(operations.reschedule(books, name, change, precondition), response)


def _runs(routes: APIRouter, operations: SourceOperations) -> None:
    @routes.post("/sources/test", summary="Try a source out before it is configured", dependencies=_JSON)
    def try_source(books: SourceChanges, draft: models.SourceDraft) -> Page[models.SourceTest]:
        """Credentials, reach and a first page of each address. Nothing is stored."""
        return _page(operations.test(books, draft))

    @routes.post("/sources/{name}/test", summary="Try a configured source out")
    def try_configured_source(books: SourceChanges, name: Name) -> Page[models.SourceTest]:
        """The same for a configured source."""
        return _page(operations.test_configured(books, name))

    @routes.post(
        "/sources/{name}/runs",
        status_code=202,
        summary="Read a source now, or days of it again",
        dependencies=_JSON,
        responses=described_responses({409: "A source of its kind is being read"}),
    )
    def run_source(books: SourceChanges, name: Name, request: models.RunRequest) -> models.SourceRunRow:
        """The run goes on after the answer; `GET /v1/sources/{name}/runs` tells how it ended. Rows that are known already change nothing."""
        try:
            return operations.start_run(books, name, request)
        except SourceBusyError as error:
            raise RequestError(409, "busy", error.what, where=error.where, remedy=error.remedy) from error


def _page(results: list[models.SourceTest]) -> Page[models.SourceTest]:
    return Page[models.SourceTest](rows=results, total=len(results))


def _tagged(row: R, response: Response) -> R:
    response.headers["ETag"] = version_tag(row.revision)
    return row
