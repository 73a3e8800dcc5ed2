"""Roles: what each of them may see and change. This is the whole table; nothing else decides it.

A role is granted over the whole ledger or over one team. Over a team it covers the rows of that team; what is not made of teams' rows, such as
the balance of a bill, the people or the schedule, needs a grant over the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """One thing that a principal may do."""

    COSTS_READ = "costs:read"
    """See costs, chains and explanations."""
    BUDGETS_READ = "budgets:read"
    """See budgets, alerts and anomalies."""
    BUDGETS_WRITE = "budgets:write"
    """Create, change and end budgets."""
    REGISTRY_READ = "registry:read"
    """See agents and who owns them."""
    REGISTRY_WRITE = "registry:write"
    """Import agents and owners."""
    BOOKS_READ = "books:read"
    """See the balance, evidence, gaps, runs, prices and exchange rates."""
    BOOKS_WRITE = "books:write"
    """Import prices and exchange rates, change shared-cost rules."""
    PERIODS_CLOSE = "periods:close"
    """Close months, ask to open one again, and decide about it."""
    FACTS_ERASE = "facts:erase"
    """Erase a person, or the facts of a period."""
    SOURCES_READ = "sources:read"
    """See sources, their runs and problems with the input."""
    SOURCES_WRITE = "sources:write"
    """Add, change, pause, run and remove sources."""
    TELEMETRY_WRITE = "telemetry:write"
    """Send spans, metrics and gateway payloads."""
    RESERVATIONS_WRITE = "reservations:write"
    """Reserve budget for calls, and say what they cost."""
    SERVICE_READ = "service:read"
    """See the metrics of the service."""
    AUDIT_READ = "audit:read"
    """See the audit log."""
    PEOPLE_READ = "people:read"
    """See users, keys and grants."""
    PEOPLE_WRITE = "people:write"
    """Create, change and remove users, keys and grants."""


_P = Permission
_VIEWER: Final = frozenset({_P.COSTS_READ, _P.BUDGETS_READ, _P.REGISTRY_READ})

ROLES: Final[Mapping[str, frozenset[Permission]]] = {
    "viewer": _VIEWER,
    "finance": _VIEWER | {_P.BUDGETS_WRITE, _P.BOOKS_READ, _P.BOOKS_WRITE, _P.PERIODS_CLOSE, _P.SOURCES_READ, _P.AUDIT_READ},
    "platform": _VIEWER
    | {
        _P.BUDGETS_WRITE,
        _P.REGISTRY_WRITE,
        _P.SOURCES_READ,
        _P.SOURCES_WRITE,
        _P.TELEMETRY_WRITE,
        _P.RESERVATIONS_WRITE,
        _P.SERVICE_READ,
        _P.BOOKS_READ,
    },
    "admin": frozenset(_P),
    "auditor": frozenset(p for p in _P if p.value.endswith(":read")),
    "ingest": frozenset({_P.TELEMETRY_WRITE, _P.RESERVATIONS_WRITE}),
}
"""Permissions of each role. `ingest` is for keys of senders and gateways: they send, and see no cost but what is left of budgets."""

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "viewer": "sees costs, chains, budgets and agents",
    "finance": "sees the books whole and closes months, sets budgets, keeps prices and exchange rates",
    "platform": "sets budgets, keeps agents and sources, sends telemetry",
    "admin": "may do everything, and says who may do what",
    "auditor": "sees everything, and changes nothing",
    "ingest": "sends telemetry, reserves budget for its calls, and sees the limits it enforces",
}
"""A sentence on each role, for tables of roles."""
