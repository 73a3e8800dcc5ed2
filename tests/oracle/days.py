"""TI-1a: which day metered money belongs to, in a reporting timezone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from fractions import Fraction
from zoneinfo import ZoneInfo

from api.queries import of_operator
from api.queries.costs import CostQuery, costs
from ledger.books import Books
from tests.oracle.books import Cost
from tests.oracle.money import UNIT

TIMEZONES = ("UTC", "Pacific/Pago_Pago", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Pacific/Kiritimati")
"""On both sides of UTC, to the edges: between 10:00 and 13:00 UTC a day ends in some of them."""

Key = tuple[str | None, str, date]


def days_differ(books: Books, oracle_costs: Iterable[Cost]) -> str:
    """Model, currency and day whose metered money a report by day gives otherwise than the oracle, in any timezone; empty if none."""
    metered = [cost for cost in oracle_costs if cost.cost_class == "metered" and cost.used_at is not None and cost.amounts]
    wrong = []
    for timezone in TIMEZONES:
        oracle_sums, slack = defaultdict[Key, Fraction](Fraction), defaultdict[Key, Fraction](lambda: 20 * UNIT)
        for cost in metered:
            assert cost.used_at is not None
            assert cost.amounts is not None
            key = cost.model, cost.currency, cost.used_at.astimezone(ZoneInfo(timezone)).date()
            oracle_sums[key] += cost.amounts["effective_cost"]
            slack[key] += cost.slack + UNIT
        sums = reported(books, timezone)
        wrong += [
            f"{timezone} {key}: report {float(sums[key]):.12f}, oracle {float(oracle_sums[key]):.12f}"
            for key in {*sums, *oracle_sums}
            if abs(sums[key] - oracle_sums[key]) > slack[key]
        ]
    return "\n".join(sorted(wrong))


def reported(books: Books, timezone: str) -> defaultdict[Key, Fraction]:
    """What the report by day says that models cost, without what follows other money (credits, tax), in a timezone."""
    settings = books.settings
    books.settings = settings.model_copy(update={"report": settings.report.model_copy(update={"timezone": timezone})})
    query = CostQuery(by=("model", "rule"), granularity="day", filters={"cost_class": ("metered",)})
    sums = defaultdict[Key, Fraction](Fraction)
    for row in costs(of_operator(books), query).iter_rows(named=True):
        if row["model"] is not None and row["cost"] is not None and row["rule"] != "RA-5":
            sums[row["model"], row["currency"], date.fromisoformat(row["period_start"][:10])] += Fraction(row["cost"])
    books.settings = settings
    return sums
