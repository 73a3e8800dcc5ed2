"""RA-1 to RA-3: which uses a charge pays for, and what it pays for that nobody logged.

The result for each charge is a list of shares that sum to 1. All four cost columns go by them (RA-6), and so does whatever
follows the charge (RA-5).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import count
from typing import Any

from tests.oracle.chains import Row
from tests.oracle.names import PRICE_MODELS, PROVIDERS, SKUS, UNITS, Sold
from tests.oracle.usage import KEYS, VARIANT, Use, seconds_within

Level = tuple[frozenset[str], frozenset[str]]
"""The keys that a charge knows, and those of them that a use knows as well. (RA-1a)"""


SETTLING_HOURS = {"Google Cloud": 48, "Anthropic": 3}
"""How late a provider's usage may still arrive on its bill; a day where nothing is said. (ES-1a)"""


_NUMBERS = count()
"""Numbers pools in the order of rating."""


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


@dataclass
class Charge:
    """A row of the bill, and what has become of it so far."""

    row: Row
    sold: Sold | None
    shares: list[tuple[Any, Fraction]] = field(default_factory=list)
    left: Fraction = Fraction(1)
    reason: str = "no_logged_use"
    owner: tuple[str | None, str | None] = (None, None)
    """The agent and the team that its principal, resource or tag gives it to."""

    @property
    def keys(self) -> dict[str, str | None]:
        """The keys a log might know as well."""
        row = self.row
        variant = {key: getattr(self.sold.variant, key) if self.sold else None for key in VARIANT}
        return variant | {
            "account": row.get("sub_account_id"),
            "region": row.get("region_id"),
            "resource": row.get("resource_id"),
            "principal": row.get("principal"),
        }

    @property
    def quantity(self) -> Fraction | None:
        """What was bought, in the meter's unit; None if it cannot be compared. (RA-2)"""
        unit = UNITS.get(self.row.get("consumed_unit") or "")
        if self.row.get("consumed_quantity") is None or unit is None:
            return None
        return Fraction(self.row["consumed_quantity"]) * unit

    @property
    def apart(self) -> tuple[Hashable, ...]:
        """What never mixes: currency, month of invoice, provider, model, meter, charge period. (RA-1, RA-1a)"""
        row, sold = self.row, self.sold
        assert sold is not None
        period = row["charge_period_start"], row["charge_period_end"]
        return row["billing_currency"], row["billing_month"], sold.provider, sold.model, sold.meter, *period

    @property
    def settled(self) -> datetime | None:
        """The hour before which all usage had arrived when the bill was read; None: the whole period's had. (ES-1a)"""
        if self.row.get("read_at") is None or (self.row.get("final") and self.row.get("invoice_id")):
            return None
        lag = SETTLING_HOURS.get(PROVIDERS.get(self.row["provider_name"], ""), 24)
        return _hour(self.row["read_at"] - timedelta(hours=lag))

    @property
    def running(self) -> bool:
        """Whether usage of the period may have come later. (ES-1a)"""
        return self.settled is not None and self.settled < self.row["charge_period_end"]

    def give(self, recipient: Any, part: Fraction) -> None:
        """A part of the whole charge goes to someone."""
        if part:
            self.shares.append((recipient, part))


@dataclass(frozen=True)
class Metered:
    """A use that is paid for."""

    use: Use
    flags: frozenset[str]


@dataclass(frozen=True)
class Idle:
    """Capacity that was bought and that nobody used."""


def read(row: Row) -> Charge:
    """A charge with what its SKU sells. Only usage sells; credits, taxes and purchases do not. (RA-1)"""
    sold = SKUS.get(row.get("sku_meter") or "")
    usage = row["charge_category"] == "Usage" and row.get("charge_class") is None
    return Charge(row, sold if usage and sold and sold.provider == PROVIDERS.get(row["provider_name"]) else None)


@dataclass
class Logged:
    """A use, the meter it is billed by, how much of it no charge has taken yet, and whether any has."""

    use: Use
    meter: str
    left: Fraction
    paid: bool = False
    late: bool = False
    has_own_line: bool = False
    """Whether the bill sells the meter of this very model; else it may sell it of whatever model."""
    placeless: bool = False
    beyond: list[tuple[Hashable, Fraction]] = field(default_factory=list)
    """The pools that it logged more than, and what each of them bought. (RA-2b)"""
    surpassed: list[int] = field(default_factory=list)
    """The same pools, by their place in the order of rating. (RA-3)"""

    @property
    def keys(self) -> Mapping[str, str | None]:
        """What it is matched by: the caller's place is tried first, then dropped. (RA-1d)"""
        return self.use.firm_keys if self.placeless and self.use.firm_keys is not None else self.use.keys


