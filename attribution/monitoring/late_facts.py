"""Late facts: what came for settled months after their facts were removed. It is in no cost, and is told with its money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from ledger import money, problems
from ledger.books import Books
from ledger.periods import month_end, month_start
from ledger.problems import Problem
from ledger.settled_months import SettledMonth
from ledger.store import Store
from ledger.tables import CHARGES, SPANS

SOURCE = "attribution"
_KEY = "{} {}"
"""Key of a sum: currency and provider."""


def renew_problems(books: Books, months: Sequence[SettledMonth]) -> int:
    """Makes the late facts of these months problems, in place of earlier ones; returns how many there are."""
    if not months:
        return 0
    month_problems = [problem for month in months for problem in late_facts(books.store, month, source=SOURCE)]
    problems.renew(books.store, SOURCE, [late_uri(month.month) for month in months], month_problems)
    return len(month_problems)


def late_uri(month: str) -> str:
    """The address that late facts of a month are recorded under."""
    return f"settled:{month}"


def late_facts(store: Store, settled_month: SettledMonth, *, source: str) -> Iterator[Problem]:
    """The bills and spans of a settled month that came after the removal."""
    uri, month = late_uri(settled_month.month), settled_month.month
    if store.fingerprint(CHARGES, {"billing_month": [month]}) != settled_month.charges:
        sums = charge_sums(store, month)
        for key in sorted(sums.keys() | settled_month.charge_sums.keys()):
            late_cost = Decimal(sums.get(key, "0")) - Decimal(settled_month.charge_sums.get(key, "0"))
            currency, _, provider = key.partition(" ")
            if late_cost:
                yield Problem(
                    source,
                    uri,
                    provider,
                    "charges",
                    f"a bill of {month} differs by {money.text(late_cost)} {currency} from the one that its costs were computed from; "
                    f"it is in no cost, because the month is settled: {settled_month}",
                    "book the difference by hand; or take the bill out again with rootcost facts retract",
                    severity="warning",
                    cost=late_cost,
                    currency=currency,
                )
    late_spans = span_rows(store, month) - settled_month.span_rows
    if late_spans > 0:
        yield Problem(
            source,
            uri,
            "spans",
            "start_time",
            f"{late_spans:,} spans of {month} came later; they are in no cost, because the month is settled: {settled_month}",
            "see that the sender's clock is right; retention removes them",
            rows=late_spans,
            severity="warning",
        )


def left_facts(store: Store, month: str) -> dict[str, Any]:
    """What there is of a month when facts were removed, as `ledger.settled_months.SettledMonth` keeps it."""
    return {
        "charges": store.fingerprint(CHARGES, {"billing_month": [month]}),
        "charge_sums": charge_sums(store, month),
        "span_rows": span_rows(store, month),
    }


def charge_sums(store: Store, month: str) -> dict[str, str]:
    """Effective cost of the bills of a month, by currency and provider."""
    by_provider = store.scan(CHARGES, {"billing_month": [month]}).group_by("billing_currency", "provider_name")
    sums = by_provider.agg(pl.col("effective_cost").sum()).sort("billing_currency", "provider_name").collect()
    return {_KEY.format(currency, provider): str(total) for currency, provider, total in sums.iter_rows()}


def span_rows(store: Store, month: str) -> int:
    """The number of stored spans that started in a month, from the table's log."""
    days = pl.date_range(month_start(month), month_end(month), closed="left", eager=True)
    return sum(file.rows for file in store.files(SPANS, {"date": [str(day)[:10] for day in days]}))
