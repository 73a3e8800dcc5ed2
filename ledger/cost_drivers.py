"""Why a cost differs from what was expected: its drivers, which sum to the difference exactly.

The cost of an item (a model) is calls × its share of them × attempts per call × tokens per attempt × price per token, each class of tokens on its
own. The difference is laid to these factors by their Shapley values: the mean, over all orders in which factors could have moved, of what each
adds. So no order is preferred, and a factor that did not move is 0. Items that are new, or gone, are drivers of their own: to invent a past
for them would move the other drivers. What has no usage, such as fees, is `other charges`.

All of it is exact in fractions; the amounts are rounded once, at the end, so that they sum to the difference at the ledger's places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import factorial, lcm, prod
from operator import mul
from typing import Final, TypeVar

from ledger.money import SCALE

NEW, GONE, OTHER = "new", "gone", "other charges"
VOLUME, MIX, RETRIES, PRICE = "volume", "mix", "retries", "price"
_TOKENS: Final = "tokens per call: "
_FACTORS: Final = 5
_WEIGHTS: Final = [factorial(size) * factorial(_FACTORS - size - 1) for size in range(_FACTORS)]
"""Orders, of all 5!, in which a factor moves after as many others."""
_ZERO: Final = Fraction(0)
K = TypeVar("K", bound=Hashable)
N = TypeVar("N", bound=str)


@dataclass(frozen=True, slots=True)
class ItemUsage:
    """Usage of one item in a period: calls with and without repeated attempts, and quantity and cost of each class of tokens."""

    attempts: Fraction
    calls: Fraction
    classes: Mapping[str, tuple[Fraction, Fraction]] = field(default_factory=dict)

    @property
    def cost(self) -> Fraction:
        """The cost of all classes."""
        return sum((cost for _, cost in self.classes.values()), _ZERO)

    @property
    def is_empty(self) -> bool:
        """Whether there was neither usage nor cost."""
        return not self.calls and not self.cost

    def scaled(self, factor: Fraction) -> ItemUsage:
        """The same for another volume: calls, quantities and costs times the factor."""
        classes = {name: (quantity * factor, cost * factor) for name, (quantity, cost) in self.classes.items()}
        return ItemUsage(self.attempts * factor, self.calls * factor, classes)


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """Usage of a period by item, and the cost of what has no usage."""

    items: Mapping[str, ItemUsage] = field(default_factory=dict)
    other_cost: Fraction = _ZERO

    @property
    def cost(self) -> Fraction:
        """The cost of the period."""
        return sum((item.cost for item in self.items.values()), self.other_cost)

    def as_of(self, cost: Decimal) -> PeriodUsage:
        """The same period at another volume, such that it costs this much. One that cost nothing is empty."""
        total = self.cost
        if total <= 0:
            return PeriodUsage()
        factor = Fraction(cost) / total
        return PeriodUsage({name: item.scaled(factor) for name, item in self.items.items()}, self.other_cost * factor)


def decompose(before: PeriodUsage, after: PeriodUsage) -> dict[str, Decimal]:
    """The drivers of the difference between two periods, largest first. Drivers that are 0 are left out.

    Twice the calls at half the price cost the same; half of each order's effect is laid to either:

    >>> def usage(calls, price):
    ...     tokens = Fraction(100) * calls
    ...     return PeriodUsage({"m": ItemUsage(Fraction(calls), Fraction(calls), {"input_tokens": (tokens, tokens * Fraction(price))})})
    >>> decompose(usage(10, "0.02"), usage(20, "0.01"))
    {'price': Decimal('-15.000000000000'), 'volume': Decimal('15.000000000000')}
    """
    drivers: defaultdict[str, Fraction] = defaultdict(Fraction)
    drivers[OTHER] += after.other_cost - before.other_cost
    for _, of_item in changes(before.items, after.items):
        for driver, amount in of_item:
            drivers[driver] += amount
    return rounded(drivers)


def changes(before: Mapping[K, ItemUsage], after: Mapping[K, ItemUsage]) -> Iterator[tuple[K, list[tuple[str, Fraction]]]]:
    """For each item of two periods, what its drivers add to the change of its cost; a driver may come several times.

    `mix` is what an item's share in the calls of all items adds that are in both periods.
    """
    common_items = [name for name, earlier in before.items() if earlier.calls and name in after and after[name].calls]
    volumes = tuple(sum((items[name].calls for name in common_items), _ZERO) for items in (before, after))
    for name in dict.fromkeys((*before, *after)):
        earlier, later = before.get(name), after.get(name)
        if earlier is None or earlier.is_empty:
            yield name, [(NEW, later.cost if later is not None else _ZERO)]
        elif later is None or later.is_empty:
            yield name, [(GONE, -earlier.cost)]
        elif not earlier.calls or not later.calls:
            yield name, [(OTHER, later.cost - earlier.cost)]
        else:
            yield name, _of_item(earlier, later, (volumes[0], volumes[1]))


def _of_item(earlier: ItemUsage, later: ItemUsage, volumes: tuple[Fraction, Fraction]) -> list[tuple[str, Fraction]]:
    out = []
    for name in sorted(earlier.classes.keys() | later.classes.keys()):
        sides = [item.classes.get(name, (_ZERO, _ZERO)) for item in (earlier, later)]
        if any(not quantity and cost for quantity, cost in sides) or not any(quantity for quantity, _ in sides):
            out.append((OTHER, sides[1][1] - sides[0][1]))  # money without a quantity has no price
            continue
        # A class that one side lacks has the other side's price: all of it is tokens per call.
        prices = [cost / quantity if quantity else None for quantity, cost in sides]
        factors = [
            (
                volumes[side],
                item.calls / volumes[side],
                item.attempts / item.calls,
                quantity / item.attempts if item.attempts else _ZERO,
                price if price is not None else prices[1 - side] or _ZERO,
            )
            for side, (item, (quantity, _), price) in enumerate(zip((earlier, later), sides, prices, strict=True))
        ]
        names = (VOLUME, MIX, RETRIES, _TOKENS + name.removesuffix("_tokens").replace("_", " "), PRICE)
        out += list(zip(names, shapley(*factors), strict=True))
    return out


def shapley(before: Sequence[Fraction], after: Sequence[Fraction]) -> list[Fraction]:
    """What each factor of a product adds to its change.

    >>> shapley([Fraction(n) for n in (2, 3, 1, 1, 1)], [Fraction(n) for n in (4, 3, 1, 1, 2)])
    [Fraction(9, 1), Fraction(0, 1), Fraction(0, 1), Fraction(0, 1), Fraction(9, 1)]
    """
    # Over common denominators the factors are whole numbers, which multiply ten times as fast as fractions.
    denominators = [lcm(one.denominator, other.denominator) for one, other in zip(before, after, strict=True)]
    pairs = [(int(one * whole), int(other * whole)) for one, other, whole in zip(before, after, denominators, strict=True)]
    unit = factorial(_FACTORS) * prod(denominators)
    values = []
    for factor, (old, new) in enumerate(pairs):
        if old == new:
            values.append(_ZERO)
            continue
        # sums[n]: over all choices of n other factors, the product of the later values of these and the earlier values of the rest.
        sums = [1]
        for earlier, later in (pair for number, pair in enumerate(pairs) if number != factor):
            sums = [
                earlier * same_choice + later * smaller_choice
                for same_choice, smaller_choice in zip((*sums, 0), (0, *sums), strict=True)
            ]
        values.append(Fraction((new - old) * sum(map(mul, _WEIGHTS, sums)), unit))
    return values


def rounded(drivers: Mapping[N, Fraction]) -> dict[N, Decimal]:
    """Amounts at the ledger's places that sum to the rounded sum: what rounding leaves is given to the largest. Largest first, without zeros.

    >>> rounded({"a": Fraction(1, 3), "b": Fraction(2, 3)})
    {'b': Decimal('0.666666666667'), 'a': Decimal('0.333333333333')}
    """
    units = {name: round(amount * 10**SCALE) for name, amount in drivers.items()}
    order = sorted(units, key=lambda name: (-abs(drivers[name]), name))
    if order:
        units[order[0]] += round(sum(drivers.values(), _ZERO) * 10**SCALE) - sum(units.values())
    return {name: Decimal(units[name]).scaleb(-SCALE) for name in order if units[name]}
