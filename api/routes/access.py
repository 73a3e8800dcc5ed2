"""Routes about who asks, and about how to be let in."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.access.gates import KnownPrincipal
from api.access.hosts import origin_of
from api.access.middleware import RESOURCE_METADATA
from api.models import GrantRow, Me
from api.routes.read import ERROR_RESPONSES
from ledger.access.roles import Permission


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
