"""What the ledger's terms are called on a page. A term that is not listed is shown as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

DIMENSIONS: Mapping[str, str] = {
    "team": "Team",
    "agent": "Agent",
    "workflow": "Workflow",
    "model": "Model",
    "provider": "Provider",
    "service": "Service",
    "meter": "Meter",
    "tenant": "Tenant",
    "environment": "Environment",
    "cost_class": "Cost class",
    "reason": "Reason",
    "basis": "Billed or estimated",
    "method": "How it was attributed",
    "initiator_team": "Initiating team",
    "initiator_agent": "Initiating agent",
    "executor_team": "Executing team",
    "executor_agent": "Executing agent",
    "account": "Account",
    "region": "Region",
    "service_tier": "Service tier",
    "resource": "Resource",
    "principal": "Principal",
    "billing_account": "Payer account",
    "charge_category": "Charge category",
    "invoice_id": "Invoice",
    "rule": "Rule",
}
"""Dimensions of cost that pages offer, in the order of use."""

VIEWS: Mapping[str, str] = {"initiator": "who started it", "executor": "who ran it"}
BASES: Mapping[str, str] = {"effective": "Effective", "billed": "Billed", "list": "List", "contracted": "Contracted"}
BASIS_HELP = (
    "Effective: with commitments amortised. Billed: as invoiced. List: at public prices. "
    "Contracted: at negotiated prices, before commitments."
)
GRANULARITIES: Mapping[str, str] = {"total": "Total", "month": "By month", "day": "By day", "hour": "By hour"}
CLASSES: Mapping[str, str] = {
    "metered": "Metered",
    "owner": "Owner",
    "shared": "Shared",
    "idle": "Idle",
    "unallocated": "Unallocated",
}
CLASS_HELP: Mapping[str, str] = {
    "metered": "Priced from what calls used.",
    "owner": "Billed to a principal, profile or tag whose owner is known, without calls to show for it.",
    "shared": "Split by a shared-cost rule.",
    "idle": "Provisioned capacity that nobody used.",
    "unallocated": "Nobody is known to have caused it.",
}
REASONS: Mapping[str, str] = {
    "uncaptured_usage": "Billed, but no log tells of it",
    "no_logged_use": "No logged call used it",
    "unclassified_sku": "A kind of charge that is not known yet",
    "ungrouped": "The bill's total has it, none of its groups",
    "idle_capacity": "Provisioned, but not used",
    "commitment_purchase": "A commitment bought, not usage",
    "fee": "A fee, not usage",
    "not_on_bill": "Logged, but not on the bill",
    "credit": "Credit",
    "refund": "Refund",
    "adjustment": "Adjustment",
    "correction": "Correction of an earlier charge",
    "tax": "Tax",
    "credit_without_charge": "Credit without the charge it belongs to",
    "tax_without_charge": "Tax without the charge it belongs to",
    "unpriced": "No price for this model and meter",
    "overlogged": "More logged than billed; scaled down",
    "coarse_match": "Matched without all keys",
    "no_identity": "Nothing says who started it",
    "untrusted_claim": "Only an untrusted claim says who started it",
    "claim_conflict": "Claims contradict each other",
    "missing_parent": "The span above never arrived",
    "cycle": "Spans in a circle; opened at the latest",
    "fan_in": "Several links in; shared by the chains they come from",
    "cache_lifetime_unknown": "Unclear how long the cache was written for",
    "input_semantics_unknown": "Unclear whether input includes cache",
    "aggregate_only": "Only a sum over several calls was sent",
    "aggregate_residual": "Only what the calls below do not explain",
    "usage_absent": "No usage was sent",
    "cache_hit": "Served from the gateway's cache",
    "retry": "Another attempt of the same call",
    "absurd_usage": "A token count nobody can believe",
}
UNKNOWN = "unknown"
"""What stands where a call does not tell."""
NO_TEAM, NO_AGENT, NO_VALUE = "(no team)", "(no single agent)", "(none)"
NAMELESS = frozenset({NO_TEAM, NO_AGENT, NO_VALUE})
"""What stands where a cost has no such name. An agent that goes by the name `unknown` is another thing: it has one."""
NAMELESS_HELP = "Cost that is not one name's: idle, shared, owned or unallocated."


def reason(term: str | None) -> str:
    """A reason, or several joined by commas, in words.

    >>> reason("uncaptured_usage"), reason("some_new_rule"), reason(None)
    ('Billed, but no log tells of it', 'Some new rule', '')
    """
    if not term:
        return ""
    return "; ".join(REASONS.get(t.strip(), t.strip().replace("_", " ").capitalize()) for t in term.split(","))


def dimension(name: str) -> str:
    """A dimension's name on a page.

    >>> dimension("team"), dimension("charge_class")
    ('Team', 'Charge class')
    """
    return DIMENSIONS.get(name, name.replace("_", " ").capitalize())


def value(name: str, term: str | None) -> str:
    """A dimension's value on a page.

    >>> value("team", None), value("executor_agent", ""), value("model", None), value("agent", "unknown")
    ('(no team)', '(no single agent)', '(none)', 'unknown')
    >>> value("cost_class", "idle"), value("reason", None)
    ('Idle', 'none')
    """
    if not term:
        kind = name.rpartition("_")[2]
        return "none" if name == "reason" else {"team": NO_TEAM, "agent": NO_AGENT}.get(kind, NO_VALUE)
    if name == "cost_class":
        return CLASSES.get(term, term)
    return reason(term) if name == "reason" else term


def month(text: str) -> str:
    """A month's name.

    >>> month("2026-10")
    'October 2026'
    """
    names = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    year, _, number = text.partition("-")
    return f"{names[int(number) - 1]} {year}" if number.isdigit() and 1 <= int(number) <= 12 else text


def when(instant: datetime) -> str:
    """An instant, to the minute, with its offset.

    >>> from datetime import timezone
    >>> when(datetime(2026, 10, 5, 14, 3, tzinfo=timezone.utc))
    '2026-10-05 14:03 UTC'
    """
    zone = instant.strftime("%z")
    offset = "UTC" if zone in ("", "+0000") else f"{zone[:3]}:{zone[3:]}"
    return f"{instant:%Y-%m-%d %H:%M} {offset}"


def age(seconds: int) -> str:
    """How long ago, to one unit.

    >>> age(42), age(7200), age(200_000), age(-86_400)
    ('42 s ago', '2 h ago', '2 days ago', '24 h ahead')
    """
    size = abs(seconds)
    if size < 120:
        text = f"{size} s"
    elif size < 7200:
        text = f"{size // 60} min"
    elif size < 172_800:
        text = f"{size // 3600} h"
    else:
        text = f"{size // 86_400} days"
    return f"{text} {'ago' if seconds >= 0 else 'ahead'}"
