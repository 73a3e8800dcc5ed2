"""Gates: what a route asks for before its query runs. Each names a permission, and whether it must reach over the whole ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.etags import unless_modified
from api.queries.gate import ScopedBooks, WholeBooks
from ledger.access.principals import Principal
from ledger.access.roles import Permission
from ledger.audit_denials import DenialLog
from ledger.errors import DeniedError

_P = Permission


@dataclass(frozen=True, slots=True)
class Gate:
    """A dependency of a route. Raises `DeniedError` (403) for who lacks the permission, which is audited."""

    permission: Permission
    whole: bool = False

    def principal(self, request: Request) -> Principal:
        """Who asks, once the permission is there."""
        principal: Principal = request.state.principal
        try:
            principal.need(self.permission, whole=self.whole)
        except DeniedError:
            denials: DenialLog = request.app.state.denials
            subject, address = f"{request.method} {request.url.path}"[:512], request.client.host if request.client else ""
            reason = f"needs {self.permission.value}{' over the whole' if self.whole else ''}"
            denials.note(subject, status=403, reason=reason, actor=principal.id, address=address)
            raise
        return principal


class Rows(Gate):
    """The books with the rows of the principal's teams."""

    def __call__(self, request: Request) -> ScopedBooks:
        """The books, scoped."""
        books = ScopedBooks(request.app.state.books, self.principal(request), self.permission)
        unless_modified(request, books)
        return books


class Whole(Gate):
    """The whole books."""

    def __init__(self, permission: Permission) -> None:
        super().__init__(permission, whole=True)

    def __call__(self, request: Request) -> WholeBooks:
        """The books, whole."""
        books = WholeBooks(request.app.state.books, self.principal(request), self.permission)
        unless_modified(request, books)
        return books


def known(request: Request) -> Principal:
    """Who asks, whatever he may."""
    principal: Principal = request.state.principal
    return principal


CostRows = Annotated[ScopedBooks, Depends(Rows(_P.COSTS_READ))]
BudgetRows = Annotated[ScopedBooks, Depends(Rows(_P.BUDGETS_READ))]
WholeAlerts = Annotated[WholeBooks, Depends(Whole(_P.BUDGETS_READ))]
AlertChanges = Annotated[WholeBooks, Depends(Whole(_P.BUDGETS_WRITE))]
BudgetChanges = Annotated[ScopedBooks, Depends(Rows(_P.BUDGETS_WRITE))]
RegistryRows = Annotated[ScopedBooks, Depends(Rows(_P.REGISTRY_READ))]
RegistryChanges = Annotated[WholeBooks, Depends(Whole(_P.REGISTRY_WRITE))]
WholeBill = Annotated[WholeBooks, Depends(Whole(_P.BOOKS_READ))]
BillChanges = Annotated[WholeBooks, Depends(Whole(_P.BOOKS_WRITE))]
AuditLog = Annotated[WholeBooks, Depends(Whole(_P.AUDIT_READ))]
WholeSources = Annotated[WholeBooks, Depends(Whole(_P.SOURCES_READ))]
SourceChanges = Annotated[WholeBooks, Depends(Whole(_P.SOURCES_WRITE))]
WholeService = Annotated[WholeBooks, Depends(Whole(_P.SERVICE_READ))]
Telemetry = Annotated[WholeBooks, Depends(Whole(_P.TELEMETRY_WRITE))]
Reserving = Annotated[ScopedBooks, Depends(Rows(_P.RESERVATIONS_WRITE))]
People = Annotated[WholeBooks, Depends(Whole(_P.PEOPLE_READ))]
PeopleChanges = Annotated[WholeBooks, Depends(Whole(_P.PEOPLE_WRITE))]
PeriodChanges = Annotated[WholeBooks, Depends(Whole(_P.PERIODS_CLOSE))]
ErasureChanges = Annotated[WholeBooks, Depends(Whole(_P.FACTS_ERASE))]
KnownPrincipal = Annotated[Principal, Depends(known)]
