"""Display names of the ledger's terms: dimensions, cost classes, reasons. A term that is not listed is shown as it is stored."""

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
"""Cost dimensions that pages offer, most used first."""

VIEWS: Mapping[str, str] = {"initiator": "who started it", "executor": "who ran it"}
BASES: Mapping[str, str] = {"effective": "Effective", "billed": "Billed", "list": "List", "contracted": "Contracted"}
BASIS_HELP = (
    "Effective: with commitments amortised. Billed: as invoiced, without estimates. List: at public prices. "
    "Contracted: at negotiated prices, before commitments."
)
CALENDARS: Mapping[str, str] = {"invoice": "by invoice month", "usage": "by time of use"}
"""The two calendars of costs; a figure follows one of them. (TI-1a)"""
PARTS: Mapping[str, str] = {"cost_billed": "Billed", "cost_estimated": "Estimated"}
GRANULARITIES: Mapping[str, str] = {"total": "Total", "month": "By month", "day": "By day", "hour": "By hour"}
CLASSES: Mapping[str, str] = {
    "metered": "Metered",
    "owner": "Owner",
    "shared": "Shared",
    "idle": "Idle",
    "unallocated": "Unallocated",
}
CLASS_HELP: Mapping[str, str] = {
    "metered": "Split over the calls that were logged, by what each of them used.",
    "owner": "No call was logged for it, but it is known whose account, credential or tag it was billed to.",
    "shared": "Split over teams by a rule of yours for shared cost, such as support fees.",
    "idle": "Capacity that was paid for and that nobody used.",
    "unallocated": "It is not known who caused it.",
}
REASONS: Mapping[str, str] = {
    "uncaptured_usage": "Billed usage that no log records",
    "no_logged_use": "Billed, but no logged call used it in that hour",
    "unclassified_sku": "A product on the bill that RootCost does not know yet",
    "ungrouped": "In the bill's total, but in none of its breakdowns",
    "idle_capacity": "Capacity that was paid for and not used",
    "commitment_purchase": "A commitment bought in advance, not usage",
    "fee": "A fee, not usage",
    "not_on_bill": "Logged usage that is not on the bill",
    "implausible_usage": "More than 20 times what was billed; set aside until the sender is fixed",
    "account_not_billed": "Estimated: the bill does not have this account",
    "credit": "Credit",
    "refund": "Refund",
    "adjustment": "Adjustment",
    "correction": "Correction of an earlier charge",
    "tax": "Tax",
    "credit_without_charge": "Credit without the charge it belongs to",
    "tax_without_charge": "Tax without the charge it belongs to",
    "unpriced": "No price is known for this model and kind of usage",
    "overlogged": "More usage was logged than billed; shares were scaled down to the bill",
    "coarse_match": "Matched to the bill without the account, region or credential, which the logs do not name",
    "provider_inferred": "The log names no provider; only one bill sells this model",
    "no_provider": "The log names no provider, and none or several sell this model",
    "split_by_list_cost": "The bill names the model only: split over its calls by list price",
    "hour_end": "Billed in the hour in which the call ended, not in that of its start",
    "caller_place": "Billed in another account or region than the one its caller runs in",
    "no_identity": "No record says which agent started it",
    "untrusted_claim": "Only a sender that is not trusted names the agent that started it",
    "id_conflict": "Another key's records bear the same call id",
    "claim_conflict": "Records name different agents for it",
    "missing_parent": "The step that started it was never received",
    "cycle": "Its steps name each other as their origin; the circle was opened at the latest step",
    "fan_in": "Several requests led to it and share its cost",
    "cache_lifetime_unknown": "Not recorded whether the cache was kept for 5 minutes or 1 hour, which cost different amounts",
    "count_contradiction": "The record proves that its sender counts otherwise than expected; the record was believed",
    "input_semantics_unknown": "Not recorded whether the input tokens include cached ones",
    "aggregate_only": "Only a total over several calls was recorded",
    "aggregate_residual": "The part of a recorded total that its single calls do not explain",
    "counter_by_process": "Read from a running total of the same process; the conversation is not recorded",
    "usage_absent": "No usage was recorded",
    "cache_hit": "Answered from the gateway's cache",
    "retry": "A repeated attempt of the same call",
    "absurd_usage": "The recorded token count is implausibly high",
}
EVIDENCE: Mapping[str, str] = {
    "evidence": "Evidence",
    "table": "A table",
    "inference": "Inference",
    "nothing": "Nothing",
}
EVIDENCE_HELP: Mapping[str, str] = {
    "evidence": "A record or the bill proves it.",
    "table": "The emitter table, the price list or a shared-cost rule of yours says it.",
    "inference": "It follows from other records.",
    "nothing": "Nobody is known who caused it, or what it costs.",
}
"""What money stands on, strongest first."""
ANOMALIES: Mapping[str, str] = {"spike": "Spike", "level_shift": "Level shift", "silent": "Silent", "new": "New"}
ANOMALIES_HELP: Mapping[str, str] = {
    "spike": "A day, or two, far above the same weekdays of the last four weeks.",
    "level_shift": "Several such days: what follows is compared with the new level.",
    "silent": "Days without cost that would hardly come about by chance.",
    "new": "An agent or workflow that the ledger did not have before, in its first week.",
}
"""Kinds of anomalies."""
DRIVERS_HELP: Mapping[str, str] = {
    "volume": "More or fewer calls.",
    "mix": "Other models: a larger or smaller share of calls to a dearer one.",
    "retries": "Attempts that were repeated.",
    "price": "Another price per token.",
    "new": "Models that were not there before.",
    "gone": "Models that are not there any more.",
    "other charges": "Cost without usage behind it.",
    "tokens per call": "Longer or shorter prompts and answers.",
}
"""What drives a change of cost; `tokens per call` has a class of tokens behind a colon."""
EFFECTS: Mapping[str, str] = {
    "volume": "Volume",
    "mix": "Mix",
    "tokens_per_call": "Tokens per call",
    "price": "Price",
    "retries": "Retries",
    "new": "New",
    "gone": "Gone",
}
EFFECTS_HELP: Mapping[str, str] = {
    "volume": "More or fewer calls in all",
    "mix": "Another share of the calls was of this group or model",
    "tokens_per_call": "A call took more or fewer tokens",
    "price": "A token, an hour or an amount without a quantity cost more or less",
    "retries": "More or fewer calls were repeated",
    "new": "Only in the later period",
    "gone": "Only in the earlier period",
}
"""Why a cost changed from one period to another."""
UNKNOWN = "unknown"
"""Shown where a call has no such value."""
NO_TEAM, NO_AGENT, NO_VALUE = "(no team)", "(no agent)", "(none)"
NAMELESS = frozenset({NO_TEAM, NO_AGENT, NO_VALUE})
"""Shown where a cost has no team, agent or other value. `unknown` differs: it is the name of an agent."""
NAMELESS_HELP = "Cost that cannot be given to one name: idle capacity, shared cost, cost of an owner, or unallocated cost."


