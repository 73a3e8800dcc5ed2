"""Raises that need a second person: above a share of the limit, within the second one's authority, and never decided by who asks."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy.orm import Session

from ledger import names
from ledger.access.principals import Principal
from ledger.access.roles import ROLES, Permission
from ledger.audit import record
from ledger.budget_tables import Budget, BudgetRequest
from ledger.budgets import revisions
from ledger.budgets.revisions import Change
from ledger.budgets.terms import Terms, parse_terms
from ledger.errors import DeniedError, ObjectMissingError, UsageError
from ledger.money import readable_amounts, text
from ledger.periods import now
from ledger.settings import BudgetSettings

APPROVED: Final = "approved"
REFUSED: Final = "refused"
_EXTRAS: Final = ("current_amount", "raised_until", "valid_from")


def needs_second_person(settings: BudgetSettings, principal: Principal, current: Decimal, wanted_amount: Decimal) -> bool:
    """Whether a raise is above the share that one person may make. Who has a shell at the home folder needs nobody.

    >>> from ledger.access.principals import OPERATOR
    >>> ada, rules = Principal("user:1", "user", "ada"), BudgetSettings(raise_share=Decimal("0.2"))
    >>> [needs_second_person(rules, who, Decimal(100), Decimal(wanted)) for who, wanted in ((ada, 120), (ada, 121), (OPERATOR, 500))]
    [False, True, False]
    """
    is_person = principal.kind in ("user", "key")
    return is_person and settings.raise_share > 0 and wanted_amount > current * (1 + settings.raise_share)


def ask(session: Session, budget: Budget, terms: Terms, change: Change, settings: BudgetSettings) -> BudgetRequest:
    """Records a raise that awaits a second person. The limit stays as it is until then."""
    at = now()
    current = revisions.newest(session, budget)
    extras = {"current_amount": text(current.limit(at))}
    extras |= {
        name: instant.isoformat()
        for name, instant in (("raised_until", change.raised_until), ("valid_from", change.valid_from))
        if instant is not None
    }
    request = BudgetRequest(
        request_id=f"req-{secrets.token_hex(8)}",
        budget_id=budget.budget_id,
        revision=budget.revision,
        terms=terms.model_dump(mode="json") | extras,
        asked_by=change.actor,
        asked_at=at,
        expires_at=at + timedelta(hours=settings.request_hours),
        reason=change.reason,
        decision="",
        decided_by="",
    )
    session.add(request)
    record(
        session,
        change.actor,
        "budget.ask",
        budget.name,
        before=extras,
        after={"amount": text(terms.amount), "request": request.request_id},
    )
    return request


def request_state(request: BudgetRequest, at: datetime) -> str:
    """waiting, approved, refused or expired."""
    return request.decision or ("expired" if request.expires_at <= at else "waiting")


def require_request(session: Session, request_id: str) -> BudgetRequest:
    """The request; raises `ObjectMissingError` if there is none."""
    request = session.get(BudgetRequest, request_id)
    if request is None:
        raise ObjectMissingError("no such request", where=request_id, remedy="GET /v1/budget-requests lists them")
    return request


def decide(
    session: Session, request: BudgetRequest, principal: Principal, settings: BudgetSettings, *, approve: bool, reason: str
) -> Budget:
    """Makes the raise, or refuses it. Raises `DeniedError` for the asker and beyond one's authority, `UsageError` for what cannot be decided any more."""
    at = now()
    state = request_state(request, at)
    if state != "waiting":
        raise UsageError(f"the request is {state}", where=request.request_id, remedy="ask for the raise again")
    budget = session.get(Budget, request.budget_id)
    if budget is None or budget.ended_at is not None:
        raise revisions.missing(str(request.terms["name"]))
    terms = parse_terms({name: value for name, value in request.terms.items() if name not in _EXTRAS}, place=budget.name)
    if approve:
        if principal.id == request.asked_by:
            raise DeniedError(f"{principal.name} has asked for it", where=budget.name, remedy="somebody else must approve it")
        _require_authority(principal, terms, settings)
        if budget.revision != request.revision:
            raise UsageError("the budget has changed since it was asked", where=budget.name, remedy="ask for the raise again")
        raised_until, valid_from = (
            datetime.fromisoformat(request.terms[name]) if name in request.terms else None
            for name in ("raised_until", "valid_from")
        )
        revisions.revise(session, budget, terms, Change(request.asked_by, request.reason, valid_from, raised_until))
    request.decision, request.decided_by, request.decided_at = (APPROVED if approve else REFUSED), principal.id, at
    record(
        session,
        principal.id,
        "budget.approve" if approve else "budget.refuse",
        budget.name,
        before={"amount": request.terms["current_amount"]},
        after={"amount": text(terms.amount), "request": request.request_id, "asked_by": request.asked_by, "reason": reason},
    )
    return budget


def _require_authority(principal: Principal, terms: Terms, settings: BudgetSettings) -> None:
    """The highest limit that one of the principal's roles over the budget's teams may approve."""
    teams = {names.key(name) for dimension, name in terms.scopes.items() if dimension == "team"}
    roles = {
        grant.role
        for grant in principal.grants
        if Permission.BUDGETS_WRITE in ROLES[grant.role] and (not grant.team or names.key(grant.team) in teams or not teams)
    }
    limits = [settings.authority.get(role) for role in sorted(roles)]
    if any(limit is None for limit in limits):
        return
    highest = max((limit for limit in limits if limit is not None), default=Decimal(0))
    if terms.amount > highest:
        wanted_amount, limit_text = readable_amounts(terms.amount, highest)
        able = [
            role
            for role, permissions in ROLES.items()
            if Permission.BUDGETS_WRITE in permissions and settings.authority.get(role, terms.amount) >= terms.amount
        ]
        raise DeniedError(
            f"{principal.name} may approve up to {limit_text} {terms.currency}, and this is {wanted_amount}",
            where=terms.name,
            remedy=f"ask somebody with the role {' or '.join(able)}" if able else "no role may: see budgets.authority",
        )
