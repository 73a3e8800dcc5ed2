"""Shared-cost rules: which teams pay for what no usage explains, and by which weights. (RA-4)

Each charge is shared by one rule, the first that applies, and is not shared again: a rule cannot feed another, nor itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from attribution.classification import names
from attribution.costs import bill_tags
from ledger.money import MONEY, split, weights
from ledger.names import RegisteredNames, clean
from ledger.settings import SharedRule
from ledger.tables import COST_COLUMNS, TOKEN_METERS

IDLE_REASONS = ("idle_capacity", "unused_commitment")
"""Reasons of class idle: such cost is shared only by a rule that names the reason, and keeps its class. (RA-3)"""


def by_priority(rules: list[SharedRule]) -> list[SharedRule]:
    """The rules in the order they apply: by priority, then as written."""
    return sorted(rules, key=lambda rule: -rule.priority)


@dataclass(slots=True)
class TeamSpend:
    """What teams spent and used in the month: the weights of shared costs, each computed when a rule first needs it.

    `metered` are sums of metered cost by currency and `initiator_team`, any number of them; `usage` is all hourly usage of the month.
    Rules name teams by `teams`, the names of the registry. (ID-3)
    """

    metered: pl.DataFrame
    usage: pl.LazyFrame
    teams: RegisteredNames = field(default_factory=lambda: RegisteredNames.of(()))
    _weights: dict[str, pl.DataFrame] = field(default_factory=dict)

    def weights(self, rule: SharedRule) -> pl.DataFrame:
        """Team and weight, for each currency where the method counts money. A rule's source is never its target."""
        rule_teams = list(dict.fromkeys(map(self.team, rule.teams)))
        if rule.method == "fixed":
            team_weights = pl.DataFrame(
                {"team": [self.team(name) for name in rule.shares], "weight": pl.Series(list(rule.shares.values()), dtype=MONEY)}
            )
            team_weights = team_weights.group_by("team", maintain_order=True).agg(pl.col("weight").sum())
        elif rule.method == "even" and rule.teams:
            team_weights = pl.DataFrame({"team": rule_teams}).with_columns(weight=pl.lit(1).cast(MONEY))
        else:
            team_weights = self._usage_weights(rule.usage) if rule.method == "usage" else self._cost_weights()
            if rule.teams:
                team_weights = team_weights.filter(pl.col("team").is_in(rule_teams))
            if rule.method == "even":
                team_weights = team_weights.with_columns(weight=pl.lit(1).cast(MONEY))
        return team_weights.filter(pl.col("team") != self.team(rule.source_team), pl.col("weight") > 0)

    def team(self, name: str) -> str:
        """The team that a rule names: as the registry spells it, else as written."""
        return self.teams.find(name) or name

    def _cost_weights(self) -> pl.DataFrame:
        """Metered cost by currency and team; billed cost where a bill leaves EffectiveCost 0."""
        if "cost" not in self._weights:
            if not self.metered.height:
                return pl.DataFrame(schema={"currency": pl.String, "team": pl.String, "weight": MONEY})
            team_costs = (
                self.metered.filter(pl.col("initiator_team").is_not_null())
                .group_by("currency", team="initiator_team")
                .agg(pl.col(c).sum() for c in COST_COLUMNS)
                .sort("currency", "team")
            )
            total = [pl.col(c).sum().over("currency") for c in ("effective_cost", "billed_cost")]
            weight = pl.when(total[0] > 0).then("effective_cost").when(total[1] > 0).then("billed_cost").otherwise("list_cost")
            self._weights["cost"] = team_costs.select("currency", "team", weight=weight)
        return self._weights["cost"]

    def _usage_weights(self, driver: str) -> pl.DataFrame:
        """Quantity of a meter by team, all tokens, or calls: of each hour and owner as many as the meter that most calls report."""
        if driver not in self._weights:
            team_usage = self.usage.filter(pl.col("initiator_team").is_not_null())
            if driver == "calls":
                calls_by_meter = team_usage.filter(pl.col("meter").is_in(TOKEN_METERS)).group_by(
                    "usage_key", "initiator_team", "meter"
                )
                calls = calls_by_meter.agg(pl.col("calls").sum()).group_by("usage_key", "initiator_team")
                team_usage = calls.agg(quantity=pl.col("calls").max().cast(MONEY))
            else:
                team_usage = team_usage.filter(
                    pl.col("meter").is_in(TOKEN_METERS) if driver == "tokens" else pl.col("meter") == driver
                )
            weight_frame = team_usage.group_by(team="initiator_team").agg(weight=pl.col("quantity").sum())
            self._weights[driver] = weight_frame.collect(engine="streaming").sort("team")
        return self._weights[driver]


