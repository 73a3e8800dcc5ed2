"""Amounts as integers: billionths of a currency unit. Decimal goes in and out; floats only as the text they print as."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation, localcontext

NANOS = 10**9
"""Parts of one unit of a currency: 1 USD is 1,000,000,000."""

MAX_EXACT = 2**53
"""Largest amount that a store calculating in doubles (Redis) represents exactly: about 9 million units of a currency."""


def to_nanos(amount: Decimal | str | float) -> int:
    """An amount in billionths, rounded up: what is reserved or committed is never less than what was said.

    >>> to_nanos("0.0025"), to_nanos(0.1), to_nanos("0.0000000001")
    (2500000, 100000000, 1)
    """
    try:
        value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    except InvalidOperation as error:
        raise ValueError(f"{amount!r} is not an amount: write a decimal number, such as 150.00") from error
    if not value.is_finite():
        raise ValueError(f"{amount!r} is not an amount: it has no finite value")
    with localcontext() as context:
        context.prec = 60
        return int((value * NANOS).to_integral_value(rounding=ROUND_CEILING))


def from_nanos(nanos: int) -> Decimal:
    """The exact decimal of an amount in billionths.

    >>> from_nanos(2500000)
    Decimal('0.0025')
    """
    with localcontext() as context:
        context.prec = 60
        value = (Decimal(nanos) / NANOS).normalize()
        return value.quantize(Decimal(1)) if value == value.to_integral_value() else value


def money(nanos: int, currency: str) -> str:
    """An amount as a message states it, with at least two places.

    >>> money(1500000000, "USD"), money(40330000, "USD")
    ('USD 1.50', 'USD 0.04033')
    """
    value = from_nanos(nanos)
    places = max(2, -int(value.as_tuple().exponent))
    return f"{currency} {value:,.{places}f}"