def parts_of(billed_cost: str, estimated_cost: str) -> str:
    """How much of a total is billed and how much estimated.

    >>> parts_of("$5.00", "$12.00")
    '$5.00 billed + $12.00 estimated'
    """
    return f"{billed_cost} billed + {estimated_cost} estimated"


def reason(term: str | None) -> str:
    """A reason, or several joined by commas, in words.

    >>> reason("uncaptured_usage"), reason("some_new_rule"), reason(None)
    ('Billed usage that no log records', 'Some new rule', '')
    """
    if not term:
        return ""
    return "; ".join(REASONS.get(t.strip(), t.strip().replace("_", " ").capitalize()) for t in term.split(","))


def anomaly(kind: str | None) -> str:
    """A kind of anomaly; rows of older versions have none and are spikes.

    >>> anomaly("level_shift"), anomaly(None), anomaly("some_kind")
    ('Level shift', 'Spike', 'Some kind')
    """
    return ANOMALIES.get(kind or "spike", (kind or "").replace("_", " ").capitalize())


def dimension(name: str) -> str:
    """A dimension's name on a page.

    >>> dimension("team"), dimension("charge_class")
    ('Team', 'Charge class')
    """
    return DIMENSIONS.get(name, name.replace("_", " ").capitalize())


def value(name: str, term: str | None) -> str:
    """A dimension's value on a page.

    >>> value("team", None), value("executor_agent", ""), value("model", None), value("agent", "unknown")
    ('(no team)', '(no agent)', '(none)', 'unknown')
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
