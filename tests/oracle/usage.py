"""From calls to what is held against the bill: who used how much of what, and when. (CA-4, RA-1a, RA-3, ES-1)"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from tests.oracle.calls import Call, by_completeness
from tests.oracle.chains import Key, Node, Path, Row, enclosing
from tests.oracle.identity import Owner, Registry, owner_of
from tests.oracle.names import LOG_MODELS, PRICE_MODELS, PROVIDERS, called_provider

VARIANT = ("release", "model_version", "geography")
"""What a name may state of a model beside its family. (RA-1c)"""
KEYS = (*VARIANT, "account", "region", "resource", "principal")
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
    share: Fraction = Fraction(1)
    """Which part of the holder's cost this owner has: the weight of the path."""
    firm_keys: Mapping[str, str | None] | None = None
    """The keys without the place that only the caller states; None: the same. (RA-1d)"""
    source: str | None = None
    met_at: datetime | None = None
    """When it is met by charges, where that is its end and not its start. (RA-3)"""

    @property
    def met(self) -> datetime:
        """The instant at which charges meet it."""
        return self.met_at or self.start

    @property
    def last(self) -> datetime:
        """The last instant at which charges may meet it. Reading: that of its end, if that is in the same month. (RA-3)"""
        return self.end if (self.end.year, self.end.month) == (self.start.year, self.start.month) else self.start


def of_calls(
    calls: Iterable[Call],
    ways: Mapping[Key, list[Path]],
    conversations: Mapping[str, str],
    registry: Registry,
    prices: Sequence[Row],
    trusted_sources: Sequence[str],
    defaults: Mapping[str, Mapping[str, str]],
    shared_ids: AbstractSet[str] = frozenset(),
) -> list[Use]:
    """Every meter of every call, once for each way its chain goes. A fan-in splits it by the weights of the links. (CH-1)"""
    uses: list[Use] = []
    for call in calls:
        name = call.told("response_model")
        provider, meaning = called_provider(call.told("provider"), name), LOG_MODELS.get(name)
        model = meaning.model if meaning else None
        variant = {key: getattr(meaning.variant, key) if meaning else None for key in VARIANT}
        start = call.place.told["start_time"]
        end = max(start, call.place.told["end_time"])
        stated_keys = variant | {
            "account": _billed(call, "account_id") or call.told("account_id"),
            "region": _billed(call, "region") or call.told("region"),
            "resource": call.told("resource_id"),
            "principal": call.told("principal"),
        }
        firm = stated_keys | {"account": _billed(call, "account_id"), "region": _billed(call, "region")}
        keys, firm_keys = keys_of(stated_keys, firm, provider, defaults)
        tier = call.told("service_tier") or "standard"
        for path in ways[call.place.key]:
            owner = owner_of(by_completeness(call.signals), path, conversations, registry, trusted_sources, shared_ids)
            other_usage = {} if call.cache_hit else json.loads(call.told("other_usage") or "{}")
            for meter, count in {**(call.usage or {}), **other_usage}.items():
                quantity = count * path.weight
                rate = price_of(prices, provider, name, meter, tier, start)
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
                        end,
                        # What used nothing costs nothing, whatever its price would be. (ES-2)
                        Fraction(0) if not quantity else None if rate is None else rate * quantity,
                        frozenset(call.flags) | owner.flags,
                        firm_keys=firm_keys,
                        source=call.told("source"),
                    )
                )
    return uses


Keys = Mapping[str, str | None]


def keys_of(
    stated_keys: Keys, firm: Keys, provider: str | None, defaults: Mapping[str, Mapping[str, str]]
) -> tuple[Keys, Keys | None]:
    """The keys of a call of this provider, and those without the place that only the caller states; None: the same. (RA-1a, RA-1d)

    Of both what can be the provider's place, and what the settings say of it where it is unknown.
    """
    possible_keys, possible_firm = (_possible(one, provider) for one in (stated_keys, firm))
    keys, firm_keys = (
        {key: value or defaults.get(provider or "", {}).get(key) for key, value in one.items()}
        for one in (possible_keys, possible_firm)
    )
    return keys, None if possible_keys == possible_firm else firm_keys


def _possible(keys: Keys, provider: str | None) -> dict[str, str | None]:
    """The keys without a place that cannot be the called provider's: the caller may run in another cloud than the one it calls. (RA-1d)

    Reading: accounts and regions of these worlds are Amazon's; Google and Microsoft have accounts that look so, others have neither.
    A provider that no table has may be a misspelt one.
    """
    if provider == "AWS" or provider not in PROVIDERS.values():
        return dict(keys)
    return {**keys, "region": None} | ({} if provider in ("Google Cloud", "Microsoft") else {"account": None})


def _billed(call: Call, column: str) -> str | None:
    """What the provider's side states of the place: the provider's own log, else a gateway, never the caller's span. (RA-1d)"""
    stating_signals = [s for s in by_completeness(call.signals) if s["channel"] != "otlp" and s.get(column) is not None]
    return next((s[column] for s in sorted(stating_signals, key=lambda s: s["channel"] == "litellm")), None)


def price_of(
    prices: Sequence[Row], provider: str | None, name: str | None, meter: str, tier: str, at: datetime
) -> Fraction | None:
    """The list price of a meter and tier as of an instant: of those valid from then or before, the youngest. (ES-1, ES-2)

    Reading: the model under its very name, as its provider lists it, else as anybody does; else its family as its provider lists it.
    """
    meaning = LOG_MODELS.get(name or "")
    if meaning is None:
        return None
    price_rows = [p for p in prices if p["model"] == name]
    price_rows = [p for p in price_rows if PROVIDERS[p["provider"]] == provider] or price_rows
    price_rows = price_rows or [
        p for p in prices if (PROVIDERS[p["provider"]], PRICE_MODELS[p["model"]]) == (provider, meaning.model)
    ]
    rates = [p for p in price_rows if (p["meter"], p["service_tier"]) == (meter, tier) and p["valid_from"] <= at]
    return Fraction(max(rates, key=lambda p: p["valid_from"])["rate"]) if rates else None


def of_time(
    nodes: Mapping[Key, Node],
    ways: Mapping[Key, list[Path]],
    conversations: Mapping[str, str],
    registry: Registry,
    trusted_sources: Sequence[str],
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
            owner = owner_of(node.signals, path, conversations, registry, trusted_sources)
            keys = dict.fromkeys(KEYS) | {"resource": resource}
            seconds = _seconds(end - start) * path.weight
            uses.append(
                Use(owner, None, None, "seconds", "standard", keys, seconds, start, end, flags=owner.flags, share=path.weight)
            )
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