def apply_rules(groups: pl.DataFrame, rules: list[SharedRule], team_spend: TeamSpend) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """The parts that rules share over teams, rule by rule, and the groups that no rule applies to.

    `groups` have `owner_agent` and `owner_team`. A rule without a source applies to groups that nobody owns.
    """
    parts: list[pl.DataFrame] = []
    for rule in by_priority(rules):
        if not groups.height:
            break
        rule_rows, groups = _apply_rule(rule, groups, team_spend)
        if rule_rows.height:
            parts.append(rule_rows)
    return parts, groups


def _applies_to(rule: SharedRule, groups: pl.DataFrame, team_spend: TeamSpend) -> pl.Expr:
    day = pl.col("period_start").dt.date()
    condition = (day >= rule.valid_from) & (pl.lit(rule.valid_to is None) | (day < pl.lit(rule.valid_to)))
    has_no_owner = pl.col("owner_team").is_null() & pl.col("owner_agent").is_null()
    condition = condition & ((pl.col("owner_team") == team_spend.team(rule.source_team)) if rule.source_team else has_no_owner)
    scope = {
        "provider": names.provider(rule.provider) if rule.provider else "",
        "account": rule.account,
        "service": rule.service,
        "sku_meter": rule.sku,
        "charge_category": rule.charge_category,
        "reason": rule.reason,
    }
    for column, value in scope.items():
        if value:
            condition = condition & (pl.col(column) == value)
    if not rule.reason:
        condition = condition & ~pl.col("reason").is_in(IDLE_REASONS).fill_null(value=False)
    if rule.tags:
        distinct = groups.select("tags", "provider_name").unique()
        has_tags = [bool(tags) and _has_tags(tags, provider, rule.tags) for tags, provider in distinct.iter_rows()]
        lookup = distinct.with_columns(has_tags=pl.Series(has_tags, dtype=pl.Boolean))
        keys = groups.select("tags", "provider_name")
        condition = condition & pl.lit(
            keys.join(lookup, on=keys.columns, how="left", nulls_equal=True, maintain_order="left")["has_tags"]
        )
    return condition.fill_null(value=False)


def _has_tags(tags: str, provider_name: str | None, required_tags: dict[str, str]) -> bool:
    tag_values = bill_tags.tags_of(tags, provider_name)
    keys = {key.lower() if bill_tags.ignores_case(provider_name) else key: value for key, value in required_tags.items()}
    return all(clean(str(tag_values.get(key, ""))) == clean(value) for key, value in keys.items())


def _apply_rule(rule: SharedRule, groups: pl.DataFrame, team_spend: TeamSpend) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The groups that one rule applies to, split over its teams, and the other groups. Without a weight it applies to none: the next step follows."""
    rule_groups = groups.filter(_applies_to(rule, groups, team_spend))
    if not rule_groups.height:
        return rule_groups, groups
    shares = team_spend.weights(rule)
    rows = rule_groups.join(shares, on="currency") if "currency" in shares.columns else rule_groups.join(shares, how="cross")
    if not rows.height:
        return rule_groups.clear(), groups
    rows = rows.with_columns(__w=weights(rows, "weight", "charge_group"))
    parts = split(rows.lazy(), amounts=COST_COLUMNS, weight="__w", pool="charge_group", order_by=["team"]).collect()
    # A group without any weight is not shared; a cost column that the bill does not tell stays null. (MO-1b)
    parts = parts.filter(pl.col("__w").sum().over("charge_group") > 0).with_columns(
        cost_class=pl.when(pl.col("reason").is_in(IDLE_REASONS).fill_null(value=False))
        .then(pl.lit("idle"))
        .otherwise(pl.lit("shared")),
        quantity=pl.lit(None, dtype=MONEY),
        rule=pl.lit(rule.label),
        method=pl.lit(rule.method),
        initiator_team="team",
        executor_team="team",
    )
    return parts.drop("__w", "weight", "team"), groups.filter(~pl.col("charge_group").is_in(parts["charge_group"].implode()))
