"""Why cost changed between two periods: volume, tokens per call, price, mix and retries of each group, which sum to the change exactly.

    comparison(books, ComparisonQuery) -> DataFrame      a row for each group, currency and effect: by + currency, effect, cost
    comparison_table(books, ComparisonQuery) -> ComparisonTable   the same as a document, with the totals of both periods

What is compared are *items*: the metered rows of a group with the same model, and of all other cost the rows of the same service and charge
category. A call is counted once for each item that any of its cost is in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, Self

import polars as pl

from api.models import ComparisonRow, ComparisonTable, Effect
from api.queries.costs import CostQuery, matching_costs
from api.queries.gate import ScopedBooks, published, scan_rollups
from api.queries.publication import one_publication
from ledger.cost_drivers import GONE, MIX, NEW, RETRIES, VOLUME, ItemUsage, changes, rounded
from ledger.errors import UsageError
from ledger.money import MONEY
from ledger.periods import next_month
from ledger.tables import USAGE_HOURLY

EFFECTS: Final[tuple[Effect, ...]] = ("volume", "tokens_per_call", "price", "mix", "retries", "new", "gone")
"""Why a cost can have changed."""
_EFFECT_OF_DRIVER: Final[Mapping[str, Effect]] = {VOLUME: "volume", MIX: "mix", RETRIES: "retries", NEW: "new", GONE: "gone"}
_FEES: Final = "fees"
"""The class of what goes with calls and has no quantity of its own, such as credits and taxes: so much an attempt."""
_DUST: Final = Fraction(1, 10**9)
_ITEM: Final = ("model", "service", "charge_category")
_PERIOD: Final = re.compile(r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d))?|-W(?P<week>\d\d)|-Q(?P<quarter>[1-4]))?")

_Item = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class ComparisonQuery:
    """Two periods and how they are compared: the same cost query with another range each."""

    before: CostQuery
    after: CostQuery

    @classmethod
    def parse(
        cls,
        before: str,
        after: str,
        *,
        by: str | Sequence[str] = (),
        view: str = "initiator",
        basis: str = "effective",
        filters: Sequence[str] = (),
        timezone: str = "UTC",
    ) -> Self:
        """Parses the text of parameters. Two months, quarters or years are those of invoices; days and weeks are those of use.

        >>> query = ComparisonQuery.parse("2026-09", "2026-10", by="team")
        >>> query.after.start.isoformat(), query.after.end.isoformat(), query.after.calendar
        ('2026-10-01T00:00:00+00:00', '2026-11-01T00:00:00+00:00', 'invoice')
        """
        ranges = [_range(text, field) for text, field in ((before, "from"), (after, "to"))]
        is_of_months = all(len(edge) == 7 for edges in ranges for edge in edges)
        queries = (
            CostQuery.parse(
                by=by,
                view=view,
                start=start,
                end=end,
                basis=basis,
                filters=filters,
                calendar="invoice" if is_of_months else "usage",
                timezone=timezone,
            )
            for start, end in ranges
        )
        return cls(*queries)

    @property
    def groups(self) -> list[str]:
        """Columns of the groups: the query's dimensions, then the currency."""
        return [*(name for name in self.after.dimensions if name != "currency"), "currency"]


def _range(text: str, field: str) -> tuple[str, str]:
    """First and last bound of a period as people write it.

    >>> _range("2026-Q4", "from"), _range("2026-W49", "to"), _range("2026-12-31", "to"), _range("2026-10-01/2026-10-08", "to")
    (('2026-10', '2027-01'), ('2026-11-30', '2026-12-07'), ('2026-12-31', '2027-01-01'), ('2026-10-01', '2026-10-08'))
    """
    start, slash, end = text.strip().partition("/")
    if slash and start and end:
        return start.strip(), end.strip()
    remedy = (
        "write a month, day, week, quarter, year or range: 2026-10, 2026-10-05, 2026-W41, 2026-Q4, 2026, 2026-10-01/2026-10-08"
    )
    match = _PERIOD.fullmatch(start)
    if slash or match is None:
        raise UsageError(f"{text!r} is no period", where=field, remedy=remedy)
    parts = {name: int(value) for name, value in match.groupdict().items() if value}
    year = parts["year"]
    try:
        if "week" in parts:
            monday = date.fromisocalendar(year, parts["week"], 1)
            return monday.isoformat(), (monday + timedelta(days=7)).isoformat()
        if "day" in parts:
            day = date(year, parts["month"], parts["day"])
            return day.isoformat(), (day + timedelta(days=1)).isoformat()
        if "month" in parts:
            return start, next_month(f"{date(year, parts['month'], 1):%Y-%m}")
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no period", where=field, remedy=remedy) from error
    if "quarter" in parts:
        first = 3 * parts["quarter"] - 2
        return f"{year:04}-{first:02}", next_month(f"{year:04}-{first + 2:02}")
    return f"{year:04}-01", f"{year + 1:04}-01"


