"""From calls to what is held against the bill: who used how much of what, and when. (CA-4, RA-1a, RA-3, ES-1)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from tests.oracle.calls import Call
from tests.oracle.chains import Key, Node, Path, Row, enclosing
from tests.oracle.identity import Owner, Registry, owner_of
from tests.oracle.names import LOG_MODELS, PRICE_MODELS, PROVIDERS

KEYS = ("account", "region", "resource", "principal")
"""What a log may leave unsaid about a call, and a bill about a charge. (RA-1a)"""


@dataclass(frozen=True)
class Use:
    """A quantity of one meter that one owner used: of a call, or of the time for which a resource was held."""

    owner: Owner
    provider: str | None
    model: str | None
    meter: str
    tier: str
    keys: Mapping[str, str | None]
    quantity: Fraction
    start: datetime
    end: datetime
    list_cost: Fraction | None = None
    flags: frozenset[str] = frozenset()
    firm_keys: Mapping[str, str | None] | None = None
    """The keys without the place that only the caller states; None: the same. (RA-1d)"""


def of_calls(
    calls: Iterable[Call],
    ways: Mapping[Key, list[Path]],
    conversations: Mapping[str, str],
    registry: Registry,
    prices: Sequence[Row],
    trusted: Sequence[str],
    defaults: Mapping[str, Mapping[str, str]],
) -> list[Use]:
    """Every meter of every call, once for each way its chain goes. A fan-in splits it by the weights of the links. (CH-1)"""
    uses: list[Use] = []
    for call in calls:
        provider, model = PROVIDERS.get(call.told("provider")), LOG_MODELS.get(call.told("response_model"))
        start = call.place.told["start_time"]
        said = {
            "account": _billed(call, "account_id") or call.told("account_id"),
            "region": _billed(call, "region") or call.told("region"),
            "resource": call.told("resource_id"),
            "principal": call.told("principal"),
        }
        firm = said | {"account": _billed(call, "account_id"), "region": _billed(call, "region")}
        keys, firm_keys = (
            {key: value or defaults.get(provider or "", {}).get(key) for key, value in one.items()} for one in (said, firm)
        )
        tier = call.told("service_tier") or "standard"
        for path in ways[call.place.key]:
            owner = owner_of(call.signals, path, conversations, registry, trusted)
            for meter, count in (call.usage or {}).items():
                quantity = count * path.weight
                rate = price_of(prices, model, meter, tier, start)
                uses.append(
                    Use(
                        owner,
                        provider,
                        model,
                        meter,
                        tier,
                        keys,
                        quantity,
                        start,
                        start,
                        None if rate is None else rate * quantity,
                        frozenset(call.flags) | owner.flags,
                        None if firm_keys == keys and firm == said else firm_keys,
                    )
                )
    return uses


def _billed(call: Call, column: str) -> str | None:
    """What the provider's side states of the place: a gateway or the provider's own log, never the caller's span. (RA-1d)"""
    return next((s[column] for s in call.signals if s["channel"] != "otlp" and s.get(column) is not None), None)


def price_of(prices: Sequence[Row], model: str | None, meter: str, tier: str, at: datetime) -> Fraction | None:
    """The list price of a meter and tier as of an instant: of those valid from then or before, the youngest. (ES-1, ES-2)"""
    held = [
        p
        for p in prices
        if (PRICE_MODELS.get(p["model"]), p["meter"], p["service_tier"]) == (model, meter, tier) and p["valid_from"] <= at
    ]
    return Fraction(max(held, key=lambda p: p["valid_from"])["rate"]) if held else None


def of_time(
    nodes: Mapping[Key, Node],
    ways: Mapping[Key, list[Path]],
    conversations: Mapping[str, str],
    registry: Registry,
    trusted: Sequence[str],
) -> list[Use]:
    """The time for which spans held a resource. (RA-3)

    Of spans that enclose each other, whatever lies between, the outermost speaks for all; a link encloses nothing.
    """
    holders = [n for n in nodes.values() if n.told.get("resource_id") and n.told.get("usage_scope") is None]
    uses: list[Use] = []
    for node in holders:
        resource = node.told["resource_id"]
        if any(n.told["resource_id"] == resource and n.key in enclosing(node.key, nodes) for n in holders):
            continue
        start, end = node.told["start_time"], max(node.told["start_time"], node.told["end_time"])
        for path in ways[node.key]:
            owner = owner_of(node.signals, path, conversations, registry, trusted)
            keys = {"account": None, "region": None, "resource": resource, "principal": None}
            seconds = _seconds(end - start) * path.weight
            uses.append(Use(owner, None, None, "seconds", "standard", keys, seconds, start, end, flags=owner.flags))
    return uses


def _seconds(span: timedelta) -> Fraction:
    return Fraction(span // timedelta(microseconds=1), 10**6)


def seconds_within(use: Use, start: datetime, end: datetime) -> Fraction:
    """The part of held time that lies in a period. (RA-3: overlap in time counts pro rata)"""
    overlap = min(use.end, end) - max(use.start, start)
    whole = use.end - use.start
    if overlap <= timedelta(0) or whole <= timedelta(0):
        return Fraction(0)
    return use.quantity * _seconds(overlap) / _seconds(whole)


def text_of(told: Mapping[str, Any], column: str) -> str | None:
    """A text column, or None."""
    value = told.get(column)
    return None if value is None else str(value)