WITHIN = {
    "reasoning_tokens": "output_tokens",
    "cache_write_1h_tokens": "cache_write_5m_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_read_tokens": "input_tokens",
}
"""The meter that a bill counts a finer one in, where it has no line for that."""


def billed_by(use: Use, charges: Sequence[Charge], price_meters: AbstractSet[tuple[str, str]]) -> str:
    """The meter a use is on the bill with.

    Reading: thinking is output wherever no line of its model sells thinking. Of any other meter a list price says that it has a line of its
    own, whether or not that is on this bill; without a price it is in the coarser meter's line.
    """
    lines = {c.sold.meter for c in charges if c.sold and (c.sold.provider, c.sold.model) == (use.provider, use.model)}
    if use.meter in lines or (use.meter != "reasoning_tokens" and (use.model, use.meter) in price_meters):
        return use.meter
    meter = WITHIN.get(use.meter)
    while meter is not None and meter not in lines:
        meter = WITHIN.get(meter)
    return meter or use.meter


TIME = ("seconds",)
"""What is sold of a resource."""


def meters_of(bill: Sequence[Charge]) -> set[tuple[str, str | None, str | None]]:
    """Provider, model and meter of all that a bill sells of models."""
    return {(c.sold.provider, c.sold.model, c.sold.meter) for c in bill if c.sold and c.sold.meter not in TIME}


@dataclass(frozen=True)
class Rated:
    """What rating concludes beside the shares of the charges.

    `paid` are the ids of the uses that are paid for, `late` the parts of those that a running period had not come to (ES-1a), `absurd` those
    set aside (RA-2b). `uses` are all uses; one that is met at its end in part is two of them. (RA-3)
    """

    uses: list[Use]
    paid: set[int]
    late: dict[int, Fraction]
    absurd: set[int]


def rate(charges: Sequence[Charge], uses: Sequence[Use], tolerance: Fraction, prices: Sequence[Row]) -> Rated:
    """Shares of all charges that sell something. (RA-1 to RA-3)"""
    selling = [c for c in charges if c.sold is not None]
    price_meters = {(PRICE_MODELS[p["model"]], p["meter"]) for p in prices if p["model"] in PRICE_MODELS}
    model_uses = [(use, billed_by(use, selling, price_meters)) for use in uses if use.model is not None]
    meter_charges = [c for c in selling if c.sold and c.sold.meter not in (None, *TIME)]
    tokens = [c for c in meter_charges if c.quantity is not None]
    logged = _rate_tokens(tokens, model_uses, tolerance)
    model_charges = [c for c in selling if c.sold and c.sold.meter is None]
    at_end = _met_at_their_ends(tokens, logged, tolerance, split_by_model(model_charges, [use for use, _ in model_uses]))
    _start_anew(model_charges)
    if at_end:
        model_uses = [part for use, meter in model_uses for part in _in_parts(use, meter, at_end)]
        uses = [*(use for use in uses if use.model is None), *(use for use, _ in model_uses)]
        _start_anew(tokens)
        logged = _rate_tokens(tokens, model_uses, tolerance)
    absurd = implausible(logged)
    if absurd:
        _start_anew(tokens)
        logged = _rate_tokens(tokens, [(use, meter) for use, meter in model_uses if id(use) not in absurd], tolerance)
    paid_for_model = split_by_model(model_charges, [use for use, _ in model_uses])
    for pool in _same_resource([c for c in selling if c.sold and c.sold.meter in TIME]):
        _split_time(pool, [u for u in uses if u.meter == "seconds"])
    for charge in tokens:
        charge.shares = [(_scaled_down(to, logged), part) for to, part in charge.shares]
    late = {id(one.use): one.left / one.use.quantity for one in logged if one.late and one.left}
    late |= {use: Fraction(1) for use in paid_for_model.late}
    paid = {id(one.use) for one in logged if one.paid} | paid_for_model.paid
    return Rated(list(uses), paid, late, absurd)


@dataclass(frozen=True)
class ModelSplit:
    """Ids of the uses that charges of whole models pay for, and of those that came after a running period's."""

    paid: set[int]
    late: set[int]