@one_publication
def comparison(books: ScopedBooks, query: ComparisonQuery) -> pl.DataFrame:
    """What changed each group's cost, one row for each effect that is not 0: `ComparisonQuery.groups`, `effect`, `cost` (MONEY).

    The rows of a group sum to the change of its cost exactly, and all rows of a currency to the change of the whole. Groups that changed most
    come first, and within a group the largest effect.
    """
    return _effects(query, *(items_of(books, period) for period in (query.before, query.after)))


@one_publication
def comparison_table(books: ScopedBooks, query: ComparisonQuery) -> ComparisonTable:
    """The comparison as a document."""
    before, after = (items_of(books, period) for period in (query.before, query.after))
    frame = _effects(query, before, after)
    totals = [dict(rows.group_by("currency").agg(pl.col("cost").sum()).sort("currency").iter_rows()) for rows in (before, after)]
    currencies = sorted(totals[0].keys() | totals[1].keys())
    zero = Decimal(0)
    return ComparisonTable(
        by=list(query.after.dimensions),
        view=query.after.view,
        basis=query.after.basis,
        calendar=query.after.calendar or "usage",
        timezone=books.settings.report.timezone,
        before_start=query.before.start,
        before_end=query.before.end,
        after_start=query.after.start,
        after_end=query.after.end,
        runs={month.month: month.run_id for month in published(books)},
        totals_before=totals[0],
        totals_after=totals[1],
        totals_change={name: totals[1].get(name, zero) - totals[0].get(name, zero) for name in currencies},
        rows=[ComparisonRow.model_validate(row) for row in frame.iter_rows(named=True)],
    )


def items_of(books: ScopedBooks, query: CostQuery) -> pl.DataFrame:
    """Cost and quantity of a period by item and meter, with the calls of each item.

    Columns: by_0, by_1, … (the dimensions but the currency), currency, model, service, charge_category, meter, quantity, cost, attempts, retries.
    """
    cost = f"{query.basis}_cost"
    names = [name for name in query.dimensions if name != "currency"]
    is_used = pl.col("usage_key").is_not_null() & (pl.col("cost_class") == "metered")
    costs = (
        matching_costs(books, query)
        .filter(pl.col(cost).is_not_null())
        .select(
            *(pl.col(query.column(name)).alias(f"by_{number}") for number, name in enumerate(names)),
            "currency",
            model=pl.when(is_used).then("model"),
            service=pl.when(~is_used).then("service"),
            charge_category=pl.when(~is_used).then("charge_category"),
            meter=pl.when(pl.col("quantity") != 0).then(pl.coalesce("meter", pl.lit("quantity"))),
            usage_key=pl.when(is_used).then("usage_key"),
            quantity="quantity",
            cost=cost,
        )
    )
    items = [*(f"by_{number}" for number in range(len(names))), "currency", *_ITEM]
    rows = costs.group_by(*items, "meter", "usage_key").agg(pl.col("quantity", "cost").sum()).collect()
    usage_keys = rows.select(*items, "usage_key").drop_nulls("usage_key").unique()
    calls = (
        usage_keys.join(_calls(books, usage_keys["usage_key"]), on="usage_key")
        .group_by(items)
        .agg(pl.col("attempts", "retries").sum())
    )
    return (
        rows.group_by(*items, "meter")
        .agg(pl.col("quantity", "cost").sum())
        .join(calls, on=items, how="left", nulls_equal=True)
        .with_columns(pl.col("attempts", "retries").fill_null(0))
    )


def _calls(books: ScopedBooks, usage_keys: pl.Series) -> pl.DataFrame:
    """Attempts and repeated attempts of usage rows. A usage row for each meter repeats its calls, so of each key the most count."""
    is_retry = pl.col("reason").str.split(",").list.contains("retry").fill_null(value=False)
    return (
        scan_rollups(books, USAGE_HOURLY, published(books), "either")
        .join(usage_keys.unique().to_frame("usage_key").lazy(), on="usage_key", how="semi")
        .group_by("usage_key", "rollup_id")
        .agg(attempts=pl.col("calls").max(), is_retry=is_retry.any())
        .group_by("usage_key")
        .agg(pl.col("attempts").sum(), retries=pl.col("attempts").filter("is_retry").sum())
        .collect()
    )


