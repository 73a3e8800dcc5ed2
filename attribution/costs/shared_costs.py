"""Shared-cost rules: who pays for what nobody used directly, and by which weights. (RA-4)

Each charge is taken by one rule, the first that fits, and is not shared again: a rule cannot feed another, nor itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import polars as pl

from attribution.classification import names
from ledger.money import MONEY, split, weights
from ledger.settings import SharedRule
from ledger.tables import COST_COLUMNS, TOKEN_METERS

IDLE_REASONS = ("idle_capacity", "unused_commitment")
"""Reasons of class idle: such cost is shared only by a rule that names the reason, and stays visible as idle. (RA-3)"""


def by_priority(rules: list[SharedRule]) -> list[SharedRule]:
    """The rules as they are asked: by priority, then as written."""
    return sorted(rules, key=lambda rule: -rule.priority)


@dataclass(slots=True)
class TeamSpend:
    """What teams spent and used in the month: the weights of shared costs, each drawn when a rule asks for it.

    `metered` are sums of metered cost by currency and `initiator_team`, any number of them; `uses` is all hourly usage of the month.
    """

    metered: pl.DataFrame
    uses: pl.LazyFrame
    _drawn: dict[str, pl.DataFrame] = field(default_factory=dict)

    def weights(self, rule: SharedRule) -> pl.DataFrame:
        """Team and weight, for each currency where the method counts money. A rule's source is never its target."""
        if rule.method == "fixed":
            found = pl.DataFrame({"team": list(rule.shares), "weight": pl.Series(list(rule.shares.values()), dtype=MONEY)})
        elif rule.method == "even" and rule.teams:
            found = pl.DataFrame({"team": rule.teams}).with_columns(weight=pl.lit(1).cast(MONEY))
        else:
            found = self._used(rule.usage) if rule.method == "usage" else self._paid()
            if rule.teams:
                found = found.filter(pl.col("team").is_in(rule.teams))
            if rule.method == "even":
                found = found.with_columns(weight=pl.lit(1).cast(MONEY))
        return found.filter(pl.col("team") != rule.source_team, pl.col("weight") > 0)

    def _paid(self) -> pl.DataFrame:
        """Metered cost by currency and team; where a bill leaves EffectiveCost 0, what it bills."""
        if "cost" not in self._drawn:
            if not self.metered.height:
                return pl.DataFrame(schema={"currency": pl.String, "team": pl.String, "weight": MONEY})
            spent = (
                self.metered.filter(pl.col("initiator_team").is_not_null())
                .group_by("currency", team="initiator_team")
                .agg(pl.col(c).sum() for c in COST_COLUMNS)
                .sort("currency", "team")
            )
            total = [pl.col(c).sum().over("currency") for c in ("effective_cost", "billed_cost")]
            weight = pl.when(total[0] > 0).then("effective_cost").when(total[1] > 0).then("billed_cost").otherwise("list_cost")
            self._drawn["cost"] = spent.select("currency", "team", weight=weight)
        return self._drawn["cost"]

    def _used(self, driver: str) -> pl.DataFrame:
        """Quantity of a meter by team, all tokens, or calls: of each hour and owner as many as the meter that most calls report."""
        if driver not in self._drawn:
            mine = self.uses.filter(pl.col("initiator_team").is_not_null())
            if driver == "calls":
                told = mine.filter(pl.col("meter").is_in(TOKEN_METERS)).group_by("usage_key", "initiator_team", "meter")
                calls = told.agg(pl.col("calls").sum()).group_by("usage_key", "initiator_team")
                mine = calls.agg(quantity=pl.col("calls").max().cast(MONEY))
            else:
                mine = mine.filter(pl.col("meter").is_in(TOKEN_METERS) if driver == "tokens" else pl.col("meter") == driver)
            weighed = mine.group_by(team="initiator_team").agg(weight=pl.col("quantity").sum())
            self._drawn[driver] = weighed.collect(engine="streaming").sort("team")
        return self._drawn[driver]


def apply_rules(lots: pl.DataFrame, rules: list[SharedRule], spent: TeamSpend) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """What the rules take of the lots, split over teams, rule by rule; and the lots they leave.

    `lots` know their `owner_agent` and `owner_team`. A rule without a source takes what nobody owns.
    """
    placed: list[pl.DataFrame] = []
    for rule in by_priority(rules):
        if not lots.height:
            break
        taken, lots = _apply_rule(rule, lots, spent)
        if taken.height:
            placed.append(taken)
    return placed, lots


def _applies_to(rule: SharedRule, lots: pl.DataFrame) -> pl.Expr:
    day = pl.col("period_start").dt.date()
    meant = (day >= rule.valid_from) & (pl.lit(rule.valid_to is None) | (day < pl.lit(rule.valid_to)))
    unowned = pl.col("owner_team").is_null() & pl.col("owner_agent").is_null()
    meant = meant & ((pl.col("owner_team") == rule.source_team) if rule.source_team else unowned)
    wanted = {
        "provider": names.provider(rule.provider) if rule.provider else "",
        "account": rule.account,
        "service": rule.service,
        "sku_meter": rule.sku,
        "charge_category": rule.charge_category,
        "reason": rule.reason,
    }
    for column, value in wanted.items():
        if value:
            meant = meant & (pl.col(column) == value)
    if not rule.reason:
        meant = meant & ~pl.col("reason").is_in(IDLE_REASONS).fill_null(value=False)
    if rule.tags:
        distinct = lots["tags"].drop_nulls().unique()
        meant = meant & pl.col("tags").is_in(
            pl.Series([t for t in distinct if _has_tags(t, rule.tags)], dtype=pl.String).implode()
        )
    return meant.fill_null(value=False)


def _has_tags(tags: str, wanted: dict[str, str]) -> bool:
    held = json.loads(tags)
    return all(str(held.get(key, "")) == value for key, value in wanted.items())


def _apply_rule(rule: SharedRule, lots: pl.DataFrame, spent: TeamSpend) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lots one rule takes, split over its teams, and the lots it leaves. Without a weight it takes nothing: the next step has its turn."""
    taken = lots.filter(_applies_to(rule, lots))
    if not taken.height:
        return taken, lots
    shares = spent.weights(rule)
    rows = taken.join(shares, on="currency") if "currency" in shares.columns else taken.join(shares, how="cross")
    if not rows.height:
        return taken.clear(), lots
    rows = rows.with_columns(__w=weights(rows, "weight", "lot"))
    out = split(rows.lazy(), amounts=COST_COLUMNS, weight="__w", pool="lot", order_by=["team"]).collect()
    out = out.filter(pl.col("effective_cost").is_not_null()).with_columns(
        cost_class=pl.when(pl.col("reason").is_in(IDLE_REASONS).fill_null(value=False))
        .then(pl.lit("idle"))
        .otherwise(pl.lit("shared")),
        quantity=pl.lit(None, dtype=MONEY),
        rule=pl.lit(rule.label),
        method=pl.lit(rule.method),
        initiator_team="team",
        executor_team="team",
    )
    return out.drop("__w", "weight", "team"), lots.filter(~pl.col("lot").is_in(out["lot"].implode()))
