"""The route of the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api import queries
from api.access.gates import AuditLog
from api.models import AuditEntry, Page
from api.routes.answers import ROWS, AnyPage
from api.routes.parameters import End, Start
from api.routes.read import ERROR_RESPONSES


def router() -> APIRouter:
    """The GET of /v1/audit."""
    routes = APIRouter(prefix="/v1", tags=["reading"], responses=ERROR_RESPONSES)

    @routes.get("/audit", response_model=Page[AuditEntry], summary="The audit log, newest first", responses=ROWS)
    def audit(
        books: AuditLog,
        answer: AnyPage,
        start: Start = None,
        end: End = None,
        actor: Annotated[str | None, Query(description="Only of this actor.")] = None,
        action: Annotated[str | None, Query(description="Only this action, e.g. budget.change.")] = None,
        object_name: Annotated[str | None, Query(alias="object", description="Only about this object.")] = None,
    ) -> Response:
        """Every change and denial. Entries are added while one reads; a page goes on where the one before ended."""
        conditions = {"actor": actor, "action": action, "subject": object_name}
        query = queries.AuditQuery.parse(start=start, end=end, timezone=books.settings.report.timezone, **conditions)
        return answer(books, queries.audit_entries(books, query), "audit")

    return routes
