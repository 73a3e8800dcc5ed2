"""The rows of a bill from a paged API: exact numbers, days, remainders. See `ingest.bills.paged_api`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any, Final

import polars as pl

from ingest.bills import charges
from ingest.bills.dictionary import DIMENSIONS_ROW, BillBatch
from ingest.problem_counter import ProblemCounter
from ingest.source import Reading
from ledger.money import ZERO, exact_decimal

COSTS, TOTALS, USAGE = "costs", "totals", "usage"
"""The kinds of pages: costs in groups, costs without groups, usage."""
TOLERANCE: Final = Decimal("0.000001")
"""Groups and total that differ by less than this a day agree: sums of floating point differ by as much."""
_ROWS = 50_000

JsonObject = dict[str, Any]
"""A JSON object whose numbers are text, as written."""


@dataclass(frozen=True, slots=True)
class BillMonth:
    """A month of a bill. `settled`: it was read when the provider no longer restates it."""

    month: str | None
    settled: bool
    buckets: Mapping[str, Mapping[datetime, Sequence[JsonObject]]]
    """By kind of page: the start of each day, and its results."""


def text(value: object) -> str | None:
    """A field as text; None where it is empty or no text.

    >>> text(" a "), text(""), text(None), text(True)
    ('a', None, None, None)
    """
    return (value.strip() or None) if isinstance(value, str) else None


def number(value: object) -> Decimal | None:
    """A number exactly as written, or None where it is none.

    >>> number("0E-6176"), number("4.50"), number("abc")
    (Decimal('0'), Decimal('4.50'), None)
    """
    parsed_number = exact_decimal(text(value))
    return ZERO if parsed_number is not None and not parsed_number else parsed_number


def plain_text(amount: Decimal | None, original: object = None) -> str | None:
    """An amount as text that money is read from; what is no amount stays as it was written, for the problem.

    >>> plain_text(Decimal("4.5E-6")), plain_text(None, "abc")
    ('0.0000045', 'abc')
    """
    return text(original) if amount is None else format(amount, "f")


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """An exact sum."""
    with localcontext() as context:
        context.prec = 400
        return sum(amounts, ZERO)


def shift_decimal(amount: Decimal, places: int) -> Decimal:
    """An amount of smallest units in whole ones, every digit kept.

    >>> shift_decimal(Decimal("123.78912"), 2)
    Decimal('1.2378912')
    """
    sign, digits, exponent = amount.as_tuple()
    return Decimal((sign, digits, int(exponent) - places))


def remainders(
    month: BillMonth, amount: Callable[[JsonObject], tuple[str, Decimal] | None]
) -> Iterator[tuple[datetime, str, Decimal, JsonObject]]:
    """Days and currencies whose groups do not sum to their total: the day, the currency, the difference, and a result of the total.

    `amount` gives the currency and the amount of a result, or None where it has none.
    """
    groups = month.buckets.get(COSTS, {})
    for start, total_rows in sorted(month.buckets.get(TOTALS, {}).items()):
        totals, group_sums = _by_currency(total_rows, amount), _by_currency(groups.get(start, ()), amount)
        for currency, total in sorted(totals.items()):
            remainder = exact_sum([total, group_sums.get(currency, ZERO).copy_negate()])
            if abs(remainder) >= TOLERANCE:
                yield start, currency, remainder, total_rows[0]


def _by_currency(results: Sequence[JsonObject], amount: Callable[[JsonObject], tuple[str, Decimal] | None]) -> dict[str, Decimal]:
    amounts: dict[str, list[Decimal]] = {}
    for pair in map(amount, results):
        if pair is not None:
            amounts.setdefault(pair[0], []).append(pair[1])
    return {currency: exact_sum(values) for currency, values in amounts.items()}


REMAINDER_DESCRIPTION = "Part of the day's total that is in no group"


def remainder_labels(description: str = REMAINDER_DESCRIPTION) -> dict[str, str | None]:
    """The description columns of a remainder row."""
    return {"charge_description": description, "sku_id": "remainder", "sku_meter": description}


def report_remainders(counter: ProblemCounter, field: str, provider: str, rows: int) -> None:
    """Reports that there are remainders."""
    if rows:
        counter.add_summed(
            field,
            "the groups of a day are not its total; the difference is a row of its own",
            f"nothing to do: {provider} states the total, but not the group of the remainder",
            rows,
        )


def readings(
    month: BillMonth, rows: Sequence[Mapping[str, object]], names: Mapping[str, str], counter: ProblemCounter
) -> Iterator[Reading]:
    """Readings of rows with the columns of `charges`, amounts and times as text, and the problems so far."""
    schema = dict.fromkeys((name for row in rows[:1] for name in row), pl.String) | {"final": pl.Boolean}
    for offset in range(0, len(rows), _ROWS):
        frame = pl.DataFrame(rows[offset : offset + _ROWS], schema=schema).with_columns(final=pl.lit(month.settled))
        measures = [name for name in frame.columns if name in charges.MEASURES]
        numbers = pl.int_range(offset + 1, offset + 1 + pl.len(), dtype=pl.Int64)
        batch = BillBatch(
            frame.select(measures).with_columns(__row=numbers, __line=numbers).with_row_index(DIMENSIONS_ROW),
            frame.select(pl.exclude(measures)),
        )
        charge_batch = charges.to_charges(charges.check_required(charges.parse_types(batch), names, counter))
        yield Reading(charge_batch.rows, counter.drain(), charge_batch.dimensions)
    yield charges.last_reading(counter)


def day_period(start: datetime) -> dict[str, str]:
    """The charge period and billing period of a day."""
    return {
        "charge_period_start": start.isoformat(),
        "charge_period_end": (start + timedelta(days=1)).isoformat(),
        "billing_period_start": start.replace(day=1).isoformat(),
    }


def usage_charge(
    start: datetime, cost: str | None, currency: str | None, *, provider: str, service: str
) -> dict[str, str | None]:
    """A day's usage charge in FOCUS terms: billed, effective and contracted cost are the same, the list cost is unknown."""
    return day_period(start) | {
        "billed_cost": cost,
        "effective_cost": cost,
        "list_cost": None,
        "contracted_cost": cost,
        "billing_currency": currency.upper() if currency else None,
        "charge_category": "Usage",
        "charge_frequency": "Usage-Based",
        "provider_name": provider,
        "publisher_name": provider,
        "invoice_issuer_name": provider,
        "service_name": service,
        "service_category": "AI and Machine Learning",
    }