def split_by_model(charges: Sequence[Charge], uses: Sequence[Use]) -> ModelSplit:
    """RA-3: a charge that names a model and no meter goes to the calls of the model, by list cost; by quantity where a price is missing.

    Reading: to those of the agent that owns it first, else of his team; what nobody owns, or whose owner had none, to the calls that no owner's
    charge went to, else to all. Each invoice by itself.
    """
    paid: set[int] = set()
    late: set[int] = set()
    for invoice in sorted({c.row["billing_month"] for c in charges}):
        invoice_charges = [c for c in charges if c.row["billing_month"] == invoice]
        late_now = _after_cost_is_met(invoice_charges, uses)
        open_uses = [use for use in uses if id(use) not in late_now]
        owned_uses: set[int] = set()
        remaining = list(invoice_charges)
        for attempt, part in enumerate((0, 1, None, None)):
            # What no owner's charge went to comes first; then, for what met none of it, all.
            candidates = [use for use in open_uses if attempt != 2 or id(use) not in owned_uses]
            met_now: set[int] = set()
            for charge in list(remaining):
                if part is not None and charge.owner[part] is None:
                    continue
                fitting = [use for use in candidates if _is_for(charge, use, part)]
                total = _weights(fitting)
                if not total:
                    continue
                whole = sum(total.values(), Fraction(0))
                for use in fitting:
                    charge.give(Metered(use, use.flags), total[id(use)] / whole)
                charge.left = Fraction(0)
                remaining.remove(charge)
                met_now |= set(total)
            owned_uses |= met_now
        paid |= owned_uses
        late |= late_now
    return ModelSplit(paid, late - paid)


def _is_for(charge: Charge, use: Use, part: int | None) -> bool:
    assert charge.sold is not None
    owner = use.owner.executor, use.owner.executor_team
    period = charge.row["charge_period_start"] <= use.met < charge.row["charge_period_end"]
    is_own = part is None or owner[part] == charge.owner[part]
    return period and is_own and (use.provider, use.model) == (charge.sold.provider, charge.sold.model) and use.quantity > 0


def _weights(uses: Sequence[Use]) -> dict[int, Fraction]:
    """List costs, if all are priced, else quantities."""
    prices = [use.list_cost for use in uses]
    if all(price is not None for price in prices) and any(prices):
        return {id(use): use.list_cost or Fraction(0) for use in uses}
    return {id(use): use.quantity for use in uses}


def _after_cost_is_met(charges: Sequence[Charge], uses: Sequence[Use]) -> set[int]:
    """ES-1a: of running periods, the uses of hours that begin when the list cost of earlier ones has come to what was charged."""
    pools: dict[tuple[Hashable, ...], list[Charge]] = {}
    for charge in charges:
        if charge.running:
            pools.setdefault(charge.apart, []).append(charge)
    late: set[int] = set()
    for pool in pools.values():
        cost = max(sum(Fraction(c.row[column]) for c in pool) for column in ("effective_cost", "billed_cost"))
        in_period = [use for use in uses if _is_for(pool[0], use, None)]
        cost_so_far = Fraction(0)
        for hour in sorted({_hour(use.met) for use in in_period}):
            of_hour = [use for use in in_period if _hour(use.met) == hour]
            hour_cost = sum((use.list_cost or Fraction(0) for use in of_hour), Fraction(0))
            if hour_cost > 0 and cost_so_far >= cost:
                late |= {id(use) for use in of_hour}
            cost_so_far += hour_cost
    return late


def _start_anew(charges: Sequence[Charge]) -> None:
    for charge in charges:
        charge.shares, charge.left, charge.reason = [], Fraction(1), "no_logged_use"


