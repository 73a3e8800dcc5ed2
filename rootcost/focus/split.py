"""Splits charges among recipients so that both margins are exact: each charge is the sum of its parts, and each recipient gets what it was allocated.

All amounts are whole numbers of the smallest place. Part (i, j) is what cumulated charges × cumulated weights ÷ total weight, rounded down, grows by from
one charge and recipient to the next. Its sums over recipients and over charges are the margins, whatever the rounding; what it leaves on the wrong side
of zero, by at most a unit or two, is exchanged with another charge.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def split(charges: Sequence[int], weights: Sequence[int]) -> list[list[int]]:
    """The parts of charges, a row for each charge and a column for each recipient.

    A row sums to its charge. A column sums to its weight where the weights sum to the charges, else to its share of them.

    >>> split([10, 20], [15, 10, 5])
    [[5, 3, 2], [10, 7, 3]]
    >>> split([7], [1, 1, 1]), split([5, -5], [3, 1]), split([4], [0, 0])
    ([[2, 2, 3]], [[3, 2], [-3, -2]], [[4, 0]])
    """
    total = sum(weights)
    if not total:
        return [[charge, *[0] * (len(weights) - 1)] for charge in charges]
    columns = list(accumulate(weights, initial=0))
    parts = []
    for before, after in pairwise(accumulate(charges, initial=0)):
        sums = [after * column // total - before * column // total for column in columns]
        parts.append([high - low for low, high in pairwise(sums)])
    _exchange(parts, charges)
    return parts


def ratios(weights: Sequence[int], places: int = 12) -> list[int]:
    """Shares of 1 in units of the last place, by largest remainder, ties in order; of weights without a sum all goes to the first.

    >>> ratios([1, 1, 1], 2), ratios([0, 0], 2), ratios([-1, -3], 2)
    ([34, 33, 33], [100, 0], [25, 75])
    """
    whole, sizes = 10**places, [abs(weight) for weight in weights]
    total = sum(sizes)
    if not total:
        return [whole, *[0] * (len(weights) - 1)]
    shares = [size * whole // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (-(sizes[place] * whole % total), place))
    for place in by_remainder[: whole - sum(shares)]:
        shares[place] += 1
    return shares


def _exchange(parts: list[list[int]], charges: Sequence[int]) -> None:
    """Moves units so that no part has the other sign than its charge, as far as margins allow."""
    for row, charge in zip(parts, charges, strict=True):
        sign = 1 if charge > 0 else -1
        for column in range(len(row)):
            while row[column] * sign < 0:
                giver = max(range(len(row)), key=lambda place: row[place] * sign)
                other_row = next(
                    (
                        other
                        for other, amount in zip(parts, charges, strict=True)
                        if other is not row and other[column] * (1 if amount > 0 else -1) > 0 and (amount > 0) == (charge > 0)
                    ),
                    None,
                )
                if row[giver] * sign <= 0 or other_row is None:
                    break
                row[column] += sign
                row[giver] -= sign
                other_row[column] -= sign
                other_row[giver] += sign
