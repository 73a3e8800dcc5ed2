"""Cost by instant of use and by everything a budget can be about, from the published ledger: what budgets are measured with. (TI-1a)"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import polars as pl

from ledger import names, registry
from ledger.books import Books
from ledger.budgets.periods import Window
from ledger.budgets.terms import Terms
from ledger.calendars import time_of_use, used_near
from ledger.errors import UsageError
from ledger.exchange_rates import Exchange
from ledger.money import proportion
from ledger.names import RegisteredNames
from ledger.published import runs_in_force
from ledger.tables import COSTS

BASES = ("effective", "billed", "list", "contracted")
_VALUES = ("workflow", "tenant", "environment", "provider", "model")
_OWNERS = tuple(f"{view}_{scope}" for view in ("initiator", "executor") for scope in ("team", "agent"))
BUDGET_COLUMNS = (*_OWNERS, *_VALUES)
"""Columns of costs and calls that budgets are about."""


@dataclass(frozen=True, slots=True)
class Spend:
    """Published cost since `since`, and the newest instant of use of the whole ledger (None: there is none).

    `frame` has `at` (UTC), the columns that budgets can be about, `currency`, `basis`, `is_model`, `is_shared`, and the cost columns of FOCUS.
    """

    frame: pl.DataFrame
    newest: datetime | None

    def has_data(self, window: Window) -> bool:
        """Whether any cost of the ledger, of whomever, was used within or after the window began."""
        return self.newest is not None and self.newest >= window.start


def read_spend(books: Books, since: datetime, until: datetime | None = None) -> Spend:
    """Cost used in ``[since, until)``.

    An invoice may hold charges of any earlier day, so every published month is looked through; files without these days are not read.
    """
    zone = books.settings.report.timezone
    keys = ["at", *_OWNERS, *_VALUES, "currency", "basis", "is_model", "is_shared"]
    in_force = in_force_costs(books)
    if in_force is None:
        return Spend(_empty(keys), None)
    at = time_of_use(zone).dt.convert_time_zone("UTC")
    costs = in_force.filter(used_near(since, until)).with_columns(at=at).filter(pl.col("at") >= since.astimezone(UTC))
    if until is not None:
        costs = costs.filter(pl.col("at") < until.astimezone(UTC))
    frame = (
        costs.with_columns(is_model=pl.col("model").is_not_null(), is_shared=pl.col("cost_class") == "shared")
        .group_by(keys)
        .agg(pl.col(f"{basis}_cost").sum() for basis in BASES)
        .collect()
    )
    return Spend(frame, newest_use(books))


def newest_use(books: Books) -> datetime | None:
    """The newest instant of use of any published cost."""
    in_force = in_force_costs(books)
    if in_force is None:
        return None
    newest: datetime | None = (
        in_force.select(time_of_use(books.settings.report.timezone).dt.convert_time_zone("UTC").max()).collect().item()
    )
    return newest


def in_force_costs(books: Books) -> pl.LazyFrame | None:
    """Costs of the run in force of each month; None while nothing is published."""
    runs = runs_in_force(books.database)
    if not runs:
        return None
    costs = books.store.scan(COSTS, {"month": list(runs), "run_id": list(runs.values())})
    return costs.filter(pl.any_horizontal((pl.col("month") == month) & (pl.col("run_id") == run) for month, run in runs.items()))


def _empty(keys: Collection[str]) -> pl.DataFrame:
    types: dict[str, pl.DataType | type[pl.DataType]] = {
        "at": pl.Datetime("us", "UTC"),
        "is_model": pl.Boolean,
        "is_shared": pl.Boolean,
    }
    texts: dict[str, pl.DataType | type[pl.DataType]] = dict.fromkeys(keys, pl.String)
    return pl.DataFrame(schema=pl.Schema(texts | types | {f"{b}_cost": COSTS.schema[f"{b}_cost"] for b in BASES}))


# ── which of it counts against a budget ─────────────────────────────────────────────────────────────────────────────


class Spelling:
    """Names as costs spell them: registered names in any case and spacing, others whole. (ID-3)"""

    def __init__(self, books: Books) -> None:
        timeline = registry.timeline(registry.rows(books))
        self._registered = {"team": RegisteredNames.teams(timeline), "agent": RegisteredNames.agents(timeline)}
        self.registered_names: Mapping[str, frozenset[str]] = {d: r.names for d, r in self._registered.items()}

    def of(self, dimension: str, name: str, spent_by: Iterable[str]) -> str:
        """The spelling of a name in costs, of which `spent_by` are the names of that dimension."""
        if dimension in self._registered:
            return self._registered[dimension].find(name) or name
        spent_names = set(spent_by)
        if name in spent_names:
            return name
        matches = [other for other in spent_names if names.key(other) == names.key(name)]
        return matches[0] if len(matches) == 1 else name


def column_of(dimension: str, view: str) -> str:
    """The column of costs that holds a dimension.

    >>> column_of("team", "executor"), column_of("model", "executor")
    ('executor_team', 'model')
    """
    return f"{view}_{dimension}" if dimension in ("team", "agent") else dimension


def of_budget(spend: Spend, terms: Terms, spelling: Spelling) -> pl.DataFrame:
    """The rows that count against a budget: `at`, `currency`, `basis`, `cost`. Names are compared whole: `search` does not include `search-ads`."""
    rows = spend.frame.lazy()
    for dimension, name in terms.scopes.items():
        if dimension == "organisation":
            continue
        column = column_of(dimension, terms.view)
        spent_names = spend.frame[column].drop_nulls().unique() if dimension not in ("team", "agent") else ()
        rows = rows.filter(pl.col(column) == spelling.of(dimension, name, spent_names))
    if not terms.infrastructure:
        rows = rows.filter("is_model")
    if not terms.shared:
        rows = rows.filter(~pl.col("is_shared"))
    cost = pl.col(f"{terms.basis}_cost").sum().alias("cost")
    if terms.basis == "billed":
        rows = rows.filter(pl.col("basis") == "billed")
    return rows.group_by("at", "currency", "basis").agg(cost).sort("at", "currency", "basis").collect()


# ── in the currency of the budget ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Converted:
    """Rows in the budget's currency, and what has no rate into it: currency to amount."""

    rows: pl.DataFrame
    without_rate: Mapping[str, Decimal]