def _met_at_their_ends(
    charges: Sequence[Charge], uses: Sequence[Logged], tolerance: Fraction, met_by_model: ModelSplit
) -> dict[int, Fraction]:
    """How much of each use, by its id, meets what the charges of the hour of its end have left over. (RA-3)

    Reading: a use that nothing paid for offers itself. Of a pool with more logged than billed, those that end in a later hour offer what is left
    of all that used it, since the others have no other hour: in proportion, and none more than it has; pool by pool in the order of rating.
    What a charge of the whole model pays for offers nothing.
    """
    closed_ids = met_by_model.paid | {
        id(one.use) for one in uses if one.late or (id(one.use) in met_by_model.late and not one.paid)
    }
    offers = {
        number: one.use.quantity
        for number, one in enumerate(uses)
        if one.left and id(one.use) not in closed_ids and _crosses(one.use)
    }
    for pool in sorted({pool for number in offers for pool in uses[number].surpassed}):
        limit = sum((one.left for one in uses if pool in one.surpassed and id(one.use) not in closed_ids), Fraction(0))
        members = [number for number in offers if pool in uses[number].surpassed]
        offered_sum = sum((offers[number] for number in members), Fraction(0))
        for number in members:
            offers[number] *= min(Fraction(1), limit / offered_sum)
    uses_at_end = [
        (replace(uses[number].use, met_at=uses[number].use.end, quantity=quantity), uses[number].meter)
        for number, quantity in offers.items()
    ]
    met_uses = _rate_tokens(charges, uses_at_end, tolerance)
    pairs = zip(offers, met_uses, strict=True)
    return {id(uses[number].use): one.use.quantity - one.left for number, one in pairs if one.left < one.use.quantity}


def _crosses(use: Use) -> bool:
    return _hour(use.last) > _hour(use.start)


def _in_parts(use: Use, meter: str, quantities: Mapping[int, Fraction]) -> list[tuple[Use, str]]:
    """The part of a use that is met in the hour of its start, and that of its end."""
    if id(use) not in quantities:
        return [(use, meter)]
    at_end = quantities[id(use)]
    amounts = [(use.quantity - at_end, None), (at_end, use.end)]
    price = None if use.list_cost is None else use.list_cost / use.quantity
    return [
        (replace(use, quantity=amount, list_cost=None if price is None else price * amount, met_at=met_at), meter)
        for amount, met_at in amounts
        if amount
    ]


def _rate_tokens(tokens: Sequence[Charge], model_uses: Sequence[tuple[Use, str]], tolerance: Fraction) -> list[Logged]:
    """All token charges with all uses. What an earlier invoice took is not there for a later one. (RA-2a)"""
    lines = meters_of(tokens)
    uses = [Logged(use, meter, use.quantity, has_own_line=(use.provider, use.model, meter) in lines) for use, meter in model_uses]
    for invoice in sorted({c.row["billing_month"] for c in tokens}):
        _rate_invoice([c for c in tokens if c.row["billing_month"] == invoice], uses, tolerance)
    return uses


def implausible(uses: Sequence[Logged]) -> set[int]:
    """Ids of the uses that cannot be: what an emitter logged is more than 20 times what all pools it met had to sell. (RA-2b)

    Reading: an emitter is the source and the executor, and its uses count together where they met the same pool first. A use that was paid whole
    is none of them.
    """
    by_emitter: dict[Hashable, list[Logged]] = {}
    for one in uses:
        if one.left and one.beyond and not one.late:
            owner = one.use.owner
            key = one.beyond[0][0], one.use.source, owner.executor, owner.executor_team
            by_emitter.setdefault(key, []).append(one)
    return {
        id(one.use)
        for cell in by_emitter.values()
        if sum(one.use.quantity for one in cell)
        > 20 * sum({pool: bought for one in cell for pool, bought in one.beyond}.values())
        for one in cell
    }


def _rate_invoice(tokens: Sequence[Charge], uses: Sequence[Logged], tolerance: Fraction) -> None:
    """The token charges of one invoice, level by level: what a SKU states of its model first, then without; in each the caller's place
    first, then without; in each named tiers first, then silence about them.
    """
    for by_variant in (True, False):
        for placeless in (False, True):
            for one in uses:
                one.placeless = placeless and one.use.firm_keys is not None and one.left > 0
            for silent_side in (None, "bill", "log"):
                for level in _levels(tokens, uses, by_variant):
                    # Reading: at one level, what the executor's agent owns, then its team, then what anybody owns. (RA-2a)
                    for part in (0, 1, None):
                        _rate_level(tokens, uses, level, silent_side, tolerance, part)


def _scaled_down(to: Metered, uses: Sequence[Logged]) -> Metered:
    """Marks a use of which a part was never billed. (RA-2)"""
    if any(one.left and one.use is to.use and not one.late for one in uses):
        return Metered(to.use, to.flags | {"overlogged"})
    return to


def _known(keys: Mapping[str, str | None]) -> frozenset[str]:
    return frozenset(key for key in KEYS if keys[key] is not None)


