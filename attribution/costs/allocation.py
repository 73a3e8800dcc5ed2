"""Allocation cascade: charges that match no usage go to their owner, are shared by rule, or are reported as unallocated. (RA-4)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from attribution import as_of
from attribution.columns import RESOURCE_METERS, VARIANT
from attribution.costs import bill_tags, principals
from attribution.costs.corrections import correctable_costs, follow_charges
from attribution.costs.shared_costs import IDLE_REASONS, TeamSpend, apply_rules
from attribution.costs.taxes import follow_taxed_charges
from ledger.money import known_sum
from ledger.names import RegisteredNames
from ledger.settings import AttributionSettings
from ledger.tables import COST_COLUMNS, COSTS


def allocate(
    groups: pl.DataFrame,
    unmatched_groups: pl.DataFrame,
    usage_costs: pl.LazyFrame,
    team_spend: TeamSpend,
    timeline: pl.DataFrame,
    settings: AttributionSettings,
    *,
    earlier_costs: pl.DataFrame,
    month_begin: datetime,
) -> list[pl.DataFrame]:
    """Allocates what matches no usage: owner, shared, idle or unallocated; then credits and corrections, then taxes on all of that.

    `unmatched_groups` are charge groups that no usage explains, `usage_costs` the costs of usage. `earlier_costs` are published costs of
    earlier invoices (`attribution.costs.prior_months`), `month_begin` is the first instant of this invoice's month.
    """
    parts = [f for f in (allocate_unmatched(unmatched_groups, team_spend, timeline, settings),) if f.height]
    roles = (
        ("follow", follow_charges, pl.lit("credit_without_charge")),
        ("tax", follow_taxed_charges, pl.lit("tax_without_charge")),
    )
    for role, follow, stray_reason in roles:
        role_groups = groups.filter(pl.col("role") == role)
        if not role_groups.height:
            continue
        followed_costs = [t for t in (correctable_costs(usage_costs, groups, role_groups), *parts) if t.height]
        following_rows, unmatched_role_groups = follow(
            role_groups,
            pl.concat(followed_costs, how="diagonal_relaxed") if followed_costs else pl.DataFrame(),
            earlier_costs,
            month_begin=month_begin,
        )
        stray_rows = allocate_unmatched(unmatched_role_groups.with_columns(reason=stray_reason), team_spend, timeline, settings)
        parts += [f for f in (following_rows, stray_rows) if f.height]
    return parts


def metered_shares(shares: pl.DataFrame) -> pl.DataFrame:
    """Shares of charges on usage rows, with their class, rule and reason."""
    if not shares.height:
        return shares
    return shares.with_columns(
        *(pl.coalesce(key, f"use_{key}").alias(key) for key in VARIANT),
        cost_class=pl.lit("metered"),
        rule=pl.when(pl.col("pool_id").str.starts_with("driver|"))
        .then(pl.lit("RA-3"))
        .when(pl.col("flag") != "")
        .then(pl.lit("RA-1a"))
        .otherwise(pl.lit("RA-2")),
        reason=pl.concat_str(pl.when(pl.col("flag") != "").then("flag"), "use_reason", separator=",", ignore_nulls=True).replace(
            "", None
        ),
        # What calls used keeps the model and meter it was logged under, whichever line of the bill pays for it.
        model=pl.coalesce("model", "use_model"),
        meter=pl.when(pl.col("use_model").is_null() & pl.col("own_meter").is_in(RESOURCE_METERS))
        .then("meter")
        .otherwise("own_meter"),
        account=pl.coalesce("account", "use_account"),
        region=pl.coalesce("region", "use_region"),
        resource=pl.coalesce("use_resource", "resource"),
        principal=pl.coalesce("principal", "use_principal"),
    )


def with_owners(groups: pl.DataFrame, timeline: pl.DataFrame, settings: AttributionSettings) -> pl.DataFrame:
    """`owner_agent` and `owner_team` of each group: by principal, by resource or inference profile, by tag. Null where there is none."""
    teams, agents = RegisteredNames.teams(timeline), RegisteredNames.agents(timeline)
    frame = groups.with_columns(
        teams.find_all(bill_tags.values(groups, settings.owner_tags)).alias("tag_team"),
        agents.find_all(bill_tags.values(groups, settings.owner_agent_tags)).alias("tag_agent"),
    )
    by_principal = principals.principal_owners(frame, timeline)
    by_resource = as_of.owner_at(frame, timeline, name="resource_id", at="period_start", kinds=("resource",))
    by_tag = as_of.owner_at(frame, timeline, name="tag_agent", at="period_start", kinds=("agent", "alias"))
    frame = frame.with_columns(
        owner_agent=pl.coalesce(by_principal["agent"], by_resource["agent"], by_tag["agent"], pl.col("tag_agent"))
    )
    # The agent's team at that time comes before the team that its principal or resource was once registered with. (ID-1)
    of_agent = as_of.owner_at(frame, timeline, name="owner_agent", at="period_start", kinds=("agent", "alias"))
    return frame.with_columns(
        owner_team=pl.coalesce(of_agent["team"], by_principal["team"], by_resource["team"], pl.col("tag_team")),
    ).drop("tag_team", "tag_agent")


def allocate_unmatched(
    groups: pl.DataFrame, team_spend: TeamSpend, timeline: pl.DataFrame, settings: AttributionSettings
) -> pl.DataFrame:
    """Charge groups without usage, as rows of class owner, shared, idle or unallocated."""
    groups = groups.filter(pl.any_horizontal(pl.col(c) != 0 for c in COST_COLUMNS))
    if not groups.height:
        return groups
    # Only what was billed by the token and never logged has a quantity in its meter's unit; it is counted once, not once a team.
    groups = groups.with_columns(quantity=pl.when(pl.col("role") == "tokens").then("billed_quantity"))
    with_owner = with_owners(groups, timeline, settings)
    has_owner = pl.col("owner_agent").is_not_null() | pl.col("owner_team").is_not_null()
    is_idle = pl.col("reason").is_in(IDLE_REASONS).fill_null(value=False)
    # Costs of a team that shares its own costs by a rule come first; all other owned costs stay with their owner.
    sources = pl.Series([team_spend.team(r.source_team) for r in settings.shared if r.source_team], dtype=pl.String)
    is_passed_on = pl.col("owner_team").is_in(sources.implode()).fill_null(value=False)
    source_shares, unshared_groups = apply_rules(
        with_owner.filter(is_passed_on), [r for r in settings.shared if r.source_team], team_spend
    )
    with_owner = pl.concat([unshared_groups, with_owner.filter(~is_passed_on)])
    shared_parts, unallocated_rows = apply_rules(
        with_owner.filter(~has_owner), [r for r in settings.shared if not r.source_team], team_spend
    )
    owner_rows = with_owner.filter(has_owner).with_columns(
        cost_class=pl.when(is_idle).then(pl.lit("idle")).otherwise(pl.lit("owner")),
        rule=pl.when(is_idle).then(pl.lit("RA-3")).otherwise(pl.lit("RA-4")),
        method=pl.lit("owner"),
        initiator_agent="owner_agent",
        initiator_team="owner_team",
        executor_agent="owner_agent",
        executor_team="owner_team",
    )
    unallocated_rows = unallocated_rows.with_columns(
        cost_class=pl.when(is_idle).then(pl.lit("idle")).otherwise(pl.lit("unallocated")),
        rule=pl.when(is_idle).then(pl.lit("RA-3")).otherwise(pl.lit("RA-4")),
    )
    return pl.concat(
        [p for p in (owner_rows, *source_shares, *shared_parts, unallocated_rows) if p.height], how="diagonal_relaxed"
    )


def cost_rows(parts: Sequence[pl.DataFrame], *, run_id: str, month: str) -> pl.DataFrame:
    """Shares and allocated groups as rows of `costs`; rows that are alike are summed."""
    frames = [_with_cost_columns(rows, run_id, month) for rows in parts if rows.height]
    if not frames:
        return COSTS.empty()
    # A share of a usage row stays a row, and the millions of them are not copied; all others are summed by their dimensions.
    has_use = pl.col("usage_key").is_not_null()
    shares = [f.filter(has_use) if f["usage_key"].null_count() else f for f in frames]
    other_rows = pl.concat([f.filter(~has_use) for f in frames if f["usage_key"].null_count()] or [frames[0].clear()])
    # Groups of two SKUs are not summed: a later correction finds its charges by the SKU of their groups.
    keys = [c for c in (*COSTS.schema, "sku_meter") if c not in (*COST_COLUMNS, "quantity", "lot_id", "lot_ids")]
    totals = other_rows.group_by(keys).agg(
        pl.col("lot_id").unique().sort().alias("lot_ids"),
        pl.when(pl.col("quantity").is_not_null().any()).then(pl.col("quantity").sum()).alias("quantity"),
        *(known_sum(c) for c in COST_COLUMNS),
    )
    is_several = pl.col("lot_ids").list.len() > 1
    totals = totals.with_columns(
        lot_id=pl.when(~is_several).then(pl.col("lot_ids").list.first()), lot_ids=pl.when(is_several).then("lot_ids")
    )
    return COSTS.conform(pl.concat([*shares, totals.select(frames[0].columns).sort(keys)]).drop("sku_meter"))


def _with_cost_columns(rows: pl.DataFrame, run_id: str, month: str) -> pl.DataFrame:
    """Rows with the columns of `costs`, and their SKU."""
    frame = rows.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        basis=pl.lit("billed"),
        lot_id=pl.col("charge_group"),
        service_tier=pl.col("service_tier").fill_null("standard") if "service_tier" in rows.columns else pl.lit("standard"),
    )
    schema = {**COSTS.schema, "sku_meter": pl.String}
    return frame.select(pl.col(c).cast(t) if c in frame.columns else pl.lit(None, dtype=t).alias(c) for c, t in schema.items())
