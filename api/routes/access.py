"""Routes about who asks."""

from __future__ import annotations

from fastapi import APIRouter

from api.access.gates import KnownPrincipal
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
