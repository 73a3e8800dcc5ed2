"""The ladder: what no logged use explains goes to its owner, to those who share it, or is said to be unallocated. (RA-4, RA-5)

Credits, refunds and corrections follow the charges they correct; taxes follow the taxed charges of their invoice; both by the
same weights and with their sign.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from attribution import identity
from attribution.dimensions import WHO
from ledger.money import MONEY, split, weights
from ledger.settings import AttributionSettings, SharedRule
from ledger.tables import COST_COLUMNS, COSTS

_FOLLOW = (
    ("service", "sku_meter", "resource_id", "period_start"),
    ("service", "sku_meter", "period_start"),
    ("service", "sku_meter"),
    ("service",),
    (),
)
"""What a credit and the charge it corrects have in common, most specific first, and always currency, provider and payer; the account
too, where the credit names one. A credit that names a SKU or a service is never spread beyond it."""
_TAX = (
    ("invoice_id", "account", "service"),
    ("invoice_id", "account"),
    ("invoice_id",),
)


def owners(lots: pl.DataFrame, timeline: pl.DataFrame, settings: AttributionSettings) -> pl.DataFrame:
    """`owner_agent` and `owner_team` of each lot: by principal, by resource or inference profile, by tag. Nulls where nobody is named."""
    frame = lots.with_columns(_tag(lots, settings.owner_tags, "tag_team"), _tag(lots, settings.owner_agent_tags, "tag_agent"))
    by_principal = identity.owner_at(frame, timeline, name="principal", at="period_start", kinds=("principal",))
    by_resource = identity.owner_at(frame, timeline, name="resource_id", at="period_start", kinds=("resource",))
    by_tag = identity.owner_at(frame, timeline, name="tag_agent", at="period_start", kinds=("agent", "alias"))
    return frame.with_columns(
        owner_agent=pl.coalesce(by_principal["agent"], by_resource["agent"], by_tag["agent"], pl.col("tag_agent")),
        owner_team=pl.coalesce(by_principal["team"], by_resource["team"], by_tag["team"], pl.col("tag_team")),
    ).drop("tag_team", "tag_agent")


def _tag(lots: pl.DataFrame, keys: Sequence[str], name: str) -> pl.Series:
    distinct = lots["tags"].unique()
    found = [_first(tags, keys) for tags in distinct]
    book = pl.DataFrame({"tags": distinct, name: pl.Series(found, dtype=pl.String)})
    return lots.select("tags").join(book, on="tags", how="left", nulls_equal=True, maintain_order="left")[name]


def _first(tags: str | None, keys: Sequence[str]) -> str | None:
    if not tags:
        return None
    held = json.loads(tags)
    return next((str(held[key]) for key in keys if held.get(key)), None)


def place(left: pl.DataFrame, metered: pl.DataFrame, timeline: pl.DataFrame, settings: AttributionSettings) -> pl.DataFrame:
    """Lots without a use, as rows of class owner, shared, idle or unallocated."""
    left = left.filter(pl.any_horizontal(pl.col(c) != 0 for c in COST_COLUMNS))
    if not left.height:
        return left
    # Only what was billed by the token and never logged has a quantity in its meter's unit; it is told once, not once a team.
    left = left.with_columns(quantity=pl.when(pl.col("role") == "tokens").then("billed_quantity"))
    owned = owners(left, timeline, settings)
    known = pl.col("owner_agent").is_not_null() | pl.col("owner_team").is_not_null()
    idle = pl.col("reason") == "idle_capacity"
    direct = owned.filter(known | idle).with_columns(
        cost_class=pl.when(idle).then(pl.lit("idle")).otherwise(pl.lit("owner")),
        rule=pl.when(idle).then(pl.lit("RA-3")).otherwise(pl.lit("RA-4")),
        method=pl.when(known).then(pl.lit("owner")),
        initiator_agent="owner_agent",
        initiator_team="owner_team",
        executor_agent="owner_agent",
        executor_team="owner_team",
    )
    rest = owned.filter(~(known | idle))
    placed = [direct]
    for rule in settings.shared:
        taken, rest = _shared(rule, rest, metered)
        placed.append(taken)
    placed.append(rest.with_columns(cost_class=pl.lit("unallocated"), rule=pl.lit("RA-4")))
    return pl.concat([p for p in placed if p.height], how="diagonal_relaxed")


def _shared(rule: SharedRule, lots: pl.DataFrame, metered: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lots a shared-cost rule takes, split over its teams, and the lots it leaves."""
    day = pl.col("period_start").dt.date()
    meant = (day >= rule.valid_from) & (pl.lit(rule.valid_to is None) | (day < pl.lit(rule.valid_to)))
    for column in ("provider", "service", "charge_category"):
        wanted = getattr(rule, column)
        if wanted:
            meant = meant & (pl.col(column) == wanted)
    taken = lots.filter(meant.fill_null(value=False))
    if not taken.height:
        return taken, lots
    shares = _team_weights(rule, metered)
    rows = taken.join(shares, on="currency") if "currency" in shares.columns else taken.join(shares, how="cross")
    if not rows.height:
        return taken.clear(), lots
    rows = rows.with_columns(__w=weights(rows, "weight", "lot"))
    out = split(rows.lazy(), amounts=COST_COLUMNS, weight="__w", pool="lot", order_by=["team"]).collect()
    out = out.filter(pl.col("effective_cost").is_not_null()).with_columns(
        cost_class=pl.lit("shared"),
        quantity=pl.lit(None, dtype=MONEY),
        rule=pl.lit(rule.name),
        method=pl.lit(rule.method),
        initiator_team="team",
        executor_team="team",
    )
    return out.drop("__w", "weight", "team"), lots.filter(~pl.col("lot").is_in(out["lot"].implode()))


