"""From facts to costs: the chapters in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from ledger.settings import Settings
from ledger.tables import COST_COLUMNS
from tests.oracle.calls import Call, by_completeness, calls
from tests.oracle.chains import Key, Path, Row, graph, paths
from tests.oracle.identity import Registry, conversation_owners, shared_conversations, without_conflict
from tests.oracle.ladder import Followed, Rest, amount, follow, owner, walk_down
from tests.oracle.money import UNIT
from tests.oracle.names import PROVIDERS
from tests.oracle.rating import Charge, Metered, rate, read
from tests.oracle.sellers import may_be_uncaptured, with_sellers
from tests.oracle.usage import Use, of_calls, of_time


@dataclass(frozen=True)
class World:
    """Everything the books hold: rows as `ledger.tables` declares them, and the settings."""

    spans: Sequence[Row] = ()
    charges: Sequence[Row] = ()
    owners: Sequence[Row] = ()
    prices: Sequence[Row] = ()
    settings: Settings = field(default_factory=Settings)

    def __repr__(self) -> str:
        """What a failing test shows: every row in a line, without what says nothing."""
        rules = [rule.name for rule in self.settings.attribution.shared]
        about = f"trusted {self.settings.ingest.trusted_sources}, rules {rules}, {len(self.prices)} prices"
        rows = [("span", s) for s in self.spans] + [("charge", c) for c in self.charges] + [("owner", o) for o in self.owners]
        return "\n".join([about, *(f"{kind} {_line(row)}" for kind, row in rows)])


def _line(row: Row) -> str:
    hidden = ("date", "rank", "source", "scope", "raw_id", "final", "recorded_at", "parent_key", "trace_key", "span_key")
    told = {c: v for c, v in row.items() if v is not None and c not in hidden}
    return ", ".join(f"{c}={f'{v:%d %H:%M}' if isinstance(v, datetime) else str(v).lstrip('0') or '0'}" for c, v in told.items())


@dataclass(frozen=True)
class Cost:
    """Money on its owner, exact and not yet rounded. `amounts` is None for a call without a price. (ES-2)"""

    month: str
    currency: str
    provider: str | None
    basis: str
    cost_class: str
    who: tuple[Any, Any, Any, Any]
    model: str | None
    meter: str | None
    flags: frozenset[str]
    amounts: dict[str, Fraction] | None
    slack: Fraction = Fraction(0)
    """What rounding on the way may have moved: shares that go by amounts which were rounded before."""
    used_at: datetime | None = None
    """When it was used; None for what follows other money or has no usage of a model. (TI-1a)"""


@dataclass(frozen=True)
class Conclusions:
    """What follows from the facts."""

    calls: list[Call]
    ways: dict[Key, list[Path]]
    uses: list[Use]
    costs: list[Cost]


def conclude(world: World) -> Conclusions:
    """The recipe: spans to calls to owners to usage; charges to shares to costs."""
    registry = Registry(world.owners)
    trusted = world.settings.ingest.trusted_sources
    rules = world.settings.attribution

    nodes = graph([without_conflict(registry.with_own_names(row), registry, trusted) for row in world.spans])
    ways = {key: paths(node, nodes) for key, node in nodes.items()}
    found = calls(nodes)
    for call in found:
        # What any signal of a call says of who works there, it says where the call stands in the chain.
        own_signals = [s for s in by_completeness(call.signals) if s in call.place.signals]
        call.place.call_signals = [*own_signals, *(s for s in by_completeness(call.signals) if s not in own_signals)]
    conversations = conversation_owners(ways, registry)
    shared = shared_conversations([call.signals for call in found], registry, trusted)
    defaults = {d.provider: {"account": d.account, "region": d.region} for d in rules.defaults}
    uses = of_calls(found, ways, conversations, registry, world.prices, trusted, defaults, shared)
    uses += of_time(nodes, ways, conversations, registry, trusted)

    bill = [read(row) for row in world.charges]
    for charge in bill:
        charge.owner = owner(charge, registry, rules.owner_agent_tags, rules.owner_tags) or (None, None)
    uses = with_sellers(uses, bill, world.prices, defaults)
    outcome = rate(bill, uses, Fraction(rules.tolerance), world.prices)
    uses, late = outcome.uses, outcome.late
    uncaptured = [c for c in bill if c.sold and c.left and any(amount(c.row, column) for column in COST_COLUMNS)]
    corrections = [c for c in bill if _follows(c)]
    taxes = [c for c in bill if c.row["charge_category"] == "Tax"]
    plain = [c for c in bill if c not in corrections and c not in taxes]
    for charge in plain:
        if charge.row["charge_category"] == "Purchase":
            charge.reason = "commitment_purchase"
    tags = rules.owner_agent_tags, rules.owner_tags
    for rows in (plain, corrections, taxes):
        follow(rows if rows is not plain else [], bill)
        walk_down(rows, bill, registry, rules.shared, tags)

    costs = [_cost(charge, to, part) for charge in bill for to, part in charge.shares]
    open_uses = [use for use in uses if use.model is not None and (id(use) not in outcome.paid or id(use) in late)]
    costs += [_unbilled(use, bill, late, uncaptured, outcome.absurd) for use in open_uses]
    return Conclusions(found, ways, uses, costs)


def _follows(charge: Charge) -> bool:
    """Credits, corrections and refunds. Reading: a refund is a usage row with a negative cost and nothing else said."""
    row = charge.row
    return row["charge_category"] in ("Credit", "Adjustment") or row.get("charge_class") == "Correction"


def _cost(charge: Charge, to: Any, part: Fraction) -> Cost:
    """One share of one charge, in all four columns alike. (RA-6)"""
    flags: set[str] = set()
    blur = Fraction(0)
    while isinstance(to, Followed):
        flags.add(to.reason)
        blur += to.blur
        to = to.to
    row = charge.row
    amounts = {column: part * amount(row, column) for column in COST_COLUMNS}
    provider = PROVIDERS.get(row["provider_name"], row["provider_name"])
    if isinstance(to, Metered):
        o = to.use.owner
        who = o.initiator, o.initiator_team, o.executor, o.executor_team
        cost_class, model, meter, more = "metered", to.use.model, to.use.meter, to.flags
    else:
        assert isinstance(to, Rest)
        who = to.agent, to.team, to.agent, to.team
        cost_class, more = to.cost_class, frozenset({to.reason})
        model = meter = None
        blur += to.blur
    month, currency = row["billing_month"], row["billing_currency"]
    slack = blur * max(abs(amount(row, column)) for column in COST_COLUMNS)
    used_at = to.use.start if isinstance(to, Metered) and model is not None and not flags else None
    return Cost(month, currency, provider, "billed", cost_class, who, model, meter, more | flags, amounts, slack, used_at)


def _unbilled(
    use: Use, bill: Sequence[Charge], late: Mapping[int, Fraction], uncaptured: Sequence[Charge], absurd: AbstractSet[int]
) -> Cost:
    """ES-1, ES-2: usage that no charge paid for. Where the bill covers its period it cost nothing, else it is estimated; so is
    what a running period had not come to (`late`, by use), whatever else the bill covers. (ES-1a)
    What cannot be cost nothing. (RA-2b)

    Reading: use without a provider is on nobody's bill, so what it cost nothing for is an estimate. (RA-1b)
    """
    o = use.owner
    who = o.initiator, o.initiator_team, o.executor, o.executor_team
    month = f"{use.start:%Y-%m}"
    if id(use) in absurd or (id(use) not in late and covered(use, bill)) or may_be_uncaptured(use, uncaptured):
        nothing = dict.fromkeys(COST_COLUMNS, Fraction(0))
        basis, reason = ("estimated", "no_provider") if "no_provider" in use.flags else ("billed", "not_on_bill")
        reason = "implausible_usage" if id(use) in absurd else reason
        return Cost(month, "USD", use.provider, basis, "metered", who, use.model, use.meter, use.flags | {reason}, nothing)
    if use.list_cost is None:
        flags = use.flags | {"unpriced"}
        return Cost(month, "USD", use.provider, "estimated", "metered", who, use.model, use.meter, flags, None)
    part, blur = ratio(use, bill, late)
    list_cost = use.list_cost * late.get(id(use), Fraction(1))
    amounts = dict.fromkeys(COST_COLUMNS, list_cost * part) | {"list_cost": list_cost}
    slack = blur * list_cost
    return Cost(
        month, "USD", use.provider, "estimated", "metered", who, use.model, use.meter, use.flags, amounts, slack, use.start
    )


def covered(use: Use, bill: Sequence[Charge]) -> bool:
    """Whether the bill has come as far as this use. (ES-1: "does not cover yet")

    Reading: hourly and daily charges of models come in order of time, so the last of them says how far the bill has got:
    that of the use's own account where the bill has any of it; the provider's, where the bill has other charges of it, or
    where nobody but the caller names an account. An account that the bill does not have waits for its own bill: of others'
    charges only those without an account can be meant. (ES-1a) Next month's hours say nothing of this month's.
    """
    month = f"{use.start:%Y-%m}"
    bill = [c for c in bill if f"{c.row['charge_period_start']:%Y-%m}" <= month]
    fine = [c for c in bill if c.sold and c.sold.model is not None and c.sold.provider == use.provider]
    fine = [c for c in fine if c.row["charge_period_end"] - c.row["charge_period_start"] <= timedelta(days=1)]
    accounts = {c.keys["account"] for c in bill if PROVIDERS.get(c.row["provider_name"], c.row["provider_name"]) == use.provider}
    firm = use.keys if use.firm_keys is None else use.firm_keys
    account = use.keys["account"] if use.keys["account"] in accounts else firm["account"]
    if account is not None:
        own = [c for c in fine if c.keys["account"] == account]
        fine = own or (fine if account in accounts else [c for c in fine if c.keys["account"] is None])
    return any(use.last < min(c.row["charge_period_end"], c.settled or c.row["charge_period_end"]) for c in fine)


def _tells_a_price(charge: Charge) -> bool:
    """Whether a charge is of tokens of a model.

    Reading: searches of whatever model say nothing of a model's price, and a charge without a quantity may pay for much that nobody
    logged. (RA-3)
    """
    return charge.sold is not None and charge.sold.model is not None and charge.sold.meter is not None


def ratio(use: Use, bill: Sequence[Charge], late: Mapping[int, Fraction]) -> tuple[Fraction, Fraction]:
    """What was really paid of list price, and how exactly that is known: for the provider's model, else the provider. (ES-1)

    Reading: pools that were scaled down say nothing about prices, and where nothing was paid yet, the list price is paid. What a later
    invoice came to is not known when a month is estimated.
    """
    bill = [charge for charge in bill if charge.row["billing_month"] <= f"{use.start:%Y-%m}"]
    paid = [
        (to.use, part * amount(charge.row, "effective_cost"))
        for charge in bill
        for to, part in charge.shares
        if isinstance(to, Metered) and to.use.list_cost and "overlogged" not in to.flags and _tells_a_price(charge)
    ]
    mine = [(u, cost) for u, cost in paid if (u.provider, u.model) == (use.provider, use.model)]
    for known in (mine, [(u, cost) for u, cost in paid if u.provider == use.provider]):
        # A use may be paid for by several charges of its pool; its list price counts once.
        lists = {id(u): u.list_cost * (1 - late.get(id(u), Fraction(0))) for u, _ in known if u.list_cost}
        listed = sum(lists.values(), Fraction(0))
        spent = sum((cost for _, cost in known), Fraction(0))
        if listed and spent > 0:
            return spent / listed, UNIT * (1 + 2 * len(known) / listed)
    return Fraction(1), Fraction(0)
