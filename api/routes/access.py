"""Routes about who asks, and about how to be let in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints

from api.access.gates import KnownPrincipal
from api.access.hosts import origin_of
from api.access.middleware import RESOURCE_METADATA
from api.models import GrantRow, Me, SessionStates
from api.routes.read import ERROR_RESPONSES
from ledger.access import sessions
from ledger.access.roles import Permission
from ledger.books import Books

SessionHashes = Annotated[list[Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]], Query(max_length=200)]


def router() -> APIRouter:
    """Who asks, under /v1."""
    routes = APIRouter(prefix="/v1", tags=["access"], responses=ERROR_RESPONSES)

    @routes.get("/me", summary="Who asks, and what it may see")
    def me(principal: KnownPrincipal) -> Me:
        """The principal, its roles and their scope."""
        reaches = {permission.value: principal.teams(permission) for permission in Permission if principal.may(permission)}
        permissions = {name: "whole" if teams is None else sorted(teams) for name, teams in reaches.items()}
        return Me(
            principal=principal.id,
            kind=principal.kind,
            name=principal.name,
            role=",".join(dict.fromkeys(grant.role for grant in principal.grants)),
            scope=permissions.get(Permission.COSTS_READ.value, []),
            grants=[GrantRow(role=grant.role, team=grant.team or None) for grant in principal.grants],
            permissions=permissions,
        )

    return routes


def session_states(books: Books) -> APIRouter:
    """Which sessions are in force, for the dashboard, which asks for all of its tabs at once and several times a second."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/sessions")
    def sessions_in_force(request: Request, response: Response, session: SessionHashes = []) -> SessionStates:  # noqa: B006
        """Whoever knows the hash of a session has the session. Asking is no use of it, so that it ends when nobody uses it."""
        response.headers["Cache-Control"] = "no-store"
        return SessionStates(
            people=request.app.state.authenticator.has_people(), in_force=sessions.users_in_force(books, session)
        )

    return routes


def discovery() -> APIRouter:
    """What MCP clients are told that have no key (RFC 9728)."""
    routes = APIRouter(include_in_schema=False)

    @routes.get(RESOURCE_METADATA)
    def protected_resource(request: Request) -> dict[str, object]:
        """A key in the Authorization header lets in. No authorization server is named: none hands keys out, an administrator does."""
        return {
            "resource": f"{origin_of(request.scope)}/mcp",
            "resource_name": "RootCost",
            "bearer_methods_supported": ["header"],
        }

    return routes
