"""Overview of a month: cost, top teams and agents, unallocated cost, compared with the month before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from api.models import Basis, ClassTotal, MonthTotal, Overview, ReasonTotal, Spender, View
from api.queries.alert_rows import alerts
from api.queries.costs import CostQuery, costs
from api.queries.gate import ScopedBooks, published, whole_of
from api.queries.publication import one_publication
from api.queries.state import problems
from ledger import money
from ledger.errors import UsageError
from ledger.periods import month_of, parse_bound, parse_instant

_NOTHING = Decimal(0)


@one_publication
def overview(
    books: ScopedBooks, *, month: str | None = None, view: View = "initiator", basis: Basis = "effective", top: int = 10
) -> Overview:
    """The invoice month's totals, top teams and agents, cost without a team by class and reason, alerts; by default of the newest published month."""
    published_months = [m.month for m in published(books)]
    zone = books.settings.report.timezone
    at_a_glance: dict[str, Any] = {"months": published_months, "timezone": zone, "view": view, "basis": basis}
    at_a_glance["alerts"] = alerts(books).page(limit=10).rows
    # The number of problems is about the whole ledger, and only who may see all of it is told.
    at_a_glance["problems"] = problems(of_all).totals().rows if (of_all := whole_of(books)) else 0
    month = month or (published_months[-1] if published_months else None)
    if month is None:
        return Overview(month=None, totals=[], classes=[], teams=[], agents=[], unallocated=[], unpriced_agents=[], **at_a_glance)
    before, start, end = bounds(month, zone)
    dimensions = ("cost_class", "basis", "reason", f"{view}_team", f"{view}_agent")
    current = costs(books, CostQuery(by=dimensions, view=view, start=start, end=end, basis=basis, calendar="invoice"))
    earlier = costs(books, CostQuery(by=dimensions, view=view, start=before, end=start, basis=basis, calendar="invoice"))
    teamless = current.filter(pl.col(f"{view}_team").fill_null("") == "")
    whole, previous = _sums(current), _sums(earlier)
    return Overview(
        month=month,
        totals=[
            _total(currency, current, teamless, whole, previous)
            for currency in sorted({*_currencies(whole), *_currencies(previous)})
        ],
        classes=[
            ClassTotal(currency=currency, cost_class=cost_class, basis=row_basis, cost=cost)
            for (currency, cost_class, row_basis), cost in sorted(_sums(current, "cost_class", "basis").items(), key=_dearest)
        ],
        teams=_spenders(f"{view}_team", current, earlier, whole, top),
        agents=_spenders(f"{view}_agent", current, earlier, whole, top),
        unallocated=[
            ReasonTotal(cost_class=cost_class, reason=reason, currency=currency, cost=cost)
            for (currency, cost_class, reason), cost in sorted(_sums(teamless, "cost_class", "reason").items(), key=_dearest)
        ],
        unpriced_agents=current.filter(pl.col("cost").is_null())[f"{view}_agent"].drop_nulls().unique().sort().to_list(),
        **at_a_glance,
    )


def bounds(month: str, timezone: str) -> tuple[datetime, datetime, datetime]:
    """Start of the month before, of the month, and of the month after, in the reporting timezone.

    >>> [t.isoformat() for t in bounds("2026-01", "Europe/Berlin")]
    ['2025-11-30T23:00:00+00:00', '2025-12-31T23:00:00+00:00', '2026-01-31T23:00:00+00:00']
    """
    if len(month) != 7:
        raise UsageError(f"{month!r} is no month", where="month", remedy="write it as 2026-10")
    start = parse_bound(month, field="month", timezone=timezone)
    local = start.astimezone(ZoneInfo(timezone))
    after = month_of(local + timedelta(days=32))
    before = month_of(local - timedelta(days=1))
    return parse_instant(before, timezone=timezone), start, parse_instant(after, timezone=timezone)


def _sums(frame: pl.DataFrame, *names: str) -> dict[tuple[Any, ...], Decimal]:
    """Currency, then `names`, to the sum of costs. Rows without a cost are left out: they are unpriced, not 0."""
    priced_rows = frame.filter(pl.col("cost").is_not_null())
    return {tuple(key): cost for *key, cost in priced_rows.group_by(["currency", *names]).agg(pl.col("cost").sum()).iter_rows()}


def _currencies(sums: Mapping[tuple[Any, ...], Decimal]) -> set[str]:
    return {key[0] for key in sums}


def _dearest(item: tuple[tuple[Any, ...], Decimal]) -> tuple[Any, ...]:
    key, cost = item
    return (key[0], -cost, *(str(part) for part in key[1:]))


def _percent(part: Decimal, whole: Decimal) -> Decimal | None:
    return money.proportion(Decimal(100), part, whole) if whole else None


def _total(
    currency: str,
    current: pl.DataFrame,
    teamless: pl.DataFrame,
    whole: Mapping[tuple[Any, ...], Decimal],
    previous: Mapping[tuple[Any, ...], Decimal],
) -> MonthTotal:
    cost, earlier = whole.get((currency,), _NOTHING), previous.get((currency,), _NOTHING)
    by_basis = _sums(current, "basis")
    unallocated_cost = _sums(teamless).get((currency,), _NOTHING)
    return MonthTotal(
        currency=currency,
        cost=cost,
        previous=earlier,
        change=cost - earlier,
        billed=by_basis.get((currency, "billed"), _NOTHING),
        estimated=by_basis.get((currency, "estimated"), _NOTHING),
        unallocated=unallocated_cost,
        unallocated_percent=_percent(unallocated_cost, cost),
    )


def _spenders(
    column: str, current: pl.DataFrame, earlier: pl.DataFrame, whole: Mapping[tuple[Any, ...], Decimal], top: int
) -> list[Spender]:
    """The `top` names of each currency by cost. Names of last month without cost in this one have 0."""
    current_sums, previous_sums = _sums(current, column), _sums(earlier, column)
    spenders: dict[str, list[Spender]] = defaultdict(list)
    for currency, name in {*current_sums, *previous_sums}:
        cost, previous = current_sums.get((currency, name), _NOTHING), previous_sums.get((currency, name), _NOTHING)
        share = _percent(cost, whole.get((currency,), _NOTHING))
        spenders[currency].append(
            Spender(name=name, currency=currency, cost=cost, previous=previous, change=cost - previous, share_percent=share)
        )
    order: Callable[[Spender], tuple[Decimal, Decimal, str]] = lambda s: (-s.cost, -s.previous, s.name or "")  # noqa: E731
    return [spender for currency in sorted(spenders) for spender in sorted(spenders[currency], key=order)[:top]]