def _effects(query: ComparisonQuery, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    groups = query.groups
    sums: defaultdict[tuple[tuple[str | None, ...], Effect], Decimal] = defaultdict(Decimal)
    earlier, later = (_items(rows) for rows in (before, after))
    for currency in sorted(earlier.keys() | later.keys()):
        for item, effects in _changes(earlier.get(currency, {}), later.get(currency, {})):
            group = (*item[: len(groups) - 1], currency)
            for effect, amount in effects.items():
                sums[group, effect] += amount
    totals: defaultdict[tuple[str | None, ...], Decimal] = defaultdict(Decimal)
    for (group, _), amount in sums.items():
        totals[group] += amount
    effect_rows = sorted(
        ((group, effect, amount) for (group, effect), amount in sums.items() if amount),
        key=lambda row: (-abs(totals[row[0]]), tuple((name is None, name or "") for name in row[0]), -abs(row[2]), row[1]),
    )
    schema = pl.Schema(dict.fromkeys((*groups, "effect"), pl.String) | {"cost": MONEY})
    return pl.DataFrame([(*group, effect, amount) for group, effect, amount in effect_rows], schema=schema, orient="row")


def _items(rows: pl.DataFrame) -> dict[str, dict[_Item, ItemUsage]]:
    """Usage of each item, by currency."""
    classes: defaultdict[tuple[str, _Item], dict[str, tuple[Fraction, Fraction]]] = defaultdict(dict)
    calls: dict[tuple[str, _Item], tuple[int, int]] = {}
    names = [name for name in rows.columns if name.startswith("by_")]
    columns = ("currency", "meter", "quantity", "cost", "attempts", "retries", *names, *_ITEM)
    for currency, meter, quantity, cost, attempts, retries, *item in rows.select(columns).sort(columns).iter_rows():
        key = (currency, tuple(item))
        calls[key] = (attempts, retries)
        amount, name = (attempts, _FEES) if meter is None else (quantity, meter)
        classes[key][name] = (Fraction(amount), Fraction(cost))
    usage: defaultdict[str, dict[_Item, ItemUsage]] = defaultdict(dict)
    for (currency, item_key), by_class in classes.items():
        attempts, retries = calls[currency, item_key]
        usage[currency][item_key] = ItemUsage(Fraction(attempts), Fraction(attempts - retries or attempts), by_class)
    return usage


def _changes(
    before: Mapping[_Item, ItemUsage], after: Mapping[_Item, ItemUsage]
) -> Iterator[tuple[_Item, dict[Effect, Decimal]]]:
    """Effects of each item, which sum to the change of its cost."""
    for item, drivers in changes(before, after):
        is_new_or_gone = len(drivers) == 1 and drivers[0][0] in (NEW, GONE)
        has_calls = is_new_or_gone or (before[item].calls and after[item].calls)
        effects: defaultdict[Effect, Fraction] = defaultdict(Fraction)
        for driver, amount in drivers if has_calls else _without_calls(before[item], after[item]):
            effect: Effect = "tokens_per_call" if driver.startswith("tokens per call") else _EFFECT_OF_DRIVER.get(driver, "price")
            effects[effect] += amount
        # What is left of the rounding of costs and quantities is no effect of its own.
        largest: Effect = max(effects, key=lambda name: abs(effects[name]), default="price")
        for effect, amount in list(effects.items()):
            if effect != largest and abs(amount) < _DUST:
                effects[largest] += effects.pop(effect)
        yield item, rounded(effects)


def _without_calls(before: ItemUsage, after: ItemUsage) -> Iterator[tuple[str, Fraction]]:
    """What no call used, such as hours of a machine, tax and fees: quantity × price; without a quantity the amount is a price."""
    zero = (Fraction(0), Fraction(0))
    for name in before.classes.keys() | after.classes.keys():
        (old_quantity, old_cost), (quantity, cost) = before.classes.get(name, zero), after.classes.get(name, zero)
        volume = Fraction(0)
        if name != _FEES and (old_quantity or quantity):
            prices = [amount / number for amount, number in ((old_cost, old_quantity), (cost, quantity)) if number]
            volume = (quantity - old_quantity) * sum(prices, Fraction(0)) / len(prices)
        yield VOLUME, volume
        yield "price", cost - old_cost - volume
