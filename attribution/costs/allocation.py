"""The ladder: what no logged use explains goes to its owner, to those who share it, or is said to be unallocated. (RA-4)"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import polars as pl

from attribution import as_of
from attribution.costs import principals
from attribution.costs.corrections import correctable_costs, follow_charges
from attribution.costs.shared_costs import IDLE_REASONS, TeamSpend, apply_rules
from ledger.settings import AttributionSettings
from ledger.tables import COST_COLUMNS, COSTS, TOKEN_METERS


def allocate(
    lots: pl.DataFrame,
    left: pl.DataFrame,
    of_uses: pl.LazyFrame,
    spent: TeamSpend,
    timeline: pl.DataFrame,
    settings: AttributionSettings,
    *,
    earlier: pl.DataFrame,
    opens: datetime,
) -> list[pl.DataFrame]:
    """What no use took: down the ladder, then what follows charges, then what taxes all that.

    `left` are lots that no use explains, `of_uses` the costs that uses got. `earlier` are published costs of earlier invoices
    (`attribution.costs.prior_months`), `opens` is the first instant of this invoice's month.
    """
    targets = [f for f in (allocate_unmatched(left, spent, timeline, settings),) if f.height]
    for role in ("follow", "tax"):
        why = "tax_without_charge" if role == "tax" else "credit_without_charge"
        mine = lots.filter(pl.col("role") == role)
        if not mine.height:
            continue
        here = [t for t in (correctable_costs(of_uses, lots, mine), *targets) if t.height]
        made, rest = follow_charges(
            mine, pl.concat(here, how="diagonal_relaxed") if here else pl.DataFrame(), earlier, tax=role == "tax", opens=opens
        )
        stray = allocate_unmatched(rest.with_columns(reason=pl.lit(why)), spent, timeline, settings)
        targets += [f for f in (made, stray) if f.height]
    return targets


def metered_shares(shares: pl.DataFrame) -> pl.DataFrame:
    """Shares of charges on uses, with their class, rule and reason."""
    if not shares.height:
        return shares
    return shares.with_columns(
        cost_class=pl.lit("metered"),
        rule=pl.when(pl.col("pool_id").str.starts_with("driver|"))
        .then(pl.lit("RA-3"))
        .when(pl.col("flag") != "")
        .then(pl.lit("RA-1a"))
        .otherwise(pl.lit("RA-2")),
        reason=pl.concat_str(pl.when(pl.col("flag") != "").then("flag"), "use_reason", separator=",", ignore_nulls=True).replace(
            "", None
        ),
        # Tokens stay what was logged of them, whatever line of the bill they are in.
        meter=pl.when(pl.col("meter").is_in(TOKEN_METERS)).then("own_meter").otherwise("meter"),
        account=pl.coalesce("account", "use_account"),
        region=pl.coalesce("region", "use_region"),
        resource=pl.coalesce("use_resource", "resource"),
        principal=pl.coalesce("principal", "use_principal"),
    )


def with_owners(lots: pl.DataFrame, timeline: pl.DataFrame, settings: AttributionSettings) -> pl.DataFrame:
    """`owner_agent` and `owner_team` of each lot: by principal, by resource or inference profile, by tag. Nulls where nobody is named."""
    frame = lots.with_columns(
        _tag_values(lots, settings.owner_tags, "tag_team"), _tag_values(lots, settings.owner_agent_tags, "tag_agent")
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


def _tag_values(lots: pl.DataFrame, keys: Sequence[str], name: str) -> pl.Series:
    distinct = lots["tags"].unique()
    found = [_first_tag(tags, keys) for tags in distinct]
    book = pl.DataFrame({"tags": distinct, name: pl.Series(found, dtype=pl.String)})
    return lots.select("tags").join(book, on="tags", how="left", nulls_equal=True, maintain_order="left")[name]


def _first_tag(tags: str | None, keys: Sequence[str]) -> str | None:
    if not tags:
        return None
    held = json.loads(tags)
    return next((str(held[key]) for key in keys if held.get(key)), None)


def allocate_unmatched(
    left: pl.DataFrame, spent: TeamSpend, timeline: pl.DataFrame, settings: AttributionSettings
) -> pl.DataFrame:
    """Lots without a use, as rows of class owner, shared, idle or unallocated."""
    left = left.filter(pl.any_horizontal(pl.col(c) != 0 for c in COST_COLUMNS))
    if not left.height:
        return left
    # Only what was billed by the token and never logged has a quantity in its meter's unit; it is told once, not once a team.
    left = left.with_columns(quantity=pl.when(pl.col("role") == "tokens").then("billed_quantity"))
    owned = with_owners(left, timeline, settings)
    known = pl.col("owner_agent").is_not_null() | pl.col("owner_team").is_not_null()
    idle = pl.col("reason").is_in(IDLE_REASONS).fill_null(value=False)
    # What a team owns and shares on by a rule of its own goes first; the rest of what is owned stays with its owner.
    sources = pl.Series([r.source_team for r in settings.shared if r.source_team], dtype=pl.String)
    passed_on = pl.col("owner_team").is_in(sources.implode()).fill_null(value=False)
    placed, kept = apply_rules(owned.filter(passed_on), [r for r in settings.shared if r.source_team], spent)
    owned = pl.concat([kept, owned.filter(~passed_on)])
    unowned, rest = apply_rules(owned.filter(~known), [r for r in settings.shared if not r.source_team], spent)
    direct = owned.filter(known).with_columns(
        cost_class=pl.when(idle).then(pl.lit("idle")).otherwise(pl.lit("owner")),
        rule=pl.when(idle).then(pl.lit("RA-3")).otherwise(pl.lit("RA-4")),
        method=pl.lit("owner"),
        initiator_agent="owner_agent",
        initiator_team="owner_team",
        executor_agent="owner_agent",
        executor_team="owner_team",
    )
    rest = rest.with_columns(
        cost_class=pl.when(idle).then(pl.lit("idle")).otherwise(pl.lit("unallocated")),
        rule=pl.when(idle).then(pl.lit("RA-3")).otherwise(pl.lit("RA-4")),
    )
    return pl.concat([p for p in (direct, *placed, *unowned, rest) if p.height], how="diagonal_relaxed")


def cost_rows(parts: Sequence[pl.DataFrame], *, run_id: str, month: str) -> pl.DataFrame:
    """Shares and placed lots as rows of `costs`, like ones summed."""
    shaped = [_with_cost_columns(rows, run_id, month) for rows in parts if rows.height]
    if not shaped:
        return COSTS.empty()
    # A share of a use is a row of its own, and the millions of them are not copied; everything else is summed over what a report cannot tell apart.
    has_use = pl.col("usage_key").is_not_null()
    shares = [f.filter(has_use) if f["usage_key"].null_count() else f for f in shaped]
    others = pl.concat([f.filter(~has_use) for f in shaped if f["usage_key"].null_count()] or [shaped[0].clear()])
    # Lots of two SKUs are not summed: a later correction finds its charges by the SKU of their lots.
    keys = [c for c in (*COSTS.schema, "sku_meter") if c not in (*COST_COLUMNS, "quantity", "lot_id", "lot_ids")]
    summed = others.group_by(keys).agg(
        pl.col("lot_id").unique().sort().alias("lot_ids"),
        pl.when(pl.col("quantity").is_not_null().any()).then(pl.col("quantity").sum()).alias("quantity"),
        *(pl.col(c).sum() for c in COST_COLUMNS),
    )
    several = pl.col("lot_ids").list.len() > 1
    summed = summed.with_columns(
        lot_id=pl.when(~several).then(pl.col("lot_ids").list.first()), lot_ids=pl.when(several).then("lot_ids")
    )
    return COSTS.conform(pl.concat([*shares, summed.select(shaped[0].columns).sort(keys)]).drop("sku_meter"))


def _with_cost_columns(rows: pl.DataFrame, run_id: str, month: str) -> pl.DataFrame:
    """Rows in the form of `costs`, and the SKU beside it."""
    known = rows.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        basis=pl.lit("billed"),
        lot_id=pl.col("lot"),
        service_tier=pl.col("service_tier").fill_null("standard") if "service_tier" in rows.columns else pl.lit("standard"),
    )
    wanted = {**COSTS.schema, "sku_meter": pl.String}
    return known.select(pl.col(c).cast(t) if c in known.columns else pl.lit(None, dtype=t).alias(c) for c, t in wanted.items())