def converted(rows: pl.DataFrame, currency: str, exchange: Exchange, window: Window, timezone: str) -> Converted:
    """Each amount at the rate of its day in the reporting timezone (RA-7), and what has none within the window."""
    if rows["currency"].eq(currency).all():
        return Converted(rows, {})
    zone = ZoneInfo(timezone)
    costs: list[Decimal | None] = []
    without_rate: dict[str, Decimal] = {}
    for at, source, cost in rows.select("at", "currency", "cost").iter_rows():
        amount = cost if source == currency else _exchanged(cost, source, currency, at.astimezone(zone).date(), exchange)
        if amount is None and window.holds(at):
            without_rate[source] = without_rate.get(source, Decimal(0)) + cost
        costs.append(amount)
    amounts = rows.with_columns(pl.Series("cost", costs, dtype=COSTS.schema["effective_cost"]), currency=pl.lit(currency))
    known_rows = amounts.filter(pl.col("cost").is_not_null()).group_by("at", "currency", "basis").agg(pl.col("cost").sum())
    return Converted(known_rows.sort("at", "basis"), {c: a for c, a in sorted(without_rate.items()) if a})


def require_rate(books: Books, terms: Terms) -> None:
    """Raises `UsageError` for a budget in a currency that no cost has, if a currency of the ledger has no rate into it."""
    in_force = in_force_costs(books)
    if in_force is None:
        return
    newest_days = dict(in_force.group_by("currency").agg(pl.col("period_start").max()).collect().iter_rows())
    exchange = Exchange.of(books)
    missing = [c for c, at in sorted(newest_days.items()) if exchange.on(c, terms.currency, at.date()) is None]
    if terms.currency not in newest_days and missing:
        raise UsageError(
            f"costs are in {', '.join(missing)}, and there is no exchange rate into {terms.currency}",
            where=f"{terms.name}: currency",
            remedy=f"import rates with `rootcost exchange import`, or set the budget in {missing[0]}",
        )


def _exchanged(cost: Decimal, source: str, target: str, day: date, exchange: Exchange) -> Decimal | None:
    rate = exchange.on(source, target, day)
    return None if rate is None else proportion(cost, rate.numerator, rate.denominator)


def total(rows: pl.DataFrame, window: Window, basis: str | None = None) -> Decimal:
    """What was used within a window: on bills (`billed`), not on one yet (`estimated`), or both."""
    window_rows = rows.filter(pl.col("at") >= window.start, pl.col("at") < window.end)
    if basis is not None:
        window_rows = window_rows.filter(pl.col("basis") == basis)
    return Decimal(str(window_rows["cost"].sum() or 0))
