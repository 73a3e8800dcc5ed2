"""MO-1, MO-2: splitting so that nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

UNIT = Fraction(1, 10**12)
"""The last digit the ledger keeps."""


def rounded(amount: Fraction) -> Decimal:
    """At twelve places, half to even.

    >>> rounded(Fraction(1, 3)), rounded(Fraction(-5, 10**13))
    (Decimal('0.333333333333'), Decimal('0E-12'))
    """
    with localcontext() as context:
        context.prec = 100
        units = round(amount / UNIT)  # Python rounds a Fraction half to even
        return (Decimal(units) / Decimal(10**12)).quantize(Decimal("1e-12"), rounding=ROUND_HALF_EVEN)


def split(amount: Fraction, weights: Sequence[Fraction]) -> list[Decimal]:
    """The parts of an amount in proportion to the weights, in their order: each is what the running total adds. (MO-1)

    >>> split(Fraction(1, 100), [Fraction(1)] * 3)
    [Decimal('0.003333333333'), Decimal('0.003333333334'), Decimal('0.003333333333')]
    """
    whole = sum(weights, Fraction(0))
    parts: list[Decimal] = []
    upto, told = Fraction(0), Decimal(0)
    for weight in weights:
        upto += weight
        now = rounded(amount * upto / whole)
        parts.append(now - told)
        told = now
    return parts