def _levels(charges: Sequence[Charge], logged: Sequence[Logged], by_variant: bool) -> list[Level]:
    """Every level that occurs, the most specific first. (RA-1a, RA-1c)

    Reading: what a SKU states of its model comes before the place, so all levels at which the use states it too come first; a SKU that
    states nothing is not among them. Then the most keys in common; of as many, a charge that knows no more than the use (an exact pool)
    before one that does; then the order of KEYS.
    """
    levels = {(_known(c.keys), _known(c.keys) & _known(one.keys)) for c in charges for one in logged}
    levels = {(known, common) for known, common in levels if by_variant == _shares_variant(known, common)}

    def order(level: Level) -> tuple[Any, ...]:
        known, common = level
        return -len(common), len(known), [KEYS.index(k) for k in KEYS if k in common], [KEYS.index(k) for k in KEYS if k in known]

    return sorted(levels, key=order)


def _shares_variant(known: frozenset[str], common: frozenset[str]) -> bool:
    stated = known & set(VARIANT)
    return bool(stated) and stated <= common


def _pools(charges: Sequence[Charge], level: Level, silent_side: str | None, part: int | None) -> list[list[Charge]]:
    """Charges of a level with money left, merged over every key that the uses do not know; of one owner, where `part` names agent or
    team. (RA-1a, RA-2a)
    """
    known, common = level
    pools: dict[tuple[Hashable, ...], list[Charge]] = {}
    for charge in charges:
        owner = None if part is None else charge.owner[part]
        if (part is not None and owner is None) or not charge.left or _known(charge.keys) != known or charge.sold is None:
            continue
        if silent_side is not None and (charge.sold.tier == "standard") != (silent_side == "bill"):
            continue
        tier = charge.sold.tier if silent_side is None else None
        same = (charge.apart, tier, owner, *(charge.keys[key] for key in KEYS if key in common))
        pools.setdefault(same, []).append(charge)
    return list(pools.values())


def _same_resource(charges: Sequence[Charge]) -> list[list[Charge]]:
    """Charges of one resource in one period. (RA-3)"""
    pools: dict[tuple[Hashable, ...], list[Charge]] = {}
    for charge in charges:
        assert charge.sold is not None
        pools.setdefault((charge.apart, charge.sold.tier, *(charge.keys[key] for key in KEYS)), []).append(charge)
    return list(pools.values())


def _rate_level(
    charges: Sequence[Charge],
    uses: Sequence[Logged],
    level: Level,
    silent_side: str | None,
    tolerance: Fraction,
    part: int | None,
) -> None:
    """One level. Reading: every use takes from one pool at a time, the one of the shortest period first, the earliest of equal ones, then by
    currency; what it has beyond that is offered to the next, as long as there are any. (RA-2a)
    """
    while True:
        pools = sorted((p for p in _pools(charges, level, silent_side, part) if _quantity(p) > 0), key=_first_choice)
        by_pool: dict[int, list[Logged]] = {}
        for one in uses:
            fitting = (number for number, pool in enumerate(pools) if _fits(one, pool, level, silent_side, part))
            first = next(fitting, None) if one.left else None
            if first is not None:
                by_pool.setdefault(first, []).append(one)
        for number, users in by_pool.items():
            _rate_pool(pools[number], users, level, silent_side, tolerance)
        if not any(one.left for users in by_pool.values() for one in users):
            return


def _quantity(pool: Sequence[Charge]) -> Fraction:
    return sum((c.left * (c.quantity or 0) for c in pool), Fraction(0))


def _first_choice(pool: Sequence[Charge]) -> tuple[Any, ...]:
    row = pool[0].row
    start, end = row["charge_period_start"], row["charge_period_end"]
    return end - start, start, row["billing_currency"]


def _fits(one: Logged, pool: Sequence[Charge], level: Level, silent_side: str | None, part: int | None) -> bool:
    owner = one.use.owner.executor, one.use.owner.executor_team
    is_own = part is None or owner[part] == pool[0].owner[part]
    return is_own and _meets(one, pool[0], level[1], silent_side)


