"""What anomalies are found in: published costs of usage by day of use and scope, and the calls and chains behind them.

Estimates are those that bills corrected (ES-1). What is not usage (fees, tax, credits) has a date of the invoice and no time of use, and is no part of
a series; neither is a charge for more than a day that no usage gives an hour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from ledger.books import Books
from ledger.calendars import time_of_use, used_near
from ledger.cost_drivers import ItemUsage, PeriodUsage
from ledger.money import MONEY
from ledger.published import published_months
from ledger.tables import CHAINS, COSTS, USAGE_HOURLY

SCOPES: Final = {
    "agent": "initiator_agent",
    "workflow": "workflow",
    "tool": "tool",
    "team": "initiator_team",
    "model": "model",
    "provider": "provider",
}
"""Kinds of series and their columns, narrow ones first: of anomalies with one cause the narrowest is told."""
TOOL_METERS: Final = (
    "web_searches", "web_searches_low", "web_searches_high", "grounded_prompts", "map_queries", "grounded_map_prompts",
    "browser_pages", "file_searches", "code_sessions", "computer_use_input_tokens", "computer_use_output_tokens",
)  # fmt: skip
"""Meters of tools that providers bill for: each is a series of its own."""
_MARGIN: Final = timedelta(days=2)


@dataclass
class SpendSeries:
    """Costs of a range of days of use, in the reporting timezone; `end` is not counted in."""

    books: Books
    start: date
    end: date

    @cached_property
    def zone(self) -> ZoneInfo:
        """The reporting timezone."""
        return ZoneInfo(self.books.settings.report.timezone)

    @cached_property
    def usage_rows(self) -> pl.DataFrame:
        """Quantity and effective cost by day, currency, dimension of scopes and meter; `meter` is null where no usage is behind a cost."""
        start, end = self.instant(self.start), self.instant(self.end)
        is_usage = pl.col("charge_category").is_null() | (pl.col("charge_category") == "Usage")
        is_timed = pl.col("usage_hour").is_not_null() | (pl.col("period_end") - pl.col("period_start") <= timedelta(days=1))
        meter = pl.when(pl.col("usage_key").is_not_null()).then("meter")
        tool = pl.when(pl.col("meter").is_in(TOOL_METERS)).then("meter")
        columns = [column for column in SCOPES.values() if column != "tool"]
        return (
            self._costs()
            .filter(used_near(start, end), is_usage, is_timed)
            .with_columns(day=time_of_use(self.zone.key).dt.date(), tool=tool, meter=meter)
            .filter(pl.col("day") >= self.start, pl.col("day") < self.end)
            .group_by("day", "currency", *columns, "tool", "meter")
            .agg(pl.col("quantity").sum(), cost=pl.col("effective_cost").sum())
            .collect()
        )

    def instant(self, day: date) -> datetime:
        """When a day begins."""
        return datetime.combine(day, time(), self.zone)

    def _costs(self) -> pl.LazyFrame:
        months = published_months(self.books.database)
        if not months:
            return COSTS.empty().lazy()
        partitions = {"month": [m.month for m in months], "run_id": sorted({m.run_id for m in months})}
        # A run may cover months of which another run has replaced some.
        is_in_force = pl.any_horizontal((pl.col("month") == m.month) & (pl.col("run_id") == m.run_id) for m in months)
        return self.books.store.scan(COSTS, partitions).filter(is_in_force)

    @cached_property
    def days_with_data(self) -> frozenset[date]:
        """Days of which the ledger knows any cost: of others nothing is known, which is not nothing."""
        return frozenset(self.usage_rows["day"].unique())

    def series(self, scope: str) -> dict[tuple[str, str], dict[date, Decimal]]:
        """Cost by day of each name and currency of a scope, days in order."""
        column = SCOPES[scope]
        rows = self.usage_rows.filter(pl.col(column).is_not_null()).group_by(column, "currency", "day").agg(pl.col("cost").sum())
        series: defaultdict[tuple[str, str], dict[date, Decimal]] = defaultdict(dict)
        for name, currency, day, cost in (
            rows.sort(column, "currency", "day").select(column, "currency", "day", "cost").iter_rows()
        ):
            series[name, currency][day] = cost
        return series

    def overlap(self, scopes: Sequence[tuple[str, str]], currency: str, start: date, end: date) -> Decimal:
        """The cost that is of all these scopes and names at once, from `start` to `end`, both counted in."""
        is_in_both = pl.all_horizontal(pl.col(SCOPES[scope]) == name for scope, name in scopes)
        rows = self.usage_rows.filter(is_in_both, pl.col("currency") == currency, pl.col("day").is_between(start, end))
        return Decimal(str(rows["cost"].sum() or 0))

    def usage(self, scope: str, name: str, currency: str, days: Sequence[date]) -> PeriodUsage:
        """Calls, tokens and costs of a scope on these days, by model."""
        is_counted = (pl.col(SCOPES[scope]) == name) & (pl.col("currency") == currency) & pl.col("day").is_in(list(days))
        costs = (
            self.usage_rows.filter(is_counted)
            .group_by("model", "meter")
            .agg(pl.col("quantity").sum(), pl.col("cost").sum())
            .sort("model", "meter")
        )
        classes: defaultdict[str, dict[str, tuple[Fraction, Fraction]]] = defaultdict(dict)
        other_cost = Fraction(0)
        for model, meter, quantity, cost in costs.select("model", "meter", "quantity", "cost").iter_rows():
            if model is None or meter is None or not quantity:
                other_cost += Fraction(cost)
            else:
                classes[model][meter] = (Fraction(quantity), Fraction(cost))
        calls = self._calls(scope, name, days)
        items = {}
        for model, by_class in classes.items():
            attempts, retries = calls.get(model, (0, 0))
            first_calls = attempts - retries or attempts
            items[model] = ItemUsage(Fraction(attempts), Fraction(first_calls), by_class)
        return PeriodUsage(items, other_cost)

    @cached_property
    def call_rows(self) -> pl.DataFrame:
        """Attempts and repeated attempts by day, dimension of scopes and model. A usage row a meter repeats its calls, so of each key the most count."""
        if not (partitions := self._rollups()):
            return pl.DataFrame(
                schema={"day": pl.Date, **dict.fromkeys(SCOPES.values(), pl.String), "attempts": pl.Int64, "retries": pl.Int64}
            )
        columns = [column for column in SCOPES.values() if column != "tool"]
        tool = pl.when(pl.col("meter").is_in(TOOL_METERS)).then("meter")
        return (
            self.books.store.scan(USAGE_HOURLY, partitions)
            .filter(pl.col("hour").is_between(self.instant(self.start) - _MARGIN, self.instant(self.end) + _MARGIN))
            .with_columns(day=pl.col("hour").dt.convert_time_zone(self.zone.key).dt.date(), tool=tool)
            .filter(pl.col("day") >= self.start, pl.col("day") < self.end)
            .group_by("day", *columns, "usage_key", "hour", "rollup_id", "reason")
            .agg(pl.col("calls").max(), pl.col("tool").max())
            .with_columns(is_retry=pl.col("reason").str.split(",").list.contains("retry").fill_null(value=False))
            .group_by("day", *columns, "tool")
            .agg(attempts=pl.col("calls").sum(), retries=pl.col("calls").filter("is_retry").sum())
            .collect()
        )

    def _rollups(self) -> dict[str, list[str]]:
        """Partitions of calls, usage and chains that are in force; empty where there are none."""
        months = published_months(self.books.database)
        rollup_ids = sorted({rollup_id for month in months for rollup_id in month.rollup_ids})
        return {"month": [month.month for month in months], "rollup_id": rollup_ids} if rollup_ids else {}

    def _calls(self, scope: str, name: str, days: Sequence[date]) -> dict[str, tuple[int, int]]:
        rows = (
            self.call_rows.filter(pl.col(SCOPES[scope]) == name, pl.col("day").is_in(list(days)), pl.col("model").is_not_null())
            .group_by("model")
            .agg(pl.col("attempts").sum(), pl.col("retries").sum())
        )
        return {
            model: (attempts, retries) for model, attempts, retries in rows.select("model", "attempts", "retries").iter_rows()
        }

    @cached_property
    def chain_rows(self) -> pl.DataFrame:
        """Chains that began in these days, dearest first: day, chain_id, initiator, calls, list_cost."""
        names = ("day", "chain_id", "initiator_agent", "initiator_team", "calls", "list_cost")
        if not (partitions := self._rollups()):
            types = (pl.Date, pl.String, pl.String, pl.String, pl.Int64, MONEY)
            return pl.DataFrame(schema=dict(zip(names, types, strict=True)))
        return (
            self.books.store.scan(CHAINS, partitions)
            .filter(pl.col("start_time").is_between(self.instant(self.start), self.instant(self.end), closed="left"))
            .with_columns(day=pl.col("start_time").dt.convert_time_zone(self.zone.key).dt.date())
            .select(names)
            .collect()
            .sort("list_cost", "calls", "chain_id", descending=[True, True, False], nulls_last=True)
        )

    def chains(self, scope: str, name: str, days: Sequence[date]) -> pl.DataFrame:
        """Chains of a team or agent that began on these days, dearest first; of other scopes none is known."""
        if scope not in ("team", "agent"):
            return self.chain_rows.clear()
        return self.chain_rows.filter(pl.col(SCOPES[scope]) == name, pl.col("day").is_in(list(days)))

    def owner(self, scope: str, name: str) -> str | None:
        """The team that most of the cost of an agent, workflow or tool is of; of a team itself; of models and providers nobody."""
        if scope == "team":
            return name
        if scope in ("model", "provider"):
            return None
        rows = self.usage_rows.filter(pl.col(SCOPES[scope]) == name, pl.col("initiator_team").is_not_null())
        teams = (
            rows.group_by("initiator_team").agg(pl.col("cost").sum(), pl.col("day").max()).sort("day", "cost", "initiator_team")
        )
        return None if teams.is_empty() else str(teams["initiator_team"][-1])
