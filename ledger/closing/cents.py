"""Cents: exact lines become amounts of the currency's smallest unit, once for each document, issuer, invoice and currency.

The largest remainder gets the cent, ties by key. The target is what all documents of the invoice come to together, rounded half to even,
less what earlier ones have booked: however often a month is adjusted, its booked cents sum to those of the invoice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import polars as pl

_PLACES: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"], 0
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
}
"""Places of the currencies that do not have two, by ISO 4217."""
_KEYS: Final = ("currency", "provider", "invoice_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedLine:
    """A line of a document in the currency's smallest unit: the exact amount, and what is booked of it."""

    number: str
    cause: str
    currency: str
    provider: str
    invoice_id: str
    team: str
    cost_class: str
    exact_amount: Decimal
    amount: Decimal

    @property
    def difference(self) -> Decimal:
        """Booked minus exact."""
        return self.amount - self.exact_amount


def smallest_unit(currency: str) -> Decimal:
    """The smallest unit of a currency.

    >>> [str(smallest_unit(currency)) for currency in ("USD", "JPY", "KWD")]
    ['0.01', '1', '0.001']
    """
    return Decimal(1).scaleb(-_PLACES.get(currency, 2))


def rounded(amount: Decimal, unit: Decimal) -> Decimal:
    """The amount in whole units, half to even."""
    return amount.quantize(unit, rounding=ROUND_HALF_EVEN)


def largest_remainders(amounts: Sequence[Decimal], target: Decimal, unit: Decimal) -> list[Decimal]:
    """The amounts in whole units that sum to `target`, which is less than a unit away from their sum.

    >>> parts = largest_remainders([Decimal("0.333"), Decimal("0.334"), Decimal("0.333")], Decimal("1.00"), Decimal("0.01"))
    >>> [str(part) for part in parts]
    ['0.33', '0.34', '0.33']
    """
    parts = [amount.quantize(unit, rounding=ROUND_FLOOR) for amount in amounts]
    by_remainder = sorted(range(len(amounts)), key=lambda index: (parts[index] - amounts[index], index))
    missing_units = int((target - sum(parts, Decimal(0))).scaleb(-unit.adjusted()))
    for place in range(abs(missing_units)):
        index = by_remainder[place] if missing_units > 0 else by_remainder[-1 - place]
        parts[index] += unit if missing_units > 0 else -unit
    return parts


def booked_cents(lines: pl.DataFrame) -> list[BookedLine]:
    """The billed lines of documents in cents; `lines` are in the order in which they were booked. What was not billed is on no invoice."""
    billed_lines = lines.filter(pl.col("basis") == "billed", pl.col("billed_cost").is_not_null())
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in billed_lines.iter_rows(named=True):
        groups[row["number"], *(row[name] or "" for name in _KEYS)].append(row)
    exact_sums, booked_sums = defaultdict[tuple[str, ...], Decimal](Decimal), defaultdict[tuple[str, ...], Decimal](Decimal)
    cents: list[BookedLine] = []
    for (number, *names), rows in groups.items():
        invoice, unit = tuple(names), smallest_unit(names[0])
        rows.sort(key=lambda row: (row["team"] or "", row["cost_class"], row["cause"]))
        amounts = [Decimal(row["billed_cost"]) for row in rows]
        exact_sums[invoice] += sum(amounts, Decimal(0))
        target = rounded(exact_sums[invoice], unit) - booked_sums[invoice]
        booked_sums[invoice] += target
        cents += [
            BookedLine(
                number=number,
                **dict(zip(_KEYS, names, strict=True)),
                **{name: row[name] or "" for name in ("team", "cost_class", "cause")},
                exact_amount=exact_amount,
                amount=amount,
            )
            for row, exact_amount, amount in zip(rows, amounts, largest_remainders(amounts, target, unit), strict=True)
        ]
    return cents