def _rate_pool(pool: list[Charge], users: Sequence[Logged], level: Level, silent_side: str | None, tolerance: Fraction) -> None:
    """RA-2 in one pool: each use pays its quantity of D; what the logs do not explain is left for the next level.

    Reading: where more is logged than billed, all are scaled down to what is billed here, and the rest of each meets the
    charges of the next levels; only what meets none is overlogged.
    """
    bought = _quantity(pool)
    used = sum((one.left for one in users), Fraction(0))
    if not used:
        return
    number = next(_NUMBERS)
    agree = abs(bought - used) <= tolerance * bought
    divisor = used if agree else max(bought, used)
    coarse = frozenset() if level[0] == level[1] and silent_side is None else frozenset({"coarse_match"})
    if used > bought and not agree and any(charge.running for charge in pool):
        _meet_in_order(pool, users, bought, coarse)
        return
    for charge in pool:
        for one in users:
            charge.give(Metered(one.use, _flags(one, coarse)), charge.left * one.left / divisor)
        charge.left *= 1 - used / divisor
        charge.reason = "uncaptured_usage"
    for one in users:
        one.paid = True
        if not agree and used > bought:
            one.beyond.append((id(pool[0]), bought))
            one.surpassed.append(number)
        one.left *= 0 if agree else max(Fraction(0), 1 - bought / used)


def _flags(one: Logged, coarse: frozenset[str]) -> frozenset[str]:
    return one.use.flags | coarse | (frozenset({"caller_place"}) if one.placeless else frozenset())


def _meet_in_order(pool: Sequence[Charge], users: Sequence[Logged], bought: Fraction, coarse: frozenset[str]) -> None:
    """ES-1a: of a period that was still running, uses meet the charge hour by hour, up to what was bought.

    Reading: within the hour in which that is reached, in equal proportion.
    """
    open_quantity = bought
    for hour in sorted({_hour(one.use.met) for one in users}):
        of_hour = [one for one in users if _hour(one.use.met) == hour]
        used = sum((one.left for one in of_hour), Fraction(0))
        part = min(used, open_quantity) / used
        for one in of_hour:
            for charge in pool:
                charge.give(Metered(one.use, _flags(one, coarse)), charge.left * one.left * part / bought)
            one.paid = one.paid or part > 0
            one.late = one.late or part < 1
            one.left *= 1 - part
        open_quantity -= used * part
    for charge in pool:
        charge.left, charge.reason = Fraction(0), "uncaptured_usage"


def _meets(one: Logged, charge: Charge, common: frozenset[str], silent_side: str | None) -> bool:
    """Whether a use and a charge know exactly these keys in common, agree on them, and differ in nothing else.

    Reading: `standard` is what silence about a tier is taken for, on either side. So in the end it meets any tier, while
    two that are named and differ never meet.
    """
    use, sold, row = one.use, charge.sold, charge.row
    assert sold is not None
    same_tier = use.tier == sold.tier if silent_side is None else (use.tier == "standard") == (silent_side == "log")
    return (
        (use.provider, one.meter) == (sold.provider, sold.meter)
        and (use.model == sold.model or (sold.model is None and not one.has_own_line))
        and row["charge_period_start"] <= use.met < row["charge_period_end"]
        and _known(one.keys) & _known(charge.keys) == common
        and all(one.keys[key] == charge.keys[key] for key in common)
        and same_tier
    )


def _split_time(pool: list[Charge], resource_uses: Sequence[Use]) -> None:
    """RA-3: time of a resource goes to those who held it in the period; of provisioned capacity the rest is idle.

    Reading: an hour in which nobody held a machine that the logs of its month know is idle as a whole.
    """
    first = pool[0]
    assert first.sold is not None
    start, end = first.row["charge_period_start"], first.row["charge_period_end"]
    holders = [use for use in resource_uses if use.keys["resource"] == first.keys["resource"]]
    users = [(use, seconds_within(use, start, end)) for use in holders]
    used = sum((seconds for _, seconds in users), Fraction(0))
    month = f"{start:%Y-%m}"
    is_known = any(use.quantity and f"{use.start:%Y-%m}" <= month <= f"{use.end:%Y-%m}" for use in holders)
    is_idle = first.sold.provisioned and is_known
    if not used and not is_idle:
        # Reading: where no use of it has a duration, the number of uses counts.
        users = [(use, use.share) for use in holders if start <= use.start < end]
        used = sum((share for _, share in users), Fraction(0))
    capacity = sum((c.quantity or 0 for c in pool), Fraction(0)) if is_idle else Fraction(0)
    divisor = max(used, capacity)
    if not divisor:
        return
    for charge in pool:
        for use, seconds in users:
            charge.give(Metered(use, use.flags), seconds / divisor)
        charge.give(Idle(), 1 - used / divisor)
        charge.left = Fraction(0)