def _team_weights(rule: SharedRule, metered: pl.DataFrame) -> pl.DataFrame:
    if rule.method == "fixed":
        return pl.DataFrame({"team": list(rule.shares), "weight": pl.Series(list(rule.shares.values()), dtype=MONEY)})
    spent = (
        metered.filter(pl.col("initiator_team").is_not_null())
        .group_by("currency", team="initiator_team")
        .agg(weight=pl.col("effective_cost").sum())
        .filter(pl.col("weight") > 0)
        if metered.height
        else pl.DataFrame(schema={"currency": pl.String, "team": pl.String, "weight": MONEY})
    )
    if rule.teams and rule.method == "even":
        return pl.DataFrame({"team": rule.teams}).with_columns(weight=pl.lit(1).cast(MONEY))
    if rule.teams:
        spent = spent.filter(pl.col("team").is_in(rule.teams))
    return spent.with_columns(weight=pl.lit(1).cast(MONEY)) if rule.method == "even" else spent


def follow(lots: pl.DataFrame, targets: pl.DataFrame, *, tax: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Splits credits (or taxes) over the costs of the charges they correct (or tax); returns shares, and lots that correct nothing here.

    `targets` are the costs placed so far, with the keys of the lot each came from.
    """
    shares: list[pl.DataFrame] = []
    rest = lots
    keep = ["cost_class", *WHO, "model", "meter", "usage_key", "resource", "region", "principal"]
    payer = ("currency", "provider", "billing_account")
    levels = [(keys, ()) for keys in _TAX] if tax else [(keys, account) for keys in _FOLLOW for account in (("account",), ())]
    for keys, account in levels:
        if not rest.height or not targets.height:
            break
        match = [*payer, *account, *(k for k in keys if k not in payer)]
        meant = pl.lit(value=True) if tax else _may_spread(keys, account)
        targets = targets.with_columns(pl.lit(None, dtype=COSTS.schema[k]).alias(k) for k in keep if k not in targets.columns)
        rows = rest.filter(meant).drop([c for c in keep if c in rest.columns and c not in match])
        owner = targets.group_by([*match, *(k for k in keep if k not in match)]).agg(
            *(pl.col(c).sum().alias(f"of_{c}") for c in COST_COLUMNS)
        )
        rows = rows.join(owner, on=match, nulls_equal=True)
        if not rows.height:
            continue
        # Weights are what the charges cost; where a column says nothing (many bills leave EffectiveCost 0), the next one speaks.
        total = [pl.col(f"of_{c}").sum().over("lot") for c in ("effective_cost", "billed_cost", "list_cost")]
        weight = (
            pl.when(total[0] > 0)
            .then("of_effective_cost")
            .when(total[1] > 0)
            .then("of_billed_cost")
            .when(total[2] > 0)
            .then("of_list_cost")
        )
        rows = rows.with_columns(weight=weight).filter(pl.col("weight") > 0)
        if not rows.height:
            continue
        order = [k for k in keep if k not in match]
        rows = rows.with_columns(__w=weights(rows, "weight", "lot")).filter(pl.col("__w") > 0)
        done = split(rows.lazy(), amounts=COST_COLUMNS, weight="__w", pool="lot", order_by=order).collect()
        shares.append(done.drop("__w", "weight", *(f"of_{c}" for c in COST_COLUMNS)))
        rest = rest.filter(~pl.col("lot").is_in(done["lot"].implode()))
    if not shares:
        return lots.clear(), rest
    made = pl.concat(shares, how="diagonal_relaxed").with_columns(
        reason=_why_following(), rule=pl.lit("RA-5"), quantity=pl.lit(None, dtype=MONEY)
    )
    return made, rest


def _may_spread(keys: Sequence[str], account: Sequence[str]) -> pl.Expr:
    """Whether a credit may be spread over all that shares only `keys`: it must not name anything finer itself."""
    named = pl.col("account").is_not_null() if account else pl.col("account").is_null()
    for finer in ("sku_meter", "service"):
        if finer not in keys:
            named = named & pl.col(finer).is_null()
    return named


def _why_following() -> pl.Expr:
    """credit, adjustment or tax as the bill calls it; a negative row of any other category gives money back: refund."""
    named = pl.col("charge_category").is_in(["Credit", "Adjustment", "Tax"])
    return (
        pl.when(named)
        .then(pl.col("charge_category").str.to_lowercase())
        .when(pl.col("charge_class").is_not_null())
        .then(pl.lit("correction"))
        .otherwise(pl.lit("refund"))
    )


def as_costs(rows: pl.DataFrame, *, run_id: str, month: str) -> pl.DataFrame:
    """Shares and placed lots as rows of `costs`, like ones summed."""
    if not rows.height:
        return COSTS.empty()
    shaped = rows.with_columns(
        run_id=pl.lit(run_id),
        month=pl.lit(month),
        basis=pl.lit("billed"),
        service_tier=pl.col("service_tier").fill_null("standard") if "service_tier" in rows.columns else pl.lit("standard"),
    )
    missing = [pl.lit(None, dtype=COSTS.schema[c]).alias(c) for c in COSTS.schema if c not in shaped.columns]
    shaped = shaped.with_columns(missing).select(list(COSTS.schema))
    # A share of a use is a row of its own; everything else is summed over what a report cannot tell apart.
    shares, others = shaped.filter(pl.col("usage_key").is_not_null()), shaped.filter(pl.col("usage_key").is_null())
    keys = [c for c in COSTS.schema if c not in (*COST_COLUMNS, "quantity")]
    summed = others.group_by(keys).agg(
        pl.when(pl.col("quantity").is_not_null().any()).then(pl.col("quantity").sum()).alias("quantity"),
        *(pl.col(c).sum() for c in COST_COLUMNS),
    )
    return COSTS.conform(pl.concat([shares, summed.select(shares.columns).sort(keys)]))
