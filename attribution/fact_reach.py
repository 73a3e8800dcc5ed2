"""The reach of a month: which facts its costs are computed from. Those of settled months are as they were before facts were removed."""

from __future__ import annotations

from functools import cached_property

import polars as pl

from attribution.usage import origins, partitions
from ledger import periods
from ledger.books import Books
from ledger.settled_months import settled_months
from ledger.store import Store
from ledger.tables import CHARGES, SPANS, Table


class FactReach:
    """Which facts the costs of a month are computed from, as the books stand now."""

    def __init__(self, books: Books) -> None:
        self.store, self.settings = books.store, books.settings
        self.settled = settled_months(books.database)
        self._usage_months: dict[str, list[str]] = {}

    @cached_property
    def span_days(self) -> list[str]:
        """The days with spans, in order."""
        return sorted(partition_values(self.store, SPANS, "date"))

    def usage_months(self, month: str) -> list[str]:
        """The months with spans that this invoice may pay for: its own, and those its usage charges extend into."""
        if month not in self._usage_months:
            usage = self.store.scan(CHARGES, {"billing_month": [month]}).filter(pl.col("charge_category") == "Usage")
            bounds = (
                usage.select(first=pl.col("charge_period_start").min(), last=pl.col("charge_period_end").max()).collect().row(0)
            )
            billed_months = {month} | set(periods.months_between(*bounds) if bounds[0] is not None else ())
            settled_usage = {m for m, settled_month in self.settled.items() if settled_month.spans}
            span_months = {day[:7] for day in self.span_days} - self.settled.keys() | settled_usage
            other_months = billed_months - span_months - self.settled.keys()
            held_months = origins.held_months(self.store, sorted(other_months), self.settings)
            self._usage_months[month] = sorted((billed_months & span_months) | held_months)
        return self._usage_months[month]

    def billing_months(self, month: str) -> list[str]:
        """The months of other invoices that may bill the same hours: the adjacent ones, and those since the first hour that this one bills."""
        since_first = periods.months_between(
            periods.month_start(min([month, *self.usage_months(month)])), periods.month_start(month)
        )
        return sorted({*periods.adjacent_months(month), *since_first})

    def window(self, month: str) -> list[str]:
        """The days with spans that lie in the month or within the lookback around it."""
        lookback_days = self.settings.attribution.lookback_days
        return [day for day in self.span_days if partitions.is_within_lookback(day, month, lookback_days)]

    def spans_of(self, month: str) -> str:
        """A fingerprint of the spans in reach of the month: those of its window, and the earlier traces that they refer to."""
        if month in self.settled:
            return self.settled[month].spans
        days = self.window(month)
        window = self.store.fingerprint(SPANS, {"date": days}) if days else "none"
        return window + origins.find_origins(self.store, month, self.settings).fingerprint


def partition_values(store: Store, table: Table, column: str) -> set[str]:
    """The values of a partition column that a table has rows of."""
    delta = store.delta(table)
    if delta is None:
        return set()
    return {str(partition[column]) for partition in delta.partitions()}
